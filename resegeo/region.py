"""Where a run looks: a polygon file or a bounding box. Outside is nodata and costs nothing.

The window grid stays the scene's, and windows are read whole, so that the labels inside equal those of
a run over all of the scene.
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import shapely.affinity
from affine import Affine
from numpy.typing import NDArray

from resegeo.errors import GeoreferenceWarning, InputNotice, ResegeoError, UsageError
from resegeo.scene import Scene
from resegeo.sources import is_local
from resegeo.windows import Rect

_SAME = Affine.identity()

_AREAL = "Polygon|Surface|Collection|Unknown|TIN|Triangle"
"""Kinds of a layer, as GDAL names them, that may hold polygons."""


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

    Edges are straight in the file's CRS and get enough points to stay so in the scene's. What lies far
    from the scene is cut off first, since a polygon around the globe has no image in most CRSs.
    Longitudes a full turn away are the same place.

    Raises
    ------
    ResegeoError:
        When the file can't be read, holds no polygons, has no way into the scene's CRS, or lies beside the scene.

    """
    frame = _read_frame(path, option)
    geometry = _polygons(frame)
    if not len(geometry):
        raise ResegeoError(f"{option} {path} holds no polygons; expected some.")
    extent = _extent(scene, transform_of(scene, option))
    if scene.georeference.crs is not None:
        geometry = _in_scene(geometry, frame.crs, scene.georeference.crs, extent, f"{option} {path}")
    _refuse_beside(geometry, extent, f"{option} {path}")
    return geometry


def _in_scene(geometry: NDArray[Any], there: Any, crs: Any, extent: Any, what: str) -> NDArray[Any]:
    """Bring polygons from the CRS ``there`` into the scene's."""
    import pyproj

    try:
        here = pyproj.CRS.from_wkt(crs.to_wkt())
        if there is None:
            warnings.warn(
                f"{what} has no CRS; its coordinates are taken to be in the scene's.",
                GeoreferenceWarning,
                stacklevel=4,
            )
        elif there != here:
            geometry = _reprojected(geometry, there, here, extent)
    except pyproj.exceptions.ProjError as error:
        raise ResegeoError(
            f"{what} is in {there.name!r}, from which no way leads into the scene's CRS, {name_of(crs)!r}."
        ) from error
    return _turned(geometry, here, extent)


def _refuse_beside(polygons: NDArray[Any], extent: Any, what: str) -> None:
    if not len(polygons) or not shapely.intersects(extent, polygons).any():
        raise ResegeoError(
            f"{what} lies beside the scene, which reaches over {_listed(extent.bounds)} (left, bottom, right, top in "
            "its CRS)."
        )


def name_of(crs: Any) -> str:
    """Return the name by which a CRS calls itself."""
    found = re.match(r'\w+\["([^"]+)', crs.to_wkt())
    return found.group(1) if found else "unnamed"


def _read_frame(path: str, option: str) -> Any:
    """Read a vector file; of several layers the first that holds polygons."""
    import geopandas as gpd
    import pyogrio
    import shapely.errors

    if is_local(path) and not Path(path).exists():
        raise ResegeoError(f"{option} {path}: no such file. Check the path.")
    try:
        if path.lower().endswith(".parquet"):
            return gpd.read_parquet(path)
        layers = [name for name, kind in pyogrio.list_layers(path) if re.search(_AREAL, kind or "")]
        for name in layers or [0]:  # a layer of unknown kind, as in KML, may turn out to hold lines
            frame = gpd.read_file(path, layer=name)
            if len(_polygons(frame)):
                break
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        shapely.errors.GEOSException,
        ValueError,  # pyarrow's own among them
        OSError,
    ) as error:
        raise ResegeoError(
            f"{option} {path} cannot be opened as a vector file with polygons; expected a GeoPackage, GeoJSON, "
            "Shapefile or the like."
        ) from error
    if len(layers) > 1:
        warnings.warn(
            f"{option} {path} has the layers {', '.join(layers)}; the polygons of {name} are taken.",
            InputNotice,
            stacklevel=4,
        )
    return frame


def _polygons(frame: Any) -> NDArray[Any]:
    """Return the polygons of a table, one a row that has any; a table without geometries has none."""
    import geopandas as gpd

    return _areal(frame.geometry.values) if isinstance(frame, gpd.GeoDataFrame) else np.empty(0, dtype=object)


def _areal(shapes: Iterable[Any]) -> NDArray[Any]:
    """Return the polygons among shapes, those inside a collection as one multi-polygon."""
    found = []
    for shape in shapes:
        if shape is None or shape.is_empty:
            continue
        if "Polygon" in shape.geom_type:
            found.append(shape)
        elif shape.geom_type == "GeometryCollection":
            parts = shapely.get_parts(_areal(shapely.get_parts(shape)))
            found += [shapely.multipolygons(parts)] if len(parts) else []
    return np.array(found, dtype=object)


def _extent(scene: Scene, transform: Affine) -> Any:
    """Return the scene's outline as a polygon in its CRS."""
    corners = ((0, 0), (scene.width, 0), (scene.width, scene.height), (0, scene.height))
    return shapely.Polygon([transform @ corner for corner in corners])


def _reprojected(geometry: NDArray[Any], there: Any, here: Any, extent: Any) -> NDArray[Any]:
    """Bring polygons near ``extent`` from one CRS into another; the others are left out."""
    import pyproj

    back = pyproj.Transformer.from_crs(here, there, always_xy=True)
    west, south, east, north = extent.bounds
    left, bottom, right, top = back.transform_bounds(west, south, east, north, errcheck=True)
    if left > right:  # across the antimeridian
        right += _full_turn(there)
    margin = 0.1 * max(right - left, top - bottom)
    near = shapely.box(left - margin, bottom - margin, right + margin, top + margin)
    geometry = _turned(geometry, there, near)
    geometry = geometry[shapely.intersects(geometry, near)]
    far = ~shapely.within(geometry, near)
    geometry[far] = shapely.intersection(shapely.make_valid(geometry[far]), near)
    geometry = shapely.segmentize(_areal(geometry), margin / 10)
    forth = pyproj.Transformer.from_crs(there, here, always_xy=True)
    return np.asarray(shapely.transform(geometry, lambda xy: np.column_stack(forth.transform(*xy.T))))


def _full_turn(crs: Any) -> float:
    """Longitudes this far apart are the same; 0 where the CRS has none."""
    return float(2 * math.pi / crs.axis_info[0].unit_conversion_factor) if crs.is_geographic else 0.0


def _turned(geometry: NDArray[Any], crs: Any, extent: Any) -> NDArray[Any]:
    """Move polygons by full turns to where they meet ``extent``: longitudes go to 180° or to 360°."""
    turn = _full_turn(crs)
    if not turn:
        return geometry
    geometry = geometry.copy()
    for index in np.flatnonzero(~shapely.within(geometry, extent)):
        copies = [shapely.affinity.translate(geometry[index], k * turn) for k in (0, -1, 1)]
        met = [copy for copy in copies if copy.intersects(extent)]
        geometry[index] = shapely.union_all(met) if len(met) > 1 else (met or copies)[0]
    return geometry


def transform_of(scene: Scene, option: str) -> Affine:
    """Return the scene's transform; options that need one are refused where there is none."""
    where = scene.georeference
    if where.kind in ("gcps", "rpcs"):
        means = "ground control points" if where.kind == "gcps" else "RPCs"
        raise ResegeoError(
            f"{option} needs a scene with a transform; {scene.source} is georeferenced by {means} alone. "
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
    return Region(read_polygons(aoi, scene, option) if aoi is not None else _box(scene, bbox or ()), transform)


def _box(scene: Scene, bbox: Sequence[float]) -> NDArray[Any]:
    """Build the rectangle of ``--bbox``; a left larger than right crosses the antimeridian."""
    import pyproj

    crs = scene.georeference.crs
    here = pyproj.CRS.from_wkt(crs.to_wkt()) if crs is not None and crs.is_geographic else None
    left, bottom, right, top = bbox if len(bbox) == 4 else (math.nan,) * 4
    if here is not None and right < left:
        right += _full_turn(here)
    if not (-math.inf < left < right < math.inf and -math.inf < bottom < top < math.inf):
        raise UsageError(
            f"--bbox {_listed(bbox)} is empty; expected left,bottom,right,top in the scene's CRS, such as "
            "500000,5190000,501000,5191000."
        )
    polygons = np.array([shapely.box(left, bottom, right, top)])
    extent = _extent(scene, transform_of(scene, "--bbox"))
    polygons = polygons if here is None else _turned(polygons, here, extent)
    _refuse_beside(polygons, extent, f"--bbox {_listed(shapely.total_bounds(polygons))}")
    return polygons


def _listed(values: Iterable[float]) -> str:
    return ",".join(f"{value:.9g}" for value in values)
