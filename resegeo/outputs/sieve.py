"""Small areas join a neighbour until none is left that has one.

GDAL's sieve leaves a small area where all that surrounds it is small too, so that among many small areas most stay.
Here areas are joined in rounds, on the graph of which area touches which: every round lets go of at least half of
those that are too small. The raster is gone through in strips; the graph alone is in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resegeo.outputs.strips import Areas, Codes, components, distinct


def without_small(
    codes: Codes, seen: Callable[[NDArray[Any]], NDArray[np.bool_]], min_area: int, rows: int | None = None
) -> Codes:
    """Let every area (4-connected) of fewer than ``min_area`` pixels join its largest neighbour.

    Where that one is small too, the two join whatever it joins; where each is the other's largest neighbour, both take
    the larger one's code, and the lot goes on as one area. Of equally large ones the first in reading order counts.

    Parameters
    ----------
    codes:
        The codes.
    seen:
        Which of them take part; the others neither change nor count, so that an area surrounded by them stays.
    min_area:
        Pixels.
    rows:
        Of a strip; the result does not depend on it.

    Returns
    -------
    The new codes. Whoever goes through them in strips as high reads each strip of the old ones just once.

    """
    areas = Areas.find(codes, seen, rows)
    new = _new_codes(areas, min_area)

    def read(top: int, bottom: int) -> NDArray[Any]:
        found = []
        for index in range(top // areas.rows, (bottom - 1) // areas.rows + 1):
            start = index * areas.rows
            part, numbers = areas.strip(index)
            found.append(np.where(numbers > 0, new[numbers], part)[max(0, top - start) : bottom - start])
        return found[0] if len(found) == 1 else np.concatenate(found)

    return Codes(codes.height, codes.width, read)


def without_small_areas(codes: NDArray[Any], seen: NDArray[np.bool_], min_area: int) -> NDArray[Any]:
    """Do as :func:`without_small` with codes (h, w) in memory, of which ``seen`` (h, w) take part."""
    height = max(1, len(codes))  # one strip, since what is seen is told by place here
    return without_small(Codes.of(codes), lambda part: seen, min_area, height).read(0, height)


def _new_codes(areas: Areas, min_area: int) -> NDArray[Any]:
    """Code of every area once the small ones have joined others."""
    size, code = areas.sizes.copy(), areas.values
    edges = _touching(areas)
    owner = np.arange(len(size))
    while True:
        target = _largest_neighbours(edges, size, min_area)
        moving = np.flatnonzero(target >= 0)
        if not len(moving):
            break
        joined = components(len(size), np.stack([moving, target[moving]]))
        code = code[_roots(joined, size)]
        edges = joined[edges]
        alike = edges[:, code[edges[0]] == code[edges[1]]]
        merged = components(len(code), alike)
        code = code[np.unique(merged, return_index=True)[1]]
        owner = merged[joined][owner]
        size = np.bincount(merged[joined], weights=size).astype(np.int64)
        edges = distinct(merged[edges], len(size))
    return np.asarray(code[owner])


def _touching(areas: Areas) -> NDArray[np.int64]:
    """Pairs (2, n) of areas that share an edge of a pixel, each once."""
    count = len(areas.sizes)
    found = [np.empty((2, 0), dtype=np.int64)]
    above: NDArray[np.int32] | None = None
    for _, _, numbers in areas.strips():
        pairs = [(numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])]
        if above is not None:
            pairs.append((numbers[:1], above))
        for one, two in pairs:
            border = (one != two) & (one > 0) & (two > 0)
            found.append(distinct(np.stack([one[border], two[border]]).astype(np.int64), count))
        above = numbers[-1:].copy()
    return distinct(np.concatenate(found, axis=1), count)


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


def _roots(joined: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Largest area of every component, where all chains of largest neighbours end; the first of equally large ones."""
    order = np.lexsort((np.arange(len(size)), -size, joined))
    return order[np.flatnonzero(np.diff(joined[order], prepend=-1))]
