"""A layer's default style inside its GeoPackage, in the table in which QGIS looks for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ','now')"
_COLUMNS = (
    "(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256), "
    "f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT, "
    "useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), "
    f"update_time DATETIME DEFAULT ({_NOW}))"
)


STYLE = ("classes", "Classes of resegeo")
"""Name and description of the style that polygons get."""


@dataclass(frozen=True)
class Style:
    """A style as QGIS keeps it: its name, what it is for, and its text in both languages of styles."""

    name: str
    description: str
    qml: str
    sld: str = ""


def add_styles(path: Path, styles: Mapping[str, Style], date: str | None = None) -> None:
    """Give layers of a GeoPackage, by name, their default styles.

    ``date``, as ``2000-01-01T00:00:00Z``, stands for the time of writing, so that equal layers make equal files.

    Raises
    ------
    sqlite3.Error:
        When the file cannot be written.

    """
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE layer_styles {_COLUMNS}")
        for layer, style in styles.items():
            _insert(database, layer, style, date)
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change) "
            f"VALUES ('layer_styles', 'attributes', 'layer_styles', '', COALESCE(?, {_NOW}))",
            (date,),
        )


def replace_style(
    database: sqlite3.Connection, layer: str, qml: str | None, style: Style, date: str | None = None
) -> None:
    """Put a style in the place of the one whose text is ``qml``; where a layer has another, that stays.

    None: the layer is new, and has none yet.
    """
    if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'layer_styles'").fetchone() is None:
        return
    gone = database.execute("DELETE FROM layer_styles WHERE f_table_name = ? AND styleQML = ?", (layer, qml))
    if qml is None or gone.rowcount > 0:
        _insert(database, layer, style, date)


def _insert(database: sqlite3.Connection, layer: str, style: Style, date: str | None) -> None:
    where = "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?"
    (column,) = database.execute(where, (layer,)).fetchone()
    fine = None if date is None else date.replace("Z", "000Z")
    database.execute(
        "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
        "styleQML, styleSLD, useAsDefault, description, owner, ui, update_time) "
        f"VALUES ('', '', ?, ?, ?, ?, ?, 1, ?, '', NULL, COALESCE(?, {_NOW}))",
        (layer, column, style.name, style.qml, style.sld, style.description, fine),
    )
