"""Where a run looks: a polygon file or a bounding box. Outside is nodata and costs nothing.

The window grid stays the scene's, and windows are read whole, so that the labels inside equal those of
a run over all of the scene.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from resegeo.errors import ResegeoError, UsageError
from resegeo.scene import Scene
from resegeo.windows import Rect

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

    Raises
    ------
    ResegeoError:
        When the file can't be read, holds no polygons, or has no way into the scene's CRS.

    """
    import geopandas as gpd
    import pyogrio
    import pyproj

    if not Path(path).exists():
        raise ResegeoError(f"{option} {path}: no such file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of several layers the first is taken
            frame = gpd.read_file(path)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise ResegeoError(f"{option} {path} cannot be opened as a vector file with polygons.") from error
    crs = scene.georeference.crs
    try:
        if isinstance(frame, gpd.GeoDataFrame) and frame.crs is not None and crs is not None:
            frame = frame.to_crs(crs.to_wkt())
    except pyproj.exceptions.ProjError as error:
        raise ResegeoError(f"{option} {path} has no way from its CRS into the scene's.") from error
    geometry = np.asarray(frame.geometry.values) if isinstance(frame, gpd.GeoDataFrame) else np.empty(0, dtype=object)
    geometry = geometry[[g is not None and "Polygon" in g.geom_type and not g.is_empty for g in geometry]]
    if not len(geometry):
        raise ResegeoError(f"{option} {path} holds no polygons; expected some.")
    return geometry


def transform_of(scene: Scene, option: str) -> Affine:
    """Return the scene's transform; options that need one are refused where there is none."""
    where = scene.georeference
    if where.kind in ("gcps", "rpcs"):
        raise ResegeoError(
            f"{option} needs a scene with a transform; {scene.source} is georeferenced by {where.kind} alone. "
            "Warp it first, for example with gdalwarp."
        )
    return where.transform if where.transform is not None else Affine(1, 0, 0, 0, -1, 0)


def region_of(scene: Scene, aoi: str | None, bbox: Sequence[float] | None) -> Region | None:
    """Build the region that ``--aoi`` or ``--bbox`` names, or None.

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
        raise UsageError("--aoi and --bbox exclude each other; give one of them.")
    option = "--aoi" if aoi is not None else "--bbox"
    transform = transform_of(scene, option)
    if aoi is not None:
        polygons = read_polygons(aoi, scene, option)
    else:
        left, bottom, right, top = bbox or ()
        if not (left < right and bottom < top):
            raise UsageError(
                f"--bbox {left:g},{bottom:g},{right:g},{top:g} is empty; expected left,bottom,right,top in the "
                "scene's CRS."
            )
        polygons = np.array([shapely.box(left, bottom, right, top)])
    corners = ((0, 0), (scene.width, 0), (scene.width, scene.height), (0, scene.height))
    extent = shapely.Polygon([transform @ corner for corner in corners])
    if not shapely.intersects(extent, polygons).any():
        found = ", ".join(f"{value:.6g}" for value in shapely.total_bounds(polygons))
        there = ", ".join(f"{value:.6g}" for value in extent.bounds)
        raise ResegeoError(f"{option} ({found}) lies beside the scene ({there}, in its CRS).")
    return Region(polygons, transform)
