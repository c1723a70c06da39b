"""Lists of scenes with options of their own: CSV, GeoJSON, or a STAC ItemCollection.

A manifest names a scene a line (a feature, an item) and may set any option of ``segment`` that concerns the scene or
the method, under the option's name. Paths in it count from its folder. Manifests are passed around: class files and
settings that one names must lie beside it or below, and nothing in it says where results go.
"""

from __future__ import annotations

import difflib
import os.path
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resegeo.declare import MisfitError, declared, option, read
from resegeo.declare import said as quoted
from resegeo.documents import read_json, read_table
from resegeo.errors import IgnoredSettingWarning, ResegeoError, UsageError, escaped, notice, shown
from resegeo.run.options import OPTIONS, SCENE_OPTIONS
from resegeo.scene.source import is_local

SUFFIXES = (".csv", ".json", ".geojson")
"""Suffixes by which a manifest is told from a scene."""

SCENE_KEYS = ("scene", "path", "location")
"""Columns or properties that may name the scene; GDAL's tile indexes say ``location``."""

ASSETS = ("visual", "data", "image")
"""Assets of a STAC item that are taken without being asked for, in this order."""

TEXTS = ("prompts", "settings")
"""Options that name a file of text, which a manifest may have only beside itself or below."""

PREFIX = "resegeo:"
"""What may stand before the name of an option among a feature's properties."""


@dataclass(frozen=True)
class _Words:
    """The class file, which is no option elsewhere but an argument."""

    prompts: str = option("", metavar="FILE", file=True, expected="a class file")


_PROMPTS = declared(_Words)["prompts"]
_GEOTIFF = re.compile(r"image/(tiff|vnd\.stac\.geotiff|jp2)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One scene of a batch."""

    scene: str
    """Path or URL, as it is opened."""
    options: Mapping[str, Any]
    """Its own options, by the names that :func:`resegeo.segment` gives them; ``prompts`` is the class file."""
    where: str
    """What asked for it, as messages say it."""


def is_manifest(path: str) -> bool:
    """Whether a path names a manifest, by its suffix."""
    return path.lower().endswith(SUFFIXES)


def read_manifest(path: str | Path, *, asset: str | None = None) -> list[Row]:
    """Read a manifest.

    Parameters
    ----------
    path:
        A CSV file with a column ``scene`` (or ``path``), a GeoJSON FeatureCollection with such a property, or a STAC
        ItemCollection. Further columns are options of ``segment``, empty where the default holds; among a feature's
        properties they may be written ``resegeo:gsd``. An item's properties must be, since STAC's own ``gsd`` is the
        sensor's.
    asset:
        Asset of a STAC item; by default ``visual``, ``data``, ``image``, or the only GeoTIFF.

    Raises
    ------
    ResegeoError:
        When it can't be read, names no scene or an unknown option, or a value can't be understood.

    """
    path = Path(path)
    read = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    rows = read(path, asset)
    if not rows:
        raise ResegeoError(f"{escaped(path)} names no scene; expected one a line or feature.")
    return rows


_MISSING = "no such file. Check the path of the manifest."


def _csv_rows(path: Path, _: str | None) -> list[Row]:
    said = escaped(path)
    table = read_table(path, expected="a list of scenes (CSV or GeoJSON)", missing=_MISSING)
    key = _scene_key(table.columns)
    if key is None:
        raise ResegeoError(
            f"{said} has the columns {_listed(table.columns)}; expected one named scene, and others named as options "
            "of segment."
        )
    names = {column: option_name(column, said) for column in table.columns if column != key}
    rows = []
    for number, values in table.lines:
        given = {names[column]: value for column, value in values.items() if column != key}
        rows.append(_row(path, values.get(key, ""), given, f"{said}, line {number}"))
    return rows


def _json_rows(path: Path, asset: str | None) -> list[Row]:
    said = escaped(path)
    document = read_json(path, expected="a FeatureCollection", missing=_MISSING)
    features = document.get("features", [document]) if isinstance(document, dict) else None
    if not isinstance(features, list) or not all(
        isinstance(feature, dict) and feature.get("type") == "Feature" for feature in features
    ):
        raise ResegeoError(f"{said} is no FeatureCollection; expected GeoJSON features or STAC items, one a scene.")
    rows, unused = [], set()
    for number, feature in enumerate(features, start=1):
        where = f"{said}, {shown(feature.get('id') or f'feature {number}')}"
        properties = feature.get("properties") or {}
        if not isinstance(properties, dict):
            raise ResegeoError(
                f"{where} has the properties {shown(repr(properties))}; expected a mapping, as GeoJSON has it."
            )
        item = isinstance(feature.get("assets"), dict)
        given = {}
        for name, value in properties.items():
            plain = name.removeprefix(PREFIX)
            if name != plain:
                given[option_name(plain, where)] = value
            elif not item and plain not in SCENE_KEYS:
                option = _known(plain)
                if option is not None:
                    given[option] = value
                elif near := _near(plain):
                    unused.add((plain, near))
        key = None if item else _scene_key(properties)
        if not item and key is None:
            raise ResegeoError(
                f"{where} has the properties {_listed(properties)}; expected one named scene, or assets as a STAC "
                "item has them."
            )
        rows.append(_row(path, _href(feature, where, asset) if key is None else properties[key], given, where))
    for name, near in sorted(unused):
        notice(
            f"{said}: the property {shown(name)} is no option of segment and is ignored; did you mean {near}?",
            IgnoredSettingWarning,
        )
    return rows


def _listed(names: Iterable[str]) -> str:
    return shown(", ".join(names) or "none", 300)


def _scene_key(names: Iterable[str]) -> str | None:
    given = list(names)
    return next((key for key in SCENE_KEYS if key in given), None)


def _href(item: Mapping[str, Any], where: str, wanted: str | None) -> Any:
    """Return the address of the asset to segment."""
    assets = {name: value for name, value in item["assets"].items() if isinstance(value, dict)}
    names = (wanted,) if wanted is not None else ASSETS
    found = [name for name in names if name in assets]
    if not found and wanted is None:
        found = [name for name, value in assets.items() if _GEOTIFF.match(str(value.get("type", "")))]
        found = found if len(found) == 1 else []
    if not found:
        given = "" if wanted is None else f"[[asset={wanted}]]: "
        raise ResegeoError(f"{given}{where} has the assets {_listed(assets)}; name one of them by [[asset]].")
    return assets[found[0]].get("href", "")


def _row(manifest: Path, scene: Any, given: Mapping[str, Any], where: str) -> Row:
    if not isinstance(scene, str) or not scene:
        raise ResegeoError(f"{where}: the scene's path is missing.")
    folder = manifest.parent
    return Row(
        scene=os.path.normpath(folder / scene) if is_local(scene) else scene,
        options={name: _value(name, value, folder, where) for name, value in given.items() if value not in ("", None)},
        where=where,
    )


def option_name(name: str, where: str) -> str:
    """Return the name of an option as :func:`resegeo.segment` spells it.

    Raises
    ------
    UsageError:
        When there is no such option, or it concerns the batch as a whole.

    """
    known = _known(name)
    if known is None:
        near = _near(name, 0.6)
        hint = f"did you mean {near}?" if near else f"known are {', '.join(SCENE_OPTIONS)}."
        raise UsageError(f"{where}: '{shown(name)}' is no option that a scene can have; {hint}")
    return known


def _known(name: str) -> str | None:
    plain = name.strip().removeprefix(PREFIX).removeprefix("--").replace("-", "_").lower()
    return plain if plain in SCENE_OPTIONS else None


def _near(name: str, likeness: float = 0.75) -> str | None:
    plain = name.strip()[:80].removeprefix("--").replace("-", "_").lower()
    return next(iter(difflib.get_close_matches(plain, SCENE_OPTIONS, 1, likeness)), None)


def _value(name: str, value: Any, folder: Path, where: str) -> Any:
    """Read a value, which is text or what JSON gave, as the option wants it."""
    what = OPTIONS.get(name, _PROMPTS)
    if name == "sam_levels":  # a table: no option of the command line
        if isinstance(value, str):
            raise UsageError(f"{where}: sam_levels is {quoted(value)}; expected a list as in a settings file.")
        return value
    try:
        found = read(what, _whole(value), text=True)
    except MisfitError as error:
        raise UsageError(f"{where}: {error}") from error
    if what.about.file:
        found = _found(str(found), folder, word=what.about.metavar != "FILE")
    if name in TEXTS:
        _own(found, folder, f"{where}: {name} is {quoted(value)}")
    return found


def _whole(value: Any) -> Any:
    """Return whole numbers as such, which JSON may write as 64.0."""
    if isinstance(value, list):
        return [_whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _found(text: str, folder: Path, *, word: bool) -> str:
    """Let files count from the manifest's folder; what may be a ``word`` too is one where no such file is there."""
    if not word:
        return str(folder / text) if is_local(text) else text
    parts = text.split(",")
    return ",".join(str(folder / part) if os.path.exists(folder / part) else part for part in parts)  # noqa: PTH110  Path's raises


def _own(file: str, folder: Path, said: str) -> None:
    """Refuse a file that a manifest may not have read: what stands in it could be said in a sentence.

    Raises
    ------
    UsageError:
        When it is no YAML file by its name, or lies, links followed, neither beside nor below the manifest.

    """
    if not file.lower().endswith((".yml", ".yaml")):
        raise UsageError(f"{said}; expected a file whose name ends in .yml or .yaml.")
    home, real = (os.path.realpath(path) for path in (folder, file))
    if os.path.commonpath([home, real]) != home:
        raise UsageError(
            f"{said}; a manifest may name only files that lie beside it or below. Put it there, or pass it as an "
            "option."
        )
