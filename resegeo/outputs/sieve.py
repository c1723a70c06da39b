"""Small areas join a neighbour until none is left that has one.

GDAL's sieve leaves a small area where all that surrounds it is small too, so that among many small areas most stay.
Here areas are joined in rounds, on the graph of which area touches which: every round lets go of at least half of
those that are too small.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_STRIP = 1024
"""Rows in which neighbours are looked for at once."""


def label_areas(codes: NDArray[Any], seen: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number the 4-connected areas of equal codes (h, w) from 1, in the order in which a scan by rows meets them.

    Pixels that are not ``seen`` get 0.
    """
    from skimage.measure import label

    found = label(np.where(seen, codes.astype(np.int32) + 1, 0), background=0, connectivity=1)  # type: ignore[no-untyped-call]
    return np.asarray(found, dtype=np.int32)


def without_small_areas(codes: NDArray[Any], seen: NDArray[np.bool_], min_area: int) -> NDArray[Any]:
    """Let every area (4-connected) of fewer than ``min_area`` pixels join its largest neighbour.

    Where that one is small too, the two join whatever it joins; where each is the other's largest neighbour, both take
    the larger one's code, and the lot goes on as one area. Of equally large ones the first in reading order counts.

    Parameters
    ----------
    codes:
        (h, w) codes.
    seen:
        (h, w) bool; the other pixels neither change nor take part, so that an area surrounded by them stays.
    min_area:
        Pixels.

    """
    regions = label_areas(codes, seen)
    size = np.bincount(regions.ravel())
    code = np.zeros(len(size), dtype=codes.dtype)
    code[regions.ravel()] = codes.ravel()
    size[0] = 0  # what is not seen touches nothing
    edges = _touching(regions)
    owner = np.arange(len(size))
    while True:
        target = _largest_neighbours(edges, size, min_area)
        moving = np.flatnonzero(target >= 0)
        if not len(moving):
            break
        joined = _components(len(size), np.stack([moving, target[moving]]))
        code = code[_roots(joined, size)]
        edges = joined[edges]
        alike = edges[:, code[edges[0]] == code[edges[1]]]
        merged = _components(len(code), alike)
        code = code[np.unique(merged, return_index=True)[1]]
        owner = merged[joined][owner]
        size = np.bincount(merged[joined], weights=size).astype(np.int64)
        edges = _distinct(merged[edges], len(size))
    return np.where(seen, code[owner][regions], codes)


def _touching(regions: NDArray[np.int32]) -> NDArray[np.int64]:
    """Pairs (2, n) of areas that share an edge of a pixel, each once."""
    count = int(regions.max(initial=0)) + 1
    found = [np.empty((2, 0), dtype=np.int64)]
    for row in range(0, len(regions), _STRIP):
        part = regions[row : row + _STRIP + 1]  # and the first row of the next strip
        for one, two in ((part[1:], part[:-1]), (part[:, 1:], part[:, :-1])):
            border = (one != two) & (one > 0) & (two > 0)
            found.append(_distinct(np.stack([one[border], two[border]]).astype(np.int64), count))
    return _distinct(np.concatenate(found, axis=1), count)


def _distinct(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Pairs (2, n) of numbers below ``count``, each once whatever its direction, without those of one number twice."""
    low, high = pairs.min(axis=0), pairs.max(axis=0)
    keys = np.sort((low * count + high)[low != high])  # np.unique of numpy 2.3 takes ten times as long
    keys = keys[np.diff(keys, prepend=-1) > 0]
    return np.stack([keys // count, keys % count])


def _largest_neighbours(edges: NDArray[np.int64], size: NDArray[np.int64], min_area: int) -> NDArray[np.int64]:
    """Largest neighbour of every area that is too small; -1 for the others and for those that have none."""
    ends = np.concatenate([edges, edges[::-1]], axis=1)
    one, two = ends[:, size[ends[0]] < min_area]
    order = np.lexsort((two, -size[two], one))
    one, two = one[order], two[order]
    first = np.diff(one, prepend=-1) > 0
    target = np.full(len(size), -1, dtype=np.int64)
    target[one[first]] = two[first]
    return target


def _components(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number from 0 of the connected component that each of ``count`` nodes belongs to, in the order of their first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(pairs.shape[1], dtype=bool), tuple(pairs)), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def _roots(joined: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Largest area of every component, where all chains of largest neighbours end; the first of equally large ones."""
    order = np.lexsort((np.arange(len(size)), -size, joined))
    return order[np.flatnonzero(np.diff(joined[order], prepend=-1))]
