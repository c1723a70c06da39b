"""One picture that tells whether it worked: the scene, the classes over it, and a legend."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from resegeo.classes import ClassList
from resegeo.scene import Scene

PANEL = 960
"""Longest side of one panel in pixels; two panels and the legend stay below 2,048."""

STRIP = 256
"""Rows of the scene that are read at once."""

_MARGIN = 16


def write_overlay(path: Path, scene: Scene, class_raster: Path, classes: ClassList) -> None:
    """Write a PNG: the scene beside the scene under its classes, and a legend with shares of the valid pixels.

    Scenes are thinned (every n-th pixel) or, where small, enlarged by a whole factor. 2,048 pixels a side
    at most; memory is bounded by a strip of the scene.
    """
    rgb, codes = _thinned(scene, class_raster)
    factor = max(1, min(4, PANEL // max(codes.shape)))
    rgb = rgb.repeat(factor, axis=0).repeat(factor, axis=1)
    codes = codes.repeat(factor, axis=0).repeat(factor, axis=1)
    over = _overlay(rgb, codes, classes)
    page = _page(rgb, over, _legend(codes, classes))
    beside = path.with_name(f".tmp-{path.name}")
    page.save(beside, format="PNG", optimize=True)
    beside.replace(path)


def _thinned(scene: Scene, class_raster: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Every n-th pixel of scene and classes: (h, w, 3) and (h, w)."""
    step = -(-max(scene.height, scene.width) // PANEL)
    colours, codes = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(class_raster) as raster:
            rows = max(step, STRIP // step * step)
            for row in range(0, scene.height, rows):
                count = min(rows, scene.height - row)
                strip, valid = scene.read(row, 0, count, scene.width)
                strip = np.where(valid[..., None], strip, 255).astype(np.uint8)
                colours.append(strip[::step, ::step])
                codes.append(raster.read(1, window=Window(0, row, scene.width, count))[::step, ::step].astype(np.int64))
    return np.concatenate(colours), np.concatenate(codes)


def _overlay(rgb: NDArray[np.uint8], codes: NDArray[np.int64], classes: ClassList) -> NDArray[np.uint8]:
    """Blend class colours over a grayed scene; background shows the scene, borders are dark."""
    gray = rgb.astype(np.float32).mean(axis=2, keepdims=True).repeat(3, axis=2)
    result = 0.35 * rgb + 0.65 * gray
    for spec in classes.drawn:
        here = codes == spec.code
        result[here] = 0.4 * gray[here] + 0.6 * np.asarray(spec.color, dtype=np.float32)
    result[codes == classes.nodata] = 255
    border = np.zeros(codes.shape, dtype=bool)
    border[:, 1:] |= codes[:, 1:] != codes[:, :-1]
    border[1:] |= codes[1:] != codes[:-1]
    result[border] *= 0.6
    return np.asarray(result, dtype=np.uint8)


def _legend(codes: NDArray[np.int64], classes: ClassList) -> list[tuple[tuple[int, int, int], str]]:
    valid = max(1, int((codes != classes.nodata).sum()))
    shown = [0] if (codes == 0).any() else []
    shown += [spec.code for spec in classes.drawn]
    if (codes == classes.unprocessed).any():
        shown.append(classes.unprocessed)
    entries = []
    for code in shown:
        share = 100 * float((codes == code).sum()) / valid
        entries.append((classes.color_of(code), f"{classes.name_of(code)}  {share:.1f} %"))
    return entries[:60] + ([((255, 255, 255), f"… and {len(entries) - 60} more")] if len(entries) > 60 else [])


def _page(
    left: NDArray[np.uint8], right: NDArray[np.uint8], legend: list[tuple[tuple[int, int, int], str]]
) -> Image.Image:
    """Place both panels beside or above each other, the legend in columns below."""
    height, width = left.shape[:2]
    beside = height >= width // 2
    across = 2 * width + 3 * _MARGIN if beside else width + 2 * _MARGIN
    down = height + _MARGIN if beside else 2 * height + 2 * _MARGIN
    across = max(across, 420)
    font = ImageFont.load_default(size=18)
    line, swatch = 28, 20
    column = max(int(font.getlength(text)) for _, text in legend) + swatch + 36
    columns = max(1, (across - _MARGIN) // column)
    lines = -(-len(legend) // columns)
    page = Image.new("RGB", (max(across, column + 2 * _MARGIN), down + 2 * _MARGIN + lines * line), (255, 255, 255))
    page.paste(Image.fromarray(left), (_MARGIN, _MARGIN))
    page.paste(Image.fromarray(right), (width + 2 * _MARGIN, _MARGIN) if beside else (_MARGIN, height + 2 * _MARGIN))
    draw = ImageDraw.Draw(page)
    for index, (color, text) in enumerate(legend):
        x, y = _MARGIN + index % columns * column, down + _MARGIN + index // columns * line
        draw.rectangle((x, y, x + swatch, y + swatch), fill=color, outline=(90, 90, 90))
        draw.text((x + swatch + 8, y - 1), text, fill=(20, 20, 20), font=font)
    if max(page.size) > 2048:
        page.thumbnail((2048, 2048))
    return page
