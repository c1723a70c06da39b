"""Class codes in strips of rows, and the 4-connected areas of equal codes across the strips.

Nothing here is as large as the raster: a strip of codes, its areas' numbers, and what is kept of every area.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 512
"""Rows of a strip: at most as many as a block of the class raster has. No result depends on it."""

PIXELS = 2**22
"""Pixels of a strip at most, so that wide rasters take no more memory than others."""


def rows_of(width: int) -> int:
    """Rows of a strip of a raster so wide."""
    rows = ROWS
    while rows > 1 and rows * width > PIXELS:
        rows //= 2
    return rows


@dataclass(frozen=True)
class Codes:
    """Class codes that are read in strips."""

    height: int
    width: int
    read: Callable[[int, int], NDArray[Any]]
    """Codes (bottom - top, width) of the rows from top to before bottom."""

    @classmethod
    def of(cls, codes: NDArray[Any]) -> Codes:
        """Take codes (h, w) that are in memory."""
        return cls(codes.shape[0], codes.shape[1], lambda top, bottom: codes[top:bottom])

    def strips(self, rows: int = ROWS) -> Iterator[tuple[int, NDArray[Any]]]:
        """Go through the first row of each strip and its codes (at most ``rows``, width), downwards."""
        for top in range(0, self.height, rows):
            yield top, self.read(top, min(top + rows, self.height))


@dataclass(frozen=True)
class Areas:
    """4-connected areas of equal codes, numbered from 1 in the order in which a scan by rows meets them."""

    codes: Codes
    seen: Callable[[NDArray[Any]], NDArray[np.bool_]]
    """Which of some codes belong to areas at all; the others have the number 0."""
    rows: int
    sizes: NDArray[np.int64]
    """Pixels of every area; the first entry is 0, of what is not seen."""
    values: NDArray[Any]
    """Code of every area; the first entry means nothing."""
    _numbers: list[NDArray[np.int32]] = field(repr=False)
    """Numbers of each strip's own areas."""
    _only: list[NDArray[np.int32]] = field(default_factory=list, repr=False)
    """The numbers of the only strip, where there is but one."""

    @classmethod
    def find(cls, codes: Codes, seen: Callable[[NDArray[Any]], NDArray[np.bool_]], rows: int | None = None) -> Areas:
        """Number the areas, strip by strip."""
        rows = rows or rows_of(codes.width)
        starts, sizes, values, seams = [0], [], [], []
        above: NDArray[np.int64] | None = None
        own = last = np.empty((0, 0), dtype=np.int32)
        for _, part in codes.strips(rows):
            own = label_areas(part, seen(part))
            count = int(own.max(initial=0))
            sizes.append(np.bincount(own.ravel(), minlength=count + 1)[1:])
            code = np.zeros(count + 1, dtype=part.dtype)
            code[own] = part
            values.append(code[1:])
            first = np.where(own[0] > 0, own[0] - 1 + np.int64(starts[-1]), -1)
            if above is not None:
                both = (above >= 0) & (first >= 0) & (last == part[0])
                seams.append(distinct(np.stack([above[both], first[both]]), starts[-1] + count))
            above = np.where(own[-1] > 0, own[-1] - 1 + np.int64(starts[-1]), -1)
            last = part[-1].copy()
            starts.append(starts[-1] + count)
        total = starts[-1]
        # A component's first area is the one whose first pixel comes first, so that numbers follow the scan.
        joined = components(total, np.concatenate([np.empty((2, 0), dtype=np.int64), *seams], axis=1))
        count = int(joined.max(initial=-1)) + 1
        size = np.bincount(joined, weights=_joined(sizes, np.int64), minlength=count).astype(np.int64)
        value = np.zeros(count + 1, dtype=values[0].dtype if values else np.uint8)
        value[joined + 1] = _joined(values, value.dtype)
        numbers = [np.concatenate([[0], joined[start:end] + 1]).astype(np.int32) for start, end in pairwise(starts)]
        only = [own] if len(numbers) == 1 else []
        return cls(codes, seen, rows, np.concatenate([[0], size]), value, numbers, only)

    def strips(self) -> Iterator[tuple[int, NDArray[Any], NDArray[np.int32]]]:
        """Go through the first row of each strip, its codes and its areas' numbers, downwards."""
        for index in range(len(self._numbers)):
            yield index * self.rows, *self.strip(index)

    def strip(self, index: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Return the codes of a strip and its areas' numbers."""
        top = index * self.rows
        part = self.codes.read(top, min(top + self.rows, self.codes.height))
        own = self._only[0] if self._only else label_areas(part, self.seen(part))
        return part, self._numbers[index][own]


def label_areas(codes: NDArray[Any], seen: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number the 4-connected areas of equal codes (h, w) from 1, in the order in which a scan by rows meets them.

    Pixels that are not ``seen`` get 0.
    """
    from skimage.measure import label

    found = label(np.where(seen, codes.astype(np.int32) + 1, 0), background=0, connectivity=1)  # type: ignore[no-untyped-call]
    return np.asarray(found, dtype=np.int32)


def components(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number from 0 of the connected component that each of ``count`` nodes belongs to, in the order of their first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs.shape[1]:
        return np.arange(count)
    links = coo_array((np.ones(pairs.shape[1], dtype=bool), tuple(pairs)), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def distinct(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Pairs (2, n) of numbers below ``count``, each once whatever its direction, without those of one number twice."""
    low, high = pairs.min(axis=0), pairs.max(axis=0)
    keys = np.sort((low * count + high)[low != high])  # np.unique of numpy 2.3 takes ten times as long
    keys = keys[np.diff(keys, prepend=-1) > 0]
    return np.stack([keys // count, keys % count])


def _joined(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
