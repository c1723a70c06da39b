"""A contact sheet: windows of a scene beside their classes, and how each prompt fared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from resegeo.classes.class_list import ClassList
from resegeo.errors import ResegeoError, escaped, shown
from resegeo.files import LONGEST_PATH, whole

SIDE = 264
"""Side of a picture in pixels."""
MOST_LINES = 60
"""Prompts that are listed; of more those that win most and, last, those that never do."""

_MARGIN, _GAP, _LINE = 24, 18, 26
_INK, _SOFT, _RULE = (29, 39, 51), (92, 107, 122), (225, 231, 237)


@dataclass(frozen=True, eq=False)
class Tile:
    """One window."""

    rgb: NDArray[np.uint8]
    """(h, w, 3)."""
    codes: NDArray[np.unsignedinteger[Any]]
    """(h, w)."""
    shares: Mapping[str, float]
    """Of classes, largest first."""
    scores: Mapping[str, float]


@dataclass(frozen=True)
class PromptLine:
    """One prompt."""

    prompt: str
    class_name: str
    share: float
    windows: Sequence[int]
    rival: str | None


def write_sheet(
    path: Path, tiles: Sequence[Tile], prompts: Sequence[PromptLine], classes: ClassList, *, title: str
) -> None:
    """Write the sheet as PNG: tiles in two columns, each the image beside its classes, and the table of prompts below.

    Raises
    ------
    ResegeoError:
        When it cannot be written.

    """
    try:
        with whole(path) as beside:
            draw_sheet(tiles, prompts, classes, title).save(beside, format="PNG")
    except OSError as error:
        raise ResegeoError(
            f"{shown(path, LONGEST_PATH)} could not be written ({error.strerror or error}). Check free space and "
            "permissions."
        ) from error


def draw_sheet(tiles: Sequence[Tile], prompts: Sequence[PromptLine], classes: ClassList, title: str) -> Image.Image:
    """Draw the sheet; see :func:`write_sheet`."""
    font, small, large = (ImageFont.load_default(size=size) for size in (15, 13, 22))
    pair = 2 * SIDE + 6
    across = 2 if len(tiles) > 1 else 1
    width = max(2 * _MARGIN + across * pair + (across - 1) * _GAP, 900)
    tall = SIDE + 2 * _LINE + _GAP
    rows = -(-len(tiles) // across)
    lines = _chosen(prompts)
    top = 60
    page = Image.new("RGB", (width, top + rows * tall + 50 + _LINE * (len(lines) + 1) + _MARGIN), "white")
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, 34), _fit(title, large, width - 2 * _MARGIN), fill=_INK, font=large, anchor="lm")
    colors = {spec.name: spec.color for spec in classes.classes}
    for number, tile in enumerate(tiles):
        x = _MARGIN + number % across * (pair + _GAP)
        y = top + number // across * tall
        page.paste(_square(tile.rgb), (x, y))
        page.paste(_square(_coloured(tile, classes)), (x + SIDE + 6, y))
        _badge(draw, (x + 8, y + 8), str(number + 1), font)
        entries = list(tile.shares.items())
        for line, some in enumerate((entries[:2], entries[2:4])):
            left = x
            for name, share in some:
                color = colors.get(name, (200, 200, 200))
                middle = y + SIDE + 16 + line * 22
                draw.rectangle((left, middle - 6, left + 12, middle + 6), fill=color, outline=(90, 90, 90))
                said = f"{100 * share:.0f} %" if share >= 0.005 else "< 1 %"
                text = f"{_fit(name, small, pair // 2 - 110)} {said} ({tile.scores[name]:.2f})"
                draw.text((left + 18, middle), text, fill=_INK, font=small, anchor="lm")
                left += pair // 2
    _table(draw, lines, (_MARGIN, top + rows * tall + 12), width - 2 * _MARGIN, colors, font, small)
    return page


def _chosen(prompts: Sequence[PromptLine]) -> list[PromptLine]:
    if len(prompts) <= MOST_LINES:
        return list(prompts)
    order = sorted(prompts, key=lambda line: -line.share)
    half = MOST_LINES // 2
    return [*order[:half], *order[-half:]]


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _table(
    draw: ImageDraw.ImageDraw,
    lines: Sequence[PromptLine],
    at: tuple[int, int],
    width: int,
    colors: Mapping[str, tuple[int, int, int]],
    font: _Font,
    small: _Font,
) -> None:
    left, top = at
    stops = (
        left,
        left + int(width * 0.26),
        left + int(width * 0.46),
        left + int(width * 0.64),
        left + int(width * 0.78),
    )
    for stop, head in zip(stops, ("prompt", "class", "best of all at", "windows", "competes with"), strict=True):
        draw.text((stop, top + 10), head, fill=_SOFT, font=small, anchor="lm")
    most = max([line.share for line in lines] or [0]) or 1
    for number, line in enumerate(lines, 1):
        y = top + 10 + number * _LINE
        draw.line((left, y - _LINE // 2, left + width, y - _LINE // 2), fill=_RULE)
        ink = _INK if line.share else (176, 58, 46)
        draw.text((stops[0], y), _fit(line.prompt, font, stops[1] - stops[0] - 12), fill=ink, font=font, anchor="lm")
        color = colors.get(line.class_name, (200, 200, 200))
        draw.rectangle((stops[1], y - 6, stops[1] + 12, y + 6), fill=color, outline=(90, 90, 90))
        name = _fit(line.class_name, font, stops[2] - stops[1] - 32)
        draw.text((stops[1] + 18, y), name, fill=_INK, font=font, anchor="lm")
        if line.share:
            bar = (stops[3] - stops[2] - 80) * line.share / most
            draw.rectangle((stops[2], y - 5, stops[2] + max(1, bar), y + 5), fill=(61, 122, 181))
            draw.text((stops[2] + bar + 8, y), f"{100 * line.share:.1f} %", fill=_INK, font=small, anchor="lm")
        else:
            draw.text((stops[2], y), "no pixel", fill=ink, font=font, anchor="lm")
        draw.text((stops[3], y), ", ".join(map(str, line.windows)), fill=_INK, font=font, anchor="lm")
        rival = _fit(line.rival or "–", font, left + width - stops[4])
        draw.text((stops[4], y), rival, fill=_INK, font=font, anchor="lm")


def _fit(text: str, font: _Font, room: float) -> str:
    text = escaped(text)
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"


def _badge(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, font: _Font) -> None:
    x, y = at
    width = 14 + font.getlength(text)
    draw.rounded_rectangle((x, y, x + width, y + 24), 6, fill="white", outline=(90, 90, 90))
    draw.text((x + width / 2, y + 12), text, fill=_INK, font=font, anchor="mm")


def _coloured(tile: Tile, classes: ClassList) -> NDArray[np.uint8]:
    """Class colours over the image in gray."""
    colors = np.full((classes.nodata + 1, 3), 255, dtype=np.float32)
    for code in (0, classes.unprocessed, *(spec.code for spec in classes.drawn)):
        colors[code] = classes.color_of(code)
    gray = tile.rgb.astype(np.float32).mean(axis=2)
    valid = tile.codes != classes.nodata
    low, high = np.percentile(gray[valid], (2, 98)) if valid.any() else (0.0, 255.0)
    shade = 120 + 135 * np.clip((gray - low) / max(float(high - low), 1.0), 0, 1)
    result = 0.35 * shade[..., None] + 0.65 * colors[tile.codes]
    result[~valid] = 255
    return np.asarray(result, dtype=np.uint8)


def _square(rgb: NDArray[np.uint8]) -> Image.Image:
    """Fit a picture into a square, its pixels square too."""
    picture = Image.fromarray(rgb)
    scale = SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    kind = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    page = Image.new("RGB", (SIDE, SIDE), (245, 247, 249))
    page.paste(picture.resize(size, kind), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return page
