"""Where a run looks: a polygon file or a bounding box. Outside is nodata and costs nothing.

The window grid stays the scene's, and windows are read whole, so that the labels inside equal those of
a run over all of the scene.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from resegeo.errors import ResegeoError, UsageError
from resegeo.scene.reader import Scene
from resegeo.scene.vector_layers import full_turn, laid_over, read_layer, turned
from resegeo.scene.windows import Rect

_SAME = Affine.identity()


class Region:
    """Polygons in the scene's CRS, rasterized rectangle by rectangle."""

    def __init__(self, polygons: NDArray[Any], transform: Affine) -> None:
        """Take polygons in the CRS that ``transform`` leads to."""
        self._polygons = polygons
        self._transform = transform
        self._tree = shapely.STRtree(polygons)

    @property
    def fingerprint(self) -> str:
        """Checksum of the polygons."""
        return hashlib.sha256(b"".join(shapely.to_wkb(self._polygons))).hexdigest()

    def frame(self, height: int, width: int) -> Rect | None:
        """Return the least rectangle that holds all pixels of a scene whose centre may lie in it; None without any."""
        places = shapely.get_coordinates(self._polygons)
        cols, rows = ~self._transform @ places.T
        (top, left), (bottom, right) = (
            [max(0, math.ceil(each.min() - 0.5)) for each in (rows, cols)],
            [min(size, math.floor(each.max() - 0.5) + 1) for each, size in ((rows, height), (cols, width))],
        )
        return Rect(top, left, bottom - top, right - left) if top < bottom and left < right else None

    def mask(
        self,
        rect: Rect,
        to_scene: Affine = _SAME,
        *,
        touched: bool = False,
    ) -> NDArray[np.bool_]:
        """Pixels (h, w) of ``rect`` whose centre lies in the region, or with ``touched`` any part of them."""
        return np.asarray(self.ids(rect, to_scene, touched=touched) > 0)

    def ids(
        self,
        rect: Rect,
        to_scene: Affine = _SAME,
        *,
        touched: bool = False,
    ) -> NDArray[np.int64]:
        """Number from 1 of the polygon that holds each pixel's centre (h, w); the last one where several do.

        ``to_scene`` leads from the pixels of ``rect`` to those of the scene, where the two are not the same.
        """
        from rasterio.features import rasterize

        result = np.zeros((rect.height, rect.width), dtype=np.int64)
        place = self._transform @ to_scene @ Affine.translation(rect.col, rect.row)
        corners = [place @ corner for corner in ((0, 0), (rect.width, 0), (rect.width, rect.height), (0, rect.height))]
        near = np.sort(self._tree.query(shapely.Polygon(corners)))
        if near.size:
            pairs = zip(self._polygons[near], (int(number) + 1 for number in near), strict=True)
            rasterize(pairs, out=(burnt := result.astype(np.int32)), transform=place, all_touched=touched)
            result = burnt.astype(np.int64)
        return result


def read_polygons(path: str, scene: Scene, option: str) -> NDArray[Any]:
    """Read the polygons of a vector file in the scene's CRS; ``option`` is named in messages.

    See :mod:`resegeo.scene.vector_layers` for what becomes of edges, and of what lies far from the scene.

    Raises
    ------
    ResegeoError:
        When the file can't be read, holds no polygons, has no way into the scene's CRS, or lies beside the scene.

    """
    frame = read_layer(path, f"[[{option}={path}]]")
    geometry = np.asarray(frame.geometry.values, dtype=object)
    extent = outline(scene.height, scene.width, transform_of(scene, option))
    if scene.georeference.crs is not None:
        geometry, _ = laid_over(geometry, frame.crs, scene.georeference.crs, extent, f"[[{option}={path}]]")
    _refuse_beside(geometry, extent, f"[[{option}={path}]]")
    return geometry


def _refuse_beside(polygons: NDArray[Any], extent: Any, what: str) -> None:
    if not len(polygons) or not shapely.intersects(extent, polygons).any():
        raise ResegeoError(
            f"{what} lies beside the scene, which reaches over {_listed(extent.bounds)} (left, bottom, right, top in "
            "its CRS)."
        )


def outline(height: int, width: int, transform: Affine) -> Any:
    """Return the outline of a grid of pixels as a polygon in its CRS."""
    corners = ((0, 0), (width, 0), (width, height), (0, height))
    return shapely.Polygon([transform @ corner for corner in corners])


def transform_of(scene: Scene, option: str) -> Affine:
    """Return the scene's transform; options that need one are refused where there is none."""
    where = scene.georeference
    if where.kind in ("gcps", "rpcs"):
        means = "ground control points" if where.kind == "gcps" else "RPCs"
        raise ResegeoError(
            f"[[{option}]] needs a scene with a transform; {scene.source} is georeferenced by {means} alone. "
            "Warp it first, for example with gdalwarp."
        )
    return where.transform if where.transform is not None else Affine(1, 0, 0, 0, -1, 0)


def region_of(scene: Scene, aoi: str | None, bbox: Sequence[float] | None) -> Region | None:
    """Build the region that ``aoi`` or ``bbox`` names, or None.

    Parameters
    ----------
    scene:
        The scene.
    aoi:
        Vector file with polygons, in any CRS.
    bbox:
        (left, bottom, right, top) in the scene's CRS.

    Raises
    ------
    UsageError:
        When both are given, or the box is empty.
    ResegeoError:
        When the region does not touch the scene.

    """
    if aoi is None and bbox is None:
        return None
    if aoi is not None and bbox is not None:
        raise UsageError("[[aoi]] and [[bbox]] exclude each other; give one of them.")
    option = "aoi" if aoi is not None else "bbox"
    transform = transform_of(scene, option)
    return Region(read_polygons(aoi, scene, option) if aoi is not None else _box(scene, bbox or ()), transform)


def _box(scene: Scene, bbox: Sequence[float]) -> NDArray[Any]:
    """Build the rectangle of ``bbox``; a left larger than right crosses the antimeridian."""
    import pyproj

    crs = scene.georeference.crs
    here = pyproj.CRS.from_wkt(crs.to_wkt()) if crs is not None and crs.is_geographic else None
    left, bottom, right, top = bbox if len(bbox) == 4 else (math.nan,) * 4
    if here is not None and right < left:
        right += full_turn(here)
    if not (-math.inf < left < right < math.inf and -math.inf < bottom < top < math.inf):
        raise UsageError(
            f"[[bbox={_listed(bbox)}]] is empty; expected left,bottom,right,top in the scene's CRS, such as "
            "500000,5190000,501000,5191000."
        )
    polygons = np.array([shapely.box(left, bottom, right, top)])
    extent = outline(scene.height, scene.width, transform_of(scene, "bbox"))
    polygons = polygons if here is None else turned(polygons, here, extent)
    _refuse_beside(polygons, extent, f"[[bbox={_listed(shapely.total_bounds(polygons))}]]")
    return polygons


def _listed(values: Iterable[float]) -> str:
    return ",".join(f"{value:.9g}" for value in values)
