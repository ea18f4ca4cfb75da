"""Prediction on many machines: pictures of a folder, a bucket or parquet files in, parquet files out, by Ray Data."""

from tood.clusters.model import ShippedModel
from tood.clusters.pictures import PictureLists
from tood.clusters.plan import Plan, make_plan, read_plan
from tood.clusters.shard import SCHEMA, ShardReport, ShardWorker, WorkerConfig
from tood.clusters.storage import Place

__all__ = [
    "SCHEMA",
    "PictureLists",
    "Place",
    "Plan",
    "ShardReport",
    "ShardWorker",
    "ShippedModel",
    "WorkerConfig",
    "make_plan",
    "read_plan",
]
