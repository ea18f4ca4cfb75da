"""Prediction on many machines: pictures of a folder, a bucket or parquet files in, parquet files out, by Ray Data."""

from tood.clusters.model import ShippedModel
from tood.clusters.pictures import PictureLists
from tood.clusters.plan import Plan, find_shards, make_plan, read_plan, write_plan
from tood.clusters.shard import SCHEMA, ShardReport, ShardWorker, WorkerConfig, failures_in
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
    "failures_in",
    "find_shards",
    "make_plan",
    "read_plan",
    "write_plan",
]
