"""Two grids of pixels compared: whether a pixel of one lies where the same pixel of the other does."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray

SLACK = 0.1
"""Share of a pixel by which corners may miss each other."""

Difference = Literal["size", "place", "crs"]


def difference(
    shape: tuple[int, int], transform: Affine | None, crs: Any, other: tuple[int, int], there: Affine | None, its: Any
) -> Difference | None:
    """Say in what a grid (its (rows, columns), transform and CRS) differs from another; None where pixels agree.

    Where one has no transform, sizes alone count; where one has no CRS, coordinates are taken to be in the other's.
    CRSs that put the corners at the same coordinates are the same, whatever their names.
    """
    if shape != other:
        return "size"
    if transform is None or there is None:
        return None
    height, width = shape
    corners = [(x, y) for x in (0, width) for y in (0, height)]
    try:
        back = ~transform
    except ValueError:  # no area: nothing can be told
        return None if transform == there else "place"
    moved = np.array([back @ (there @ corner) for corner in corners])
    if not (np.abs(moved - corners) < SLACK).all():
        return "place"
    places = np.array([there @ corner for corner in corners])
    close = SLACK * float(np.hypot(transform.a, transform.d))
    return None if _same_crs(places, its, crs, close) else "crs"


def _same_crs(places: NDArray[np.float64], there: Any, here: Any, close: float) -> bool:
    """Whether coordinates (n, 2) mean the same in two CRSs, which may have different names, or heights beside."""
    import pyproj

    if there is None or here is None or there == here:
        return True
    try:
        forth = pyproj.Transformer.from_crs(there.to_wkt(), here.to_wkt(), always_xy=True)
        moved = np.stack(forth.transform(*places.T), axis=1)
    except pyproj.exceptions.ProjError:
        return False
    return np.allclose(moved, places, rtol=0, atol=close)


def name_of(crs: Any) -> str:
    """Return the name by which a CRS calls itself."""
    found = re.match(r'\w+\["([^"]+)', crs.to_wkt())
    return found.group(1) if found else "unnamed"
