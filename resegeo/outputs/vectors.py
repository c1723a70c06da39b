"""Polygons into the vector formats, with names and colours where a format takes them."""

from __future__ import annotations

import math
import os
import re
import shutil
import sqlite3
import tempfile
import warnings
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pyogrio.errors
import pyproj
import shapely
from numpy.typing import NDArray
from shapely import affinity

from resegeo.classes.class_list import ClassList
from resegeo.errors import ResegeoError, shown
from resegeo.files import LONGEST_PATH, Note, move, workshop
from resegeo.outputs.styles import qml_vector, sld_vector
from resegeo.outputs.vector_files import DRIVERS, STYLES, open_elsewhere, parts_of
from resegeo.settings import SUFFIXES

_PLAIN = "polygons"
"""Stem of a file while it is written, whatever GDAL would make of the one that it gets."""

_DATE = "2000-01-01T00:00:00.000Z"
"""Timestamp inside GeoPackages: a fixed one, so that equal runs give equal bytes."""

_WIDE = 90.0
"""Degrees of longitude from which on a polygon is looked at more closely before it is written in EPSG:4326."""

_POINTS = 200
"""Points that the longest edge of such a polygon gets."""

_SHAPEFILE_LIMIT = 2**31 - 1
_WRITE_ERRORS = (
    OSError,
    sqlite3.Error,
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FeatureError,
    pyogrio.errors.FieldError,
    pyogrio.errors.GeometryError,
    pyogrio.errors.CRSError,
)


def readable(path: Path) -> bool:
    """Whether a vector file can be read to its end."""
    whole = path.with_suffix(".shp") if path.suffix.lower() in (".shx", ".dbf") else path
    try:
        frame = _read(whole)
        if whole.suffix.lower() == ".shp":
            return _sound_shapefile(whole)
        return bool(frame.geometry.notna().all())
    except (*_WRITE_ERRORS, ValueError, RuntimeError):
        return False


def _read(path: Path) -> gpd.GeoDataFrame:
    """Read a vector file of ours, of a GeoPackage the polygons."""
    if path.suffix.lower() == ".parquet":
        return gpd.read_parquet(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="More than one layer")
        return pyogrio.read_dataframe(path)


def _sound_shapefile(path: Path) -> bool:
    """Whether the parts of a Shapefile are as long as they say (ESRI 1998; dBase III), and of equally many rows."""
    try:
        shapes, index, table = (path.with_suffix(end).read_bytes() for end in (".shp", ".shx", ".dbf"))
    except OSError:
        return False
    if len(shapes) < 100 or len(index) < 100 or len(table) < 32:
        return False
    rows, head, width = (int.from_bytes(table[at:to], "little") for at, to in ((4, 8), (8, 10), (10, 12)))
    lengths = [int.from_bytes(part[24:28], "big") * 2 == len(part) for part in (shapes, index)]
    return all(lengths) and len(table) >= head + rows * width and (len(index) - 100) // 8 == rows


def write_polygons(
    frame: gpd.GeoDataFrame,
    path: Path,
    classes: ClassList,
    *,
    note: Note | None = None,
) -> None:
    """Write polygons in the format that the suffix of ``path`` names; names and colours come along in a GeoPackage.

    Parameters
    ----------
    frame:
        What :func:`polygonize` returned; without rows an empty layer is written.
    path:
        The file, which is replaced; its layer has the name that :func:`layer_name` gives.
    classes:
        The class list behind the style.
    note:
        See :func:`resegeo.files.move`.

    Raises
    ------
    ResegeoError:
        When the format can't hold them, the file is open elsewhere or can't be written.

    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES.values():
        raise ResegeoError(f"{path}: unknown polygon format; the suffix must be {', '.join(SUFFIXES.values())}.")
    if suffix == ".geojson":
        frame = _in_degrees(frame, path)
    if suffix == ".shp" and shapefile_bytes(frame) > _SHAPEFILE_LIMIT:
        raise ResegeoError(
            f"{path} would exceed the 2 GB that a Shapefile holds; write a GeoPackage ([[vector=gpkg]])."
        )
    try:
        with workshop(path.parent) as place:
            _write(frame, place, suffix, layer_name(path.stem), _DATE, classes)
            parts = sorted(place.iterdir(), key=lambda part: part.suffix == suffix)
            files = {
                part: path.with_name(path.stem + (path.suffix if part.suffix == suffix else part.suffix))
                for part in parts
            }
            # An older .prj or index of a Shapefile would be taken for one of the new file.
            gone = [part for part in parts_of(path) if part not in files.values()]
            open_elsewhere(path)
            move(files, gone, note)
    except _WRITE_ERRORS as error:
        raise ResegeoError(
            f"{shown(path, LONGEST_PATH)} could not be written ({getattr(error, 'strerror', None) or error}). Check "
            "free space and permissions."
        ) from error


def _verify(frame: gpd.GeoDataFrame, path: Path) -> None:
    """See that all polygons can be read back: GDAL says nothing of a disk that fills when a file is closed."""
    try:
        back = _read(path)
    except (ValueError, RuntimeError) as error:  # those of pyarrow
        raise OSError("it cannot be read back") from error
    equal = len(back) == len(frame)
    if equal and len(frame):
        shapes = back.geometry.values
        equal = not shapely.is_missing(shapes).any() and np.array_equal(
            np.sort(back["class_id"].to_numpy()), np.sort(frame["class_id"].to_numpy())
        )
        if path.suffix != ".geojson":  # which rounds, and cuts at the date line
            equal = (
                equal
                and shapely.get_num_coordinates(shapes).sum()
                == shapely.get_num_coordinates(frame.geometry.values).sum()
            )
    if not equal or (path.suffix == ".shp" and not _sound_shapefile(path)):
        raise OSError("it reads back otherwise than it was written")


def shapefile_bytes(frame: gpd.GeoDataFrame) -> int:
    """Size of the larger part of a Shapefile, .shp or .dbf, before it is written.

    Source: ESRI Shapefile Technical Description (1998): 100 bytes, then a polygon 52, a ring 4, a vertex 16;
    dBase: a row has the width of its fields (at most 9 + 254 + 24 here, 80 for names as short).
    """
    shapes = frame.geometry.values
    vertices = int(shapely.get_num_coordinates(shapes).sum())
    rings = len(frame) + int(shapely.get_num_interior_rings(shapes).sum())
    longest = max((len(name.encode()) for name in frame["class_name"].unique()), default=0)
    row = 1 + 9 + min(254, max(80, longest)) + 24
    return max(100 + 52 * len(frame) + 4 * rings + 16 * vertices, 200 + row * len(frame))


def layer_name(stem: str) -> str:
    """Name a layer after a file's stem: GDAL takes none that begins with a special character or a GeoPackage's own."""
    name = re.sub(r"^\W+", "", stem) or "polygons"
    own = re.match(r"gpkg|sqlite_|rtree_|layer_styles$", name, re.IGNORECASE)
    return f"polygons_{name}" if own else name


def no_geojson(crs: Any, outline: Any | None = None) -> str | None:
    """Say why there is no GeoJSON of polygons in a CRS, as the end of a sentence; None where there is.

    It is always in EPSG:4326 (RFC 7946). ``outline``: a polygon in the CRS in which they will lie.
    """
    if crs is None:
        return "has no CRS, and GeoJSON is always in EPSG:4326"
    try:
        known = pyproj.CRS.from_wkt(crs.to_wkt())
        forth = pyproj.Transformer.from_crs(known, 4326, always_xy=True)
        if outline is not None and known.is_projected and split_at_antimeridian(outline, forth) is None:
            return "lies over a pole, where GeoJSON, which is always in EPSG:4326, has no place for polygons"
    except pyproj.exceptions.ProjError:
        return f"is in {known.name!r}, from which no way leads to EPSG:4326, and GeoJSON is always in that"
    return None


def _in_degrees(frame: gpd.GeoDataFrame, path: Path) -> gpd.GeoDataFrame:
    why = no_geojson(frame.crs)
    if why is not None:
        raise ResegeoError(f"{path} cannot be written: the scene {why}. Choose a GeoPackage.")
    moved = frame.to_crs(4326)
    if len(moved) and not np.isfinite(moved.total_bounds).all():
        raise ResegeoError(
            f"{path}: GeoJSON is in EPSG:4326, and part of the scene lies beyond what {frame.crs.name} can be turned "
            "into. Choose a GeoPackage."
        )
    spans = moved.geometry.bounds
    wide = np.flatnonzero((spans["maxx"] - spans["minx"] > _WIDE).to_numpy())
    if len(wide):
        shapes = np.asarray(moved.geometry.values, dtype=object).copy()
        forth = pyproj.Transformer.from_crs(frame.crs, 4326, always_xy=True)
        for row in wide:
            shape = split_at_antimeridian(frame.geometry.iloc[row], forth)
            if shape is None:
                raise ResegeoError(
                    f"{path} cannot be written: a polygon lies over a pole, where GeoJSON, always in EPSG:4326, has no "
                    "place for it. Choose a GeoPackage."
                )
            shapes[row] = shape
        moved = moved.set_geometry(gpd.GeoSeries(shapes, index=moved.index, crs=moved.crs))
    return moved


def split_at_antimeridian(polygon: Any, forth: pyproj.Transformer) -> Any | None:
    """Bring a polygon to longitude and latitude, in parts where it lies across 180°; None where it holds a pole.

    Whoever wrote a long edge alone would have it taken for one around the other side of the globe; so edges get enough
    points, and longitudes are followed from one to the next.
    """
    west, south, east, north = polygon.bounds
    dense = shapely.segmentize(polygon, max(east - west, north - south) / _POINTS)
    rings: list[NDArray[np.float64]] = []
    for ring in (dense.exterior, *dense.interiors):
        longitude, latitude = forth.transform(*shapely.get_coordinates(ring).T)
        longitude = np.unwrap(longitude, period=360)
        if abs(longitude[-1] - longitude[0]) > 1:
            return None
        middle = np.mean([longitude.min(), longitude.max()])
        if rings:  # a hole lies in the exterior, whatever turn it was begun in
            longitude -= 360 * round((middle - rings[0][:, 0].mean()) / 360)
        rings.append(np.column_stack([longitude, latitude]))
    whole = shapely.make_valid(shapely.Polygon(rings[0], rings[1:]))
    left, _, right, _ = whole.bounds
    parts = []
    for turn in range(math.floor((left + 180) / 360), math.ceil((right + 180) / 360)):
        part = shapely.intersection(whole, shapely.box(360 * turn - 180, -91, 360 * turn + 180, 91))
        moved = affinity.translate(part, -360 * turn)
        parts += [piece for piece in shapely.get_parts(moved) if piece.geom_type == "Polygon"]
    return shapely.orient_polygons(shapely.union_all(parts))  # parts of a whole turn meet elsewhere


def _write(frame: gpd.GeoDataFrame, folder: Path, suffix: str, layer: str, date: str, classes: ClassList) -> None:
    """Write a file of the name :data:`_PLAIN` into ``folder``, which holds nothing else."""
    with ExitStack() as stack:
        aside = None
        if re.search("[!;]", str(folder.absolute())):  # pyogrio takes such a path for something else
            aside = stack.enter_context(tempfile.TemporaryDirectory())
        path = Path(aside or folder).absolute() / f"{_PLAIN}{suffix}"
        if suffix == ".parquet":
            frame.to_parquet(path)
        else:
            _write_by_gdal(frame, path, layer, date)
        _verify(frame, path)
        styles = _styles(frame, layer, classes)
        if suffix == ".gpkg":
            _add_style(path, layer, styles, date)
        else:
            for end, text in zip(STYLES, styles, strict=True):
                path.with_suffix(end).write_text(text, "utf-8")
        if aside is not None:
            shutil.copytree(aside, folder, dirs_exist_ok=True)


def _styles(frame: gpd.GeoDataFrame, layer: str, classes: ClassList) -> tuple[str, str]:
    """QML and SLD of polygons: their legends name only the classes that occur."""
    found = set(frame["class_id"].tolist())
    return qml_vector(classes, found), sld_vector(classes, layer, found)


def foreign_style(frame: gpd.GeoDataFrame, path: Path, classes: ClassList) -> Path | None:
    """Return a style that lies where one of these polygons' would and says something else; None where there is none.

    Files of several formats and one name share their styles.
    """
    if path.suffix.lower() == ".gpkg":
        return None
    for end, text in zip(STYLES, _styles(frame, layer_name(path.stem), classes), strict=True):
        there = path.with_suffix(end)
        if os.path.lexists(there) and (not there.is_file() or there.read_bytes() != text.encode("utf-8")):
            return there
    return None


def _write_by_gdal(frame: gpd.GeoDataFrame, path: Path, layer: str, date: str) -> None:
    options: dict[str, Any] = {".shp": {"encoding": "UTF-8"}, ".geojson": {"RFC7946": "YES"}}.get(path.suffix, {})
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": date})
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*'crs' was not provided.*")
            pyogrio.write_dataframe(
                frame, path, layer=layer, driver=DRIVERS[path.suffix], geometry_type="Polygon", **options
            )
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _add_style(path: Path, layer: str, styles: tuple[str, str], date: str) -> None:
    """Put the default style into the GeoPackage, in the table in which QGIS looks for it."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), "
            "f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), "
            "styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), "
            "update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"
        )
        column = database.execute(
            "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (layer,)
        ).fetchone()[0]
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner, ui, update_time) "
            "VALUES ('', '', ?, ?, 'classes', ?, ?, 1, 'Classes of resegeo', '', NULL, ?)",
            (layer, column, *styles, date.replace("Z", "000Z")),
        )
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?)",
            (date,),
        )
