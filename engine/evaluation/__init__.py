"""Evaluation: how well labels agree with the truth, from arrays, files or Zarr of any size."""

from engine.evaluation.class_scoring import ClassScores, evaluate_classes
from engine.evaluation.labels import LabelArray, LabelSource
from engine.evaluation.loading import open_labels
from engine.evaluation.matching import InstanceScores
from engine.evaluation.scores import Evaluation
from engine.evaluation.scoring import evaluate, evaluate_paths

__all__ = [
    "ClassScores",
    "Evaluation",
    "InstanceScores",
    "LabelArray",
    "LabelSource",
    "evaluate",
    "evaluate_classes",
    "evaluate_paths",
    "open_labels",
]
