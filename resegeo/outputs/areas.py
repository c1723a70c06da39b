"""Areas of polygons on the ground: planar in a projected CRS, on the ellipsoid in a geographic or cylindrical one."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def areas(polygons: NDArray[Any], crs: Any) -> NDArray[np.float64]:
    """Areas in m² of polygons whose exteriors run counter-clockwise and whose holes clockwise.

    In a geographic CRS, of which edges are straight in longitude and latitude: a parallel is no geodesic. So they are
    in Mercator's and other projections that stretch the map without end (see :func:`stretched`), whose plane tells
    nothing of areas. NaN without a CRS, and in one that is neither projected nor geographic.
    """
    if crs is not None and crs.is_projected and len(polygons):
        plate = stretched(crs)
        if plate is not None:
            polygons, crs = _on_plate(polygons, crs, plate), CRS.from_wkt(plate.to_wkt())
    if crs is not None and crs.is_projected:
        return np.asarray(shapely.area(polygons) * crs.linear_units_factor[1] ** 2, dtype=np.float64)
    geod = pyproj.CRS.from_wkt(crs.to_wkt()).get_geod() if crs is not None and crs.is_geographic else None
    if geod is None:
        return np.full(len(polygons), np.nan)
    rings, polygon_of = shapely.get_rings(polygons, return_index=True)
    places, ring_of = shapely.get_coordinates(rings, return_index=True)
    places = places * crs.units_factor[1]
    edge = (ring_of[1:] == ring_of[:-1]) & (places[1:, 0] != places[:-1, 0])  # below a meridian is nothing
    start, end = places[:-1][edge], places[1:][edge]
    below = _mean_zone(start[:, 1], end[:, 1], geod.es) * (end[:, 0] - start[:, 0])
    total = np.bincount(polygon_of[ring_of[:-1][edge]], weights=below, minlength=len(polygons))
    return np.asarray(-(geod.a**2) * total, dtype=np.float64)


def perimeters(polygons: NDArray[Any], crs: Any) -> NDArray[np.float64]:
    """Lengths in m of the borders of polygons, holes included: planar, or of geodesics where :func:`areas` is no plane.

    NaN without a CRS, and in one that is neither projected nor geographic.
    """
    if crs is not None and crs.is_projected and len(polygons):
        plate = stretched(crs)
        if plate is not None:
            polygons, crs = _on_plate(polygons, crs, plate), CRS.from_wkt(plate.to_wkt())
    if crs is not None and crs.is_projected:
        return np.asarray(shapely.length(polygons) * crs.linear_units_factor[1], dtype=np.float64)
    geod = pyproj.CRS.from_wkt(crs.to_wkt()).get_geod() if crs is not None and crs.is_geographic else None
    if geod is None:
        return np.full(len(polygons), np.nan)
    rings, polygon_of = shapely.get_rings(polygons, return_index=True)
    places, ring_of = shapely.get_coordinates(rings, return_index=True)
    places = np.degrees(places * crs.units_factor[1])
    places[:, 1] = np.clip(places[:, 1], -90, 90)  # a pixel's edge may lie half a pixel beyond the pole
    edge = ring_of[1:] == ring_of[:-1]
    start, end = places[:-1][edge], places[1:][edge]
    along = geod.inv(*start.T, *end.T)[2]
    total = np.bincount(polygon_of[ring_of[:-1][edge]], weights=along, minlength=len(polygons))
    return np.asarray(total, dtype=np.float64)


def stretched(crs: Any) -> Any | None:
    """Return the geographic CRS of a cylindrical projection that keeps no areas, such as Mercator's; None of others.

    Their parallels and meridians are straight, so that a polygon along the pixels' edges is one in longitude and
    latitude too.
    """
    known = pyproj.CRS.from_wkt(crs.to_wkt())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PROJ strings do not tell all
        projection = known.to_dict().get("proj") if known.is_projected else None
    return known.geodetic_crs if projection in ("merc", "webmerc", "eqc", "mill", "gall") else None


def _on_plate(polygons: NDArray[Any], crs: Any, plate: Any) -> NDArray[Any]:
    """Bring polygons from a cylindrical projection to longitude and latitude, which go on beyond 180°."""
    forth = pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(crs.to_wkt()), plate, always_xy=True)
    # Longitude grows in proportion to x: measured where no turn is in between.
    west, east = forth.transform([0.0, 1e6], [0.0, 0.0])[0]
    turn = 2 * np.pi / plate.axis_info[0].unit_conversion_factor
    slope = ((east - west + turn / 2) % turn - turn / 2) / 1e6

    def move(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        latitude = forth.transform(np.zeros(len(xy)), xy[:, 1])[1]
        return np.column_stack([west + slope * xy[:, 0], latitude])

    return np.asarray(shapely.transform(polygons, move), dtype=object)


def _mean_zone(south: NDArray[np.float64], north: NDArray[np.float64], es: float) -> NDArray[np.float64]:
    """Mean of :func:`_zone` along edges from one latitude to another, in proportion to longitude."""
    mean = _zone(south, es)
    sloping = np.flatnonzero(south != north)
    if sloping.size:
        middle, half = (north + south)[sloping] / 2, (north - south)[sloping] / 2
        parts = (weight / 2 * _zone(middle + half * node, es) for node, weight in zip(_NODES, _WEIGHTS, strict=True))
        mean[sloping] = sum(parts)
    return mean


def _zone(latitude: NDArray[np.float64], es: float) -> NDArray[np.float64]:
    """Area from the equator to a latitude, a radian of longitude wide, on an ellipsoid of equatorial radius 1.

    Source: Snyder, Map Projections: A Working Manual (1987), equation 3-12, halved. A pixel's edge may lie half a pixel
    beyond the pole, where there is nothing.
    """
    sine = np.sin(np.clip(latitude, -np.pi / 2, np.pi / 2))
    if es == 0:
        return sine
    e = np.sqrt(es)
    return np.asarray((1 - es) / 2 * (sine / (1 - es * sine**2) + np.arctanh(e * sine) / e))
