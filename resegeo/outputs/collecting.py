"""Polygons of many scenes in one layer of a GeoPackage.

The collecting file is never written to: a copy of it gets the new polygons and takes its place when it is whole. So
whatever a user added to it, layers, fields, styles or rows, is still there.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import pyogrio

from resegeo.classes.class_list import ClassList
from resegeo.errors import ResegeoError, shown
from resegeo.files import LONGEST_PATH, Note, move, workshop
from resegeo.outputs.polygons import Drawing, Regularized
from resegeo.outputs.vector_files import open_elsewhere, regularized_layer
from resegeo.outputs.vectors import WRITE_ERRORS, layer_name, restyle, write_layer, write_polygons

_FIELDS = {"class_id", "class_name", "area_m2", "perim_m", "prompts", "scene"}


def append_polygons(
    polygons: Drawing, path: Path, classes: ClassList, *, overwrite: bool = False, note: Note | None = None
) -> None:
    """Add the polygons of a scene to those of others, in the coordinate reference system of these.

    Parameters
    ----------
    polygons:
        Those of one scene, whose name their field ``scene`` has.
    path:
        The GeoPackage; a new one is made where there is none.
    classes:
        The class list behind the style. Codes that the layer has already must mean the same class.
    overwrite:
        Whether polygons of the same scene are replaced.
    note:
        See :func:`resegeo.files.move`.

    Raises
    ------
    ResegeoError:
        When the file has no layer of such polygons, holds the scene already, knows other classes by the same codes, is
        open elsewhere or cannot be written. It is as it was then.

    """
    if not os.path.lexists(path):
        write_polygons(polygons, path, classes, note=note)
        return
    open_elsewhere(path)
    said = shown(path, LONGEST_PATH)
    try:
        with workshop(path.parent) as place:
            copy = place / "polygons.gpkg"
            shutil.copyfile(path, copy)
            with closing(sqlite3.connect(copy)) as database:
                layer = _layer(database, layer_name(path.stem), said)
            crs = pyogrio.read_info(copy, layer=layer)["crs"]
            _add(polygons, copy, layer, crs, classes, said, overwrite=overwrite)
            if polygons.regularized is not None:
                _add(polygons.regularized, copy, regularized_layer(layer), crs, classes, said, overwrite=overwrite)
            open_elsewhere(path)
            move({copy: path}, (), note)
    except WRITE_ERRORS as error:
        raise ResegeoError(
            f"{said} could not be written ({getattr(error, 'strerror', None) or error}). Check free space and "
            "permissions."
        ) from error


def _add(
    polygons: Drawing | Regularized,
    copy: Path,
    layer: str,
    crs: str | None,
    classes: ClassList,
    said: str,
    *,
    overwrite: bool,
) -> None:
    """Add polygons to a layer of a copy of the file, or make it."""
    table, there, before = _quoted(layer), frozenset[int](), 0
    with closing(sqlite3.connect(copy)) as database, database:
        known = _fields(database, layer)
        if known:
            _refuse_other_classes(database, table, classes, said)
            there = _codes(database, table)
            old = database.execute(f"SELECT count(*) FROM {table} WHERE scene = ?", (polygons.scene,)).fetchone()[0]
            if old and not overwrite:
                raise ResegeoError(
                    f"{said} holds polygons of {shown(polygons.scene)} already; pass [[overwrite=True]] to replace "
                    "them, or name another file by [[output]]."
                )
            database.execute(f"DELETE FROM {table} WHERE scene = ?", (polygons.scene,))
            if polygons.score_mean is not None and "score_mean" not in known:
                database.execute(f"ALTER TABLE {table} ADD COLUMN score_mean REAL")
            before = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    write_layer((_moved(frame, crs, said) for frame in polygons), copy, layer, append=bool(known))
    with closing(sqlite3.connect(copy)) as database, database:
        found = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        if found != before + len(polygons) or database.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise OSError("it reads back otherwise than it was written")
        restyle(database, layer, classes, there if known else None, _codes(database, table))


def _layer(database: sqlite3.Connection, usual: str, said: str) -> str:
    """Name the layer of polygons of ours: the one of the usual name, or the only one with their fields."""
    try:
        rows = database.execute("SELECT table_name FROM gpkg_contents WHERE data_type = 'features'").fetchall()
        known = {name: _fields(database, name) for (name,) in rows}
        found = [name for name, fields in known.items() if fields >= _FIELDS and "iou" not in fields]
    except sqlite3.DatabaseError:
        raise ResegeoError(f"{said} is no GeoPackage; name another file by [[output]].") from None
    if usual in found:
        return usual
    if len(found) != 1:
        raise ResegeoError(
            f"{said} has no layer of polygons of resegeo with the fields {', '.join(sorted(_FIELDS))}; name another "
            "file by [[output]]."
        )
    return str(found[0])


def _fields(database: sqlite3.Connection, layer: str) -> set[str]:
    return {row[1] for row in database.execute(f"PRAGMA table_info({_quoted(layer)})")}


def _codes(database: sqlite3.Connection, table: str) -> frozenset[int]:
    return frozenset(row[0] for row in database.execute(f"SELECT DISTINCT class_id FROM {table}"))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _refuse_other_classes(database: sqlite3.Connection, table: str, classes: ClassList, said: str) -> None:
    known = {0: classes.name_of(0)} | {spec.code: spec.name for spec in classes.drawn}
    for code, name in database.execute(f"SELECT DISTINCT class_id, class_name FROM {table} ORDER BY class_id"):
        if known.get(code) != name:
            raise ResegeoError(
                f"{said} has a class {shown(name)} of the code {code}, which the class list of this raster has not; "
                "collect scenes of one class file in one layer."
            )


def _moved(frame: gpd.GeoDataFrame, crs: str | None, said: str) -> gpd.GeoDataFrame:
    """Bring polygons to the coordinate reference system of a layer."""
    if (crs is None) != (frame.crs is None):
        raise ResegeoError(
            f"{said} and the class raster do not both have a CRS, so that their polygons cannot lie in one layer; name "
            "another file by [[output]]."
        )
    return frame if crs is None or frame.crs.equals(crs, ignore_axis_order=True) else frame.to_crs(crs)
