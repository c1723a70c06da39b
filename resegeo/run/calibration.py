"""Thresholds and a scale for each class, fitted on labelled tiles from what a store holds: no look at a pixel.

Labelled pixels of all truths are parted into folds that lie apart: by truth where there are three or more, else by
quarters of what is labelled. Each fold is judged by what the others came to; a scale or a threshold that does not help
there is not written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resegeo.classes.class_file import class_file_of
from resegeo.classes.class_list import ClassList
from resegeo.clip.blending import LEAST, rescaled
from resegeo.errors import ResegeoError, UsageError, escaped, shown
from resegeo.evaluation.legend import BACKGROUND, Legend
from resegeo.evaluation.metrics import UNKNOWN, Accuracy, count_pairs
from resegeo.evaluation.reliability import Reliability, fit_scales, fit_threshold, reliability, save_reliability
from resegeo.evaluation.truth import Grid, RasterTruth, Truth, open_truth
from resegeo.files import sync, whole_named
from resegeo.outputs.raster import CLASSES_TAG
from resegeo.progress import Progress, silent
from resegeo.run.execution import ready_for
from resegeo.run.labelling import Labeller
from resegeo.run.options import Options
from resegeo.run.prepare import as_class_list, settle
from resegeo.run.store import Store
from resegeo.run.store_place import is_store
from resegeo.run.threads import one_thread_each
from resegeo.scene.formats import open_raster
from resegeo.scene.vector_layers import VECTOR_SUFFIXES
from resegeo.scene.windows import blocks

FEW = 200
"""Labelled pixels of a class below which nothing is fitted for it."""
MOST = 300_000
"""Pixels that are fitted on: of more a share, the same each time."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled pixels and what the model says of them."""

    probabilities: NDArray[np.float32]
    """(n, C)."""
    truth: NDArray[np.int64]
    """(n,) index of the class, C for background."""
    fold: NDArray[np.int64]
    """(n,) part that the pixel lies in."""

    def __getitem__(self, which: NDArray[np.bool_]) -> Labelled:
        """Return some of the pixels."""
        return Labelled(self.probabilities[which], self.truth[which], self.fold[which])


@dataclass(frozen=True)
class Calibration:
    """What was fitted, and what it is worth on pixels that it was not fitted on."""

    classes: ClassList
    """With thresholds and scales."""
    before: Reliability
    after: Reliability
    """Of folds by what the others came to."""
    iou: tuple[float, float]
    """Mean IoU before and after, likewise."""
    pixels: int
    folds: int
    refusals: tuple[str, ...]
    """Where it does not hold, and what was not fitted: sentences."""
    fitted: tuple[bool, ...]
    """Which classes had labelled pixels enough."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "classes": {spec.name: {"scale": spec.scale, "threshold": spec.threshold} for spec in self.classes.classes},
            "mean_iou": {"before": _plain(self.iou[0]), "after": _plain(self.iou[1])},
            "before": self.before.as_dict(),
            "after": self.after.as_dict(),
            "pixels": self.pixels,
            "folds": self.folds,
            "does_not_hold": list(self.refusals),
        }


def calibrate(
    store: str | Path,
    truths: Sequence[str | Path],
    classes: str | Path | ClassList,
    output: str | Path,
    *,
    legend: str | None = None,
    field: str | None = None,
    diagram: str | Path | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Calibration:
    """Fit thresholds and scales and write them into a new class file: what ``resegeo calibrate`` does.

    Parameters
    ----------
    store:
        Of a finished run that kept features, or scores of the same words.
    truths:
        Label rasters or polygons over parts of the scene, see :func:`resegeo.evaluation.evaluate.evaluate`.
    classes:
        The class file; its own thresholds stay where too little is labelled to fit one.
    output:
        The new class file.
    legend, field:
        What the truths' values mean; by default codes of the class file and names of classes.
    diagram:
        PNG file for reliability diagrams before and after.
    progress:
        See :class:`resegeo.run.options.RunOptions`.
    **options:
        Those of :func:`resegeo.segment` that a store takes, such as ``model``.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is wrong and how to mend it.

    """
    output = Path(output)
    for path, name in ((output, "output"), (None if diagram is None else Path(diagram), "diagram")):
        if path is not None and os.path.lexists(path):
            raise ResegeoError(f"{shown(path)} exists and stays as it is; name another file by [[{name}]].")
    if not is_store(str(store)):
        raise UsageError(f"{shown(store)} is no store; give the .store.zarr of a finished run.")
    if not truths:
        raise UsageError("calibrate needs a truth: a label raster or polygons over a part of the scene.")
    listed = as_class_list(classes if isinstance(classes, ClassList) else Path(classes))
    plain = replace(
        listed,
        threshold=None,
        classes=tuple(replace(spec, threshold=None, scale=None) for spec in listed.classes),
    )
    labelled = _labelled(str(store), [str(truth) for truth in truths], plain, legend, field, progress, options)
    found = fit(labelled, plain)
    own = [listed.threshold if spec.threshold is None else spec.threshold for spec in listed.classes]
    kept = zip(found.classes.classes, found.fitted, own, strict=True)
    specs = tuple(spec if fitted else replace(spec, threshold=floor) for spec, fitted, floor in kept)
    found = replace(found, classes=replace(found.classes, classes=specs))
    head = "".join(f"# {line}\n" for line in _said(found, shown(store)))
    parts = [("as it was", found.before), ("calibrated", found.after)]
    with whole_named(output, "output") as beside:
        beside.write_text(head + class_file_of(found.classes), "utf-8")
        sync(beside)  # so that both files get their names, or neither does
        if diagram is not None:
            with whole_named(Path(diagram), "diagram") as picture:
                save_reliability(parts, picture)
    return found


def _said(found: Calibration, store: str) -> Iterator[str]:
    yield f"Thresholds and scales fitted on {found.pixels:,} labelled pixels of {store}; for scenes like it."
    error, iou = (
        f"{before:.3f} -> {after:.3f}" for before, after in ((found.before.error, found.after.error), found.iou)
    )
    yield f"Judged over {found.folds} folds: calibration error {error}, mean IoU {iou}."
    yield from found.refusals


def _labelled(
    store: str,
    truths: Sequence[str],
    classes: ClassList,
    legend: str | None,
    field: str | None,
    progress: Progress,
    options: dict[str, Any],
) -> Labelled:
    """Look up what the store says of the pixels that the truths label."""
    run = settle(store, classes, Path(store).parent, Options.of(options))
    plan, scene = run.plan, run.plan.scene
    opened = Store.open(run.url)
    assert opened is not None  # settle has opened it
    ready = ready_for(plan, run.url, opened, run.options)
    labeller = Labeller.of(plan, ready.scorer(plan, opened), ready.encoder.logit_scale)
    names = tuple(spec.name for spec in plan.classes.drawn)
    grid = Grid(store, scene.height, scene.width, scene.georeference, names)
    index = {spec.name: number for number, spec in enumerate(plan.classes.classes)}
    index.setdefault(BACKGROUND, len(index))
    parts: list[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]] = []
    cut = list(blocks(scene.height, scene.width))
    with ExitStack() as stack, one_thread_each():
        opened_truths = [_open(path, grid, classes, legend, field) for path in truths]
        for truth in opened_truths:
            stack.callback(truth.close)
        random = np.random.default_rng(0)
        total = 0
        places: list[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]] = []
        for number, truth in enumerate(opened_truths):
            for spot, rect in enumerate(cut):
                real = truth.read(rect, index)
                rows, cols = np.nonzero(real != UNKNOWN)
                if len(rows):
                    where = np.stack([rows, cols], axis=1)
                    places.append((number, spot, where, real[rows, cols]))
                    total += len(rows)
        if not total:
            raise ResegeoError(
                f"No pixel of {shown(store)} has a class in {truths[0]}: {opened_truths[0].why_empty()}."
            )
        share = min(1.0, MOST / total)
        for done, (number, spot, where, real) in enumerate(sorted(places, key=lambda place: place[1]), 1):
            rect = cut[spot]
            keep = random.random(len(real)) < share
            if keep.any():
                where, real = where[keep], real[keep]
                values = labeller.blended(rect, None)[:, where[:, 0], where[:, 1]].T
                rest = np.isfinite(values).all(axis=1)
                rows, cols = (where[rest] + [rect.row, rect.col]).T
                sides = np.stack([np.full(len(rows), number), rows, cols], axis=1)
                parts.append((values[rest], real[rest], sides))
            progress("calibrate", done, len(places))
    if not parts:
        raise ResegeoError(f"No labelled pixel of {shown(store)} was computed; label others.")
    probabilities, real, sides = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Labelled(probabilities, real, _folds(sides, len(truths)))


def _open(path: str, grid: Grid, classes: ClassList, legend: str | None, field: str | None) -> Truth:
    """Open a truth; a raster without names holds the class file's own codes."""
    meaning = Legend.parse(legend)
    if meaning is None and Path(path).suffix.lower() not in VECTOR_SUFFIXES and Path(path).is_file():
        with ExitStack() as stack:
            try:
                named = CLASSES_TAG in stack.enter_context(open_raster(path)).tags()
            except Exception:  # open_truth says what is wrong with it
                named = True
        if not named:
            codes = {str(spec.code): spec.name for spec in classes.drawn}
            return RasterTruth(path, grid, Legend({"0": BACKGROUND, **codes}))
    return open_truth(path, grid, legend=meaning, field=field)


def _folds(sides: NDArray[np.int64], truths: int) -> NDArray[np.int64]:
    """Part pixels (truth, row, col): by truth, or by quarters around the middle of what is labelled."""
    if truths >= 3:
        return sides[:, 0]
    rows, cols = sides[:, 1], sides[:, 2]
    return (rows > np.median(rows)) * 2 + (cols > np.median(cols)).astype(np.int64)


def fit(labelled: Labelled, classes: ClassList) -> Calibration:
    """Fit scales, then thresholds; judge both by cross-validation, and keep what helps.

    Parameters
    ----------
    labelled:
        Pixels, what the model says of them, and their folds.
    classes:
        The classes without thresholds and scales.

    Raises
    ------
    ResegeoError:
        When too little is labelled to fit anything.

    """
    specs = classes.classes
    refusals = []
    counts = np.bincount(labelled.truth, minlength=len(specs) + 1)
    spread = [len(np.unique(labelled.fold[labelled.truth == number])) for number in range(len(specs))]
    free = [bool(spec.code and counts[number] >= FEW and spread[number] >= 2) for number, spec in enumerate(specs)]
    if not any(free):
        raise ResegeoError(
            f"Too little is labelled: a class needs {FEW} pixels in two parts of the scene at least, and none of "
            f"{', '.join(shown(spec.name) for spec in specs)} has them. Label more."
        )
    few = [shown(spec.name) for number, spec in enumerate(specs) if spec.code and not free[number]]
    if few:
        refusals.append(f"Not fitted, since too little of them is labelled: {_listed(few)}.")
    folds = np.unique(labelled.fold)
    ones = np.ones(len(specs))
    scales, judged = _scales(labelled, classes, free), np.empty_like(labelled.probabilities)
    for fold in folds:
        out = labelled.fold == fold
        judged[out] = _rescaled(labelled[out].probabilities, _scales(labelled[~out], classes, free))
    if _surprise(judged, labelled, classes) >= _surprise(labelled.probabilities, labelled, classes):
        refusals.append("Scales did not help on parts that they were not fitted on, so there are none.")
        scales, judged = ones, labelled.probabilities
    scaled = _rescaled(labelled.probabilities, scales)
    floors = _thresholds(labelled, scaled, classes, free)
    held = _judged_floors(labelled, judged, classes, free, folds)
    plain = _answers(judged, classes, [None] * len(specs))
    kept: list[float | None] = []
    for number, (spec, floor) in enumerate(zip(specs, floors, strict=True)):
        helps = _iou(labelled.truth, held, number) > _iou(labelled.truth, plain, number)
        kept.append(floor if helps else None)
        if floor is not None and not helps:
            refusals.append(
                f"No threshold for {shown(spec.name)}: on parts that it was not fitted on it does not help."
            )
    if counts[len(specs)] == 0:
        refusals.append("No background is labelled, so thresholds know only of classes that take each other's pixels.")
    used = np.array([*(floor is not None for floor in kept), False])
    after = np.where(used[plain], held, plain)
    before = _answers(labelled.probabilities, classes, [None] * len(specs))
    told = tuple(
        replace(
            spec,
            scale=round(float(scale), 4) if free[number] and abs(scale - 1) > 0.005 else None,
            threshold=kept[number],
        )
        for number, (spec, scale) in enumerate(zip(specs, scales, strict=True))
    )
    return Calibration(
        replace(classes, classes=told),
        _reliability(labelled.probabilities, labelled, classes),
        _reliability(judged, labelled, classes),
        (_mean_iou(labelled.truth, before, classes), _mean_iou(labelled.truth, after, classes)),
        len(labelled.truth),
        len(folds),
        tuple(refusals),
        tuple(free),
    )


def _rescaled(probabilities: NDArray[np.float32], scales: NDArray[np.float64]) -> NDArray[np.float32]:
    return rescaled(probabilities.T.copy(), [float(scale) for scale in scales]).T


def _groups(classes: ClassList) -> list[int]:
    """Group of each class: its own index, or that of background."""
    count = len(classes.classes)
    return [number if spec.code else count for number, spec in enumerate(classes.classes)]


def _tellable(labelled: Labelled, classes: ClassList) -> NDArray[np.bool_]:
    """Tell the pixels whose truth the model can name: background only where a class stands for it."""
    return np.isin(labelled.truth, _groups(classes))


def _scales(labelled: Labelled, classes: ClassList, free: Sequence[bool]) -> NDArray[np.float64]:
    some = labelled[_tellable(labelled, classes)]
    return fit_scales(some.probabilities, some.truth, _groups(classes), free)


def _surprise(probabilities: NDArray[np.float32], labelled: Labelled, classes: ClassList) -> float:
    """Mean negative log-likelihood of the truth."""
    some = _tellable(labelled, classes)
    inside = np.asarray(_groups(classes))[None] == labelled.truth[some][:, None]
    return float(-np.log(np.maximum(np.where(inside, probabilities[some], 0).sum(axis=1), LEAST)).mean())


def _answers(
    probabilities: NDArray[np.float32], classes: ClassList, floors: Sequence[float | None]
) -> NDArray[np.int64]:
    """Return the answer (n,) for each pixel: index of a class, or their number for background."""
    winner = probabilities.argmax(axis=1)
    least = np.array([0.0 if floor is None else floor for floor in floors], dtype=np.float32)
    answer = np.asarray(_groups(classes))[winner]
    return np.where(probabilities.max(axis=1) < least[winner], len(classes.classes), answer)


def _thresholds(
    labelled: Labelled, probabilities: NDArray[np.float32], classes: ClassList, free: Sequence[bool]
) -> list[float | None]:
    winner, best = probabilities.argmax(axis=1), probabilities.max(axis=1)
    return [
        fit_threshold(
            best[winner == number], labelled.truth[winner == number] == number, int(np.sum(labelled.truth == number))
        )
        if free[number]
        else None
        for number in range(len(classes.classes))
    ]


def _judged_floors(
    labelled: Labelled,
    judged: NDArray[np.float32],
    classes: ClassList,
    free: Sequence[bool],
    folds: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Answers of each fold with thresholds of the others."""
    answers = np.empty(len(judged), dtype=np.int64)
    for fold in folds:
        out = labelled.fold == fold
        answers[out] = _answers(judged[out], classes, _thresholds(labelled[~out], judged[~out], classes, free))
    return answers


def _iou(truth: NDArray[np.int64], answer: NDArray[np.int64], number: int) -> float:
    union = int(np.sum((truth == number) | (answer == number)))
    return float(np.sum((truth == number) & (answer == number))) / union if union else 0.0


def _mean_iou(truth: NDArray[np.int64], answer: NDArray[np.int64], classes: ClassList) -> float:
    names = (*(spec.name for spec in classes.classes), "")
    aside = ("", *(spec.name for spec in classes.classes if not spec.code))
    return Accuracy(names, count_pairs(truth, answer, len(names), len(names)), aside).mean_iou


def _reliability(probabilities: NDArray[np.float32], labelled: Labelled, classes: ClassList) -> Reliability:
    some = _tellable(labelled, classes)
    answer = _answers(probabilities[some], classes, [None] * len(classes.classes))
    return reliability(probabilities[some].max(axis=1).astype(np.float64), answer == labelled.truth[some])


def _listed(names: Sequence[str]) -> str:
    return escaped(", ".join(names))


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
