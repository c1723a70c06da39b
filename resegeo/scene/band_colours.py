"""Which bands serve as red, green and blue where the user names none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resegeo.errors import ResegeoError, notice, shown

if TYPE_CHECKING:
    from resegeo.scene.source import Source

_OTHER_COLOURS = ("cyan", "magenta", "yellow", "black", "hue", "saturation", "lightness", "Y", "Cb", "Cr")
_COLOURS = ("red", "green", "blue")
_NO_COLOUR = {"b", "band", "bands", "channel", "sr", "boa", "toa", "surface", "reflectance", "colour", "color"}

_WAVELENGTHS = {"red": (660, 620, 690), "green": (560, 520, 590), "blue": (482, 445, 515)}
"""Best, least and most central wavelength of a colour in nm."""

_SENTINEL2 = (12, 13)
"""Bands of Sentinel-2's products, B1 … B12 with B8A after B8; level 2A lacks B10."""

_NUMBERED = re.compile(r"(?:[a-z0-9]+[_ ]){0,4}b(?:and)?[ _]?0*(\d{1,2}a?)(?:[_ ](?:10|20|30|60) ?m)?")
"""A band's number by its name, as B4, SR_B4, band 04, B04_10m or T32UPU_20200801T102031_B04_10m."""

Triple = tuple[int, int, int]


def default_bands(raw: Source) -> Triple:
    """Return the bands that say that they are red, green and blue, by name, colour or wavelength; else the first three.

    Raises
    ------
    ResegeoError:
        When the colours are others, such as those of printing.

    """
    roles = _triple([_first(raw.roles, colour) for colour in _COLOURS])
    named, by = _by_name(raw.descriptions), "names"
    if named is None and roles is None:
        named, by = _by_wavelength(raw.wavelengths), "wavelengths"
    if named is None and roles is None:
        named, by = _by_number(raw.descriptions), "names, which are Sentinel-2's or Landsat's,"
    if named is not None:
        if named != (roles or (1, 2, 3)):
            notice(
                f"{shown(raw.label)}: by their {by} bands {_listed(named)} serve as red, green, blue. See [[bands]]."
            )
        return named
    if roles is not None:
        return roles
    other = [role for role in raw.roles if role in _OTHER_COLOURS]
    if len(other) >= 3:
        raise ResegeoError(
            f"{raw.label} has the colours {', '.join(other)}; expected red, green and blue. Convert it first, or name "
            "three bands by [[bands]]."
        )
    usable = [band for band, role in enumerate(raw.roles, start=1) if role != "alpha"] or [1]
    if len(usable) in _SENTINEL2 and not any(raw.descriptions) and "uint8" not in raw.dtypes:
        notice(
            f"{shown(raw.label)} has {len(usable)} bands, as Sentinel-2 has: bands 4, 3, 2 serve as red, green, blue. "
            "If it is something else, name three by [[bands]]."
        )
        return 4, 3, 2
    if len(usable) > 3:
        notice(
            f"{shown(raw.label)} has {len(usable)} bands and does not say which are red, green and blue: bands "
            f"{_listed(usable[:3])} are taken. Name them by [[bands]], such as [[bands=3,2,1]] where blue comes first."
        )
    if len(usable) >= 3:
        return usable[0], usable[1], usable[2]
    if raw.palette is None:
        notice(f"{raw.label} has {len(usable)} band(s) beside alpha: band {usable[0]} serves as red, green and blue.")
    return usable[0], usable[0], usable[0]


def _listed(bands: Sequence[int]) -> str:
    return ", ".join(map(str, bands))


def _first(values: Sequence[str], wanted: str) -> int | None:
    return values.index(wanted) + 1 if wanted in values else None


def _triple(found: Sequence[int | None]) -> Triple | None:
    red, green, blue = found
    return None if red is None or green is None or blue is None else (red, green, blue)


def _by_name(descriptions: Sequence[str]) -> Triple | None:
    """Bands whose description names one colour and nothing else, such as "Red" or "B4 (red)"; red edge is none."""
    words = ["".join(sorted(set(re.findall("[a-z]+", text.lower())) - _NO_COLOUR)) for text in descriptions]
    return _triple([_first(words, colour) for colour in _COLOURS])


def _by_wavelength(wavelengths: Sequence[float | None]) -> Triple | None:
    found: list[int | None] = []
    for best, least, most in _WAVELENGTHS.values():
        near = [
            (abs(value - best), band)
            for band, value in enumerate(wavelengths, 1)
            if value is not None and least <= value <= most
        ]
        found.append(min(near)[1] if near else None)
    return _triple(found)


def _by_number(descriptions: Sequence[str]) -> Triple | None:
    """Sentinel-2's and Landsat 8's numbers, where one beyond B8 tells them from those of older Landsats."""
    numbers = [_NUMBERED.fullmatch(text.strip().lower()) for text in descriptions]
    names = ["" if number is None else number[1] for number in numbers]
    if not {"8a", "9", "10", "11", "12"} & set(names):
        return None
    return _triple([_first(names, number) for number in ("4", "3", "2")])
