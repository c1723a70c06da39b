"""Class raster to valid polygons without overlaps, gaps or missing nodes.

GDAL's polygonizer leaves out nodes where three regions meet, so that its polygons are no valid
coverage, and holds the whole raster. Here borders are traced strip by strip with all nodes, polygons are made in
batches of integer pixel coordinates, and the transform is applied once: shared vertices stay equal to the bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from resegeo.classes.class_list import ClassList
from resegeo.clip.blending import SCORE_STEPS
from resegeo.errors import ResegeoError, notice
from resegeo.outputs.areas import areas, perimeters, stretched
from resegeo.outputs.borders import Borders
from resegeo.outputs.raster import read_class_raster_info, sieved_codes
from resegeo.outputs.right_angles import on_the_ground
from resegeo.outputs.smoothing import smoothed
from resegeo.outputs.strips import Areas, Codes
from resegeo.scene.formats import open_raster
from resegeo.scene.gcps import mapped, missed_by, unplaced
from resegeo.scene.grids import name_of
from resegeo.scene.resampling import pixel_on_the_ground
from resegeo.scene.source import GeoReference
from resegeo.units import area_in_pixels, length_in_pixels

_VERTICES = 300_000
"""Vertices of a batch of polygons, or those of one polygon that has more."""

_EDGES = 8
"""Edges of pixels that there may well be for a vertex: smoothing takes memory by these."""

_CACHE_BYTES = 16 * 2**20
"""GDAL's block cache at least: strips are parts of a row of blocks, and each is read a few times."""

TEXTS = ("class_name", "prompts", "scene")
"""Fields of text. Names of fields have ten characters at most, as a Shapefile wants it."""

Place = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Drawing:
    """The polygons of a class raster, made in batches each time they are gone through."""

    path: Path
    classes: ClassList
    borders: Borders
    place: Place
    """From pixels (n, 2) to where the scene lies."""
    crs: Any
    score_mean: NDArray[np.float64] | None
    """Of every polygon."""
    scene: str
    """The scene that the class raster was made of."""
    smooth: bool
    """Whether outlines are smoothed."""
    simplified: NDArray[Any] | None
    """Polygons in pixel coordinates, where borders were simplified: a simplification needs all at once."""
    ground: tuple[float, float] | None
    """Height and width of a pixel on the ground; None where the scene does not tell."""
    regularize: frozenset[int]
    """Codes of the classes that get right-angled outlines too."""

    @property
    def class_ids(self) -> frozenset[int]:
        """Codes of the classes that occur."""
        return frozenset(np.unique(self.borders.areas.values[1:]).tolist())

    @property
    def regularized(self) -> Regularized | None:
        """Right-angled outlines of the classes that get some; None where none was asked for."""
        return Regularized(self) if self.regularize else None

    def __len__(self) -> int:
        """Return the number of polygons."""
        return len(self.borders.areas.sizes) - 1

    def __iter__(self) -> Iterator[gpd.GeoDataFrame]:
        """Go through the polygons in frames, at least one, such as :func:`polygonize` returns for all of them."""
        first = 0

        def framed(shapes: NDArray[Any]) -> gpd.GeoDataFrame:
            nonlocal first
            # A transform with rows downwards turns rings round; simplification leaves them as it likes. Areas
            # subtract holes only where they run against their exterior.
            which = np.arange(first, first + len(shapes))
            first += len(shapes)
            return self.frame(np.asarray(shapely.orient_polygons(shapes), dtype=object), which)

        # `map` keeps nothing of what it has handed on, where a loop of a generator would: polygons may be large.
        return map(framed, self._placed() if len(self) else [np.empty(0, dtype=object)])

    def _placed(self) -> Iterator[NDArray[Any]]:
        if self.simplified is None:
            yield from _shapes(self.borders, self.smooth, self.place)
            return
        sizes = np.cumsum(shapely.get_num_coordinates(self.simplified))
        start = 0
        while start < len(sizes):
            before = sizes[start - 1] if start else 0
            end = max(start + 1, int(np.searchsorted(sizes, before + _VERTICES)))
            yield np.asarray(shapely.transform(self.simplified[start:end], self.place), dtype=object)
            start = end

    def frame(self, shapes: NDArray[Any], which: NDArray[np.int64]) -> gpd.GeoDataFrame:
        """Return shapes (n,) with the fields of the areas that they are of, ``which`` (n,) counted from 0."""
        values = self.borders.areas.values[1:][which]
        columns: dict[str, Any] = {
            "class_id": values.astype(np.int32),
            "class_name": np.array([self.classes.name_of(int(code)) for code in values], dtype=object),
            "area_m2": areas(shapes, self.crs),
            "perim_m": perimeters(shapes, self.crs),
        }
        if self.score_mean is not None:
            columns["score_mean"] = self.score_mean[which]
        prompts = {code: self.classes.prompts_of(code) for code in np.unique(values).tolist()}
        columns["prompts"] = np.array([prompts[code] for code in values.tolist()], dtype=object)
        columns["scene"] = np.full(len(shapes), self.scene, dtype=object)
        wkt = None if self.crs is None else self.crs.to_wkt()
        frame = gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(shapes, crs=wkt))
        return frame.astype(dict.fromkeys(TEXTS, "str"))


@dataclass(frozen=True)
class Regularized:
    """Right-angled outlines of some classes, no coverage any more: made in batches each time they are gone through."""

    drawing: Drawing

    @property
    def crs(self) -> Any:
        """The CRS of the outlines."""
        return self.drawing.crs

    @property
    def classes(self) -> ClassList:
        """The class list of the drawing."""
        return self.drawing.classes

    @property
    def scene(self) -> str:
        """The scene that the class raster was made of."""
        return self.drawing.scene

    @property
    def score_mean(self) -> NDArray[np.float64] | None:
        """Of every polygon of the drawing."""
        return self.drawing.score_mean

    @property
    def class_ids(self) -> frozenset[int]:
        """Codes of the classes that occur."""
        return self.drawing.class_ids & self.drawing.regularize

    def __len__(self) -> int:
        """Return the number of outlines."""
        return int(self._chosen().sum())

    def __iter__(self) -> Iterator[gpd.GeoDataFrame]:
        """Go through the outlines in frames, at least one: fields as of polygons, and ``iou`` with the pixels' area."""
        drawing, chosen, first, some = self.drawing, self._chosen(), 0, False
        for whole in _shapes(drawing.borders):
            those = chosen[first : first + len(whole)]
            numbers, first = first + np.flatnonzero(those), first + len(whole)
            if len(numbers):
                some = True
                outlines, fits = on_the_ground(whole[those], drawing.ground)
                placed = shapely.orient_polygons(shapely.transform(outlines, drawing.place))
                yield self._frame(np.asarray(placed, dtype=object), numbers, fits)
        if not some:
            yield self._frame(np.empty(0, dtype=object), np.empty(0, dtype=np.int64), np.empty(0))

    def _frame(self, shapes: NDArray[Any], which: NDArray[np.int64], fits: NDArray[np.float64]) -> gpd.GeoDataFrame:
        frame = self.drawing.frame(shapes, which)
        frame.insert(frame.columns.get_loc("prompts"), "iou", fits)
        return frame

    def _chosen(self) -> NDArray[np.bool_]:
        return np.isin(self.drawing.borders.areas.values[1:], list(self.drawing.regularize))


def polygonize(
    path: Path,
    *,
    classes: ClassList | None = None,
    keep_background: bool = False,
    min_area: int | str = 0,
    smooth: bool = False,
    simplify: float | str = 0.0,
    scores: Any | None = None,
    scene: str | None = None,
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
        Regions of fewer pixels, or of less than so much ground, such as 50m2 or 0.5ha, join a neighbour first, see
        :func:`resegeo.outputs.raster.sieved`.
    smooth:
        Draw outlines as curves rather than along the pixels' edges, see :mod:`resegeo.outputs.smoothing`; shared
        borders stay shared.
    simplify:
        Tolerance in pixels, or on the ground, such as 1.5m, of a simplification that keeps shared borders shared; 0:
        pixel edges.
    scores:
        Array (h, w) of the pixels' scores, see :func:`resegeo.clip.blending.class_scores`, which may be one on disk.
    scene:
        Name of the scene; by default that of the raster.

    Returns
    -------
    class_id, class_name, area_m2 and perim_m (planar in a projected CRS, on the ellipsoid in a geographic one, NaN
    without CRS), with ``scores`` score_mean (the mean probability of the best class of its pixels, 0 … 1), prompts (of
    the class), scene, and geometry in the raster's CRS; without CRS and transform in pixels, y pointing up. Ordered by
    the first pixel of each region in reading order; exteriors run counter-clockwise.

    Raises
    ------
    ResegeoError:
        For a scene with RPCs alone or with control points that settle no place, where lengths on the ground are given
        and the scene tells none, and where the polygons would not be a valid coverage.

    """
    drawing = draw(
        path,
        classes=classes,
        keep_background=keep_background,
        min_area=min_area,
        smooth=smooth,
        simplify=simplify,
        scores=scores,
        scene=scene,
    )
    frames = list(drawing)
    return frames[0] if len(frames) == 1 else gpd.GeoDataFrame(pd.concat(frames, ignore_index=True))


def draw(
    path: Path,
    *,
    classes: ClassList | None = None,
    keep_background: bool = False,
    min_area: int | str = 0,
    smooth: bool = False,
    simplify: float | str = 0.0,
    regularize: Sequence[str] = (),
    scores: Any | None = None,
    scene: str | None = None,
) -> Drawing:
    """Do as :func:`polygonize`, for polygons that need not be in memory all at once.

    ``regularize`` names classes that get right-angled outlines too, see :attr:`Drawing.regularized`; a name that is
    none is a :class:`resegeo.errors.UsageError`.
    """
    tagged, where = read_class_raster_info(path)
    classes = classes or tagged
    chosen = classes.codes_of(regularize, "regularize")
    why = unplaced(where)
    if why is not None:
        raise ResegeoError(f"{path} {why}.")
    unseen = np.array([classes.nodata, classes.unprocessed, *(() if keep_background else (0,))])

    def drawn(codes: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(np.logical_and.reduce([codes != code for code in unseen]))

    try:
        with (
            warnings.catch_warnings(),
            rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES),
        ):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with (
                open_raster(str(path)) as raster,
                rasterio.Env(GDAL_CACHEMAX=max(_CACHE_BYTES, 2 * _block_row(raster))),
            ):
                ground = pixel_on_the_ground(where, raster.height, raster.width)
                least = area_in_pixels(min_area, ground, "min_area")
                tolerance = length_in_pixels(simplify, ground, "simplify")
                codes = Codes(
                    raster.height,
                    raster.width,
                    lambda top, bottom: raster.read(1, window=Window(0, top, raster.width, bottom - top)),
                )
                found = Areas.find(sieved_codes(codes, classes, least), drawn)
                means = None if scores is None else _score_means(found, scores)
                borders = Borders.trace(found)
    except RasterioError as error:
        raise ResegeoError(f"{path} is damaged: its pixels cannot be read. Run `resegeo segment` again.") from error
    _refuse_faults(path, borders)
    simplified = None
    if tolerance > 0 and len(found.sizes) > 1:
        whole = np.concatenate(list(_shapes(borders, smooth)))
        simplified = np.asarray(shapely.coverage_simplify(whole, tolerance), dtype=object)
        if not shapely.is_valid(simplified).all():
            raise _fault(path)
    place, crs = _placed(where, path)
    if len(found.sizes) > 1 and crs is not None and crs.is_projected and stretched(crs) is not None:
        notice(
            f"{path} is in {name_of(crs)!r}, whose plane tells no areas: area_m2 and perim_m are on the ellipsoid.",
        )
    scene = scene or path.name.removesuffix(path.suffix).removesuffix(".classes")
    return Drawing(path, classes, borders, place, crs, means, scene, smooth, simplified, ground, chosen)


def _block_row(raster: Any) -> int:
    """Bytes of a row of blocks of the first band."""
    return int(raster.block_shapes[0][0] * raster.width * np.dtype(raster.dtypes[0]).itemsize)


def _score_means(areas: Areas, scores: Any) -> NDArray[np.float64]:
    """Mean probability of each area."""
    sums = np.zeros(len(areas.sizes))
    for top, _, numbers in areas.strips():
        part = numbers.ravel()
        low, high = int(part.min(initial=0)), int(part.max(initial=0))
        weights = np.asarray(scores[top : top + len(numbers)]).ravel()
        sums[low : high + 1] += np.bincount(part - low, weights=weights, minlength=high - low + 1)
    return np.asarray(np.round(sums[1:] / areas.sizes[1:] / SCORE_STEPS, 4), dtype=np.float64)


def _refuse_faults(path: Path, borders: Borders) -> None:
    """Refuse rings that do not enclose just the pixels of their area."""
    enclosed = np.zeros(len(borders.areas.sizes), dtype=np.int64)
    for batch in borders.batches(_VERTICES):
        x, y = batch.points.T
        begin = np.flatnonzero(np.diff(batch.ring_of, prepend=-1))
        after = np.arange(1, len(x) + 1)
        after[np.append(begin[1:], len(x)) - 1] = begin
        # Rows point downwards and areas lie on the left: eastward edges are below them.
        np.add.at(enclosed, batch.area_of, np.add.reduceat((x[after] - x) * y, begin))
    if (enclosed[1:] != borders.areas.sizes[1:]).any():
        raise _fault(path)


def _fault(path: Path) -> ResegeoError:
    return ResegeoError(f"The polygons of {path} overlap or leave gaps: a defect of resegeo, please report it.")


def _shapes(borders: Borders, smooth: bool = False, place: Place | None = None) -> Iterator[NDArray[Any]]:
    """Go through polygons in batches, in pixels or where ``place`` moves them."""
    parts: list[NDArray[Any]] = []
    for batch in borders.batches(_VERTICES // _EDGES if smooth else _VERTICES):
        points, ring_of = batch.points.astype(np.float64), batch.ring_of
        if smooth:
            points, ring_of = smoothed(batch, borders.areas.codes.height, borders.areas.codes.width)
        rings = np.asarray(shapely.linearrings(place(points) if place else points, indices=ring_of))
        del points, ring_of
        if batch.begins and batch.ends:
            yield _polygons(rings, batch.area_of)
            continue
        parts.append(rings)
        if batch.ends:
            # One large polygon: what it was made of is let go of before it is written.
            rings, parts = np.concatenate(parts), []
            large = [_polygons(rings, np.ones(len(rings), dtype=np.int64))]
            del rings, batch
            yield large.pop()


def _polygons(rings: NDArray[Any], area_of: NDArray[np.int64]) -> NDArray[Any]:
    """Assemble polygons of rings, of which the first one of each area is the exterior."""
    shell = np.diff(area_of, prepend=0) > 0
    owner = np.cumsum(shell) - 1
    result = np.asarray(shapely.polygons(rings[shell]), dtype=object)
    with_holes = np.unique(owner[~shell])
    if with_holes.size:
        chosen = np.isin(owner, with_holes)
        dense = np.searchsorted(with_holes, owner[chosen])
        result[with_holes] = shapely.polygons(rings[chosen], indices=dense)
    return result


def _placed(where: GeoReference, path: Path) -> tuple[Place, Any]:
    """Return how points get from pixels to where the scene lies, and the CRS there."""
    transform = where.transform
    if transform is not None:
        t = transform

        def move(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            x, y = xy[:, 0], xy[:, 1]
            return np.stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f], axis=1)

        return move, where.crs
    if where.gcps:
        _report_residual(where, path)
        return lambda xy: mapped(where.gcps, xy), where.gcps_crs
    return lambda xy: xy * (1, -1), where.crs


def _report_residual(where: GeoReference, path: Path) -> None:
    """Say how far the polygons' transform passes from the control points."""
    unit = "" if where.gcps_crs is None else f" {where.gcps_crs.units_factor[0]}"
    notice(
        f"{path}: polygons are placed by {len(where.gcps)} ground control points, missed by "
        f"{missed_by(where.gcps):.3g}{unit} (RMS).",
    )
