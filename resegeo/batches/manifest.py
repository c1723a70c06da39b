"""Lists of scenes with options of their own: CSV, GeoJSON, or a STAC ItemCollection.

A manifest names a scene a line (a feature, an item) and may set any option of ``segment`` that concerns the scene or
the method, under the option's name. Paths in it count from its folder. Manifests are passed around: class files and
settings that one names must lie beside it or below, and nothing in it says where results go.
"""

from __future__ import annotations

import difflib
import os.path
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from resegeo.declare import declared, read
from resegeo.documents import read_json, read_table
from resegeo.errors import IgnoredSettingWarning, ResegeoError, UsageError, escaped, notice, shown
from resegeo.scene.source import is_local
from resegeo.settings import Settings
from resegeo.units import metres

SUFFIXES = (".csv", ".json", ".geojson")
"""Suffixes by which a manifest is told from a scene."""

SCENE_KEYS = ("scene", "path", "location")
"""Columns or properties that may name the scene; GDAL's tile indexes say ``location``."""

ASSETS = ("visual", "data", "image")
"""Assets of a STAC item that are taken without being asked for, in this order."""

TEXTS = ("prompts", "settings")
"""Options that name a file of text, which a manifest may have only beside itself or below."""

LARGEST = 1e15
"""Largest number that an option takes."""

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
        hint = f"did you mean {near}?" if near else f"known are {', '.join(_KINDS)}."
        raise UsageError(f"{where}: '{shown(name)}' is no option that a scene can have; {hint}")
    return known


def _known(name: str) -> str | None:
    plain = name.strip().removeprefix(PREFIX).removeprefix("--").replace("-", "_").lower()
    return plain if plain in _KINDS else None


def _near(name: str, likeness: float = 0.75) -> str | None:
    plain = name.strip()[:80].removeprefix("--").replace("-", "_").lower()
    return next(iter(difflib.get_close_matches(plain, _KINDS, 1, likeness)), None)


def _value(name: str, value: Any, folder: Path, where: str) -> Any:
    """Read a value, which is text or what JSON gave, as the option wants it."""
    expected, read = _KINDS[name]
    try:
        found = read(value, folder)
    except (ValueError, TypeError, OverflowError, UsageError) as error:
        raise UsageError(f"{where}: {name} is {shown(repr(value))}; expected {expected}.") from error
    if name in TEXTS:
        _own(found, folder, f"{where}: {name} is {shown(repr(value))}")
    return found


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
    found = kind(value)
    if not -LARGEST <= found <= LARGEST:  # nor is what is no number
        raise ValueError
    return found


def _length(value: Any, _: Path) -> float:
    """Metres of a length on the ground; a bare number is in metres."""
    try:
        return _number(value, float)
    except ValueError:
        return metres(value, "gsd")


def _measure(name: str) -> tuple[str, Reader]:
    """Say how a length or an area is read that is in pixels, or on the ground with its unit."""
    what = declared(Settings)[name]

    def read_measure(value: Any, _: Path) -> Any:
        whole = isinstance(value, float) and what.kind is int and value.is_integer()
        return read(what, int(value) if whole else value, text=True)

    return what.expected(), read_measure


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
    return ",".join(str(folder / part) if os.path.exists(folder / part) else part for part in parts)  # noqa: PTH110  Path's raises


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
    "gsd": ("a length such as 20cm or 0.2", _length),
    "min_area": _measure("min_area"),
    "simplify": _measure("simplify"),
    "vector": ("names such as gpkg,geojson", _names),
    "segments": ("superpixels, sam, none or a file", _file_or_word),
}
