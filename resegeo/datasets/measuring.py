"""How right the classes of a data set's images are: a confusion matrix each, their sum, and tables of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from resegeo.classes.class_list import ClassList
from resegeo.datasets.tiles import Labels
from resegeo.errors import ResegeoError, escaped, shown
from resegeo.evaluation.metrics import Accuracy
from resegeo.files import whole

EXTRA = ("no class", "no answer")
"""Answers that are no category: background below a threshold; nodata and unprocessed pixels."""

TABLE, FIGURES = "tiles.csv", "figures.json"
"""A line an image; all figures of the whole data set."""

HEAD = ("tile", "state", "pixels", "accuracy", "macro_accuracy", "mean_f1", "mean_iou", "kappa")
"""First columns of the table; F1 and IoU of each class follow, and why an image failed."""


def columns_of(classes: ClassList, categories: Mapping[str, int | None]) -> NDArray[np.int64]:
    """Return code of a class raster -> column of the confusion matrix."""
    table = np.full(classes.nodata + 1, len(categories), dtype=np.int64)
    for number, code in enumerate(categories.values()):
        if code is not None:
            table[code] = number
    table[[classes.nodata, classes.unprocessed]] = len(categories) + 1
    return table


def measured(raster: Any, labels: Labels, columns: NDArray[np.int64]) -> Accuracy:
    """Compare an open class raster with the labels of its image; see :func:`columns_of`."""
    pairs = (
        (real, columns[raster.read(1, window=Window(rect.col, rect.row, rect.width, rect.height))])
        for rect, real in labels.read()
    )
    return Accuracy.of_blocks(labels.names, pairs, extra=EXTRA)


def added(one: Accuracy, two: Accuracy) -> Accuracy:
    """Add up two confusion matrices of the same categories."""
    return Accuracy(one.names, one.counts + two.counts, one.aside, one.extra)


def line(accuracy: Accuracy) -> str:
    """Say in one line what the reference prints after each image, all images so far together."""
    return (
        f"accuracy {accuracy.overall:.4f} (mean of classes {accuracy.macro_accuracy:.4f}), "
        f"mean F1 {accuracy.mean_f1:.4f}, mean IoU {accuracy.mean_iou:.4f}"
    )


def write_table(path: Path, names: Sequence[str], rows: Sequence[tuple[str, str, Accuracy | None, str]]) -> None:
    """Write what became of each image (name, state, figures, reason) as CSV.

    Raises
    ------
    ResegeoError:
        When it cannot be written.

    """
    head = [*HEAD, *(f"f1 {name}" for name in names), *(f"iou {name}" for name in names), "reason"]
    try:
        with whole(path) as beside, beside.open("w", newline="", encoding="utf-8") as stream:
            lines = csv.writer(stream, lineterminator="\n")
            lines.writerow(map(cell, head))
            for name, state, found, reason in rows:
                values: list[object] = [""] * (len(head) - 3)
                if found is not None:
                    ratios = [found.overall, found.macro_accuracy, found.mean_f1, found.mean_iou, found.kappa]
                    values = [found.pixels, *map(_number, [*ratios, *found.f1, *found.iou])]
                lines.writerow(map(cell, [name, state, *values, reason]))
    except OSError as error:
        raise ResegeoError(
            f"{shown(path)} cannot be written ({error.strerror}). Check free space and rights."
        ) from error


def write_figures(path: Path, accuracy: Accuracy, facts: Mapping[str, Any]) -> None:
    """Write the figures of the whole data set as JSON; ``facts`` go before them.

    Raises
    ------
    ResegeoError:
        When it cannot be written.

    """
    try:
        with whole(path) as beside:
            beside.write_text(json.dumps({**facts, **accuracy.as_dict()}, indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise ResegeoError(
            f"{shown(path)} cannot be written ({error.strerror}). Check free space and rights."
        ) from error


def _number(value: float) -> object:
    """Six digits; nothing where a ratio has no pixel."""
    return "" if np.isnan(value) else round(float(value), 6)


def cell(value: object) -> str:
    """Write text so that a spreadsheet shows it and computes nothing."""
    text = escaped(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(("=", "+", "-", "@", "'")) else text
