"""How good detections are: COCO's figures, as numbers, table and json."""

from tood.evaluation.coco import CocoResult, evaluate_detections
from tood.evaluation.detections import DetectionTable
from tood.evaluation.ground_truth import GroundTruth
from tood.evaluation.report import result_table, save_result
from tood.evaluation.run import EvaluationConfig, detect, evaluate

__all__ = [
    "CocoResult",
    "DetectionTable",
    "EvaluationConfig",
    "GroundTruth",
    "detect",
    "evaluate",
    "evaluate_detections",
    "result_table",
    "save_result",
]
