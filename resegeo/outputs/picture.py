"""One picture that tells whether it worked: the scene, the classes over it, and a legend."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from resegeo.classes.class_list import ClassList
from resegeo.errors import ResegeoError, shown
from resegeo.files import LONGEST_PATH, Note, whole
from resegeo.outputs.raster import CACHE_BYTES
from resegeo.scene.formats import open_raster
from resegeo.scene.reader import Scene
from resegeo.scene.windows import Rect, look_shape

SCENE_SHARE = 0.45
"""How much of a class's colour gives way to the scene below."""

STRIP_PIXELS = 4_000_000
"""Pixels that are read at once; at least 64 rows, so that blocks are not read too often."""

LARGEST_FACTOR = 16
"""A small scene is enlarged by this whole factor at most."""

MOST_ENTRIES = 40
"""Legend entries; of more classes the largest are shown."""

_WHITE = (255, 255, 255)
_Entries = list[tuple[tuple[int, int, int], str]]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Quicklook:
    """A scene thinned to at most :data:`resegeo.scene.windows.LOOK_SIDE` pixels a side; filled while its blocks pass
    by.
    """

    height: int
    """Of the scene."""
    width: int
    rgb: NDArray[np.uint8]
    """(h, w, 3), nearest pixels; invalid ones are white."""

    @classmethod
    def blank(cls, height: int, width: int) -> Quicklook:
        """Prepare the look at a scene of ``height`` × ``width`` pixels."""
        return cls(height, width, np.full(look_shape(height, width), 255, dtype=np.uint8))

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the scene that are shown."""
        return _spread(self.height, self.rgb.shape[0])

    @property
    def cols(self) -> NDArray[np.int64]:
        """Columns of the scene that are shown."""
        return _spread(self.width, self.rgb.shape[1])

    def part(self, frame: Rect) -> Quicklook:
        """Return the look at a part of the scene, from the nearest of the pixels that are shown."""
        result = Quicklook.blank(frame.height, frame.width)
        rows, cols = (
            _nearest(known, wanted + first)
            for known, wanted, first in ((self.rows, result.rows, frame.row), (self.cols, result.cols, frame.col))
        )
        result.rgb[...] = self.rgb[np.ix_(rows, cols)]
        return result

    def put(self, row: int, col: int, rgb: NDArray[np.uint8], valid: NDArray[np.bool_]) -> None:
        """Take what is shown from a block of the scene."""
        first, end = np.searchsorted(self.rows, [row, row + rgb.shape[0]])
        left, right = np.searchsorted(self.cols, [col, col + rgb.shape[1]])
        pick = np.ix_(self.rows[first:end] - row, self.cols[left:right] - col)
        self.rgb[first:end, left:right] = np.where(valid[pick][..., None], rgb[pick], 255)


def look_at(scene: Scene) -> Quicklook:
    """Read the quicklook of a scene, strip by strip."""
    look = Quicklook.blank(scene.height, scene.width)
    step = _strip(scene.width)
    for top in range(0, scene.height, step):
        count = min(step, scene.height - top)
        look.put(top, 0, *scene.read(top, 0, count, scene.width))
    return look


def write_overlay(
    path: Path,
    look: Quicklook,
    class_raster: Path,
    classes: ClassList,
    *,
    max_side: int = 2048,
    note: Note | None = None,
) -> None:
    """Write a PNG: the scene, the scene under its classes, and a legend with each class's share.

    Shares are counted over all valid pixels at full resolution. Memory is bounded by a strip of the raster.

    Parameters
    ----------
    path:
        The picture.
    look:
        The scene as it shall be shown; a small one is enlarged by a whole factor.
    class_raster:
        Codes (height, width) of the scene's size.
    classes:
        The class list behind names and colours.
    max_side:
        Longest side of the picture in pixels; 256 or more leaves room for a legend.
    note:
        See :func:`resegeo.files.move`.

    Raises
    ------
    ResegeoError:
        When the class raster can't be read, or the picture not written.

    """
    page = _Page.plan(look.rgb.shape[0], look.rgb.shape[1], max_side, min(MOST_ENTRIES, len(classes.drawn) + 2))
    try:
        rgb, codes, counts = _thinned(look, class_raster, page)
        picture = page.draw(_enlarged(rgb, page), _overlay(rgb, codes, classes, page), _legend(counts, classes))
        with whole(path, note) as beside:
            picture.save(beside, format="PNG", compress_level=6)  # the best level takes 8 times as long and saves 2 %
    except (RasterioError, OSError) as error:
        raise ResegeoError(
            f"{shown(path, LONGEST_PATH)} could not be drawn ({getattr(error, 'strerror', None) or error}). Check free "
            "space and permissions."
        ) from error


@dataclass(frozen=True)
class _Page:
    """Sizes in pixels, settled before anything is read."""

    height: int
    """Of the thinned scene, before enlargement."""
    width: int
    factor: int
    beside: bool
    """Whether the panels stand side by side, else one above the other."""
    across: int
    """Width of the page."""
    margin: int
    text: int
    """Size of the font."""
    max_side: int

    @classmethod
    def plan(cls, height: int, width: int, max_side: int, entries: int) -> _Page:
        """Choose the arrangement that shows the scene larger; side by side where both do the same."""
        text, margin = max(12, max_side // 72), max(6, max_side // 128)
        # A legend in three columns finds room, on at most a third of the page.
        legend = min(max_side // 3, margin + math.ceil(entries / 3) * _line(text))
        beside = _shown((max_side - 3 * margin) / 2 / width, (max_side - 2 * margin - legend) / height)
        above = _shown((max_side - 2 * margin) / width, (max_side - 3 * margin - legend) / 2 / height)
        scale = max(beside, above)
        factor = max(1, int(scale))
        thin = min(1.0, scale)
        shown_height, shown_width = max(1, int(height * thin)), max(1, int(width * thin))
        panels = (2 if beside >= above else 1) * (shown_width * factor + margin) + margin
        across = max(panels, max_side // 3)
        # Beside small panels, text of the full size would outgrow them.
        text = max(12, min(text, across // 40))
        return cls(shown_height, shown_width, factor, beside >= above, across, margin, text, max_side)

    def draw(self, left: NDArray[np.uint8], right: NDArray[np.uint8], legend: _Entries) -> Image.Image:
        """Place both panels, and the legend in columns below."""
        height, width = left.shape[:2]
        down = 2 * self.margin + height + (0 if self.beside else self.margin + height)
        font = ImageFont.load_default(size=self.text)
        line, swatch, gap = _line(self.text), self.text, self.text // 2
        room = self.across - 2 * self.margin
        legend = [(color, _shortened(text, font, room - swatch - gap)) for color, text in legend]
        step = swatch + 3 * gap + max(math.ceil(font.getlength(text)) for _, text in legend)
        columns = max(1, min(len(legend), (room + 2 * gap) // step))
        most = columns * max(1, (self.max_side - down - self.margin) // line)
        if len(legend) > most:
            legend = [*legend[: most - 1], (_WHITE, f"… and {len(legend) - most + 1} more")]
        lines = -(-len(legend) // columns)
        page = Image.new("RGB", (self.across, down + lines * line + self.margin), _WHITE)
        page.paste(Image.fromarray(left), (self.margin, self.margin))
        second = (2 * self.margin + width, self.margin) if self.beside else (self.margin, 2 * self.margin + height)
        page.paste(Image.fromarray(right), second)
        draw = ImageDraw.Draw(page)
        for index, (color, text) in enumerate(legend):
            x, y = self.margin + index // lines * step, down + index % lines * line
            draw.rectangle(
                (x, y, x + swatch, y + swatch), fill=color, outline=_WHITE if color == _WHITE else (90, 90, 90)
            )
            draw.text((x + swatch + gap, y + swatch / 2), text, fill=(20, 20, 20), font=font, anchor="lm")
        return page


def _shown(*rooms: float) -> float:
    """Scale at which a scene is shown in its room: any below 1, whole factors above."""
    room = min(rooms)
    return room if room < 1 else float(min(LARGEST_FACTOR, int(room)))


def _line(text: int) -> int:
    return text * 3 // 2


def _shortened(text: str, font: _Font, room: int) -> str:
    """Cut a name, not the share behind it, until the text fits."""
    name, _, share = text.rpartition("  ")
    while name and font.getlength(text) > room:
        name = name[:-1]
        text = f"{name.rstrip()}…  {share}"
    return text


def _spread(size: int, count: int) -> NDArray[np.int64]:
    """``count`` positions spread evenly over ``size``, each in the middle of its share."""
    return (np.arange(count) * 2 + 1) * size // (2 * count)


def _nearest(known: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the sorted positions that lie nearest to those wanted."""
    after = np.searchsorted(known, wanted).clip(1, len(known) - 1) if len(known) > 1 else np.zeros_like(wanted)
    before = np.maximum(after - 1, 0)
    return np.where(wanted - known[before] <= known[after] - wanted, before, after)


def _strip(width: int) -> int:
    return max(64, min(512, STRIP_PIXELS // width))


def _thinned(
    look: Quicklook, class_raster: Path, page: _Page
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of scene (h, w, 3) and classes (h, w) at the same places, and the count of each code over all pixels."""
    down, across = _spread(look.rgb.shape[0], page.height), _spread(look.rgb.shape[1], page.width)
    rows, cols = look.rows[down], look.cols[across]
    codes = np.empty((page.height, page.width), dtype=np.int64)
    counts = np.zeros(2**16, dtype=np.int64)
    step = _strip(look.width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), open_raster(str(class_raster)) as raster:
            for top in range(0, look.height, step):
                count = min(step, look.height - top)
                strip = raster.read(1, window=Window(0, top, look.width, count))
                counts += np.bincount(strip.ravel(), minlength=len(counts))
                first, end = np.searchsorted(rows, [top, top + count])
                codes[first:end] = strip[np.ix_(rows[first:end] - top, cols)]
    return look.rgb[np.ix_(down, across)], codes, counts


def _enlarged(values: NDArray[Any], page: _Page) -> NDArray[Any]:
    return values.repeat(page.factor, axis=0).repeat(page.factor, axis=1)


def _overlay(rgb: NDArray[np.uint8], codes: NDArray[np.int64], classes: ClassList, page: _Page) -> NDArray[np.uint8]:
    """Class colours over the scene in gray, thin dark lines where classes meet, all of it enlarged."""
    gray = rgb.astype(np.float32).mean(axis=2)
    valid = codes != classes.nodata
    # Stretched and lifted: on a dark scene all colours would turn to mud and differ from the legend's.
    low, high = np.percentile(gray[valid], (2, 98)) if valid.any() else (0.0, 255.0)
    shade = 110 + 145 * np.clip((gray - low) / max(float(high - low), 1.0), 0, 1)
    colors = np.zeros((classes.nodata + 1, 3), dtype=np.float32)
    for code in (0, classes.unprocessed, *(spec.code for spec in classes.drawn)):
        colors[code] = classes.color_of(code)
    result = SCENE_SHARE * shade[..., None] + (1 - SCENE_SHARE) * colors[codes]
    dark = result * 0.55
    result[~valid] = dark[~valid] = 255
    shown = _enlarged(np.asarray(result, dtype=np.uint8), page)
    dark = _enlarged(np.asarray(dark, dtype=np.uint8), page)
    # Lines stay thin: the first row or column of a pixel as it is shown.
    for axis, first in ((0, np.s_[:: page.factor]), (1, np.s_[:, :: page.factor])):
        border = np.zeros(codes.shape, dtype=bool)
        changes = np.diff(codes, axis=axis) != 0
        border[np.s_[1:] if axis == 0 else np.s_[:, 1:]] = changes
        wide = border.repeat(page.factor, axis=1 - axis)
        shown[first][wide] = dark[first][wide]
    return shown


def _legend(counts: NDArray[np.int64], classes: ClassList) -> _Entries:
    """Colour and text of every class, and of background and unprocessed where they occur."""
    valid = max(1, int(counts.sum() - counts[classes.nodata]))
    shown = [0] if counts[0] else []
    shown += [spec.code for spec in classes.drawn]
    if counts[classes.unprocessed]:
        shown.append(classes.unprocessed)
    if len(shown) > MOST_ENTRIES:
        shown.sort(key=lambda code: -int(counts[code]))
    entries = [
        (classes.color_of(code), f"{classes.name_of(code)}  {100 * int(counts[code]) / valid:.1f} %")
        for code in shown[:MOST_ENTRIES]
    ]
    rest = len(shown) - MOST_ENTRIES
    return [*entries, (_WHITE, f"… and {rest} more")] if rest > 0 else entries
