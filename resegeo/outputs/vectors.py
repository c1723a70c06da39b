"""Polygons into the vector formats, with names and colours where a format takes them."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import sqlite3
import struct
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import geopandas as gpd
import numpy as np
import pyarrow
import pyogrio
import pyogrio.errors
import pyproj
import shapely
from numpy.typing import NDArray
from pyarrow import parquet
from shapely import affinity

from resegeo.classes.class_list import ClassList
from resegeo.errors import ResegeoError
from resegeo.files import Note, move, saving, workshop
from resegeo.outputs.kml import read_kml, write_kml
from resegeo.outputs.layer_styles import STYLE, Style, add_styles, replace_style
from resegeo.outputs.polygons import TEXTS, Drawing, Regularized
from resegeo.outputs.styles import legend, qml_vector, sld_vector
from resegeo.outputs.vector_files import (
    DRIVERS,
    STYLES,
    layer_name,
    open_elsewhere,
    parts_of,
    regularized_layer,
)
from resegeo.settings import SUFFIXES

_PLAIN = "polygons"
"""Stem of a file while it is written, whatever GDAL would make of the one that it gets."""

_DATE = "2000-01-01T00:00:00.000Z"
"""Timestamp inside GeoPackages: a fixed one, so that equal runs give equal bytes."""

IN_DEGREES = {".geojson": "GeoJSON", ".kml": "KML"}
"""Formats that are always in EPSG:4326 (RFC 7946, OGC 12-007r2)."""

_WIDE = 90.0
"""Degrees of longitude from which on a polygon is looked at more closely before it is written in EPSG:4326."""

_POINTS = 200
"""Points that the longest edge of such a polygon gets."""

_LARGE = 300_000
"""Vertices from which on a polygon is written by itself, with as few copies as can be."""

_ROWS = 1024
"""Polygons that are read back at once."""

_PARQUET = "1.1.0"
"""Version of GeoParquet: the first that knows boxes of rows (covering), by which a part is read without the rest."""

Polygons: TypeAlias = "gpd.GeoDataFrame | Drawing | Regularized"

_SHAPEFILE_LIMIT = 2**31 - 1
WRITE_ERRORS = (
    OSError,
    sqlite3.Error,
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FeatureError,
    pyogrio.errors.FieldError,
    pyogrio.errors.GeometryError,
    pyogrio.errors.CRSError,
)
"""What writing a vector file may end in."""


def readable(path: Path) -> bool:
    """Whether a vector file can be read to its end."""
    whole = path.with_suffix(".shp") if path.suffix.lower() in (".shx", ".dbf") else path
    try:
        rows = 0
        for _, shapes in _read(whole):
            if shapely.is_missing(shapes).any():
                return False
            rows += len(shapes)
        # Of a FlatGeobuf that ends inside its index GDAL reads no row and says nothing; its head says how many.
        if whole.suffix.lower() == ".fgb" and rows != pyogrio.read_info(whole)["features"]:
            return False
        return whole.suffix.lower() != ".shp" or _sound_shapefile(whole)
    except Exception:  # readers of damaged files raise anything, IndexError for one
        return False


def _read(path: Path, layer: str | None = None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Read class codes and shapes of a vector file of ours, of a GeoPackage a layer or the polygons, batch by batch."""
    if path.suffix.lower() == ".parquet":
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS, columns=["class_id", "geometry"]):
                yield _batch(batch, "geometry")
        return
    if path.suffix.lower() == ".kml":
        yield from read_kml(path)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="More than one layer")
        asked: dict[str, Any] = {"layer": layer, "columns": ["class_id"], "batch_size": _ROWS, "use_pyarrow": True}
        with pyogrio.open_arrow(path, **asked) as (about, reader):
            for batch in reader:
                yield _batch(batch, about["geometry_name"] or "wkb_geometry")


def _batch(batch: pyarrow.RecordBatch, geometry: str) -> tuple[NDArray[Any], NDArray[Any]]:
    shapes = shapely.from_wkb(batch.column(geometry).to_numpy(zero_copy_only=False))
    return batch.column("class_id").to_numpy(zero_copy_only=False), np.asarray(shapes, dtype=object)


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
    polygons: Polygons,
    path: Path,
    classes: ClassList,
    *,
    note: Note | None = None,
) -> None:
    """Write polygons in the format that the suffix of ``path`` names; names and colours come along in a GeoPackage.

    Parameters
    ----------
    polygons:
        What :func:`polygonize` returned, or :func:`resegeo.outputs.polygons.draw`, of which there is no more in memory
        than a batch; without rows an empty layer is written. Right-angled outlines that were drawn too become another
        layer of a GeoPackage; for other formats they are polygons of their own, with a file of their own.
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
    if suffix in IN_DEGREES:
        _refuse_degrees(polygons, path)
    if suffix == ".shp" and shapefile_bytes(polygons) > _SHAPEFILE_LIMIT:
        raise ResegeoError(
            f"{path} would exceed the 2 GB that a Shapefile holds; write a GeoPackage ([[vector=gpkg]])."
        )
    with saving(path, *WRITE_ERRORS), workshop(path.parent) as place:
        _write(polygons, place, suffix, layer_name(path.stem), classes, path)
        parts = sorted(place.iterdir(), key=lambda part: part.suffix == suffix)
        files = {
            part: path.with_name(path.stem + (path.suffix if part.suffix == suffix else part.suffix)) for part in parts
        }
        # An older .prj or index of a Shapefile would be taken for one of the new file.
        gone = [part for part in parts_of(path) if part not in files.values()]
        open_elsewhere(path)
        move(files, gone, note)


def _frames(polygons: Polygons) -> Iterable[gpd.GeoDataFrame]:
    return [polygons] if isinstance(polygons, gpd.GeoDataFrame) else polygons


def _class_ids(polygons: Polygons) -> frozenset[int]:
    """Codes of the classes that occur among polygons."""
    if isinstance(polygons, gpd.GeoDataFrame):
        return frozenset(polygons["class_id"].tolist())
    return polygons.class_ids


@dataclass
class _Count:
    """What is counted of polygons when they are written and when they are read back."""

    classes: Counter[int] = field(default_factory=Counter)
    """Polygons of each class."""
    vertices: int = 0

    def add(self, class_ids: Any, shapes: NDArray[Any]) -> None:
        self.classes.update(np.asarray(class_ids).tolist())
        self.vertices += int(shapely.get_num_coordinates(shapes).sum())


def _verify(expected: _Count, path: Path, layer: str | None = None) -> None:
    """See that all polygons can be read back: GDAL says nothing of a disk that fills when a file is closed."""
    found = _Count()
    try:
        for class_ids, shapes in _read(path, layer):
            if shapely.is_missing(shapes).any():
                raise OSError("it cannot be read back")
            found.add(class_ids, shapes)
    except (ValueError, RuntimeError) as error:  # those of pyarrow
        raise OSError("it cannot be read back") from error
    equal = found.classes == expected.classes
    if path.suffix not in IN_DEGREES:  # which are rounded, and cut at the date line
        equal = equal and found.vertices == expected.vertices
    if not equal or (path.suffix == ".shp" and not _sound_shapefile(path)):
        raise OSError("it reads back otherwise than it was written")


def shapefile_bytes(polygons: Polygons) -> int:
    """Size of the larger part of a Shapefile, .shp or .dbf, before it is written.

    Source: ESRI Shapefile Technical Description (1998): 100 bytes, then a polygon 52, a ring 4, a vertex 16;
    dBase: a row has the width of its fields (9 of a code, 24 of a number, and of text 80, or up to 254 where it is
    longer).
    """
    vertices = rings = count = numbers = 0
    longest = dict.fromkeys(TEXTS, 80)
    for frame in _frames(polygons):
        shapes = frame.geometry.values
        count += len(frame)
        vertices += int(shapely.get_num_coordinates(shapes).sum())
        rings += len(frame) + int(shapely.get_num_interior_rings(shapes).sum())
        for name in TEXTS:
            longest[name] = max([longest[name], *(len(text.encode()) for text in frame[name].unique())])
        numbers = sum(kind == np.float64 for kind in frame.dtypes)
    row = 1 + 9 + sum(min(254, length) for length in longest.values()) + 24 * numbers
    return max(100 + 52 * count + 4 * rings + 16 * vertices, 300 + row * count)


def no_degrees(crs: Any, outline: Any | None = None, what: str = "GeoJSON") -> str | None:
    """Say why there are no polygons in EPSG:4326 of those in a CRS, as the end of a sentence; None where there are.

    ``outline``: a polygon in the CRS in which they will lie. ``what``: the format that is always in that.
    """
    if crs is None:
        return f"has no CRS, and {what} is always in EPSG:4326"
    try:
        known = pyproj.CRS.from_wkt(crs.to_wkt())
        forth = pyproj.Transformer.from_crs(known, 4326, always_xy=True)
        if outline is not None and known.is_projected and split_at_antimeridian(outline, forth) is None:
            return f"lies over a pole, where {what}, which is always in EPSG:4326, has no place for polygons"
    except pyproj.exceptions.ProjError:
        return f"is in {known.name!r}, from which no way leads to EPSG:4326, and {what} is always in that"
    return None


def _refuse_degrees(polygons: Polygons, path: Path) -> None:
    why = no_degrees(next(iter(_frames(polygons))).crs, what=IN_DEGREES[path.suffix.lower()])
    if why is not None:
        raise ResegeoError(f"{path} cannot be written: the scene {why}. Choose a GeoPackage.")


def _in_degrees(frame: gpd.GeoDataFrame, path: Path) -> gpd.GeoDataFrame:
    moved = frame.to_crs(4326)
    if len(moved) and not np.isfinite(moved.total_bounds).all():
        raise ResegeoError(
            f"{path}: {IN_DEGREES[path.suffix.lower()]} is in EPSG:4326, and part of the scene lies beyond what "
            f"{frame.crs.name} can be turned into. Choose a GeoPackage."
        )
    spans = moved.geometry.bounds
    beyond = spans["maxx"] - spans["minx"] > _WIDE
    if path.suffix.lower() == ".kml":  # GeoJSON is cut at the date line by GDAL
        beyond |= (spans["maxx"] > 180) | (spans["minx"] < -180)
    wide = np.flatnonzero(beyond.to_numpy())
    if len(wide):
        shapes = np.asarray(moved.geometry.values, dtype=object).copy()
        forth = pyproj.Transformer.from_crs(frame.crs, 4326, always_xy=True)
        for row in wide:
            shape = split_at_antimeridian(frame.geometry.iloc[row], forth)
            if shape is None:
                raise ResegeoError(
                    f"{path} cannot be written: a polygon lies over a pole, where {IN_DEGREES[path.suffix.lower()]}, "
                    "always in EPSG:4326, has no place for it. Choose a GeoPackage."
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


def _write(polygons: Polygons, folder: Path, suffix: str, layer: str, classes: ClassList, named: Path) -> None:
    """Write a file of the name :data:`_PLAIN` into ``folder``, which holds nothing else."""
    with ExitStack() as stack:
        aside = None
        if re.search("[!;]", str(folder.absolute())):  # pyogrio takes such a path for something else
            aside = stack.enter_context(tempfile.TemporaryDirectory())
        path = Path(aside or folder).absolute() / f"{_PLAIN}{suffix}"
        for name, shapes in _layers(polygons, layer, suffix).items():
            count = _Count()
            frames = _counted(shapes, named if suffix in IN_DEGREES else None, count)
            if suffix == ".kml":
                write_kml(frames, path, name, legend(classes, _class_ids(shapes)))
            else:
                (_write_parquet if suffix == ".parquet" else write_layer)(frames, path, name)
            _verify(count, path, name if suffix == ".gpkg" else None)
        if suffix == ".gpkg":
            layers = _layers(polygons, layer, suffix).items()
            add_styles(path, {name: Style(*STYLE, *_styles(shapes, name, classes)) for name, shapes in layers}, _DATE)
        else:
            for end, text in zip(STYLES, _styles(polygons, layer, classes), strict=True):
                path.with_suffix(end).write_text(text, "utf-8")
        if aside is not None:
            shutil.copytree(aside, folder, dirs_exist_ok=True)


def write_into(polygons: Drawing, path: Path, layer: str, classes: ClassList) -> None:
    """Write polygons as :func:`write_polygons` does to a GeoPackage that has no name yet, in a folder of its own.

    Raises
    ------
    Exception:
        Those of :data:`WRITE_ERRORS`.

    """
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        _write(polygons, Path(place), ".gpkg", layer, classes, path)
        (Path(place) / f"{_PLAIN}.gpkg").replace(path)


def _layers(polygons: Polygons, layer: str, suffix: str) -> dict[str, Polygons]:
    """Return what becomes which layer of a file."""
    found = {layer: polygons}
    if suffix == ".gpkg" and isinstance(polygons, Drawing) and polygons.regularized is not None:
        found[regularized_layer(layer)] = polygons.regularized
    return found


def _counted(polygons: Polygons, degrees: Path | None, count: _Count) -> Iterator[gpd.GeoDataFrame]:
    """Go through frames, in EPSG:4326 for the file ``degrees`` if there is one, and count what they hold."""

    def counted(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        count.add(frame["class_id"], frame.geometry.values)
        return frame if degrees is None else _in_degrees(frame, degrees)

    return map(counted, _frames(polygons))


def _styles(polygons: Polygons, layer: str, classes: ClassList) -> tuple[str, str]:
    """QML and SLD of polygons: their legends name only the classes that occur."""
    found = set(_class_ids(polygons))
    return qml_vector(classes, found), sld_vector(classes, layer, found)


def foreign_style(polygons: Polygons, path: Path, classes: ClassList) -> Path | None:
    """Return a style that lies where one of these polygons' would and says something else; None where there is none.

    Files of several formats and one name share their styles.
    """
    if path.suffix.lower() == ".gpkg":
        return None
    for end, text in zip(STYLES, _styles(polygons, layer_name(path.stem), classes), strict=True):
        there = path.with_suffix(end)
        if os.path.lexists(there) and (not there.is_file() or there.read_bytes() != text.encode("utf-8")):
            return there
    return None


def write_layer(frames: Iterator[gpd.GeoDataFrame], path: Path, layer: str, *, append: bool = False) -> None:
    """Write frames, at least one, into a layer by GDAL; ``append`` adds them to one that is there."""
    first = next(frames)
    crs, table = _crs_text(first.crs), _table(first)
    # Neither the first frame nor any other stays in memory while its table is written.
    schema, tables = table.schema, chain([table], map(_table, frames))
    del first, table
    faults: list[Exception] = []

    def batches() -> Iterator[pyarrow.RecordBatch]:
        try:
            yield from chain.from_iterable(map(pyarrow.Table.to_batches, tables))
        except Exception as error:
            faults.append(error)  # GDAL would make a message of its own of it
            raise

    options: dict[str, Any] = {".shp": {"encoding": "UTF-8"}, ".geojson": {"RFC7946": "YES"}}.get(path.suffix, {})
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _DATE})
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*'crs' was not provided.*")
            pyogrio.write_arrow(
                pyarrow.RecordBatchReader.from_batches(schema, batches()),
                path,
                layer=layer,
                driver=DRIVERS[path.suffix],
                geometry_name="geometry",
                geometry_type="Polygon",
                crs=crs,
                append=append,
                **options,
            )
    except Exception:
        if faults:
            raise faults[0] from None
        raise
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _crs_text(crs: Any) -> str | None:
    """Write a CRS for GDAL, by its code where it has one."""
    if crs is None:
        return None
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt("WKT1_GDAL"))


def _table(frame: gpd.GeoDataFrame) -> pyarrow.Table:
    """Return a frame as a table with its geometry as WKB."""
    columns = {
        name: pyarrow.array(frame[name], pyarrow.string() if name in TEXTS else None)
        for name in frame.columns
        if name != "geometry"
    }
    columns["geometry"] = _binary(np.asarray(frame.geometry.values, dtype=object))
    table = pyarrow.table(columns)
    place = table.schema.get_field_index("geometry")
    known = table.schema.field(place).with_metadata({"ARROW:extension:name": "ogc.wkb"})
    return table.set_column(place, known, table.column(place))


def _binary(shapes: NDArray[Any]) -> pyarrow.Array:
    """Return shapes (n,) as WKB, a single large polygon without the three copies that GEOS would make on the way."""
    if len(shapes) == 1 and shapes[0].geom_type == "Polygon" and shapely.get_num_coordinates(shapes[0]) > _LARGE:
        data = wkb_of(shapes[0])
        if len(data) < 2**31:
            buffers = [None, pyarrow.py_buffer(np.array([0, len(data)], dtype=np.int32)), pyarrow.py_buffer(data)]
            return pyarrow.Array.from_buffers(pyarrow.binary(), 1, buffers)
    return pyarrow.array(shapely.to_wkb(shapes), pyarrow.binary())


def wkb_of(polygon: Any) -> NDArray[np.uint8]:
    """Write a polygon in two dimensions as well-known binary (OGC 06-103r4, 8.2), ring by ring into one buffer."""
    holes = int(shapely.get_num_interior_rings(polygon))
    data = np.empty(9 + 4 * (holes + 1) + 16 * int(shapely.get_num_coordinates(polygon)), dtype=np.uint8)
    data[:9] = np.frombuffer(struct.pack("<BII", 1, 3, holes + 1), dtype=np.uint8)
    at = 9
    for number in range(-1, holes):
        ring = polygon.exterior if number < 0 else shapely.get_interior_ring(polygon, number)
        points = shapely.get_coordinates(ring).astype("<f8", copy=False)
        data[at : at + 4] = np.frombuffer(struct.pack("<I", len(points)), dtype=np.uint8)
        data[at + 4 : at + 4 + points.nbytes] = points.ravel().view(np.uint8)
        at += 4 + points.nbytes
    return data


def _write_parquet(frames: Iterator[gpd.GeoDataFrame], path: Path, layer: str) -> None:
    """Write GeoParquet as GeoPandas does, each row with its box; a group of rows a frame where there are several."""
    first, second = next(frames), next(frames, None)
    if second is None:
        first.to_parquet(path, write_covering_bbox=True, schema_version=_PARQUET)
        return
    plain = io.BytesIO()
    first.to_parquet(plain, write_covering_bbox=True, schema_version=_PARQUET)
    schema = parquet.read_schema(plain)
    about = json.loads(schema.metadata[b"geo"])
    # Said of the first frame; what holds for all of them is added at the end.
    schema = schema.with_metadata({name: value for name, value in schema.metadata.items() if name != b"geo"})
    bounds = []
    # Arrow's own copy of the schema would go before what is added.
    with parquet.ParquetWriter(path, schema, compression="snappy", store_schema=False) as writer:
        for frame in chain([first, second], frames):
            bounds.append(frame.total_bounds)
            held = io.BytesIO()
            frame.to_parquet(held, write_covering_bbox=True, schema_version=_PARQUET)
            writer.write_table(parquet.read_table(held).cast(schema))
        west, south, east, north = np.array(bounds).T
        whole = [west.min(), south.min(), east.max(), north.max()]
        about["columns"][about["primary_column"]]["bbox"] = [float(value) for value in whole]
        writer.add_key_value_metadata({"geo": json.dumps(about)})


def restyle(
    database: sqlite3.Connection, layer: str, classes: ClassList, before: frozenset[int] | None, now: frozenset[int]
) -> None:
    """Let the style that this program gave a layer name the classes that occur now; a user's own stays.

    Parameters
    ----------
    database:
        An open GeoPackage.
    layer:
        The layer.
    classes:
        The class list, of which ``before`` occurred when the style was made, and ``now`` do; None: the layer is new.

    """
    style = Style(*STYLE, qml_vector(classes, set(now)), sld_vector(classes, layer, set(now)))
    replace_style(database, layer, None if before is None else qml_vector(classes, set(before)), style, _DATE)
