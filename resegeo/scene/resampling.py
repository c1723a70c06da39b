"""What the model looks at: the scene's own pixels, or the scene resampled to a ground sample distance.

Resampling is anchored to the scene's upper left corner and separable: a canvas pixel is the mean of the scene
pixels that it covers (by area), or, where it is finer than the scene, their bilinear interpolation at its centre.
So its value depends on the scene alone, never on the rectangle that is read, and overviews play no part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray

from resegeo.errors import UsageError, notice, shown
from resegeo.scene.gcps import fit_affine, unplaced
from resegeo.scene.grids import name_of
from resegeo.scene.reader import Scene
from resegeo.scene.source import GeoReference
from resegeo.scene.windows import Rect

STRIP_PIXELS = 8_000_000
"""Scene pixels that are resampled at once: memory stays bounded where a canvas pixel covers many of them."""

LARGEST_FACTOR = 256.0
"""A canvas pixel covers at most this many scene pixels along a side, or is at most this many times finer."""

VALID = 0.5 - 1e-6
"""Share of valid scene pixels from which on a canvas pixel is valid; the last digit allows for rounding."""

DISTORTED = 0.02
"""Share by which a projection may change lengths before that is reckoned with; UTM and national grids stay below."""

SAME = 1e-3
"""Relative difference below which the ground sample distance asked for is the scene's own."""


@dataclass(frozen=True)
class Canvas:
    """The scene on a grid of ``height`` × ``width`` pixels; 1 × 1 factors are the scene itself."""

    scene: Scene
    down: float = 1.0
    """Height of a canvas pixel in scene pixels."""
    across: float = 1.0
    """Width of a canvas pixel in scene pixels."""

    @property
    def height(self) -> int:
        """Rows; the last one may reach beyond the scene."""
        return math.ceil(round(self.scene.height / self.down, 9))

    @property
    def width(self) -> int:
        """Columns; the last one may reach beyond the scene."""
        return math.ceil(round(self.scene.width / self.across, 9))

    @property
    def native(self) -> bool:
        """Whether canvas and scene pixels are the same."""
        return self.down == self.across == 1.0

    @property
    def to_scene(self) -> Affine:
        """Transform from canvas to scene pixels."""
        return Affine.scale(self.across, self.down)

    def read(self, row: int, col: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Read a rectangle of canvas pixels, which may reach beyond the canvas.

        Returns
        -------
        RGB (height, width, 3) uint8, and the share (height, width) float32 of each pixel that lies on valid scene
        pixels, whose colours alone count. A pixel counts as valid from one half on (see :data:`VALID`); below that
        its RGB is 0.

        """
        if self.native:
            rgb, good = self.scene.read(row, col, height, width)
            return rgb, good.astype(np.float32)
        rgb = np.zeros((height, width, 3), dtype=np.uint8)
        share = np.zeros((height, width), dtype=np.float32)
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + height, self.height), min(col + width, self.width)
        if top >= bottom or left >= right:
            return rgb, share
        columns, first_col = _axis(left, right, self.across, self.scene.width)
        most = max(1, int(STRIP_PIXELS / max(1.0, self.down) / columns.shape[1]))
        for begin in range(top, bottom, most):
            end = min(begin + most, bottom)
            rows, first_row = _axis(begin, end, self.down, self.scene.height)
            colours, good = self.scene.read(first_row, first_col, rows.shape[1], columns.shape[1])
            weight = rows @ good.astype(np.float32) @ columns.T
            # (h, H) @ (3, H, W) @ (W, w) -> (3, h, w); colours of invalid pixels are 0
            mixed = rows @ colours.transpose(2, 0, 1).astype(np.float32) @ columns.T
            mixed /= np.maximum(weight, 1e-6)
            here = slice(begin - row, end - row), slice(left - col, right - col)
            kept = np.where(weight >= VALID, np.clip(np.rint(mixed), 0, 255), 0)
            rgb[here] = kept.astype(np.uint8).transpose(1, 2, 0)
            share[here] = np.minimum(weight, 1)
        return rgb, share

    def scene_rect(self, rect: Rect) -> Rect:
        """Scene pixels whose centres lie in a rectangle of canvas pixels; it may reach beyond the scene."""
        if self.native:
            return rect
        row, bottom = (_first_centre(edge, self.down) for edge in (rect.row, rect.bottom))
        col, right = (_first_centre(edge, self.across) for edge in (rect.col, rect.right))
        return Rect(row, col, bottom - row, right - col)

    def canvas_rect(self, rect: Rect) -> Rect:
        """Smallest rectangle of canvas pixels that holds the centres of a rectangle of scene pixels."""
        row, col = math.floor((rect.row + 0.5) / self.down), math.floor((rect.col + 0.5) / self.across)
        bottom, right = math.floor((rect.bottom - 0.5) / self.down), math.floor((rect.right - 0.5) / self.across)
        return Rect(row, col, bottom + 1 - row, right + 1 - col)

    def positions(self, span: Rect, window: Rect) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the centres of a span of scene pixels lie in a window of canvas pixels, as shares of its sides."""
        rows = (np.arange(span.row, span.bottom) + 0.5) / self.down - window.row
        cols = (np.arange(span.col, span.right) + 0.5) / self.across - window.col
        return rows / window.height, cols / window.width

    def nearest(self, rect: Rect) -> Iterator[tuple[slice, Rect, NDArray[np.int64], NDArray[np.int64]]]:
        """Say which scene pixels hold the centres of a rectangle of canvas pixels, strip by strip.

        Yields rows of ``rect``, the scene rectangle to read for them, and the rows and columns within it.
        """
        cols = np.floor((rect.col + np.arange(rect.width) + 0.5) * self.across).astype(np.int64)
        wide = int(cols[-1] - cols[0]) + 1
        step = max(1, int(STRIP_PIXELS / max(1.0, self.down) / wide))
        for begin in range(0, rect.height, step):
            part = slice(begin, min(begin + step, rect.height))
            rows = np.floor((rect.row + np.arange(part.start, part.stop) + 0.5) * self.down).astype(np.int64)
            source = Rect(int(rows[0]), int(cols[0]), int(rows[-1] - rows[0]) + 1, wide)
            yield part, source, rows - rows[0], cols - cols[0]


def _first_centre(edge: int, factor: float) -> int:
    """First scene pixel whose centre lies at or beyond ``edge`` canvas pixels."""
    return math.ceil(round(edge * factor - 0.5, 9))


def _axis(begin: int, end: int, factor: float, size: int) -> tuple[NDArray[np.float32], int]:
    """Resampling along one axis: weights (canvas pixels, scene pixels) that sum to 1, and the first scene pixel."""
    pixels = np.arange(begin, end)
    if factor >= 1:
        low, high = pixels * factor, np.minimum((pixels + 1) * factor, size)
        first, last = int(low[0]), min(size, math.ceil(high[-1]))
        at = np.arange(first, last)
        weights = np.clip(np.minimum(high[:, None], at + 1) - np.maximum(low[:, None], at), 0, None)
    else:
        centre = (pixels + 0.5) * factor - 0.5
        first, last = max(0, math.floor(centre[0])), min(size, math.floor(centre[-1]) + 2)
        at = np.arange(first, last)
        weights = np.clip(1 - np.abs(np.clip(centre, 0, size - 1)[:, None] - at), 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32), first


def ground_sample_distance(scene: Scene) -> tuple[float, float] | None:
    """Height and width of a scene pixel on the ground in metres; None where the georeference does not tell.

    By the units of a projected CRS, where it keeps lengths at the scene's centre to :data:`DISTORTED`, or else by its
    scale there; in a geographic one by the geodesic through the centre. GCPs count by the affine transform that fits
    them best.
    """
    return pixel_on_the_ground(scene.georeference, scene.height, scene.width)


def pixel_on_the_ground(where: GeoReference, height: int, width: int) -> tuple[float, float] | None:
    """Do as :func:`ground_sample_distance` for a raster of ``height`` × ``width`` pixels."""
    transform, crs = where.transform, where.crs
    if transform is None and where.gcps and where.gcps_crs is not None:
        transform, crs = fit_affine(where.gcps), where.gcps_crs
    if transform is None or crs is None:
        return None
    if crs.is_geographic:
        row, col = height / 2, width / 2
        ends = [transform @ at for at in ((col, row - 0.5), (col, row + 0.5), (col - 0.5, row), (col + 0.5, row))]
        if not all(abs(lat) <= 90 for _, lat in ends):
            return None
        geod = pyproj.CRS.from_wkt(crs.to_wkt()).get_geod()
        if geod is None:
            return None
        down = geod.inv(*ends[0], *ends[1])[2]
        across = geod.inv(*ends[2], *ends[3])[2]
    elif crs.is_projected:
        metres = crs.linear_units_factor[1]
        scale = scale_at(crs, *(transform @ (width / 2, height / 2)))
        down = math.hypot(transform.b, transform.e) * metres / scale
        across = math.hypot(transform.a, transform.d) * metres / scale
    else:
        return None
    return (down, across) if down > 0 and across > 0 else None


def scale_at(crs: Any, x: float, y: float) -> float:
    """Return how many metres of a projected CRS a metre on the ground takes at a place of it.

    The root of the areal scale, as Mercator's is the same in all directions. 1 where it is nearly that, and where the
    place is none that the CRS can tell.
    """
    known = pyproj.CRS.from_wkt(crs.to_wkt())
    base = known.geodetic_crs
    if base is None:
        return 1.0
    try:
        degrees = pyproj.Transformer.from_crs(known, base, always_xy=True).transform(x, y)
        factor = base.axis_info[0].unit_conversion_factor * 180 / math.pi
        areal = pyproj.Proj(known).get_factors(*(value * factor for value in degrees)).areal_scale
    except (pyproj.exceptions.ProjError, AttributeError):
        return 1.0
    if not (math.isfinite(areal) and areal > 0) or abs(math.sqrt(areal) - 1) < DISTORTED:
        return 1.0
    return math.sqrt(areal)


def canvas_of(scene: Scene, gsd: float | None, resize: int | None = None) -> Canvas:
    """Lay a canvas over a scene: of ``gsd`` metres, of ``resize`` pixels along the longer side, or the scene's own.

    Raises
    ------
    UsageError:
        When the size of a scene pixel is unknown, or too far from what is asked for.

    """
    if resize is not None:
        factor = max(scene.height, scene.width) / resize
        canvas = Canvas(scene, factor, factor)
        if not _sensible(canvas):
            raise UsageError(
                f"[[resize={resize}]] is too far from the scene's own {scene.width} × {scene.height} pixels (columns × "
                f"rows): the model would see {canvas.width} × {canvas.height}. Give a value nearer to the scene's."
            )
        return canvas
    if gsd is None:
        return Canvas(scene)
    own = ground_sample_distance(scene)
    if own is None:
        why = unplaced(scene.georeference)
        lacks = (
            "it has no CRS in metres, feet or degrees with a transform. Set one with [[assign_crs]], or leave out "
            "[[gsd]]."
        )
        raise UsageError(
            f"[[gsd={gsd:g}]] needs the size of a pixel in metres, which {scene.source} does not tell: "
            + (lacks if why is None else f"it {why.partition(':')[0]}. Leave out [[gsd]].")
        )
    crs, transform = scene.georeference.crs, scene.georeference.transform
    if crs is not None and transform is not None and crs.is_projected:
        scale = scale_at(crs, *(transform @ (scene.width / 2, scene.height / 2)))
        if scale != 1:
            notice(
                f"{shown(scene.source)} is in {name_of(crs)!r}, which draws lengths {scale:.2f} times as long as they "
                f"are there: a pixel is {own[1]:.4g} × {own[0]:.4g} m on the ground, which [[gsd={gsd:g}]] is about.",
            )
    down, across = (1.0 if abs(gsd / size - 1) < SAME else gsd / size for size in own)
    canvas = Canvas(scene, down, across)
    if not _sensible(canvas):
        raise UsageError(
            f"[[gsd={gsd:g}]] is too far from the scene's own {own[1]:.4g} × {own[0]:.4g} m: the model would see "
            f"{canvas.width} × {canvas.height} pixels (columns × rows). Give a value nearer to the scene's."
        )
    return canvas


def _sensible(canvas: Canvas) -> bool:
    """Whether a canvas is near enough to its scene, and more than a single pixel of it."""
    scene = canvas.scene
    near = all(1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR for factor in (canvas.down, canvas.across))
    return near and not (canvas.height == 1 < scene.height and canvas.width == 1 < scene.width)
