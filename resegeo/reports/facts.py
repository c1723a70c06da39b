"""What a report says, as plain values: areas, confidence, model, settings, files, cautions, an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resegeo.checkpoints.model_card import WEAK_IOU, Look, bundled_card, caution, doubts
from resegeo.classes.class_list import ClassList
from resegeo.clip.blending import NO_SCORE, SCORE_STEPS
from resegeo.errors import ResegeoError, Spelling, in_python, shown, spelled
from resegeo.evaluation.evaluate import Evaluation
from resegeo.evaluation.legend import BACKGROUND
from resegeo.outputs.area_table import ClassArea, pixel_areas
from resegeo.outputs.raster import read_class_raster_info
from resegeo.run.report import earlier_report, marks_of
from resegeo.run.segmentation import RASTER, Segmentation
from resegeo.scene.formats import open_raster

LEVELS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Ends of the steps that confidence is shown in."""

Facts = dict[str, Any]


def gather(
    run: Segmentation, scores: Any | None, evaluation: Evaluation | None = None, spelling: Spelling = in_python
) -> Facts:
    """Collect what is known of a finished run.

    Parameters
    ----------
    run:
        Its files.
    scores:
        Array (h, w) of the pixels' scores, see :func:`resegeo.clip.blending.class_scores`, or None.
    evaluation:
        How right its class raster is, if somebody measured it.
    spelling:
        Of parameters that cautions name.

    Returns
    -------
    Plain values, ready for JSON; what is not known is None.

    Raises
    ------
    ResegeoError:
        When the run's report is none of this version, or its class raster cannot be read.

    """
    classes, where = read_class_raster_info(run.raster)
    with open_raster(str(run.raster)) as raster:
        height, width = raster.shape
    side = math.sqrt(float(pixel_areas(where, height // 2, height // 2 + 1, width).flat[0]))
    found = earlier_report(run.report) or {}
    try:
        return _facts(run, found, classes, side, (height, width), scores, evaluation, spelling)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResegeoError(
            f"{shown(run.report)} cannot be used ({type(error).__name__} {shown(error)}): it is not as this version "
            "writes reports of runs. Run segment again."
        ) from error


def _facts(
    run: Segmentation,
    found: Mapping[str, Any],
    classes: ClassList,
    side: float,
    shape: tuple[int, int],
    scores: Any | None,
    evaluation: Evaluation | None,
    spelling: Spelling,
) -> Facts:
    areas = [ClassArea(**row) for row in found["areas"]]
    codes = {classes.name_of(code): code for code in (classes.unprocessed, 0, *(spec.code for spec in classes.drawn))}
    rows = [_row(area, codes, classes) for area in areas]
    counted = [row for row in rows if row["code"] != classes.unprocessed]
    pixels = sum(row["pixels"] for row in rows)
    lost = pixels - sum(row["pixels"] for row in counted)
    hectares = [row["ha"] for row in rows]
    histogram = None if scores is None else _histogram(scores)
    files = [
        {
            "name": name,
            "bytes": mark.bytes,
            "sha256": mark.sha256,
            "as_written": _fits(run.report.with_name(name), mark),
        }
        for name, mark in marks_of(found).items()
    ]
    facts: Facts = {
        "title": run.raster.name.removesuffix(RASTER),
        "started": str(found["started"]),
        "scene": {key: _plain(value) for key, value in found["scene"].items()},
        "pixel_side_m": None if math.isnan(side) else side,
        "height": shape[0],
        "width": shape[1],
        "pixels": pixels,
        "pixels_unprocessed": lost,
        "ha": None if None in hectares else round(sum(hectares), 4),
        "classes": rows,
        "confidence": histogram,
        "windows": {key: int(value) for key, value in found["windows"].items()},
        "model": {key: _plain(value) for key, value in found["model"].items()},
        "prompts": {spec.name: list(spec.prompts) for spec in classes.classes},
        "templates": list(classes.templates),
        "settings": {key: _plain(value) for key, value in found["resegeo"]["settings"].items()},
        "versions": {key: str(value) for key, value in found["versions"].items()},
        "files": files,
        "evaluation": None if evaluation is None else evaluation.as_dict(),
    }
    near = (found.get("doubts") or {}).get("near_ties", {})
    ties = {name: (str(tie["with"]), float(tie["share"])) for name, tie in near.items()}
    said = _cautions(facts, int(found["unreadable_blocks"]), ties)
    facts["cautions"] = [spelled(text, spelling) for text in said]
    return facts


def _row(area: ClassArea, codes: Mapping[str, int], classes: ClassList) -> Facts:
    code = codes[area.class_name]
    color = "#{:02x}{:02x}{:02x}".format(*classes.color_of(code))
    numbers = {
        key: None if value is None else float(value)
        for key, value in (("m2", area.m2), ("ha", area.ha), ("share", area.share), ("mean_score", area.mean_score))
    }
    return {"code": code, "name": area.class_name, "color": color, "pixels": int(area.pixels), **numbers}


def _plain(value: Any) -> Any:
    """Keep what is plain, and say the rest as text."""
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _fits(path: Any, mark: Any) -> bool:
    try:
        return bool(mark.fits(path))
    except OSError:
        return False


def _strips(scores: Any) -> Iterator[NDArray[np.uint8]]:
    step = max(1, 2**22 // max(1, scores.shape[1]))
    for row in range(0, scores.shape[0], step):
        yield np.asarray(scores[row : row + step])


def _histogram(scores: Any) -> Facts | None:
    """Mean score of all pixels that have one, and the share of each step of :data:`LEVELS`."""
    counts = np.zeros(256, dtype=np.int64)
    for strip in _strips(scores):
        counts += np.bincount(strip.ravel(), minlength=256)
    counts[NO_SCORE] = 0
    total = int(counts.sum())
    if not total:
        return None
    values = np.arange(256) / SCORE_STEPS
    step = level_of(np.arange(256))
    shares = [float(counts[step == number].sum()) / total for number in range(len(LEVELS) - 1)]
    return {
        "mean": round(float(values @ counts) / total, 4),
        "levels": [
            {"from": low, "to": high, "share": round(share, 6)}
            for low, high, share in zip(LEVELS, LEVELS[1:], shares, strict=False)
        ],
    }


def level_of(scores: NDArray[Any]) -> NDArray[np.int64]:
    """Return the step of :data:`LEVELS` that each score, in steps of a byte, belongs to."""
    ends = np.array([round(level * SCORE_STEPS) for level in LEVELS[1:-1]])
    return np.searchsorted(ends, scores, side="right")


def _cautions(facts: Facts, unreadable: int, ties: Mapping[str, tuple[str, float]]) -> Iterator[str]:
    """Say what a reader should know before using the map, the gravest first."""
    share = facts["pixels_unprocessed"] / max(1, facts["pixels"])
    failed = facts["windows"]["failed"]
    if failed or unreadable or share:
        yield (
            f"The map is not complete: {failed} windows and {unreadable} blocks failed, and {share:.2%} of it is "
            "unprocessed. The same command tries them again."
        )
    changed = [shown(file["name"]) for file in facts["files"] if not file["as_written"]]
    if changed:
        yield f"Missing, or changed after the run that this page tells of: {', '.join(changed)}."
    if facts["ha"] is None:
        yield "The scene does not say where it lies, so there are no areas on the ground; shares count pixels."
    card = bundled_card()
    if facts["model"]["name"] == card.name:  # of another nothing is known but how sure it was
        look = Look(gsd=facts["settings"].get("gsd") or facts["pixel_side_m"])
        yield from filter(None, [caution(card, look, facts["prompts"])])
    scores = {row["name"]: row["mean_score"] for row in facts["classes"] if row["mean_score"] is not None}
    yield from filter(None, [doubts(str(facts["scene"]["source"]).rpartition("/")[2], scores, ties)])
    empty = [shown(row["name"]) for row in facts["classes"] if not row["pixels"]]
    if empty:
        yield f"No pixel is {', '.join(empty)}: either there is none, or the words did not find it."
    if facts["evaluation"] is None:
        yield (
            "Nobody compared this map with the ground for this page. Areas are counted pixels, biased by the map's "
            "mistakes; `resegeo sample` and `resegeo evaluate` tell how right they are."
        )
    else:
        measured = facts["evaluation"]["classes"]
        known = {name: each["iou"] for name, each in measured.items() if each["iou"] is not None and name != BACKGROUND}
        weak = [f"{shown(name)} ({iou:.2f})" for name, iou in known.items() if iou < WEAK_IOU]
        if weak:
            yield f"By the evaluation on this page these classes are weak (IoU below {WEAK_IOU}): {', '.join(weak)}."


def table_rows(facts: Facts, *, measured: bool | None = None) -> list[list[str]]:
    """Return the classes as rows of a table, after a head; with figures of the evaluation if there is one."""
    keys = ["code", "name", "color", "pixels", "m2", "ha", "share", "mean_score"]
    some = facts["evaluation"] is not None if measured is None else measured
    figures_of = ["iou", "f1", "precision", "recall"] if some else []
    rows = [[*keys, *figures_of]]
    for row in facts["classes"]:
        figures = (facts["evaluation"] or {"classes": {}})["classes"].get(row["name"], {})
        values = [*(row[key] for key in keys), *(figures.get(key) for key in figures_of)]
        rows.append(["" if value is None else str(value) for value in values])
    return rows
