"""Ground control points: which map positions they give pixels, and whether they settle any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer

from resegeo.scene.source import Complaints, GeoReference

_FLAT = 1e-6
"""Of points within a unit square: the relative width below which they lie on a line."""


def fit_affine(points: Sequence[GroundControlPoint]) -> Affine | None:
    """Fit the affine transform from pixels to the map by least squares; None where the points do not settle one.

    Two points settle a transform without rotation, as GDAL has it; more must not lie on a line. Whether they do is not
    asked of GDAL's own fit, as rasterio passes on what lies in memory where that fails.
    """
    pixels, places = _both(points)
    if len(points) < 2 or not (_spread(pixels) and _spread(places)):
        return None
    if len(points) == 2:
        scale = (places[1] - places[0]) / (pixels[1] - pixels[0])
        shift = places[0] - scale * pixels[0]
        return Affine(scale[0], 0, shift[0], 0, scale[1], shift[1])
    pixel, place = pixels.mean(axis=0), places.mean(axis=0)
    linear = np.linalg.lstsq(pixels - pixel, places - place, rcond=None)[0].T
    shift = place - linear @ pixel
    return Affine(linear[0, 0], linear[0, 1], shift[0], linear[1, 0], linear[1, 1], shift[1])


def mapped(points: Sequence[GroundControlPoint], pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring pixel positions (n, 2), column and row from the upper left corner, to the map: x and y (n, 2).

    By GDAL's polynomial; where the points do not settle one of its order (six in two rows, say), by the affine fit.

    Raises
    ------
    ValueError:
        Where they do not settle that either.

    """
    if not len(pixels):
        return pixels
    affine = fit_affine(points)
    if affine is None:
        raise ValueError("these control points settle no transform")
    try:
        with rasterio.Env(), Complaints(), GCPTransformer(list(points)) as transformer:
            return np.stack(transformer.xy(pixels[:, 1], pixels[:, 0], offset="ul"), axis=1)
    except Exception:  # rasterio's errors from GDAL's transformers have no public base
        columns, rows = pixels.T
        return np.stack(affine @ (columns, rows), axis=1)


def missed_by(points: Sequence[GroundControlPoint]) -> float:
    """Root mean square of the distances between the points and where :func:`mapped` puts their pixels."""
    pixels, places = _both(points)
    return float(np.sqrt(((mapped(points, pixels) - places) ** 2).sum(axis=1).mean()))


def unplaced(where: GeoReference) -> str | None:
    """Say why nothing can be drawn on the map of a georeference, as the end of a sentence; None where it can."""
    if where.kind == "rpcs":
        return "is georeferenced by RPCs alone: without an elevation model there are no polygons"
    if where.kind == "gcps" and fit_affine(where.gcps) is None:
        count = len(where.gcps)
        those = (
            "one ground control point, which does"
            if count == 1
            else f"{count} ground control points in a line, which do"
        )
        return f"has {those} not tell where its pixels lie: there are no polygons"
    return None


def _both(points: Sequence[GroundControlPoint]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel (column, row) and map positions (x, y) of the points, each (n, 2)."""
    pixels = np.array([(point.col, point.row) for point in points], dtype=np.float64)
    places = np.array([(point.x, point.y) for point in points], dtype=np.float64)
    return pixels, places


def _spread(places: NDArray[np.float64]) -> bool:
    """Whether positions (n, 2) differ in both directions and, if more than two, do not lie on a line."""
    with np.errstate(all="ignore"):  # a file may say that a point lies at infinity, or nowhere
        span = np.ptp(places, axis=0)
        unit = (places - places.mean(axis=0)) / span  # pixels of a long strip lie on no line
    if not (span > 0).all() or not np.isfinite(unit).all():
        return False
    if len(places) == 2:
        return True
    wide, narrow = np.linalg.svd(unit, compute_uv=False)
    return bool(narrow > _FLAT * wide)
