"""Measurements beside the peers: `make bench`; docs/benchmarks.md says what each row means."""
