"""resegeo: segment georeferenced images by words, without training and without labels.

``resegeo.segment("scene.tif", ["water", "forest", "road"])`` does what the command does. The stages
are importable for those who want to put them together: :mod:`resegeo.scene`, :mod:`resegeo.windows`,
:mod:`resegeo.segments`, :mod:`resegeo.encoder`, :mod:`resegeo.scores`, :mod:`resegeo.labels`,
:mod:`resegeo.raster`, :mod:`resegeo.polygons`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from resegeo.errors import ResegeoError, ResegeoWarning, UsageError

if TYPE_CHECKING:
    from resegeo.batch import BatchResult, segment_many
    from resegeo.class_file import class_list, load_class_list
    from resegeo.classes import ClassList, ClassSpec
    from resegeo.estimation import Estimate
    from resegeo.evaluate import Evaluation, evaluate
    from resegeo.pipeline import estimate, info, prepare, segment, vectorize
    from resegeo.polygons import polygonize
    from resegeo.results import Segmentation
    from resegeo.scene import Scene, open_scene
    from resegeo.settings import Settings
    from resegeo.settle import Run
    from resegeo.vectors import write_polygons

# Lazily, so that `import resegeo` and `resegeo --help` load neither torch nor GDAL.
_HOME = {
    "BatchResult": "batch",
    "segment_many": "batch",
    "ClassList": "classes",
    "ClassSpec": "classes",
    "class_list": "class_file",
    "load_class_list": "class_file",
    "Estimate": "estimation",
    "Segmentation": "results",
    "Evaluation": "evaluate",
    "estimate": "pipeline",
    "evaluate": "evaluate",
    "prepare": "pipeline",
    "segment": "pipeline",
    "vectorize": "pipeline",
    "info": "pipeline",
    "Run": "settle",
    "polygonize": "polygons",
    "write_polygons": "vectors",
    "Scene": "scene",
    "open_scene": "scene",
    "Settings": "settings",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("resegeo")
    if name in _HOME:
        return getattr(import_module(f"resegeo.{_HOME[name]}"), name)
    raise AttributeError(f"module 'resegeo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, "__version__"])


__all__ = [
    "BatchResult",
    "ClassList",
    "ClassSpec",
    "Estimate",
    "Evaluation",
    "ResegeoError",
    "ResegeoWarning",
    "Run",
    "Scene",
    "Segmentation",
    "Settings",
    "UsageError",
    "class_list",
    "estimate",
    "evaluate",
    "info",
    "load_class_list",
    "open_scene",
    "polygonize",
    "prepare",
    "segment",
    "segment_many",
    "vectorize",
    "write_polygons",
]
