"""How right a class raster is: predictions against truths, all pairs summed into one confusion matrix.

- A truth pixel without a class (a value that nobody named, nodata, outside all polygons) is not counted.
- "background" in the truth means "none of the truth's classes"; a predicted class that no truth names, and the
  prediction's own background, are that too. Where no truth has background they are simply wrong answers.
- Nodata in the prediction is no answer: it counts against recall, unless it is ignored. Unprocessed pixels always do.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Mapping, Sequence
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
from resegeo.evaluation.legend import BACKGROUND, EXAMPLE, Legend
from resegeo.evaluation.metrics import UNKNOWN, Accuracy
from resegeo.evaluation.truth import Grid, Truth, open_truth
from resegeo.files import is_there, name_problem, whole
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

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "pairs": [{"prediction": prediction, "truth": truth} for prediction, truth in self.pairs],
            **self.accuracy.as_dict(),
            "pixels_unlabelled": self.unlabelled,
            "pixels_nodata": self.silent,
            "ignore_nodata": self.ignore_nodata,
        }

    def table(self) -> str:
        """Return a text table; see :meth:`resegeo.evaluation.metrics.Accuracy.table`."""
        lines = [self.accuracy.table(), f"not labelled      {self.unlabelled:,}"]
        if self.silent:
            lines.append(f"nodata            {self.silent:,} ({'ignored' if self.ignore_nodata else 'missed'})")
        return "\n".join(lines)


@heard
def evaluate(
    pairs: Sequence[tuple[str | Path, str | Path]],
    *,
    legend: str | None = None,
    field: str | None = None,
    ignore_nodata: bool = False,
    formats: Sequence[str] | None = None,
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
    names = vocabulary.names()
    counter = _Counter(names, ignore_nodata=ignore_nodata)
    total = np.zeros((len(names), len(names) + len(counter.extra)), dtype=np.int64)
    empty = []
    for number, pair in enumerate(pairs, 1):
        before = counter.labelled
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputNotice)  # given above already
            with opened(pair) as (prediction, truth):
                total += Accuracy.of_blocks(names, counter.blocks(prediction, truth), extra=counter.extra).counts
                if counter.labelled == before:
                    empty.append(f"No pixel of {pair[0]} has a class in {pair[1]}: {truth.why_empty()}.")
        report("evaluate", number, len(pairs))
    if not counter.labelled:
        raise ResegeoError(empty[0])
    for text in empty:
        notice(text)
    accuracy = Accuracy(names, total, (BACKGROUND,), counter.extra)
    if counter.silent and not ignore_nodata:
        notice(
            f"{counter.silent:,} labelled pixels are nodata in the prediction and count as missed; "
            "[[ignore_nodata=True]] "
            "leaves them out.",
        )
    shown = tuple((str(prediction), str(truth)) for prediction, truth in pairs)
    return Evaluation(accuracy, shown, counter.unlabelled, counter.silent, ignore_nodata)


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

    def read(self) -> Iterator[tuple[Rect, NDArray[np.unsignedinteger]]]:
        """Yield blocks of codes."""
        from rasterio.windows import Window

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with open_raster(self.grid.path, self._formats) as raster:
                for rect in blocks(self.grid.height, self.grid.width):
                    try:
                        codes = raster.read(1, window=Window(rect.col, rect.row, rect.width, rect.height))
                    except RasterioError as error:
                        raise ResegeoError(
                            f"{self.grid.path} is damaged: rows {rect.row} to {rect.bottom - 1} cannot be read. "
                            "Segment the scene anew."
                        ) from error
                    yield rect, codes


class _Counter:
    """Turns codes and truths into index maps, and counts what the matrix does not show."""

    def __init__(self, names: tuple[str, ...], *, ignore_nodata: bool) -> None:
        self._index: Mapping[str, int] = {name: number for number, name in enumerate(names)}
        self.extra = (SILENT,) if BACKGROUND in names else (OTHER, SILENT)
        self._other = self._index.get(BACKGROUND, len(names))
        self._silent = len(names) + len(self.extra) - 1
        self._ignore = ignore_nodata
        self.unlabelled = self.silent = self.labelled = 0

    def blocks(self, prediction: _Prediction, truth: Truth) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield (truth, prediction) indices of each block."""
        table = self._table(prediction.classes)
        for rect, codes in prediction.read():
            real = truth.read(rect, self._index)
            known = real != UNKNOWN
            self.labelled += int(known.sum())
            self.unlabelled += int((~known).sum())
            self.silent += int((known & (codes == prediction.classes.nodata)).sum())
            yield real, table[codes]

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


def write_confusion(evaluation: Evaluation, path: Path) -> None:
    """Write the confusion matrix as CSV: a row a class of the truth, a column an answer, pixels.

    Raises
    ------
    ResegeoError:
        When the file exists, or cannot be written.

    """
    why = name_problem(path)
    if why is not None:
        raise ResegeoError(f"{why} Name another file by [[confusion]].")
    if is_there(path):
        raise ResegeoError(f"{path} exists; name another file by [[confusion]].")
    try:
        with whole(path) as beside, beside.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(evaluation.accuracy.confusion_rows())
    except OSError as error:
        raise ResegeoError(
            f"{path} cannot be written ({error.strerror}); name another file by [[confusion]]."
        ) from error
