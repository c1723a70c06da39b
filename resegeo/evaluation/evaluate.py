"""How right a class raster is: predictions against truths, all pairs summed into one confusion matrix.

- A truth pixel without a class (a value that nobody named, nodata, outside all polygons) is not counted.
- "background" in the truth means "none of the truth's classes"; a predicted class that no truth names, and the
  prediction's own background, are that too. Where no truth has background they are simply wrong answers.
- Nodata in the prediction is no answer: it counts against recall, unless it is ignored. Unprocessed pixels always do.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from resegeo.classes.class_list import ClassList
from resegeo.documents import read_table
from resegeo.errors import InputNotice, ResegeoError, UsageError, escaped, notice, shown
from resegeo.evaluation.borders import Boundaries, boundaries, near_borders, width_in_pixels
from resegeo.evaluation.intervals import Intervals, resampled
from resegeo.evaluation.legend import BACKGROUND, EXAMPLE, Legend
from resegeo.evaluation.matrix_picture import save_matrix
from resegeo.evaluation.metrics import UNKNOWN, Accuracy, count_pairs, plain_ratio
from resegeo.evaluation.truth import Grid, Truth, open_truth
from resegeo.files import is_there, name_problem, whole_named
from resegeo.outputs.raster import read_class_raster_info
from resegeo.progress import Progress, silent
from resegeo.scene.formats import heard, is_local, known_formats, open_raster
from resegeo.scene.windows import Rect, blocks

OTHER, SILENT = "other classes", "no answer"
"""Answers that are no class of the truth: columns of the confusion matrix."""


@dataclass(frozen=True)
class Evaluation:
    """What came out: measures, and what they leave out."""

    accuracy: Accuracy
    pairs: tuple[tuple[str, str], ...]
    """Prediction and truth."""
    unlabelled: int
    """Pixels without a class in the truth."""
    silent: int
    """Labelled pixels that are nodata in the prediction."""
    ignore_nodata: bool
    near: int = 0
    """Labelled pixels that were left out since a border is near."""
    boundary: Boundaries | None = None
    """What was counted along the contours of classes, if anybody asked."""
    images: tuple[Evaluation, ...] = ()
    """The same of each pair alone, where there are several."""
    intervals: Intervals | None = None

    @property
    def mean_boundary_iou(self) -> float:
        """Mean over the classes that the mean IoU counts; NaN where nothing was counted."""
        return float("nan") if self.boundary is None else self.accuracy.mean(self.boundary.iou)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        plain = {
            "pairs": [{"prediction": prediction, "truth": truth} for prediction, truth in self.pairs],
            **self.accuracy.as_dict(),
            "pixels_unlabelled": self.unlabelled,
            "pixels_nodata": self.silent,
            "ignore_nodata": self.ignore_nodata,
        }
        if self.near:
            plain["pixels_near_borders"] = self.near
        if self.boundary is not None:
            for name, value in zip(self.accuracy.names, self.boundary.iou, strict=True):
                plain["classes"][name]["boundary_iou"] = plain_ratio(value)
            plain["mean_boundary_iou"] = plain_ratio(self.mean_boundary_iou)
        if self.intervals is not None:
            plain["intervals"] = self.intervals.as_dict(self.accuracy.names)
        if self.images:
            plain["images"] = [image.as_dict() for image in self.images]
        return plain

    def image_rows(self) -> list[list[str]]:
        """Return a table of the images: a head, a row each, all together; means are over an image's own classes."""
        names = self.accuracy.names
        measures = ["mean_iou", "mean_f1", "macro_accuracy", "overall_accuracy", "kappa"]
        measures += ["mean_boundary_iou"] if self.boundary is not None else []
        rows = [["prediction", "truth", "pixels_compared", *measures, *(f"iou {name}" for name in names)]]
        for image in (*(self.images or (self,)), *([self] if self.images else [])):
            plain = image.as_dict()
            where = ("all images", "") if image is self and self.images else image.pairs[0]
            values = [*(plain[key] for key in measures), *(plain["classes"][name]["iou"] for name in names)]
            said = ["" if value is None else f"{value:.6f}" for value in values]
            rows.append([*where, str(plain["pixels_compared"]), *said])
        return rows


@heard
def evaluate(
    pairs: Sequence[tuple[str | Path, str | Path]],
    *,
    legend: str | None = None,
    field: str | None = None,
    ignore_nodata: bool = False,
    formats: Sequence[str] | None = None,
    ignore_border: str | float | None = None,
    boundary: str | float | None = None,
    bootstrap: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare class rasters with what is known: what ``resegeo evaluate`` does.

    Parameters
    ----------
    pairs:
        (prediction, truth): a class raster of resegeo, and a label raster, a mask, a picture of colours, or
        polygons. The sum of all pairs is measured.
    legend:
        What truth values mean, as ``legend`` takes it: ``"255=road,0=background"`` or a YAML file.
    field:
        Field of the polygons that names the class; ``class_name`` by default.
    ignore_nodata:
        Leave out pixels that are nodata in the prediction instead of counting them as missed.
    formats:
        GDAL's names of file formats that are trusted though they may reach for other files or hosts, such as VRT; see
        :func:`resegeo.open_scene`.
    ignore_border:
        Leave out pixels that have another class of the truth within this distance, such as ``"3px"`` or ``"1.5m"``.
    boundary:
        Measure boundary IoU too, within this distance from the contours: a length, or such as ``"2%"`` of the
        diagonal.
    bootstrap:
        Number of times that the images are resampled for intervals of 95 %.
    seed:
        Of the resampling.
    progress:
        Called with stage, steps done, steps in all.

    Raises
    ------
    ResegeoError:
        When a file can't be read, does not fit its partner, or nothing remains to be compared.
    UsageError:
        When options do not fit the files.

    """
    if not pairs:
        raise UsageError("There is no pair to compare; name PREDICTION and TRUTH, or a CSV file by [[pairs]].")
    meaning, trusted = Legend.parse(legend), known_formats(formats)
    report = progress or silent

    @contextmanager
    def opened(pair: tuple[str | Path, str | Path]) -> Iterator[tuple[_Prediction, Truth]]:
        prediction = _Prediction(str(pair[0]), trusted)
        truth = open_truth(str(pair[1]), prediction.grid, legend=meaning, field=field, formats=trusted)
        try:
            yield prediction, truth
        finally:
            truth.close()

    vocabulary = _Vocabulary()
    for pair in pairs:  # all names before the first pixel; a thousand files are not kept open meanwhile
        with opened(pair) as (prediction, truth):
            vocabulary.add(prediction, truth)
            _widths(prediction.grid, ignore_border, boundary)
    names = vocabulary.names()
    images, empty = [], []
    for number, pair in enumerate(pairs, 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputNotice)  # given above already
            with opened(pair) as (prediction, truth):
                widths = _widths(prediction.grid, ignore_border, boundary)
                images.append(_compare(pair, prediction, truth, names, widths, ignore_nodata=ignore_nodata))
                if not images[-1].accuracy.pixels and not images[-1].silent:
                    empty.append(_why_empty(images[-1], truth))
        report("evaluate", number, len(pairs))
    if len(empty) == len(pairs):
        raise ResegeoError(empty[0])
    for text in empty:
        notice(text)
    return _summed(images, bootstrap, seed)


def _widths(grid: Grid, ignore_border: str | float | None, boundary: str | float | None) -> tuple[int, int]:
    """Return the margin to leave out, and that of boundary IoU, in pixels of an image; 0: none."""
    asked = {"ignore_border": ignore_border, "boundary": boundary}
    ignored, along = (
        0 if text is None else width_in_pixels(text, name, grid.height, grid.width, grid.where)
        for name, text in asked.items()
    )
    return ignored, along


def _compare(
    pair: tuple[str | Path, str | Path],
    prediction: _Prediction,
    truth: Truth,
    names: tuple[str, ...],
    widths: tuple[int, int],
    *,
    ignore_nodata: bool,
) -> Evaluation:
    """Measure one image."""
    counter = _Counter(names, ignore_nodata=ignore_nodata, widths=widths)
    for real, said in counter.blocks(prediction, truth):
        counter.counts += count_pairs(real, said, *counter.counts.shape)
    return Evaluation(
        Accuracy(names, counter.counts, (BACKGROUND,), counter.extra),
        ((str(pair[0]), str(pair[1])),),
        counter.unlabelled,
        counter.silent,
        ignore_nodata,
        near=counter.near,
        boundary=counter.boundary,
    )


def _why_empty(image: Evaluation, truth: Truth) -> str:
    prediction, path = image.pairs[0]
    if image.near:
        return f"All labelled pixels of {path} are near a border; give a smaller [[ignore_border]]."
    return f"No pixel of {prediction} has a class in {path}: {truth.why_empty()}."


def _summed(images: Sequence[Evaluation], replicates: int | None, seed: int) -> Evaluation:
    """Add up the images; all have the same classes."""
    first = images[0]
    along = [image.boundary for image in images if image.boundary is not None]
    silent = sum(image.silent for image in images)
    if silent and not first.ignore_nodata:
        notice(
            f"{silent:,} labelled pixels are nodata in the prediction and count as missed; "
            "[[ignore_nodata=True]] "
            "leaves them out.",
        )
    intervals = None
    if replicates is not None:
        # An image without a labelled pixel was not measured.
        kept = [number for number, image in enumerate(images) if image.accuracy.pixels]
        measured = [images[number].accuracy for number in kept]
        intervals = resampled(measured, [along[n] for n in kept] if along else None, replicates=replicates, seed=seed)
    counts = np.sum([image.accuracy.counts for image in images], axis=0)
    return Evaluation(
        Accuracy(first.accuracy.names, counts, first.accuracy.aside, first.accuracy.extra),
        tuple(pair for image in images for pair in image.pairs),
        sum(image.unlabelled for image in images),
        silent,
        first.ignore_nodata,
        near=sum(image.near for image in images),
        boundary=sum(along, Boundaries.none(len(first.accuracy.names))) if along else None,
        images=tuple(images) if len(images) > 1 else (),
        intervals=intervals,
    )


def agreement(
    pair: tuple[str | Path, str | Path], longest: int, *, legend: str | None = None, field: str | None = None
) -> NDArray[np.uint8]:
    """Tell where a class raster is right.

    Parameters
    ----------
    pair, legend, field:
        As for :func:`evaluate`.
    longest:
        Side of the result at most; a larger raster is thinned evenly.

    Returns
    -------
    (h, w) 0 where nothing is known, 1 where the raster is right, 2 where it is wrong.

    Raises
    ------
    ResegeoError:
        As :func:`evaluate` would.

    """
    prediction = _Prediction(str(pair[0]))
    truth = open_truth(str(pair[1]), prediction.grid, legend=Legend.parse(legend), field=field)
    vocabulary = _Vocabulary()
    vocabulary.add(prediction, truth)
    size = (prediction.grid.height, prediction.grid.width)
    scale = min(1.0, longest / max(size))
    shape = [max(1, round(side * scale)) for side in size]
    rows, cols = ((np.arange(count) * 2 + 1) * side // (2 * count) for count, side in zip(shape, size, strict=True))
    result = np.zeros(shape, dtype=np.uint8)
    try:
        counter = _Counter(vocabulary.names(), ignore_nodata=False, widths=(0, 0))
        for (real, said), rect in zip(counter.blocks(prediction, truth), blocks(*size), strict=True):
            (top, bottom), (left, right) = (
                np.searchsorted(places, ends)
                for places, ends in ((rows, (rect.row, rect.bottom)), (cols, (rect.col, rect.right)))
            )
            pick = np.ix_(rows[top:bottom] - rect.row, cols[left:right] - rect.col)
            result[top:bottom, left:right] = np.where(real == UNKNOWN, 0, np.where(real == said, 1, 2))[pick]
    finally:
        truth.close()
    return result


def read_pairs(path: str | Path) -> list[tuple[str, str]]:
    """Read a CSV file with the columns ``prediction`` and ``truth``; paths in it count from its folder.

    Raises
    ------
    ResegeoError:
        When it can't be read, lacks a column, or has no pair.

    """
    path = Path(path)
    expected, said = "a CSV file with the columns prediction,truth", f"[[pairs={escaped(path)}]]"
    table = read_table(path, said, expected=expected, missing=f"no such file; expected {expected}.")
    if not {"prediction", "truth"} <= set(table.columns):
        columns = shown(", ".join(table.columns) or "none")
        raise ResegeoError(f"{said} has the columns {columns}; expected {expected}.")
    pairs = []
    for number, values in table.lines:
        prediction, truth = (values.get(name, "") for name in ("prediction", "truth"))
        if not prediction or not truth:
            raise ResegeoError(f"{said}, line {number}: a path is missing; expected {expected}.")
        pairs.append((_from(path, prediction), _from(path, truth)))
    if not pairs:
        raise ResegeoError(f"{said} holds no pair; expected {expected}.")
    return pairs


def _from(csv_file: Path, name: str) -> str:
    return str(csv_file.parent / name) if is_local(name) else name  # an absolute path stays as it is


class _Prediction:
    """A class raster of ours, opened for reading block by block."""

    def __init__(self, path: str, formats: Sequence[str] = ()) -> None:
        self._formats = formats
        if is_local(path) and not is_there(path):
            raise ResegeoError(f"{path}: no such file; expected a class raster of resegeo.")
        try:
            self.classes, where = read_class_raster_info(path, formats)
        except ResegeoError as error:
            raise ResegeoError(f"{error.text} The prediction comes first, the truth second.") from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with open_raster(path, formats) as raster:
                names = tuple(spec.name for spec in self.classes.drawn)
                self.grid = Grid(path, raster.height, raster.width, where, names)

    def read(self, margin: int) -> Iterator[tuple[Rect, Rect, NDArray[np.unsignedinteger]]]:
        """Yield each block, the part of the raster up to ``margin`` pixels around it, and the codes of that."""
        from rasterio.windows import Window

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with open_raster(self.grid.path, self._formats) as raster:
                whole = Rect(0, 0, self.grid.height, self.grid.width)
                for rect in blocks(self.grid.height, self.grid.width):
                    around = whole.intersection(
                        Rect(rect.row - margin, rect.col - margin, rect.height + 2 * margin, rect.width + 2 * margin)
                    )
                    assert around is not None  # it holds the block
                    try:
                        codes = raster.read(1, window=Window(around.col, around.row, around.width, around.height))
                    except RasterioError as error:
                        raise ResegeoError(
                            f"{self.grid.path} is damaged: rows {rect.row} to {rect.bottom - 1} cannot be read. "
                            "Segment the scene anew."
                        ) from error
                    yield rect, around, codes


class _Counter:
    """Turns codes and truths into index maps, and counts what the matrix does not show."""

    def __init__(self, names: tuple[str, ...], *, ignore_nodata: bool, widths: tuple[int, int]) -> None:
        self._index: Mapping[str, int] = {name: number for number, name in enumerate(names)}
        self.extra = (SILENT,) if BACKGROUND in names else (OTHER, SILENT)
        self._other = self._index.get(BACKGROUND, len(names))
        self._silent = len(names) + len(self.extra) - 1
        self._ignore = ignore_nodata
        self._ignored, self._along = widths
        self.counts = np.zeros((len(names), len(names) + len(self.extra)), dtype=np.int64)
        self.unlabelled = self.silent = self.near = 0
        self.boundary = Boundaries.none(len(names)) if self._along else None

    def blocks(self, prediction: _Prediction, truth: Truth) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield (truth, prediction) indices of each block."""
        table = self._table(prediction.classes)
        margin = max(self._ignored, self._along)
        for rect, around, codes in prediction.read(margin):
            real, said = truth.read(around, self._index), table[codes]
            left_out = np.zeros((rect.height, rect.width), dtype=bool)
            if margin:
                place = (
                    slice(rect.row - around.row, rect.bottom - around.row),
                    slice(rect.col - around.col, rect.right - around.col),
                )
                wide_real, wide_said = (_framed(labels, rect, around, margin) for labels in (real, said))
                if self._ignored:
                    left_out = near_borders(wide_real, margin, self._ignored)
                if self.boundary is not None:
                    self.boundary += boundaries(wide_real, wide_said, margin, self._along, len(self._index))
                real, said, codes = real[place], said[place], codes[place]
            known = real != UNKNOWN
            self.unlabelled += int((~known).sum())
            self.near += int(left_out.sum())
            real = np.where(left_out, UNKNOWN, real)
            self.silent += int(((real != UNKNOWN) & (codes == prediction.classes.nodata)).sum())
            yield real, said

    def _table(self, classes: ClassList) -> NDArray[np.int64]:
        """Return code -> column."""
        table = np.full(np.iinfo(classes.dtype).max + 1, self._other, dtype=np.int64)
        folded = {name.casefold(): number for name, number in self._index.items()}
        for spec in classes.drawn:
            table[spec.code] = folded.get(spec.name.casefold(), self._other)
        table[classes.unprocessed] = self._silent
        table[classes.nodata] = UNKNOWN if self._ignore else self._silent
        return table


class _Vocabulary:
    """Collects the truths' classes in the predictions' order, background last."""

    def __init__(self) -> None:
        self._meant: set[str] = set()
        self._ordered: dict[str, str] = {}

    def add(self, prediction: _Prediction, truth: Truth) -> None:
        """Note the classes of one pair."""
        self._meant |= {name.casefold() for name in truth.names}
        for name in prediction.grid.names:
            if name.casefold() != BACKGROUND:  # a drawn class of that name means the same
                self._ordered.setdefault(name.casefold(), name)

    def names(self) -> tuple[str, ...]:
        """Return the classes to measure."""
        names = tuple(name for folded, name in self._ordered.items() if folded in self._meant)
        if not names:
            raise UsageError(
                "The truth knows background alone, so there is no class to measure; name one by [[legend]], such as "
                f"{EXAMPLE}."
            )
        return names + ((BACKGROUND,) if BACKGROUND in self._meant else ())


def _framed(labels: NDArray[np.int64], rect: Rect, around: Rect, margin: int) -> NDArray[np.int64]:
    """Lay a block and what is around it into a frame of ``margin`` pixels; beyond the image nothing is known."""
    frame = np.full((rect.height + 2 * margin, rect.width + 2 * margin), UNKNOWN, dtype=np.int64)
    row, col = around.row - rect.row + margin, around.col - rect.col + margin
    frame[row : row + around.height, col : col + around.width] = labels
    return frame


def write_confusion(evaluation: Evaluation, path: Path) -> None:
    """Write the confusion matrix: a row a class of the truth, a column an answer.

    As a picture, in per cent of each row, where the suffix is ``.png``; else as CSV, in pixels.

    Raises
    ------
    ResegeoError:
        When the file exists, or cannot be written.

    """
    if path.suffix.lower() == ".png":
        _write(path, "confusion", lambda beside: save_matrix(evaluation.accuracy, beside))
    else:
        _write(path, "confusion", lambda beside: _write_rows(beside, evaluation.accuracy.confusion_rows()))


def write_images(evaluation: Evaluation, path: Path) -> None:
    """Write the figures of each image, and of all together, as CSV.

    Raises
    ------
    ResegeoError:
        When the file exists, or cannot be written.

    """
    _write(path, "images", lambda beside: _write_rows(beside, evaluation.image_rows()))


def _write_rows(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


def _write(path: Path, parameter: str, write: Callable[[Path], None]) -> None:
    why = name_problem(path)
    if why is not None:
        raise ResegeoError(f"{why} Name another file by [[{parameter}]].")
    if is_there(path):
        raise ResegeoError(f"{escaped(path)} exists; name another file by [[{parameter}]].")
    with whole_named(path, parameter) as beside:
        write(beside)
