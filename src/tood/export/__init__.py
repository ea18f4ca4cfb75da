"""Trained models as files for other engines, each with a certificate of what it is worth."""

from tood.export.bench import BenchRow, advice, bench_engines, not_timed
from tood.export.certificate import ApChange, Certificate
from tood.export.config import ExportConfig
from tood.export.export import Origin, Proof, certificate_files, description_of, export_model
from tood.export.parity import ParityCase, compare
from tood.export.source import origin_of

__all__ = [
    "ApChange",
    "BenchRow",
    "Certificate",
    "ExportConfig",
    "Origin",
    "ParityCase",
    "Proof",
    "advice",
    "bench_engines",
    "certificate_files",
    "compare",
    "description_of",
    "export_model",
    "not_timed",
    "origin_of",
]
