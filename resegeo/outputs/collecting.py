"""Polygons of many scenes in one layer of a GeoPackage.

The collecting file is never written to: a copy of it gets the new polygons and takes its place when it is whole. So
whatever a user added to it, layers, fields, styles or rows, is still there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyogrio

from resegeo.classes.class_list import ClassList
from resegeo.errors import ResegeoError, UsageError, shown
from resegeo.files import LONGEST_PATH, Note, alone, is_folder, move, name_problem, workshop
from resegeo.outputs.polygons import Drawing, Regularized
from resegeo.outputs.vector_files import layer_name, open_elsewhere, regularized_layer
from resegeo.outputs.vectors import WRITE_ERRORS, restyle, write_into, write_layer

PATIENCE = 60.0
"""Seconds that another run which adds to the same file is waited for."""

_FIELDS = {"class_id", "class_name", "area_m2", "perim_m", "prompts", "scene"}


def refuse_collecting(path: Path, *, option: str, classes: ClassList | None = None, placed: bool | None = None) -> None:
    """Say before anything is computed why polygons cannot be added to a file.

    Parameters
    ----------
    path:
        The GeoPackage, which need not be there.
    option:
        The option that names it.
    classes:
        The class list of the polygons to come, where it is known.
    placed:
        Whether they will have a CRS, where that is known.

    Raises
    ------
    UsageError:
        When it has another suffix.
    ResegeoError:
        When it cannot be written to, holds no layer of polygons of ours, or one of other classes.

    """
    said = shown(path, LONGEST_PATH)
    if path.suffix.lower() != ".gpkg":
        raise UsageError(
            f"[[{option}={shown(path)}]]: [[append]] collects scenes in a GeoPackage; its suffix is .gpkg."
        )
    why = name_problem(path)
    if why is not None:
        raise ResegeoError(f"{why} Name another file by [[{option}]].")
    if not is_folder(path.parent):
        raise ResegeoError(
            f"The folder {shown(path.parent)} does not exist; create it, or name another file by [[{option}]]."
        )
    open_elsewhere(path)
    if not os.path.lexists(path):
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            layer = _layer(database, layer_name(path.stem), said, option)
            if classes is not None:
                _refuse_other_classes(database, _quoted(layer), classes, said)
        if placed is not None and (pyogrio.read_info(path, layer=layer)["crs"] is not None) != placed:
            raise _misplaced(said, option)
    except WRITE_ERRORS as error:
        raise ResegeoError(f"{said} is no GeoPackage; name another file by [[{option}]].") from error


@dataclass
class Collection:
    """A copy of a collecting file, to which polygons of scenes are added."""

    path: Path
    """The file that it will replace."""
    option: str
    """The option that names it."""
    _copy: Path
    changed: bool = False
    """Whether anything was added."""
    _layer: str = ""
    _crs: str | None = field(default=None, repr=False)

    def add(self, polygons: Drawing, *, overwrite: bool = False, again: bool = False) -> bool:
        """Add the polygons of a scene to those of others, in the coordinate reference system of these.

        Parameters
        ----------
        polygons:
            Those of one scene, whose name their field ``scene`` has.
        overwrite:
            Whether polygons of the same scene are replaced.
        again:
            Whether the same polygons may be there already; nothing is done then.

        Returns
        -------
        Whether they were added.

        Raises
        ------
        ResegeoError:
            When the file has no layer of such polygons, holds others of the scene already, knows other classes by the
            same codes, or has a CRS and the scene none, or the other way round. Nothing was added then. After any other
            error nothing more can be.

        """
        said, classes = shown(self.path, LONGEST_PATH), polygons.classes
        if not self._copy.exists():
            write_into(polygons, self._copy, layer_name(self.path.stem), classes)
            self.changed = True
            return True
        if not self._layer:
            with closing(sqlite3.connect(self._copy)) as database:
                self._layer = _layer(database, layer_name(self.path.stem), said, self.option)
            self._crs = pyogrio.read_info(self._copy, layer=self._layer)["crs"]
        if (self._crs is None) != (polygons.crs is None):
            raise _misplaced(said, self.option)
        layers: dict[str, Drawing | Regularized] = {self._layer: polygons}
        if polygons.regularized is not None:
            layers[regularized_layer(self._layer)] = polygons.regularized
        with closing(sqlite3.connect(self._copy)) as database:
            there = {name: _fields(database, name) for name in layers}
            for name in (name for name, fields in there.items() if fields):
                _refuse_other_classes(database, _quoted(name), classes, said)
            held = any(_held(database, name, polygons.scene) for name, fields in there.items() if fields)
        if held and again and all(fields and self._same(name, layers[name]) for name, fields in there.items()):
            return False
        if held and not overwrite:
            raise ResegeoError(
                f"{said} holds {'other ' if again else ''}polygons of {shown(polygons.scene)} already; pass "
                f"[[overwrite=True]] to replace them, or name another file by [[{self.option}]]."
            )
        for name, shapes in layers.items():
            self._add(name, shapes)
        self.changed = True
        return True

    def _add(self, layer: str, polygons: Drawing | Regularized) -> None:
        """Add polygons to a layer, or make it."""
        table, there, before = _quoted(layer), frozenset[int](), 0
        with closing(sqlite3.connect(self._copy)) as database, database:
            known = _fields(database, layer)
            if known:
                there = _codes(database, table)
                database.execute(f"DELETE FROM {table} WHERE scene = ?", (polygons.scene,))
                if polygons.score_mean is not None and "score_mean" not in known:
                    database.execute(f"ALTER TABLE {table} ADD COLUMN score_mean REAL")
                before = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        write_layer(self._moved(polygons), self._copy, layer, append=bool(known))
        with closing(sqlite3.connect(self._copy)) as database, database:
            found = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            if found != before + len(polygons) or database.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise OSError("it reads back otherwise than it was written")
            restyle(database, layer, polygons.classes, there if known else None, _codes(database, table))

    def _moved(self, polygons: Iterable[gpd.GeoDataFrame]) -> Iterator[gpd.GeoDataFrame]:
        """Bring polygons to the coordinate reference system of a layer."""
        for frame in polygons:
            same = self._crs is None or frame.crs.equals(self._crs, ignore_axis_order=True)
            yield frame if same else frame.to_crs(self._crs)

    def _same(self, layer: str, polygons: Drawing | Regularized) -> bool:
        """Whether the polygons of a scene lie in a layer already, each as it would be written now."""
        now, before = hashlib.sha256(), hashlib.sha256()
        columns: list[str] = []
        for frame in self._moved(polygons):
            columns = [name for name in frame.columns if name != "geometry"]
            for row in zip(frame.geometry.to_wkb(), *(frame[name] for name in columns), strict=True):
                now.update(repr(row).encode())
        asked: dict[str, Any] = {"layer": layer, "columns": columns, "use_arrow": False}
        where = "scene = '" + polygons.scene.replace("'", "''") + "'"
        frame = pyogrio.read_dataframe(self._copy, where=where, **asked)
        if set(columns) - set(frame.columns):
            return False
        for row in zip(frame.geometry.to_wkb(), *(frame[name] for name in columns), strict=True):
            before.update(repr(row).encode())
        return now.digest() == before.digest()


@contextmanager
def collection(path: Path, *, option: str = "append", note: Note | None = None) -> Iterator[Collection]:
    """Add to a collecting file, alone with it; a new one is made where there is none.

    Parameters
    ----------
    path:
        The GeoPackage. It gets what was added when the block ends, all of it or, after an error, nothing.
    option:
        The option that names it.
    note:
        See :func:`resegeo.files.move`.

    Raises
    ------
    ResegeoError:
        When the file is open elsewhere, was changed meanwhile or cannot be written. It is as it was then.

    """
    said = shown(path, LONGEST_PATH)
    open_elsewhere(path)
    try:
        with alone({path: PATIENCE}), workshop(path.parent) as place:
            copy, before = place / "polygons.gpkg", _stamp(path)
            if before is not None:
                shutil.copyfile(path, copy)
            added = Collection(path, option, copy)
            yield added
            if not added.changed:
                return
            open_elsewhere(path)
            if _stamp(path) != before:
                raise ResegeoError(
                    f"{said} was changed by another program meanwhile, and stays as that left it; run the same command "
                    "again."
                )
            move({copy: path}, (), note)
    except WRITE_ERRORS as error:
        raise ResegeoError(
            f"{said} could not be written ({getattr(error, 'strerror', None) or error}). Check free space and "
            "permissions."
        ) from error


def append_polygons(polygons: Drawing, path: Path, *, overwrite: bool = False, note: Note | None = None) -> None:
    """Add the polygons of a scene to a GeoPackage, see :meth:`Collection.add` and :func:`collection`."""
    with collection(path, option="output", note=note) as collected:
        collected.add(polygons, overwrite=overwrite)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _layer(database: sqlite3.Connection, usual: str, said: str, option: str) -> str:
    """Name the layer of polygons of ours: the one of the usual name, or the only one with their fields."""
    try:
        rows = database.execute("SELECT table_name FROM gpkg_contents WHERE data_type = 'features'").fetchall()
        known = {name: _fields(database, name) for (name,) in rows}
    except sqlite3.DatabaseError:
        raise ResegeoError(f"{said} is no GeoPackage; name another file by [[{option}]].") from None
    found = [name for name, fields in known.items() if fields >= _FIELDS and "iou" not in fields]
    if usual in found:
        return usual
    if len(found) != 1:
        raise ResegeoError(
            f"{said} has no layer of polygons of resegeo with the fields {', '.join(sorted(_FIELDS))}; name another "
            f"file by [[{option}]]."
        )
    return str(found[0])


def _fields(database: sqlite3.Connection, layer: str) -> set[str]:
    return {row[1] for row in database.execute(f"PRAGMA table_info({_quoted(layer)})")}


def _codes(database: sqlite3.Connection, table: str) -> frozenset[int]:
    return frozenset(row[0] for row in database.execute(f"SELECT DISTINCT class_id FROM {table}"))


def _held(database: sqlite3.Connection, layer: str, scene: str) -> bool:
    asked = f"SELECT 1 FROM {_quoted(layer)} WHERE scene = ? LIMIT 1"
    return database.execute(asked, (scene,)).fetchone() is not None


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


def _misplaced(said: str, option: str) -> ResegeoError:
    return ResegeoError(
        f"{said} and the class raster do not both have a CRS, so that their polygons cannot lie in one layer; name "
        f"another file by [[{option}]]."
    )
