"""Right-angled outlines of areas such as buildings, each drawn for itself.

A ring is turned to its main direction, in which as much of it as possible runs along two axes (rectilinearity: Žunić
and Rosin, 2003). Its edges become sides along these axes, each where it leaves the ring's area as it is; the shortest
side is taken away, and its neighbours become one, until none is shorter than noise. Of a few directions that outline is
taken that covers the area best with few corners.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import affinity

_STAIRS = 0.9
"""Pixels by which an outline is simplified, so that its stairs become edges."""
_BLURRED = 1.5
"""The same for a second guess at its direction, which bumps lead astray less."""
_SHORTEST = (3.0, 1.5, 6.0)
"""Pixels of a side at least; the next where the outline of the first fits badly."""
_FITS = 0.8
"""Intersection over union with the area from which on an outline fits well, ..."""
_UNFIT = 0.6
"""... and below which the area keeps the outline that it has: right angles say nothing about it."""
_CORNER = 0.01
"""How much better than another an outline must fit for each corner that it has more."""
_ANGLES = np.radians(np.arange(0, 90, 0.5))
_ALONG = np.radians(12)
"""Edges that differ so little from a direction tell it more exactly."""
_SAME = np.radians(1.5)


def right_angled(polygon: Any) -> tuple[Any, float]:
    """Draw a polygon anew with right angles.

    Parameters
    ----------
    polygon:
        A valid polygon, whose coordinates are in pixels.

    Returns
    -------
    A valid polygon, and its intersection over union with the one given. Where right angles fit badly it is that one
    itself. Holes smaller than noise are gone.

    """
    best, value, fit = polygon, -np.inf, 1.0
    for found, share in _candidates(polygon):
        worth = share - _CORNER * shapely.get_num_coordinates(found)
        if share >= _UNFIT and worth > value:
            best, value, fit = found, worth, share
    return best, float(fit)


def _candidates(polygon: Any) -> Iterator[tuple[Any, float]]:
    """Go through right-angled outlines of a polygon, each with its intersection over union."""
    for angle in _directions(polygon):
        for shortest in _SHORTEST:
            found = _squared(polygon, angle, shortest)
            share = 0.0 if found is None else _share(found, polygon)
            if share > 0:
                yield found, share
            if share > _FITS:
                break
    box = shapely.oriented_envelope(polygon)
    scale = (polygon.area / box.area) ** 0.5
    box = affinity.scale(box, scale, scale)
    here, there = polygon.centroid, box.centroid
    box = affinity.translate(box, here.x - there.x, here.y - there.y)
    yield box, _share(box, polygon)


def _share(one: Any, other: Any) -> float:
    common = shapely.intersection(one, other).area
    return float(common / (one.area + other.area - common))


def _directions(polygon: Any) -> Iterator[float]:
    """Guess directions in which a polygon's sides run, as angles below 90°."""
    guesses = [_direction(shapely.simplify(polygon.exterior, pixels)) for pixels in (_STAIRS, _BLURRED)]
    corners = shapely.get_coordinates(shapely.oriented_envelope(polygon))
    guesses.append(float(np.arctan2(*(corners[1] - corners[0])[::-1])))
    for number, guess in enumerate(guesses):
        if all(abs(_turned(guess - other)) > _SAME for other in guesses[:number]):
            yield guess


def _direction(ring: Any) -> float:
    step = np.diff(shapely.get_coordinates(ring), axis=0)
    length, way = np.hypot(*step.T), np.arctan2(step[:, 1], step[:, 0])
    cos, sin = np.abs(np.cos(way - _ANGLES[:, None])), np.abs(np.sin(way - _ANGLES[:, None]))
    angle = float(_ANGLES[((cos + sin) * length).sum(axis=1).argmin()])
    off = _turned(way - angle)
    along = np.abs(off) < _ALONG
    return angle + float(np.average(off[along], weights=length[along] ** 2)) if along.any() else angle


def _turned(angle: Any) -> Any:
    """Bring an angle between two directions of right-angled sides to -45° … 45°."""
    return (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4


def _squared(polygon: Any, angle: float, shortest: float) -> Any | None:
    """Draw a polygon along a direction and across it; None where nothing valid comes of it."""
    result = _ring(polygon.exterior, angle, shortest)
    if result is None:
        return None
    for hole in polygon.interiors:
        if shapely.Polygon(hole).area >= shortest**2:
            gone = _ring(hole, angle, shortest)
            result = shapely.difference(result, shapely.Polygon(hole) if gone is None else gone)
    return result if result.geom_type == "Polygon" and result.is_valid and not result.is_empty else None


def _ring(ring: Any, angle: float, shortest: float) -> Any | None:
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    corners = _corners(shapely.get_coordinates(shapely.simplify(ring, _STAIRS)) @ turn, shortest)
    if corners is None:
        return None
    found = shapely.Polygon(corners @ turn.T)
    return found if found.is_valid and found.area > 0 else None


def _corners(points: NDArray[np.float64], shortest: float) -> NDArray[np.float64] | None:
    """Corners of a closed ring (n, 2) that is drawn along the axes; None where nothing is left of it."""
    step, middle = np.diff(points, axis=0), (points[1:] + points[:-1]) / 2
    # Of a side: its axis, how far it leads along that, and its place on the other axis times this: the area under it.
    sides: list[tuple[int, float, float]] = []
    for axis, along, at in zip((abs(step[:, 1]) > abs(step[:, 0])).astype(int).tolist(), step, middle, strict=True):
        side = (axis, float(along[axis]), float(along[axis] * at[1 - axis]))
        sides = _joined(sides, side)
    if len(sides) > 1 and sides[0][0] == sides[-1][0]:
        sides = _joined([sides.pop()], sides[0]) + sides[1:]
    while len(sides) >= 4:
        flat = next((index for index, side in enumerate(sides) if abs(side[1]) < 1e-9), None)
        place = [0.0 if flat is not None else area / length for _, length, area in sides]
        spans = [abs(place[(index + 1) % len(sides)] - place[index - 1]) for index in range(len(sides))]
        least = spans.index(min(spans)) if flat is None else flat
        if flat is None and (len(sides) == 4 or spans[least] >= shortest):
            if spans[least] < 1e-9:
                return None
            ends = zip([place[-1], *place], sides, place, strict=False)
            return np.array([(before, at) if side[0] == 0 else (at, before) for before, side, at in ends])
        if len(sides) == 4:
            return None
        sides = sides[least:] + sides[:least]
        sides = [*sides[2:-1], *_joined([sides[-1]], sides[1])]
    return None


def _joined(sides: list[tuple[int, float, float]], side: tuple[int, float, float]) -> list[tuple[int, float, float]]:
    """Add a side to a row of them: one of the last one's axis goes on with it."""
    if sides and sides[-1][0] == side[0]:
        axis, length, area = sides[-1]
        return [*sides[:-1], (axis, length + side[1], area + side[2])]
    return [*sides, side]


def on_the_ground(shapes: NDArray[Any], ground: tuple[float, float] | None) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Draw polygons in pixel coordinates with angles that are right on the ground.

    Parameters
    ----------
    shapes:
        (n,) polygons.
    ground:
        Height and width of a pixel on the ground; None: square.

    Returns
    -------
    (n,) polygons in pixel coordinates, and (n,) their intersections over unions with those given.

    """
    down, across = (1.0, 1.0) if ground is None else ground
    x = (across / down) ** 0.5
    drawn, fits = np.empty(len(shapes), dtype=object), np.empty(len(shapes))
    for number, shape in enumerate(shapes):
        found, fits[number] = right_angled(affinity.scale(shape, x, 1 / x, origin=(0, 0)))
        drawn[number] = affinity.scale(found, 1 / x, x, origin=(0, 0))
    return drawn, np.round(fits, 4)
