"""Truth against prediction: a confusion matrix, added up block by block, and what follows from it.

Everything is counted in pixels. The formulas are the usual ones (scikit-learn's ``jaccard_score``, ``f1_score``,
``cohen_kappa_score``); a ratio without a pixel in its denominator is NaN, never 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Index of a pixel that is not to be counted."""


def count_pairs(
    truth: NDArray[np.integer], predicted: NDArray[np.integer], rows: int, columns: int
) -> NDArray[np.int64]:
    """Count how often each pair of indices occurs in two maps of the same shape.

    Parameters
    ----------
    truth, predicted:
        Indices from 0 to ``rows`` − 1 and 0 to ``columns`` − 1; where either is :data:`UNKNOWN`, the pixel is
        not counted.
    rows, columns:
        Size of the result.

    Returns
    -------
    (rows, columns) int64: pixels with that truth (row) and that prediction (column).

    """
    known = (truth != UNKNOWN) & (predicted != UNKNOWN)
    pairs = truth[known].astype(np.int64) * columns + predicted[known]
    return np.bincount(pairs, minlength=rows * columns).reshape(rows, columns)


@dataclass(frozen=True, eq=False)
class Accuracy:
    """A confusion matrix and the measures that follow from it."""

    names: tuple[str, ...]
    """The C classes, in the order of rows and columns."""
    counts: NDArray[np.int64]
    """(C, C + X) pixels: row truth, column prediction; the X last columns are answers that are no class."""
    aside: tuple[str, ...] = ()
    """Classes that :attr:`mean_iou` leaves out, such as the background."""
    extra: tuple[str, ...] = ()
    """Names of the X columns."""

    @classmethod
    def of_blocks(
        cls,
        names: tuple[str, ...],
        blocks: Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]],
        *,
        aside: tuple[str, ...] = (),
        extra: tuple[str, ...] = (),
    ) -> Accuracy:
        """Add up pairs (truth, prediction) of index maps; see :func:`count_pairs`."""
        total = np.zeros((len(names), len(names) + len(extra)), dtype=np.int64)
        for truth, predicted in blocks:
            total += count_pairs(truth, predicted, *total.shape)
        return cls(names, total, aside, extra)

    @cached_property
    def hits(self) -> NDArray[np.int64]:
        """Pixels of each class (C,) that were found."""
        return np.diagonal(self.counts).copy()

    @cached_property
    def true(self) -> NDArray[np.int64]:
        """Pixels of each class (C,) in the truth."""
        return np.asarray(self.counts.sum(axis=1))

    @cached_property
    def said(self) -> NDArray[np.int64]:
        """Pixels of each class (C,) in the prediction, where the truth is known."""
        return np.asarray(self.counts.sum(axis=0)[: len(self.names)])

    @property
    def pixels(self) -> int:
        """Pixels compared."""
        return int(self.counts.sum())

    @property
    def iou(self) -> NDArray[np.float64]:
        """Hits / (true + said − hits) of each class (C,)."""
        return ratios(self.hits, self.true + self.said - self.hits)

    @property
    def f1(self) -> NDArray[np.float64]:
        """2 · hits / (true + said) of each class (C,), also called the Dice coefficient."""
        return ratios(2 * self.hits, self.true + self.said)

    @property
    def precision(self) -> NDArray[np.float64]:
        """Hits / said of each class (C,): user's accuracy."""
        return ratios(self.hits, self.said)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Hits / true of each class (C,): producer's accuracy."""
        return ratios(self.hits, self.true)

    @property
    def overall(self) -> float:
        """Share of the compared pixels that are right."""
        return float(ratios(self.hits.sum(), np.asarray(self.pixels)))

    @property
    def mean_iou(self) -> float:
        """Mean of :attr:`iou` over the classes that occur in truth or prediction and are not set ``aside``."""
        return self.mean(self.iou)

    def mean(self, values: NDArray[np.float64]) -> float:
        """Mean of a measure (C,) over the classes that are counted in :attr:`mean_iou`, where it is defined."""
        counted = [v for n, v in zip(self.names, values, strict=True) if n not in self.aside and not math.isnan(v)]
        return float(np.mean(counted)) if counted else math.nan

    @property
    def mean_f1(self) -> float:
        """Mean of :attr:`f1` over the classes that :attr:`mean_iou` counts."""
        return self.mean(self.f1)

    @property
    def macro_accuracy(self) -> float:
        """Mean of :attr:`recall` over the classes that :attr:`mean_iou` counts (balanced accuracy).

        ReSeg-CLIP's code prints it under the name of overall accuracy.
        """
        return self.mean(self.recall)

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of :attr:`iou` weighted by the pixels of each class in the truth, over the classes that are counted."""
        counted = np.array([name not in self.aside for name in self.names]) & (self.true > 0)
        return float(np.average(self.iou[counted], weights=self.true[counted])) if counted.any() else math.nan

    @property
    def kappa(self) -> float:
        """Cohen's kappa, (p − e) / (1 − e): agreement p beyond the agreement e of independent maps.

        J. Cohen (1960), A coefficient of agreement for nominal scales. NaN where e is 1.
        """
        if not self.pixels:
            return math.nan
        expected = float((self.true / self.pixels) @ (self.said / self.pixels))
        return (self.overall - expected) / (1 - expected) if expected < 1 else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON; undefined ratios are None."""
        columns = {
            "iou": self.iou,
            "f1": self.f1,
            "precision": self.precision,
            "recall": self.recall,
        }
        classes = {
            name: {
                **{key: plain_ratio(values[i]) for key, values in columns.items()},
                "pixels_truth": int(self.true[i]),
                "pixels_predicted": int(self.said[i]),
            }
            for i, name in enumerate(self.names)
        }
        return {
            "classes": classes,
            "mean_iou": plain_ratio(self.mean_iou),
            "mean_iou_leaves_out": list(self.aside),
            "mean_f1": plain_ratio(self.mean_f1),
            "macro_accuracy": plain_ratio(self.macro_accuracy),
            "frequency_weighted_iou": plain_ratio(self.frequency_weighted_iou),
            "overall_accuracy": plain_ratio(self.overall),
            "kappa": plain_ratio(self.kappa),
            "pixels_compared": self.pixels,
            "confusion": {
                "truth": list(self.names),
                "predicted": [*self.names, *self.extra],
                "pixels": self.counts.tolist(),
            },
        }

    def confusion_rows(self) -> list[list[str]]:
        """Return the confusion matrix as rows of a table: a head, then a row a class of the truth."""
        head = ["truth \\ predicted", *self.names, *self.extra]
        return [head, *([name, *map(str, row)] for name, row in zip(self.names, self.counts.tolist(), strict=True))]


def ratios(part: Any, whole: Any) -> NDArray[np.float64]:
    """Divide counts; NaN where ``whole`` is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64))
    result = np.full(bottom.shape, np.nan)
    np.divide(top, bottom, out=result, where=bottom > 0)
    return result


def plain_ratio(value: float) -> float | None:
    """Return a ratio as JSON can hold it: None where it is not defined."""
    return None if math.isnan(value) else float(value)
