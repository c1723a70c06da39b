"""Figures of one image or many as text and as LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resegeo.errors import escaped

from .tables import columns, latex, of_evaluation

if TYPE_CHECKING:
    from resegeo.evaluation.evaluate import Evaluation
    from resegeo.evaluation.intervals import Interval

MOST = 40
"""Images that the screen shows; all are in the CSV file."""

_IMAGE_HEAD = ("mean IoU", "mean F1", "macro accuracy", "overall accuracy")


def table_of(result: Evaluation) -> str:
    """Lay an evaluation out for the screen: images, classes, means, and how sure they are."""
    parts = [_images(result)] if result.images else []
    parts.append(of_evaluation(result))
    if result.near:
        parts[-1] += f"\nnear borders      {result.near:,} (left out)"
    if result.boundary is not None:
        rows = [("boundary IoU", ""), *zip(result.accuracy.names, map(_shown, result.boundary.iou), strict=True)]
        parts.append("\n".join(columns([*rows, ("mean", _shown(result.mean_boundary_iou))])))
    if result.intervals is not None:
        found = result.intervals
        said = [(key.replace("_", " ").replace("iou", "IoU"), _ends(ends)) for key, ends in found.overall.items()]
        said += [(f"IoU {name}", _ends(ends)) for name, ends in zip(result.accuracy.names, found.iou, strict=True)]
        head = f"95 % intervals ({found.replicates:,} samples of {len(result.images)} images)"
        parts.append("\n".join([head, *columns(said)]))
    return "\n\n".join(parts)


def _images(result: Evaluation) -> str:
    rows: list[tuple[str, ...]] = [("image", *_IMAGE_HEAD, "pixels")]
    for image in result.images[:MOST]:
        rows.append((escaped(_name(image)), *map(_shown, _measures(image)), f"{image.accuracy.pixels:,}"))
    more = len(result.images) - MOST
    return "\n".join([*columns(rows), *([f"… and {more} more; --images FILE writes all"] if more > 0 else [])])


def _name(image: Evaluation) -> str:
    return Path(image.pairs[0][0]).name.removesuffix(".classes.tif")


def _measures(image: Evaluation) -> tuple[float, ...]:
    found = image.accuracy
    return found.mean_iou, found.mean_f1, found.macro_accuracy, found.overall


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _ends(interval: Interval) -> str:
    return f"{_shown(interval[0])} to {_shown(interval[1])}"


def latex_of(result: Evaluation) -> str:
    """All of it in LaTeX (booktabs), in per cent: classes, means with intervals, images."""
    found = result.accuracy
    tables = [latex(found)]
    means = {
        "Mean IoU": ("mean_iou", found.mean_iou),
        "Mean F1": ("mean_f1", found.mean_f1),
        "Macro accuracy": ("macro_accuracy", found.macro_accuracy),
        "Frequency-weighted IoU": ("frequency_weighted_iou", found.frequency_weighted_iou),
        "Overall accuracy": ("overall_accuracy", found.overall),
        r"Cohen's $\kappa$": ("kappa", found.kappa),
    }
    if result.boundary is not None:
        means["Mean boundary IoU"] = ("mean_boundary_iou", result.mean_boundary_iou)
        rows = [(tex(name), _cell(value)) for name, value in zip(found.names, result.boundary.iou, strict=True)]
        tables.append(_tabular(("Class", "Boundary IoU"), rows, ("Mean", _cell(result.mean_boundary_iou))))
    spread = {} if result.intervals is None else result.intervals.overall
    head = ("Measure", "Value", *(["95\\,\\% interval"] if spread else []))
    lines = [(name, _cell(value), *([_between(spread[key])] if spread else [])) for name, (key, value) in means.items()]
    tables.append(_tabular(head, lines))
    if result.intervals is not None:
        named = zip(found.names, found.iou, result.intervals.iou, strict=True)
        rows3 = [(tex(name), _cell(value), _between(ends)) for name, value, ends in named]
        tables.append(_tabular(("Class", "IoU", "95\\,\\% interval"), rows3))
    if result.images:
        rows5 = [(tex(_name(image)), *map(_cell, _measures(image))) for image in result.images]
        head5 = ("Image", "Mean IoU", "Mean F1", "Macro acc.", "Overall acc.")
        tables.append(_tabular(head5, rows5, ("All", *map(_cell, _measures(result)))))
    return "\n\n".join(tables)


_TEX = {sign: f"\\{sign}" for sign in "&%_#${}"} | {"\\": "/", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def tex(text: str) -> str:
    """Escape what LaTeX would obey."""
    return "".join(_TEX.get(sign, sign) for sign in escaped(text))


def _cell(value: float) -> str:
    return "--" if math.isnan(value) else f"{100 * value:.1f}"


def _between(interval: Interval) -> str:
    return f"{_cell(interval[0])}--{_cell(interval[1])}"


def _tabular(head: Sequence[str], rows: Sequence[Sequence[str]], last: Sequence[str] | None = None) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    end = [] if last is None else [r"\midrule", line(last)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            line(head),
            r"\midrule",
            *map(line, rows),
            *end,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )
