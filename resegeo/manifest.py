"""Lists of scenes with options of their own: CSV, GeoJSON, or a STAC ItemCollection.

A manifest names a scene a line (a feature, an item) and may set any option of ``segment`` that concerns the scene or
the method, under the option's name. Paths in it count from its folder.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import os.path
import re
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from resegeo.errors import IgnoredSettingWarning, ResegeoError, UsageError
from resegeo.settings import Settings
from resegeo.sources import is_local

SUFFIXES = (".csv", ".json", ".geojson")
"""Suffixes by which a manifest is told from a scene."""

SCENE_KEYS = ("scene", "path", "location")
"""Columns or properties that may name the scene; GDAL's tile indexes say ``location``."""

ASSETS = ("visual", "data", "image")
"""Assets of a STAC item that are taken without being asked for, in this order."""

PREFIX = "resegeo:"
"""What may stand before the name of an option among a feature's properties."""

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
    text = _text(path)
    rows = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _json_rows(path, text, asset)
    if not rows:
        raise ResegeoError(f"{path} names no scene; expected one a line or feature.")
    return rows


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # PowerShell's redirections
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except FileNotFoundError as error:
        raise ResegeoError(f"{path}: no such file. Check the path of the manifest.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ResegeoError(f"{path} cannot be read as text; expected a list of scenes (CSV or GeoJSON).") from error


def _csv_rows(path: Path, text: str) -> list[Row]:
    head = text.lstrip().split("\n", 1)[0]
    comma = max(",;\t", key=head.count)  # spreadsheets of many languages write semicolons
    lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=comma, skipinitialspace=True, strict=True)
    rows = []
    try:
        columns = {column: column.strip() for column in lines.fieldnames or () if column}
        key = _scene_key(columns.values())
        if key is None:
            raise ResegeoError(
                f"{path} has the columns {', '.join(columns.values()) or 'none'}; expected one named scene, and others "
                "named as options of segment."
            )
        names = {column: None if name == key else option_name(name, str(path)) for column, name in columns.items()}
        for line in lines:
            where = f"{path}, line {lines.line_num}"
            if None in line:
                raise ResegeoError(
                    f"{where} has more fields than the first line has columns; a value with a comma in it, such as "
                    'bands, needs quotes: "4,3,2".'
                )
            scene = next((line[column] or "").strip() for column, name in names.items() if name is None)
            given = {name: (line[column] or "").strip() for column, name in names.items() if name is not None}
            if scene or any(given.values()):
                rows.append(_row(path, scene, given, where))
    except csv.Error as error:
        raise ResegeoError(
            f"{path} is no CSV file from line {lines.line_num} on ({error}); is a quote missing?"
        ) from error
    return rows


def _json_rows(path: Path, text: str, asset: str | None) -> list[Row]:
    try:
        document = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise ResegeoError(f"{path}, line {line}: this is not valid JSON; expected a FeatureCollection.") from error
    features = document.get("features", [document]) if isinstance(document, dict) else None
    if not isinstance(features, list) or not all(
        isinstance(feature, dict) and feature.get("type") == "Feature" for feature in features
    ):
        raise ResegeoError(f"{path} is no FeatureCollection; expected GeoJSON features or STAC items, one a scene.")
    rows, unused = [], set()
    for number, feature in enumerate(features, start=1):
        where = f"{path}, {feature.get('id') or f'feature {number}'}"
        properties = feature.get("properties") or {}
        if not isinstance(properties, dict):
            raise ResegeoError(f"{where} has the properties {properties!r:.40}; expected a mapping, as GeoJSON has it.")
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
                f"{where} has the properties {', '.join(properties) or 'none'}; expected one named scene, or assets as "
                "a STAC item has them."
            )
        rows.append(_row(path, _href(feature, where, asset) if key is None else properties[key], given, where))
    for name, near in sorted(unused):
        warnings.warn(
            f"{path}: the property {name} is no option of segment and is ignored; did you mean {near}?",
            IgnoredSettingWarning,
            stacklevel=3,
        )
    return rows


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
        given = "" if wanted is None else f"--asset {wanted}: "
        raise ResegeoError(f"{given}{where} has the assets {', '.join(assets) or 'none'}; name one of them by --asset.")
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
        hint = f"did you mean {near}?" if near else f"known are {', '.join(_KINDS)}."
        raise UsageError(f"{where}: {name!r} is no option that a scene can have; {hint}")
    return known


def _known(name: str) -> str | None:
    plain = name.strip().removeprefix(PREFIX).removeprefix("--").replace("-", "_").lower()
    return plain if plain in _KINDS else None


def _near(name: str, likeness: float = 0.75) -> str | None:
    plain = name.strip().removeprefix("--").replace("-", "_").lower()
    return next(iter(difflib.get_close_matches(plain, _KINDS, 1, likeness)), None)


def _value(name: str, value: Any, folder: Path, where: str) -> Any:
    """Read a value, which is text or what JSON gave, as the option wants it."""
    expected, read = _KINDS[name]
    try:
        return read(value, folder)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: {name} is {value!r}; expected {expected}.") from error


Reader = Callable[[Any, Path], Any]


def _numbers(kind: type[int] | type[float], separator: str, count: int | None = None) -> Reader:
    def read(value: Any, _: Path) -> tuple[float, ...]:
        parts = value.split(separator) if isinstance(value, str) else value if isinstance(value, list) else [value]
        found = tuple(_number(part, kind) for part in parts)
        if count is not None and len(found) != count:
            raise ValueError
        return found

    return read


def _number(value: Any, kind: type[int] | type[float]) -> float:
    if isinstance(value, bool):
        raise ValueError
    if kind is int and isinstance(value, float):
        if not value.is_integer():
            raise ValueError
        return int(value)
    return kind(value)


def _word(value: Any, _: Path) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _names(value: Any, _: Path) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    names = tuple(str(part).strip() for part in parts)
    return () if names == ("none",) else names


def _flag(value: Any, _: Path) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    try:
        return words[str(value).lower()]
    except KeyError as error:
        raise ValueError from error


def _file(value: Any, folder: Path) -> str:
    return str(folder / value) if is_local(_word(value, folder)) else value


def _file_or_word(value: Any, folder: Path) -> str:
    """Files count from the manifest's folder; what is none there is a name (sam, ViT-B-32:laion2b_s34b_b79k)."""
    parts = _word(value, folder).split(",")
    return ",".join(str(folder / part) if (folder / part).exists() else part for part in parts)


def _as_it_is(value: Any, _: Path) -> Any:
    if isinstance(value, str):
        raise TypeError
    return value


_BY_TYPE: Mapping[Any, tuple[str, Reader]] = {
    int: ("a whole number", lambda value, _: _number(value, int)),
    float: ("a number", lambda value, _: _number(value, float)),
    bool: ("true or false", _flag),
    str: ("a word", _word),
    tuple[int, ...]: ("whole numbers such as 256,1024", _numbers(int, ",")),
    tuple[str, ...]: ("names such as gpkg,geojson", _names),
}


def _of_settings() -> dict[str, tuple[str, Reader]]:
    """Tell from the annotations of :class:`Settings` how each knob is read."""
    hints = get_type_hints(Settings)
    kinds = {}
    for field in fields(Settings):
        hint = hints[field.name]
        if isinstance(hint, types.UnionType):
            hint = next(part for part in get_args(hint) if part is not type(None))
        hint = str if get_origin(hint) is Literal else hint
        kinds[field.name] = _BY_TYPE.get(hint, ("a list as in a settings file", _as_it_is))
    return kinds


_KINDS: Mapping[str, tuple[str, Reader]] = {
    "prompts": ("a class file", _file),
    "bands": ("three numbers such as 4,3,2", _numbers(int, ",", 3)),
    "stretch": ("two numbers such as 200:3000", _numbers(float, ":", 2)),
    "assign_crs": ("a CRS such as EPSG:32633", _word),
    "aoi": ("a file", _file),
    "bbox": ("four numbers such as 500000,5190000,501000,5191000", _numbers(float, ",", 4)),
    "only": ("names of classes", _names),
    "model": ("a checkpoint", _file_or_word),
    "arch": ("a word", _word),
    "preset": ("a word", _word),
    "settings": ("a file", _file),
    "sam_checkpoint": ("a file", _file),
    "sam_arch": ("a word", _word),
    **_of_settings(),
    "vector": ("names such as gpkg,geojson", _names),
    "segments": ("superpixels, sam, none or a file", _file_or_word),
}
