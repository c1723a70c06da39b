"""How sure figures are that come from a few images: intervals by resampling the images.

Pixels of an image resemble each other, so that images, not pixels, are what was drawn: B. Efron (1979), Bootstrap
methods: another look at the jackknife. The intervals are those of percentiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resegeo.errors import UsageError, notice
from resegeo.evaluation.borders import Boundaries
from resegeo.evaluation.metrics import Accuracy

FEW = 10
"""Images below which intervals are known to be too narrow."""

Interval = tuple[float, float]
"""Lower and upper end; NaN where the measure is never defined."""

_MEASURES: Mapping[str, Callable[[Accuracy], float]] = {
    "mean_iou": lambda found: found.mean_iou,
    "mean_f1": lambda found: found.mean_f1,
    "macro_accuracy": lambda found: found.macro_accuracy,
    "frequency_weighted_iou": lambda found: found.frequency_weighted_iou,
    "overall_accuracy": lambda found: found.overall,
    "kappa": lambda found: found.kappa,
}


@dataclass(frozen=True)
class Intervals:
    """Intervals of 95 %."""

    overall: Mapping[str, Interval]
    """By measure, as :meth:`resegeo.evaluation.metrics.Accuracy.as_dict` names them."""
    iou: tuple[Interval, ...]
    """Of each class."""
    f1: tuple[Interval, ...]
    replicates: int
    seed: int

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return plain values, ready for JSON; what is not defined is None."""

        def plain(interval: Interval) -> list[float | None]:
            return [None if np.isnan(end) else float(end) for end in interval]

        return {
            "level": 0.95,
            "method": "percentile bootstrap over images",
            "replicates": self.replicates,
            "seed": self.seed,
            **{key: plain(interval) for key, interval in self.overall.items()},
            "classes": {
                name: {"iou": plain(iou), "f1": plain(f1)}
                for name, iou, f1 in zip(names, self.iou, self.f1, strict=True)
            },
        }


def resampled(
    images: Sequence[Accuracy], boundaries: Sequence[Boundaries] | None, *, replicates: int, seed: int
) -> Intervals:
    """Resample images with replacement and sum their matrices anew.

    Parameters
    ----------
    images:
        A confusion matrix each, all of the same classes.
    boundaries:
        What was counted along borders in each, or None.
    replicates:
        Number of samples.
    seed:
        Of the generator: the same seed, the same intervals.

    Raises
    ------
    UsageError:
        When there are fewer than two images.

    """
    if len(images) < 2:
        raise UsageError(
            f"[[bootstrap={replicates}]] resamples images, and there is {len(images)}; give a folder or [[pairs]]."
        )
    if len(images) < FEW:
        notice(f"The intervals rest on {len(images)} images; of fewer than {FEW} they are too narrow.")
    first = images[0]
    counts = np.stack([image.counts for image in images])
    drawn = np.random.default_rng(seed).integers(0, len(images), (replicates, len(images)))
    rows: dict[str, list[float]] = {key: [] for key in _MEASURES}
    iou, f1, along = [], [], []
    for sample in drawn:
        weights = np.bincount(sample, minlength=len(images))
        found = Accuracy(first.names, np.tensordot(weights, counts, 1), first.aside, first.extra)
        for key, measure in _MEASURES.items():
            rows[key].append(measure(found))
        iou.append(found.iou)
        f1.append(found.f1)
        if boundaries is not None:
            parts = [Boundaries(one.hits * w, one.union * w) for one, w in zip(boundaries, weights, strict=True) if w]
            along.append(first.mean(sum(parts, Boundaries.none(len(first.names))).iou))
    overall = {key: _ends(np.array(values)) for key, values in rows.items()}
    if boundaries is not None:
        overall["mean_boundary_iou"] = _ends(np.array(along))
    classes = range(len(first.names))
    every_iou, every_f1 = np.array(iou), np.array(f1)
    return Intervals(
        overall,
        tuple(_ends(every_iou[:, c]) for c in classes),
        tuple(_ends(every_f1[:, c]) for c in classes),
        replicates,
        seed,
    )


def _ends(values: NDArray[np.float64]) -> Interval:
    """Return the 2.5 and the 97.5 percentile of what is defined."""
    there = values[~np.isnan(values)]
    if not there.size:
        return float("nan"), float("nan")
    low, high = np.percentile(there, [2.5, 97.5])
    return float(low), float(high)
