"""Pictures of an image's classes at the image's own size: plain colours, colours over the image, and one legend."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from resegeo.errors import ResegeoError, shown
from resegeo.files import whole

PREDICTED, REAL = ("pred_mask.png", "pred_overlay.png"), ("gt_mask.png", "gt_overlay.png")
"""The reference's names of mask and overlay: of what was found, and of the labels."""

LEGEND = "legend.png"

BLANK = (0, 0, 0)
"""Colour of pixels without a class: not labelled, nodata."""

SHARE = 0.5
"""How much of an overlay the class's colour is; the rest is the image."""

_MARK = "resegeo"
"""Text in a picture that says what its pixels were when it was written: an edited one is the user's."""


def colour_table(colors: Mapping[str, tuple[int, int, int]], names: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the colours (C + 1, 3) of categories by index; the last, also index -1, is :data:`BLANK`."""
    return np.array([*(colors[name] for name in names), BLANK], dtype=np.uint8)


def draw(
    folder: Path,
    names: tuple[str, str],
    indices: NDArray[np.integer],
    rgb: NDArray[np.uint8],
    table: NDArray[np.uint8],
    *,
    overwrite: bool = False,
) -> None:
    """Write mask and overlay of category indices (h, w), -1 without one, over an image (h, w, 3).

    Raises
    ------
    ResegeoError:
        When a file there is not ours, or none can be written.

    """
    mask = table[indices]
    classed = (indices >= 0)[..., None]
    blended = rgb + (mask.astype(np.float32) - rgb) * SHARE
    write(folder / names[0], mask, overwrite=overwrite)
    write(folder / names[1], np.where(classed, np.rint(blended), rgb).astype(np.uint8), overwrite=overwrite)


def legend(path: Path, colors: Mapping[str, tuple[int, int, int]], *, blank: bool, overwrite: bool = False) -> None:
    """Write the categories' colours and names, and with ``blank`` that of pixels without one; see :func:`write`."""
    entries = [*colors.items(), *([("not labelled, or nodata", BLANK)] if blank else [])]
    size, gap = 22, 12
    font = ImageFont.load_default(size=size)
    texts = [name if len(name) <= 60 else f"{name[:59]}…" for name, _ in entries]
    width = max(int(font.getlength(text)) for text in texts) + size + 3 * gap
    page = Image.new("RGB", (width, len(entries) * (size + gap) + gap), (255, 255, 255))
    pen = ImageDraw.Draw(page)
    for number, (text, (_, color)) in enumerate(zip(texts, entries, strict=True)):
        top = gap + number * (size + gap)
        pen.rectangle((gap, top, gap + size, top + size), fill=color, outline=(90, 90, 90))
        pen.text((2 * gap + size, top + size / 2), text, fill=(20, 20, 20), font=font, anchor="lm")
    write(path, np.asarray(page), overwrite=overwrite)


def write(path: Path, pixels: NDArray[np.uint8], *, overwrite: bool = False) -> None:
    """Write a PNG (h, w, 3) that says what it holds; one that is there already and looks so is left.

    Raises
    ------
    ResegeoError:
        When a file of that name is not ours, or was edited, or it cannot be written.

    """
    mark = _mark(pixels)
    if path.exists():
        there = _marked(path)
        if there == mark:
            return
        if there is None and not overwrite:
            raise ResegeoError(
                f"{shown(path)} is none of ours, or was edited. Move it away, or pass [[overwrite=True]] to replace it."
            )
    about = PngImagePlugin.PngInfo()
    about.add_text(_MARK, mark)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as beside:
            Image.fromarray(pixels).save(beside, format="PNG", compress_level=6, pnginfo=about)
    except OSError as error:
        raise ResegeoError(
            f"{shown(path)} cannot be written ({error.strerror}). Check free space and permissions."
        ) from error


def _mark(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _marked(path: Path) -> str | None:
    """Return what a picture of ours holds, as its text and its pixels say alike; None of any other file."""
    try:
        with Image.open(path) as picture:
            said = getattr(picture, "text", {}).get(_MARK)
            return said if said is not None and said == _mark(np.asarray(picture.convert("RGB"))) else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
