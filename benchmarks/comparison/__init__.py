"""TOOD's claim tested on small data: its rivals, its followers, and itself with one part taken away at a time."""
