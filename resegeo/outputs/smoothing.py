"""Smooth outlines out of rings of pixel corners, such that neighbours still share theirs to the bit.

Every edge of a pixel on a border gives one point, its middle. Points are averaged along their ring as by a Gaussian,
and what that shrinks is added again as far as a second averaging tells it (twicing: Tukey, Exploratory Data Analysis,
1977). Corners at which three borders or more meet stay where they are, and so does the edge of the raster; a ring
without any is brought back to its area. What is computed for a point does not depend on the direction in which a ring
is gone through, so that two areas get the same curve although each is looked at alone.

No curve meets another: a point stays within the diamond round its edge, whose tips are the ends of the edge and the
centres of the pixels beside it. Diamonds of different edges share no more than their sides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from resegeo.outputs.borders import Batch

_ROUNDS = 7
"""Averagings with both neighbours by halves; as one they are a Gaussian of 1.9 pixels."""
_WHOLE = 24
"""Edges from which on a curve is smoothed in full, a ring or between corners that stay; shorter ones are less, so that
small areas remain."""
_REACH = 0.43
"""Farthest that a point moves, as the sum of both directions in pixels; the diamond's tips are at 0.5."""
_FLAT = 0.007
"""Points nearer than so many pixels to the line between their neighbours may go ..."""
_THINNINGS = 6
"""... so many times, which together is less than what the reach leaves of the diamonds."""
_STEPS = 1000.37
"""Steps of 1 in which areas are brought back: coarse, so that the order of a sum does not matter."""


def smoothed(batch: Batch, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Smooth the rings of a batch of a raster of ``height`` × ``width`` pixels.

    Returns
    -------
    Points (n, 2) as (x, y) and the ring of each; rings are not closed.

    """
    first, last, ring_of, node = _edges(batch)
    middle = (first + last) / 2
    before, after = _round(ring_of)
    still = (middle[:, 0] == 0) | (middle[:, 1] == 0) | (middle[:, 0] == width) | (middle[:, 1] == height)
    fixed = node | still | still[before]  # the corner where an edge begins
    averaged = (before, after, fixed[:, None], fixed[after][:, None], first, last)
    once = _averaged(middle, *averaged)
    free = ~np.bincount(ring_of, weights=fixed).astype(bool)
    share = np.minimum((_curve_lengths(ring_of, fixed) - 1) / _WHOLE, 1)[:, None]
    points = middle + _within(share * (2 * once - _averaged(once, *averaged) - middle))
    points = middle + _within(_resized(points, middle, ring_of, free) - middle)
    # A corner that stays is a point of its own; those within a straight edge of the raster say nothing.
    bent = ((last - first) != (last - first)[before]).any(axis=1)
    corner = fixed & (node | bent | ~(still & still[before]))
    counts = corner.astype(np.int64) + ~still
    place = np.cumsum(counts) - counts
    total, keep = np.empty((int(counts.sum()), 2)), np.zeros(int(counts.sum()), dtype=bool)
    total[place[corner]], keep[place[corner]] = first[corner], True
    total[(place + corner)[~still]] = points[~still]
    return _thinned(total, np.repeat(ring_of, counts), keep)


def _edges(
    batch: Batch,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Split rings into the edges of pixels: where each begins and ends (n, 2), its ring, whether borders meet first."""
    _, after = _round(batch.ring_of)
    step = batch.points[after] - batch.points
    length = np.abs(step).sum(axis=1)
    side = np.repeat(np.arange(len(length)), length)
    place = np.arange(len(side)) - np.repeat(np.cumsum(length) - length, length)
    way = np.sign(step)[side]
    first = batch.points[side] + way * place[:, None]
    node = (place == 0) & batch.meeting[side]
    return first.astype(np.float64), (first + way).astype(np.float64), batch.ring_of[side], node


def _curve_lengths(ring_of: NDArray[np.int64], fixed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the edges of the curve that each edge belongs to: from one corner that stays to the next, or a ring."""
    first = np.diff(ring_of, prepend=-1) > 0
    curve = np.cumsum(fixed | first) - 1
    # What comes before a ring's first corner that stays goes on from its last one.
    last = curve[np.append(np.flatnonzero(first)[1:], len(curve)) - 1]
    joined = np.arange(int(curve[-1]) + 1)
    leading = first & ~fixed
    joined[curve[leading]] = last[ring_of[leading]]
    curve = joined[curve]
    return np.asarray(np.bincount(curve)[curve])


def _averaged(
    points: NDArray[np.float64],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    start: NDArray[np.bool_],
    end: NDArray[np.bool_],
    first: NDArray[np.float64],
    last: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Average points with their neighbours, which are corners where these stay."""
    for _ in range(_ROUNDS):
        beside = np.where(start, first, points[before]) + np.where(end, last, points[after])
        points = points / 2 + beside / 4
    return points


def _within(moves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shorten moves from the middle of an edge to what its diamond allows."""
    far = np.abs(moves).sum(axis=1)
    return np.asarray(moves * (_REACH / np.maximum(far, _REACH))[:, None])


def _resized(
    points: NDArray[np.float64], middle: NDArray[np.float64], ring_of: NDArray[np.int64], free: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Bring rings without a corner that stays back to the area of their pixels, round the middle of their extent."""
    starts = np.flatnonzero(np.diff(ring_of, prepend=-1))
    _, after = _round(ring_of)

    def areas(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of rings of points that were moved near the origin, so that little is lost."""
        x, y = xy.T
        return np.bincount(ring_of, weights=x * y[after] - x[after] * y) / 2

    low, high = np.minimum.reduceat(middle, starts), np.maximum.reduceat(middle, starts)
    centre = ((low + high) / 2)[ring_of]
    # The middles of a ring's edges leave out an eighth of a pixel at each corner that turns out, and add one at others.
    pixels = np.abs(areas(middle - centre)) + 0.5
    scale = np.round(np.sqrt(pixels / np.maximum(np.abs(areas(points - centre)), 1e-6)) * _STEPS) / _STEPS
    return np.where(free[ring_of][:, None], centre + (points - centre) * scale[ring_of][:, None], points)


def _round(ring_of: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the points before and after each along its ring."""
    count = len(ring_of)
    first = np.flatnonzero(np.diff(ring_of, prepend=-1))
    last = np.append(first[1:], count) - 1
    before, after = np.arange(count) - 1, np.arange(count) + 1
    before[first], after[last] = last, first
    return before, after


def _thinned(
    points: NDArray[np.float64], ring_of: NDArray[np.int64], keep: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Leave out points that lie on a line with their neighbours, never two that follow one another at once.

    Those next to a corner that stays are kept.
    """
    before, after = _round(ring_of)
    keep = keep | keep[before] | keep[after]
    for _ in range(_THINNINGS):
        before, after = _round(ring_of)
        # Equal to the bit whichever of the neighbours comes first.
        chord, way = points[after] - points[before], points - (points[after] + points[before]) / 2
        span = np.hypot(chord[:, 0], chord[:, 1])
        flat = ~keep & (np.abs(chord[:, 0] * way[:, 1] - chord[:, 1] * way[:, 0]) < _FLAT * span)
        lot = np.where(flat, _lot(points), 0)
        gone = flat & (lot > lot[before]) & (lot > lot[after])
        points, ring_of, keep = points[~gone], ring_of[~gone], keep[~gone]
    return points, ring_of


def _lot(points: NDArray[np.float64]) -> NDArray[Any]:
    """Draw a number above 0 for every point, by its place alone."""
    bits = np.ascontiguousarray(points).view(np.uint64)
    mixed = (bits[:, 0] * np.uint64(0x9E3779B97F4A7C15)) ^ (bits[:, 1] * np.uint64(0xC2B2AE3D27D4EB4F))
    mixed ^= mixed >> np.uint64(29)
    return (mixed * np.uint64(0xBF58476D1CE4E5B9)) | np.uint64(1)
