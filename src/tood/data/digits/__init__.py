"""The built-in dataset: real handwritten digits composed into cluttered scenes (CC BY 4.0, see ATTRIBUTION.md)."""

from tood.data.digits.scans import Scans, load_scans
from tood.data.digits.scenes import Scene, SceneConfig, render_scene
from tood.data.digits.writing import DigitsConfig, write_digits

__all__ = ["DigitsConfig", "Scans", "Scene", "SceneConfig", "load_scans", "render_scene", "write_digits"]
