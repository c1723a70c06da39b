"""Class raster to valid polygons without overlaps, gaps or missing nodes.

GDAL's polygonizer leaves out nodes where three regions meet, so that its polygons are no valid
coverage. The missing nodes are inserted in integer pixel coordinates, polygons are simplified there as
a coverage, and the transform is applied once: shared vertices stay equal to the bit.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from resegeo.classes.class_list import ClassList
from resegeo.clip.blending import SCORE_STEPS
from resegeo.errors import ResegeoError, notice
from resegeo.outputs.areas import areas, stretched
from resegeo.outputs.raster import read_class_raster_info, sieved
from resegeo.outputs.sieve import label_areas
from resegeo.scene.formats import open_raster
from resegeo.scene.gcps import mapped, missed_by, unplaced
from resegeo.scene.grids import name_of
from resegeo.scene.source import GeoReference

_STRIP = 512
"""Rows that are looked at at once; of scores a multiple of it where there are very many regions."""


def polygonize(
    path: Path,
    *,
    classes: ClassList | None = None,
    keep_background: bool = False,
    min_area: int = 0,
    simplify: float = 0.0,
    scores: Any | None = None,
) -> gpd.GeoDataFrame:
    """Draw one polygon a connected region of a class raster; nodata and unprocessed are never drawn.

    Parameters
    ----------
    path:
        A class raster of this program.
    classes:
        The class list; by default the one among the raster's tags.
    keep_background:
        Draw background too.
    min_area:
        Regions of fewer pixels join a neighbour first, see :func:`resegeo.outputs.raster.sieved`.
    simplify:
        Tolerance in pixels of a simplification that keeps shared borders shared; 0: pixel edges.
    scores:
        Array (h, w) of the pixels' scores, see :func:`resegeo.clip.blending.class_scores`, which may be one on disk.

    Returns
    -------
    class_id, class_name, area_m2 (planar in a projected CRS, on the ellipsoid in a geographic one, NaN
    without CRS), with ``scores`` score_mean (the mean probability of the best class of its pixels, 0 … 1),
    and geometry in the raster's CRS; without CRS and transform in pixels, y pointing up. Ordered by the
    first pixel of each region in reading order; exteriors run counter-clockwise.

    Raises
    ------
    ResegeoError:
        For a scene with RPCs alone or with control points that settle no place, and where the polygons would not be
        a valid coverage.

    """
    tagged, where = read_class_raster_info(path)
    classes = classes or tagged
    why = unplaced(where)
    if why is not None:
        raise ResegeoError(f"{path} {why}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with open_raster(str(path)) as raster:
                codes = raster.read(1)
    except RasterioError as error:
        raise ResegeoError(f"{path} is damaged: its pixels cannot be read. Run `resegeo segment` again.") from error
    codes = sieved(codes, classes, min_area)
    seen = (codes != classes.nodata) & (codes != classes.unprocessed)
    wanted = seen if keep_background else seen & (codes != 0)
    means = {} if scores is None else {"score_mean": _score_means(codes, wanted, scores)}
    regions, values = _regions(codes, wanted)
    sound = _covers(regions, wanted)
    if simplify > 0 and len(regions):
        regions = shapely.coverage_simplify(regions, simplify)
    if not sound or not shapely.is_valid(regions).all():
        raise ResegeoError(f"The polygons of {path} overlap or leave gaps: a defect of resegeo, please report it.")
    placed, crs = _place(regions, where, path)
    # A transform with rows downwards turns rings round; simplification leaves them as it likes. Areas
    # subtract holes only where they run against their exterior.
    placed = np.asarray(shapely.orient_polygons(placed), dtype=object)
    if len(placed) and crs is not None and crs.is_projected and stretched(crs) is not None:
        notice(
            f"{path} is in {name_of(crs)!r}, whose plane tells no areas: area_m2 is that on the ellipsoid.",
        )
    frame = gpd.GeoDataFrame(
        {
            "class_id": values.astype(np.int32),
            "class_name": np.array([classes.name_of(int(code)) for code in values], dtype=object),
            "area_m2": areas(placed, crs),
            **means,
        },
        geometry=gpd.GeoSeries(placed, crs=None if crs is None else crs.to_wkt()),
    )
    return frame.astype({"class_name": "str"})


def _score_means(codes: NDArray[Any], wanted: NDArray[np.bool_], scores: Any) -> NDArray[np.float64]:
    """Mean probability of each 4-connected region, in the order of their first pixels."""
    regions = label_areas(codes, wanted)
    count = int(regions.max(initial=0)) + 1
    sums, sizes = np.zeros(count), np.zeros(count)
    strip = max(_STRIP, _STRIP * int(count // max(1, _STRIP * codes.shape[1])))
    for row in range(0, len(regions), strip):
        part = regions[row : row + strip].ravel()
        sums += np.bincount(part, weights=np.asarray(scores[row : row + strip]).ravel(), minlength=count)
        sizes += np.bincount(part, minlength=count)
    return np.round(sums[1:] / sizes[1:] / SCORE_STEPS, 4)


def _regions(codes: NDArray[Any], wanted: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Polygons of all 4-connected regions in pixel coordinates (x = col, y = row), nodes complete."""
    rings: list[NDArray[np.int64]] = []
    ring_owner: list[int] = []
    values: list[int] = []
    for geometry, value in rasterio.features.shapes(codes, mask=wanted, connectivity=4):
        for ring in geometry["coordinates"]:
            rings.append(np.asarray(ring, dtype=np.int64))
            ring_owner.append(len(values))
        values.append(int(value))
    if not values:
        return np.empty(0, dtype=object), np.empty(0, dtype=np.int64)
    lengths = np.array([len(ring) for ring in rings])
    points, ring_of = _insert_nodes(np.concatenate(rings), np.repeat(np.arange(len(rings)), lengths), codes, wanted)
    owner = np.asarray(ring_owner)
    order = _reading_order(points, owner[ring_of], codes.shape[1])
    return _polygons(points, ring_of, owner)[order], np.asarray(values, dtype=np.int64)[order]


def _covers(regions: NDArray[Any], wanted: NDArray[np.bool_]) -> bool:
    """Tell whether polygons in pixel coordinates cover the wanted pixels once, with every node on both sides.

    So it is if their areas add up, every edge belongs to at most two rings, and those of one ring alone are as long as
    the border of what is wanted. GEOS's own check compares each polygon with all of each neighbour, which takes minutes
    where one polygon (a sea, a forest) has thousands of neighbours.
    """
    if shapely.area(regions).sum() != np.count_nonzero(wanted):
        return False
    points, ring_of = shapely.get_coordinates(shapely.get_rings(regions), return_index=True)
    one, two = points[:-1].astype(np.int64), points[1:].astype(np.int64)
    edge = ring_of[:-1] == ring_of[1:]
    low = np.minimum(one, two)[edge]
    across, down = np.abs(two - one)[edge].T
    if (across * down).any():
        return False
    where = (low[:, 1] * (wanted.shape[1] + 1) + low[:, 0]) * 2 + (across > 0)
    length = across + down
    order = np.lexsort((length, where))
    where, length = where[order], length[order]
    first = np.flatnonzero(np.diff(where, prepend=-1) | np.diff(length, prepend=-1))
    uses = np.diff(first, append=len(where))
    framed = np.pad(wanted, 1)
    border = np.count_nonzero(framed[1:] != framed[:-1]) + np.count_nonzero(framed[:, 1:] != framed[:, :-1])
    return bool((uses <= 2).all() and length[first[uses == 1]].sum() == border)


def _reading_order(points: NDArray[np.int64], owner: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Order polygons by their first pixel, whose upper left corner is a vertex that no other polygon starts at."""
    keys = points[:, 1] * (width + 1) + points[:, 0]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    return np.argsort(np.minimum.reduceat(keys, starts))


def _polygons(points: NDArray[np.int64], ring_of: NDArray[np.int64], owner: NDArray[np.int64]) -> NDArray[Any]:
    """Assemble polygons: the first ring of an owner is its shell, the others its holes."""
    rings = np.asarray(shapely.linearrings(points.astype(np.float64), indices=ring_of))
    shell = np.ones(len(owner), dtype=bool)
    shell[1:] = owner[1:] != owner[:-1]
    result = np.asarray(shapely.polygons(rings[shell]))
    with_holes = np.unique(owner[~shell])
    if with_holes.size:
        chosen = np.isin(owner, with_holes)
        dense = np.searchsorted(with_holes, owner[chosen])
        result[with_holes] = shapely.polygons(rings[chosen], indices=dense)
    return result


def _insert_nodes(
    points: NDArray[np.int64], ring_of: NDArray[np.int64], codes: NDArray[Any], wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Insert into every edge the T-junctions that lie on it: corners where a straight border meets another.

    Points are (x, y), rings closed; returns points and their ring, in the same order.
    """
    height, width = codes.shape
    node_y, node_x = _junctions(codes, wanted)
    by_row = np.sort(node_y * (width + 1) + node_x)
    by_col = np.sort(node_x * (height + 1) + node_y)
    start, end = points[:-1], points[1:]
    edge = ring_of[:-1] == ring_of[1:]  # not from one ring to the next
    level = start[:, 1] == end[:, 1]

    def between(keys: NDArray[np.int64], one: NDArray[np.int64], two: NDArray[np.int64]) -> tuple[Any, Any]:
        return np.searchsorted(keys, np.minimum(one, two), "right"), np.searchsorted(keys, np.maximum(one, two), "left")

    row_key = (width + 1) * start[:, 1]
    col_key = (height + 1) * start[:, 0]
    row_low, row_high = between(by_row, row_key + start[:, 0], row_key + end[:, 0])
    col_low, col_high = between(by_col, col_key + start[:, 1], col_key + end[:, 1])
    low, high = np.where(level, row_low, col_low), np.where(level, row_high, col_high)
    extra = np.where(edge, np.maximum(high - low, 0), 0)
    # Each point is followed by the nodes of the edge that it begins.
    place = np.concatenate([[0], np.cumsum(1 + extra)])
    total = np.empty((int(place[-1]) + 1, 2), dtype=np.int64)
    total[place] = points
    owner = np.repeat(np.arange(len(extra)), extra)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(extra) - extra, extra)
    forward = np.where(level, end[:, 0] > start[:, 0], end[:, 1] > start[:, 1])[owner]
    index = np.where(forward, low[owner] + step, high[owner] - 1 - step)
    x, y = start[owner, 0], start[owner, 1]
    flat = level[owner]
    if len(owner):
        row_at = by_row[np.minimum(index, len(by_row) - 1)] % (width + 1)
        col_at = by_col[np.minimum(index, len(by_col) - 1)] % (height + 1)
        total[place[owner] + 1 + step] = np.stack([np.where(flat, row_at, x), np.where(flat, y, col_at)], axis=1)
    rings = np.empty(len(total), dtype=np.int64)
    rings[place] = ring_of
    rings[place[owner] + 1 + step] = ring_of[owner]
    return total, rings


def _junctions(codes: NDArray[Any], wanted: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pixel corners at which three regions meet, found in strips of rows."""
    height, width = codes.shape
    found = []
    for row in range(0, height + 1, _STRIP):
        last = min(row + _STRIP, height + 1)  # corners row … last - 1 lie between pixels row - 1 … last - 1
        labels = np.full((last - row + 1, width + 2), -1, dtype=np.int32)
        top, bottom = max(row - 1, 0), min(last, height)
        inside = slice(top, bottom)
        labels[top - row + 1 : bottom - row + 1, 1:-1] = np.where(wanted[inside], codes[inside].astype(np.int32), -1)
        a, b, d, e = labels[:-1, :-1], labels[:-1, 1:], labels[1:, :-1], labels[1:, 1:]
        junction = ((a == b) & (d != e) & (a != d) & (a != e)) | ((d == e) & (a != b) & (d != a) & (d != b))
        junction |= ((a == d) & (b != e) & (a != b) & (a != e)) | ((b == e) & (a != d) & (b != a) & (b != d))
        y, x = np.nonzero(junction)
        found.append((y + row, x))
    ys, xs = zip(*found, strict=True)
    return np.concatenate(ys), np.concatenate(xs)


def _place(regions: NDArray[Any], where: GeoReference, path: Path) -> tuple[NDArray[Any], Any]:
    """Move polygons from pixels to where the scene lies; returns them and their CRS."""
    transform = where.transform
    if transform is not None:

        def move(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            x, y = xy[:, 0], xy[:, 1]
            t = transform
            return np.stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f], axis=1)

        return shapely.transform(regions, move), where.crs
    if where.gcps:
        _report_residual(where, path)
        return shapely.transform(regions, lambda xy: mapped(where.gcps, xy)), where.gcps_crs
    return shapely.transform(regions, lambda xy: xy * (1, -1)), where.crs


def _report_residual(where: GeoReference, path: Path) -> None:
    """Say how far the polygons' transform passes from the control points."""
    unit = "" if where.gcps_crs is None else f" {where.gcps_crs.units_factor[0]}"
    notice(
        f"{path}: polygons are placed by {len(where.gcps)} ground control points, missed by "
        f"{missed_by(where.gcps):.3g}{unit} (RMS).",
    )
