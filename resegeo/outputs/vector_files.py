"""Which files belong to a vector file: what is asked of its name alone, and costs no library that reads it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from resegeo.errors import ResegeoError, shown
from resegeo.files import LONGEST_PATH

DRIVERS = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}
"""GDAL's drivers by suffix."""

SHAPEFILE_PARTS = (".shp", ".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".shp.xml")

PARTS = (*DRIVERS, ".parquet", ".kml", ".shx", ".dbf")
"""Suffixes of files that :func:`resegeo.outputs.vectors.readable` knows."""

STYLES = (".qml", ".sld")
"""Of QGIS and of the OGC, beside a file that cannot hold its own."""


def regularized_file(path: Path) -> Path:
    """Name the file of right-angled outlines beside polygons of a format that holds but one layer."""
    return path.with_name(f"{path.stem}.regularized{path.suffix}")


def regularized_layer(layer: str) -> str:
    """Name their layer beside one of polygons."""
    return f"{layer}_regularized"


def layer_name(stem: str) -> str:
    """Name a layer after a file's stem: GDAL takes none that begins with a special character or a GeoPackage's own."""
    name = re.sub(r"^\W+", "", stem) or "polygons"
    own = re.match(r"gpkg|sqlite_|rtree_|layer_styles$", name, re.IGNORECASE)
    return f"polygons_{name}" if own else name


def layer_files(path: Path, *, regularized: bool) -> tuple[Path, ...]:
    """Return the files that polygons of the name ``path`` take: a GeoPackage holds all of its layers."""
    return (path, regularized_file(path)) if regularized and path.suffix.lower() != ".gpkg" else (path,)


def parts_of(path: Path) -> tuple[Path, ...]:
    """All files that belong to a vector file, or would be taken for a part of it: styles, and of a Shapefile more.

    A GeoPackage holds its styles itself.
    """
    suffix = path.suffix.lower()
    ends = () if suffix == ".gpkg" else (*(SHAPEFILE_PARTS[1:] if suffix == ".shp" else ()), *STYLES)
    return (path, *(path.with_suffix(end) for end in ends))


def open_elsewhere(path: Path) -> None:
    """Refuse to touch a GeoPackage that another program has open, or that one left with unsaved edits beside it.

    Raises
    ------
    ResegeoError:
        With the name of the file that lies beside it. Replaced now, the database would be mixed with the old edits.

    """
    if path.suffix.lower() != ".gpkg":
        return
    for end in ("-wal", "-shm", "-journal"):
        beside = path.with_name(path.name + end)
        if os.path.lexists(beside):
            raise ResegeoError(
                f"{shown(path, LONGEST_PATH)} is open in another program, or was left so by a crash: "
                f"{shown(beside.name)} lies beside it. Close it there (in QGIS remove the layer), or open and close it "
                "once more so that its edits are kept; then run the same command again."
            )
