"""Lengths and areas as people write them: ``20px``, ``1.5m``, ``20cm``, ``50m2``, ``0.5ha``, ``2km2``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from resegeo.errors import UsageError, shown

_LENGTHS = {"mm": 0.001, "cm": 0.01, "m": 1.0, "km": 1000.0, "ft": 0.3048}
"""In metres."""
_AREAS = {"cm2": 1e-4, "m2": 1.0, "a": 100.0, "ha": 10_000.0, "km2": 1e6, "ac": 4046.8564224, "sqm": 1.0}
"""In square metres."""
_WRITTEN = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Zµ²]*2?)\s*")


@dataclass(frozen=True)
class Measure:
    """A length or an area: in metres or square metres, or, with ``pixels``, in pixels."""

    value: float
    pixels: bool

    def in_pixels(self, pixel: float | None, name: str) -> float:
        """Turn it into pixels.

        Parameters
        ----------
        pixel:
            Length of a pixel's side in metres, or its area in square metres; None where the scene does not tell.
        name:
            Parameter that it was given for, named in messages.

        Raises
        ------
        UsageError:
            When it is not in pixels, and the scene's pixels have no size on the ground.

        """
        if self.pixels:
            return self.value
        if pixel is None or not math.isfinite(pixel) or pixel <= 0:
            raise UsageError(f"{name}: the scene has no pixel size on the ground; give it in pixels, such as 20px.")
        return self.value / pixel


def length(text: str | float, name: str) -> Measure:
    """Read a length; a bare number is in pixels.

    Raises
    ------
    UsageError:
        When it is none.

    """
    return _read(text, name, _LENGTHS, "1.5m, 20cm or 1.5px")


def area(text: str | float, name: str) -> Measure:
    """Read an area; a bare number is in pixels.

    Raises
    ------
    UsageError:
        When it is none.

    """
    return _read(text, name, _AREAS, "50m2, 0.5ha or 20px")


def area_in_pixels(value: str | float, ground: tuple[float, float] | None, name: str) -> int:
    """Turn an area into whole pixels, the least number that covers it; a number is in pixels.

    Parameters
    ----------
    value:
        The area.
    ground:
        Height and width of a pixel in metres; None where the scene does not tell.
    name:
        Parameter that it was given for.

    Raises
    ------
    UsageError:
        When it is none, or on the ground where the scene's pixels have no size there.

    """
    if not isinstance(value, str):
        return int(value)
    pixel = None if ground is None else ground[0] * ground[1]
    pixels = area(value, name).in_pixels(pixel, f"[[{name}={value}]]")
    return math.ceil(pixels * (1 - 1e-9))  # 50 m² of pixels of 0.1 m are 5000


def length_in_pixels(value: str | float, ground: tuple[float, float] | None, name: str) -> float:
    """Turn a length into pixels; a number is in pixels. See :func:`area_in_pixels`.

    Raises
    ------
    UsageError:
        When it is none, or on the ground where the scene's pixels have no size there.

    """
    if not isinstance(value, str):
        return value
    pixel = None if ground is None else math.sqrt(ground[0] * ground[1])
    return length(value, name).in_pixels(pixel, f"[[{name}={value}]]")


def metres(text: str | float, name: str) -> float:
    """Read a length on the ground in metres; a bare number is in metres.

    Raises
    ------
    UsageError:
        When it is none, or in pixels.

    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    if re.fullmatch(r"\s*[0-9.eE+-]+\s*", str(text)):
        text = f"{text}m"
    measure = _read(text, name, _LENGTHS, "20cm or 0.2m")
    if measure.pixels:
        raise UsageError(f"{name} is {shown(repr(text))}; expected a length on the ground, such as 20cm or 0.2m.")
    return measure.value


def _read(text: str | float, name: str, units: dict[str, float], example: str) -> Measure:
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = repr(text)
    found = _WRITTEN.fullmatch(str(text))
    unit = found.group(2).lower().replace("²", "2") if found else "?"
    value = float(found.group(1)) if found else math.nan
    if not math.isfinite(value) or (unit not in units and unit not in ("", "px", "px2")):
        raise UsageError(f"{name} is {shown(repr(text))}; expected {example}.")
    if unit in units:
        return Measure(value * units[unit], pixels=False)
    return Measure(value, pixels=True)
