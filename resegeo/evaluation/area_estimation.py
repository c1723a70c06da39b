"""Areas and accuracies from a stratified random sample, with their uncertainty.

A map's own pixel counts are biased by its mistakes. A sample whose strata are known, each point labelled by a person,
gives unbiased areas and accuracies with standard errors.

Sources: P. Olofsson, G. M. Foody, M. Herold, S. V. Stehman, C. E. Woodcock, M. A. Wulder (2014), Good practices for
estimating area and assessing accuracy of land change, Remote Sensing of Environment 148; for the ratios (user's and
producer's accuracy) and strata that are not the map's classes S. V. Stehman (2014), Estimating area and map accuracy
for stratified random sampling when the strata are different from the map classes, International Journal of Remote
Sensing 35, equations 1 to 3 and 25 to 28. With the map's classes as strata, both give the same estimates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959964
"""Half the width of a 95 % interval in standard errors."""


@dataclass(frozen=True)
class Ratio:
    """An estimate and its standard error; NaN where the sample does not tell."""

    value: float
    error: float

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % confidence interval."""
        return Z95 * self.error


@dataclass(frozen=True)
class Sample:
    """A stratified random sample: for each point its stratum, what the map says there, and what is true."""

    stratum: NDArray[np.int64]
    """(n,) index of the stratum."""
    mapped: NDArray[np.int64]
    """(n,) index of the class in the map."""
    truth: NDArray[np.int64]
    """(n,) index of the class that a person found."""
    sizes: NDArray[np.int64]
    """(H,) pixels of each stratum, N_h."""

    @property
    def pixels(self) -> int:
        """N, all pixels of all strata."""
        return int(self.sizes.sum())

    def mean(self, values: NDArray[np.floating[Any]]) -> Ratio:
        """Estimate the mean over all pixels of what is 0 or 1 at each: Σ N_h ȳ_h / N (Stehman, equations 1 and 25)."""
        return self.ratio(values, np.ones(len(values)))

    def ratio(self, top: NDArray[np.floating[Any]], bottom: NDArray[np.floating[Any]]) -> Ratio:
        """Estimate Σ N_h ȳ_h / Σ N_h x̄_h for the values y and x of the points (Stehman, equations 2, 3, 27 and 28).

        The variance of a stratum with a single point cannot be estimated: the error is NaN then, unless the point does
        not count.
        """
        above = below = spread = 0.0
        parts = []
        for index, size in enumerate(self.sizes):
            own = self.stratum == index
            count = int(own.sum())
            if not count:
                if size:
                    return Ratio(math.nan, math.nan)
                continue
            y, x = top[own], bottom[own]
            above += size * y.mean()
            below += size * x.mean()
            parts.append((size, count, y, x))
        if below == 0:
            return Ratio(math.nan, math.nan)
        ratio = above / below
        for size, count, y, x in parts:
            rest = y - ratio * x
            if count == 1:
                spread += 0.0 if size == 1 or not (y.any() or x.any()) else math.nan
                continue
            spread += size**2 * (1 - count / size) * rest.var(ddof=1) / count
        return Ratio(float(ratio), math.sqrt(spread) / below)


@dataclass(frozen=True)
class Estimates:
    """What a sample says of a map of C classes."""

    names: tuple[str, ...]
    area: tuple[Ratio, ...]
    """Share of all pixels that truly are of each class."""
    users: tuple[Ratio, ...]
    """User's accuracy of each class: how much of what the map calls so is so (1 − commission)."""
    producers: tuple[Ratio, ...]
    """Producer's accuracy of each class: how much of what is so the map calls so (1 − omission)."""
    overall: Ratio
    mapped: tuple[float, ...]
    """Share of all pixels that the map gives each class: not corrected."""
    counts: NDArray[np.int64]
    """(C, C) points: row map, column truth."""
    pixels: int

    def as_dict(self, pixel_area: float | None = None) -> dict[str, Any]:
        """Return plain values; with the area of a pixel in m² areas in hectares too."""

        def plain(ratio: Ratio) -> dict[str, float | None]:
            low_high = {"value": ratio.value, "standard_error": ratio.error, "half_width_95": ratio.half_width}
            return {key: None if math.isnan(value) else value for key, value in low_high.items()}

        classes = {}
        for number, name in enumerate(self.names):
            entry: dict[str, Any] = {
                "share": plain(self.area[number]),
                "mapped_share": self.mapped[number],
                "users_accuracy": plain(self.users[number]),
                "producers_accuracy": plain(self.producers[number]),
            }
            if pixel_area is not None:
                hectares = self.pixels * pixel_area / 10_000
                entry["area_ha"] = {
                    key: None if value is None else value * hectares for key, value in plain(self.area[number]).items()
                }
                entry["mapped_ha"] = self.mapped[number] * hectares
            classes[name] = entry
        return {
            "classes": classes,
            "overall_accuracy": plain(self.overall),
            "points": {"mapped": list(self.names), "true": list(self.names), "counts": self.counts.tolist()},
            "pixels": self.pixels,
        }


def estimate(sample: Sample, names: tuple[str, ...], mapped_pixels: NDArray[np.int64]) -> Estimates:
    """Estimate areas and accuracies of the C classes ``names``.

    Parameters
    ----------
    sample:
        The labelled points.
    names:
        Of the classes, in the order of the indices.
    mapped_pixels:
        (C,) pixels that the map gives each class.

    """
    said = np.eye(len(names))[sample.mapped]
    true = np.eye(len(names))[sample.truth]
    hit = said * true
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (sample.mapped, sample.truth), 1)
    classes = range(len(names))
    return Estimates(
        names=names,
        area=tuple(sample.mean(true[:, c]) for c in classes),
        users=tuple(sample.ratio(hit[:, c], said[:, c]) for c in classes),
        producers=tuple(sample.ratio(hit[:, c], true[:, c]) for c in classes),
        overall=sample.mean(hit.sum(axis=1)),
        mapped=tuple(float(value) for value in mapped_pixels / max(1, sample.pixels)),
        counts=counts,
        pixels=sample.pixels,
    )


def allocate(count: int, sizes: NDArray[np.int64], *, least: int = 30) -> NDArray[np.int64]:
    """Share ``count`` points among strata (H,): at least ``least`` each, or all its pixels, the rest by size.

    Olofsson et al. (2014), section 5.1.3: rare classes get a number of their own, since a sample in proportion would
    say nothing of them. Where ``count`` is too small for ``least`` each, strata get equal shares.
    """
    strata = np.flatnonzero(sizes > 0)
    given = np.zeros(len(sizes), dtype=np.int64)
    floor = min(least, count // max(1, len(strata)))
    given[strata] = np.minimum(floor, sizes[strata])
    while (rest := count - int(given.sum())) > 0:
        room = sizes - given
        if not room.any():
            break
        share = rest * np.where(room > 0, sizes, 0) / sizes[room > 0].sum()
        step = np.minimum(np.floor(share).astype(np.int64), room)
        if not step.any():  # less than one each: the largest parts first, ties to the stratum named first
            order = np.argsort(-np.where(room > 0, share, -1), kind="stable")[:rest]
            step[order[room[order] > 0]] = 1
        given += step
    return given
