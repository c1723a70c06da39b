"""Polygons out of the user's vector files, brought into a CRS: areas of interest, segments and truths.

Edges are straight in the file's CRS and get enough points to stay so in the other. What lies far from the scene is
cut off first, since a polygon around the globe has no image in most CRSs. Longitudes a full turn away are the same
place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray

from resegeo.errors import GeoreferenceWarning, ResegeoError, notice, shown
from resegeo.files import is_file, is_there
from resegeo.scene.formats import is_local, refuse_special
from resegeo.scene.grids import name_of

VECTOR_SUFFIXES = (".gpkg", ".shp", ".geojson", ".json", ".fgb", ".parquet", ".kml", ".gml", ".sqlite")

_AREAL = "Polygon|Surface|Collection|Unknown|TIN|Triangle"
"""Kinds of a layer, as GDAL names them, that may hold polygons."""


def read_layer(
    path: str,
    what: str,
    *,
    field: str | Sequence[str] | None = None,
    shapes: Callable[[Any], Any] | None = None,
    holds: str = "polygons",
) -> Any:
    """Read the rows of a vector file that hold polygons, or other shapes, as a GeoDataFrame.

    Parameters
    ----------
    path:
        File, URL or /vsi path.
    what:
        How messages call it, such as ``aoi parcels.gpkg``.
    field:
        Of several layers the first with polygons and this field, or one of these, is taken, or else the first with
        polygons.
    shapes:
        Leaves of a table the rows that count; None: those with polygons.
    holds:
        What these are, for messages.

    Returns
    -------
    Rows whose geometry is a polygon or multi-polygon; those inside a collection count as one multi-polygon.

    Raises
    ------
    ResegeoError:
        When the file can't be read, or holds no polygons.

    """
    import geopandas as gpd
    import pyogrio
    import shapely.errors

    if is_local(path):
        if not is_there(path):
            raise ResegeoError(f"{what}: no such file. Check the path.")
        refuse_special(path)
        _refuse_references(path, what)
    found: tuple[Any, Any] | None = None
    layers: list[str] = []
    wanted = (field,) if isinstance(field, str) else field
    kinds, kept_rows = (_AREAL, _polygonal) if shapes is None else (".", shapes)
    try:
        if path.lower().endswith(".parquet"):  # GDAL's driver for it is no part of pyogrio's wheels
            found = kept_rows(_whatever(gpd.read_parquet, path)), path
        else:
            layers = [name for name, kind in pyogrio.list_layers(path) if re.search(kinds, kind or "")]
            names: list[Any] = [*layers] or [0]
            for name in names:  # a layer of unknown kind, as in KML, may turn out to hold lines
                frame = kept_rows(_whatever(gpd.read_file, path, layer=name))
                fits = len(frame) and (wanted is None or any(name in frame.columns for name in wanted))
                if fits or (len(frame) and (found is None or not len(found[0]))) or found is None:
                    found = frame, name
                if fits:
                    break
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        pyogrio.errors.FeatureError,
        pyogrio.errors.GeometryError,
        shapely.errors.GEOSException,
        ValueError,  # pyarrow's own among them
        OSError,
    ) as error:
        raise ResegeoError(
            f"{what} cannot be opened as a vector file with {holds}; expected a GeoPackage, GeoJSON, Shapefile or the "
            "like."
        ) from error
    if found is None or not len(found[0]):
        raise ResegeoError(f"{what} holds no {holds}; expected some.")
    if len(layers) > 1:
        notice(
            f"{what} has the layers {', '.join(map(shown, layers))}; the {holds} of {shown(found[1])} are taken.",
        )
    return found[0]


def _whatever(read: Callable[..., Any], path: str, **options: Any) -> Any:
    """Read a table; whatever a reader says of a damaged file, IndexError for one, becomes a ValueError."""
    try:
        return read(path, **options)
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(str(error)) from error


def _refuse_references(path: str, what: str) -> None:
    """Refuse a file that is none but names others, or a service, which GDAL would read whatever the file's name."""
    if is_file(path):
        with Path(path).open("rb") as stream:
            start = stream.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
        if re.match(rb"<OGR\w+|(<\?xml[^>]*>\s*)?<OGR\w+", start):
            raise ResegeoError(f"{what} describes other files or a service instead of holding polygons; name these.")


def _polygonal(frame: Any) -> Any:
    """Return the rows of a table that hold polygons, with these alone; a table without geometries has none."""
    import geopandas as gpd

    if not isinstance(frame, gpd.GeoDataFrame):
        return frame.iloc[:0]
    shapes = [areal(shape) for shape in frame.geometry.values]
    kept = [number for number, shape in enumerate(shapes) if shape is not None]
    rows = frame.iloc[kept].reset_index(drop=True)
    return rows.set_geometry(gpd.GeoSeries([shapes[number] for number in kept], crs=frame.crs))


def areal(shape: Any) -> Any | None:
    """Return what of a shape is polygons, those inside a collection as one multi-polygon; None where nothing is."""
    if shape is None or shape.is_empty:
        return None
    if "Polygon" in shape.geom_type:
        return shape
    if shape.geom_type == "GeometryCollection":
        parts = [part for inner in shapely.get_parts(shape) for part in shapely.get_parts(areal(inner))]
        parts = [part for part in parts if part is not None]
        return shapely.multipolygons(parts) if parts else None
    return None


def laid_over(
    geometry: NDArray[Any], there: Any, crs: Any, extent: Any, what: str
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Bring polygons from one CRS into another, near what matters there.

    Parameters
    ----------
    geometry:
        Polygons in ``there``.
    there:
        Their CRS (pyproj's); None: none is told, and they are taken to be in ``crs``.
    crs:
        The CRS to bring them into (rasterio's).
    extent:
        A polygon in ``crs``: what lies far from it may be left out.
    what:
        How messages call the file.

    Returns
    -------
    Polygons in ``crs``, and the number of the one given that each comes from.

    Raises
    ------
    ResegeoError:
        When no way leads from one CRS into the other.

    """
    import pyproj

    kept = np.arange(len(geometry))
    try:
        here = pyproj.CRS.from_wkt(crs.to_wkt())
        if there is None:
            notice(
                f"{what} has no CRS; its coordinates are taken to be in the scene's.",
                GeoreferenceWarning,
            )
        elif there != here:
            geometry, kept = _reprojected(geometry, there, here, extent)
    except pyproj.exceptions.ProjError as error:
        raise ResegeoError(
            f"{what} is in {there.name!r}, from which no way leads into the scene's CRS, {name_of(crs)!r}."
        ) from error
    return turned(geometry, here, extent), kept


def _reprojected(geometry: NDArray[Any], there: Any, here: Any, extent: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Bring polygons near ``extent`` from one CRS into another; the others are left out."""
    import pyproj

    back = pyproj.Transformer.from_crs(here, there, always_xy=True)
    west, south, east, north = extent.bounds
    left, bottom, right, top = back.transform_bounds(west, south, east, north, errcheck=True)
    if left > right:  # across the antimeridian
        right += full_turn(there)
    margin = 0.1 * max(right - left, top - bottom)
    near = shapely.box(left - margin, bottom - margin, right + margin, top + margin)
    # A border that crosses itself would lose a lobe when it is cut: what it encloses is settled where it was drawn.
    geometry = geometry.copy()
    broken = ~shapely.is_valid(geometry)
    geometry[broken] = shapely.make_valid(geometry[broken])
    geometry = turned(geometry, there, near)
    far = ~shapely.within(geometry, near)
    geometry[far] = shapely.intersection(geometry[far], near)
    shapes = [areal(shape) for shape in geometry]
    kept = np.array([number for number, shape in enumerate(shapes) if shape is not None], dtype=np.int64)
    cut = np.array([shapes[number] for number in kept], dtype=object)
    cut = shapely.segmentize(cut, margin / 10)
    forth = pyproj.Transformer.from_crs(there, here, always_xy=True)
    return np.asarray(shapely.transform(cut, lambda xy: np.column_stack(forth.transform(*xy.T)))), kept


def full_turn(crs: Any) -> float:
    """Longitudes this far apart are the same; 0 where the CRS has none."""
    return float(2 * math.pi / crs.axis_info[0].unit_conversion_factor) if crs.is_geographic else 0.0


def turned(geometry: NDArray[Any], crs: Any, extent: Any) -> NDArray[Any]:
    """Move polygons by full turns to where they meet ``extent``: longitudes go to 180° or to 360°."""
    turn = full_turn(crs)
    if not turn:
        return geometry
    geometry = geometry.copy()
    for index in np.flatnonzero(~shapely.within(geometry, extent)):
        copies = [shapely.affinity.translate(geometry[index], k * turn) for k in (0, -1, 1)]
        met = [copy for copy in copies if copy.intersects(extent)]
        geometry[index] = shapely.union_all(met) if len(met) > 1 else (met or copies)[0]
    return geometry
