"""resegeo: segment georeferenced images by words, without training and without labels.

``resegeo.segment("scene.tif", ["water", "forest", "road"])`` does what the command does. The stages
are importable for those who want to put them together: :mod:`resegeo.scene.reader`, :mod:`resegeo.scene.windows`,
:mod:`resegeo.segments.segment_sources`, :mod:`resegeo.clip.encoder`, :mod:`resegeo.clip.scores`,
:mod:`resegeo.clip.blending`,
:mod:`resegeo.outputs.raster`, :mod:`resegeo.outputs.polygons`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from resegeo.errors import ResegeoError, ResegeoWarning, UsageError

if TYPE_CHECKING:
    from resegeo.batches.batch import BatchResult, segment_many
    from resegeo.batches.batch import segment_many as batch
    from resegeo.batches.finding import find
    from resegeo.classes.class_file import class_list, load_class_list
    from resegeo.classes.class_list import ClassList, ClassSpec
    from resegeo.datasets.dataset import DatasetResult, segment_dataset
    from resegeo.datasets.dataset import segment_dataset as dataset
    from resegeo.evaluation.evaluate import Evaluation, evaluate
    from resegeo.outputs.polygons import polygonize
    from resegeo.outputs.vectors import write_polygons
    from resegeo.reports.write import write_report_page
    from resegeo.reports.write import write_report_page as report
    from resegeo.run.calibration import calibrate
    from resegeo.run.change import Change, compare
    from resegeo.run.commands import estimate, info, prepare, segment, vectorize
    from resegeo.run.commands import estimate as plan
    from resegeo.run.estimation import Estimate
    from resegeo.run.prepare import Run
    from resegeo.run.segmentation import Segmentation
    from resegeo.run.suggestions import suggest
    from resegeo.run.trial import try_words
    from resegeo.scene.reader import Scene, open_scene
    from resegeo.settings import Settings

# Lazily, so that `import resegeo` and `resegeo --help` load neither torch nor GDAL.
_HOME = {
    "BatchResult": "batches.batch",
    "segment_many": "batches.batch",
    "DatasetResult": "datasets.dataset",
    "segment_dataset": "datasets.dataset",
    "ClassList": "classes.class_list",
    "ClassSpec": "classes.class_list",
    "class_list": "classes.class_file",
    "load_class_list": "classes.class_file",
    "Estimate": "run.estimation",
    "Segmentation": "run.segmentation",
    "Evaluation": "evaluation.evaluate",
    "Change": "run.change",
    "compare": "run.change",
    "estimate": "run.commands",
    "evaluate": "evaluation.evaluate",
    "find": "batches.finding",
    "suggest": "run.suggestions",
    "prepare": "run.commands",
    "segment": "run.commands",
    "vectorize": "run.commands",
    "info": "run.commands",
    "Run": "run.prepare",
    "write_report_page": "reports.write",
    "calibrate": "run.calibration",
    "try_words": "run.trial",
    "polygonize": "outputs.polygons",
    "write_polygons": "outputs.vectors",
    "Scene": "scene.reader",
    "open_scene": "scene.reader",
    "Settings": "settings",
}


_COMMANDS = {
    "batch": "segment_many",
    "dataset": "segment_dataset",
    "plan": "estimate",
    "report": "write_report_page",
}
"""What commands do, by their names."""


def __getattr__(name: str) -> Any:
    name = _COMMANDS.get(name, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("resegeo")
    if name in _HOME:
        return getattr(import_module(f"resegeo.{_HOME[name]}"), name)
    raise AttributeError(f"module 'resegeo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_COMMANDS, "__version__"])


__all__ = [
    "BatchResult",
    "Change",
    "ClassList",
    "ClassSpec",
    "DatasetResult",
    "Estimate",
    "Evaluation",
    "ResegeoError",
    "ResegeoWarning",
    "Run",
    "Scene",
    "Segmentation",
    "Settings",
    "UsageError",
    "batch",
    "calibrate",
    "class_list",
    "compare",
    "dataset",
    "estimate",
    "evaluate",
    "find",
    "info",
    "load_class_list",
    "open_scene",
    "plan",
    "polygonize",
    "prepare",
    "report",
    "segment",
    "segment_dataset",
    "segment_many",
    "suggest",
    "try_words",
    "vectorize",
    "write_polygons",
    "write_report_page",
]
