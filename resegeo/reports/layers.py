"""The pictures of a report: scene, classes, outlines and confidence, all of one size, as data URIs."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from resegeo.classes.class_list import ClassList
from resegeo.clip.blending import NO_SCORE
from resegeo.errors import ResegeoError
from resegeo.reports.facts import LEVELS, level_of
from resegeo.scene.formats import open_raster

LONGEST = 2000
"""Side of a picture in pixels at most."""
SHARP = 1600
"""Small scenes are enlarged by a whole factor up to this, so that outlines stay thin."""
COLOURS = ("#c0392b", "#ef8a62", "#f3d27a", "#8fc1dd", "#3d7ab5")
"""Of the steps of confidence, the least sure first: told apart by those who see no red or green, too."""

RIGHT, WRONG = "#3d7ab5", "#c0392b"
"""Colours of pixels that an evaluation found so."""
SCENE = "Scene"
"""Name of the lowest layer."""

_JPEG = 88


@dataclass(frozen=True)
class Layer:
    """One picture of the stack."""

    name: str
    uri: str
    opacity: float
    """At first, 0 to 1."""


@dataclass(frozen=True)
class Stack:
    """Pictures from below to above."""

    height: int
    width: int
    layers: tuple[Layer, ...]


def draw(
    raster: Path,
    classes: ClassList,
    rgb: NDArray[np.uint8] | None,
    scores: Any | None,
    right: NDArray[np.uint8] | None = None,
) -> Stack:
    """Draw the layers of a map.

    Parameters
    ----------
    raster:
        The class raster.
    classes:
        Its class list.
    rgb:
        (h, w, 3) the scene thinned evenly, or None.
    scores:
        Array (height, width) of the pixels' scores, or None.
    right:
        (h, w) where the map is right, see :func:`resegeo.evaluation.evaluate.agreement`, or None.

    Raises
    ------
    ResegeoError:
        When the raster cannot be read.

    """
    codes = _codes(raster)
    factor = max(1, SHARP // max(codes.shape))
    shape = codes.shape[0] * factor, codes.shape[1] * factor
    layers = []
    if rgb is not None:
        layers.append(Layer(SCENE, _jpeg(_resized(rgb, shape)), 1.0))
    palette = np.zeros((classes.nodata + 1, 4), dtype=np.uint8)
    for code in (0, classes.unprocessed, *(spec.code for spec in classes.drawn)):
        palette[code] = (*classes.color_of(code), 255)
    layers.append(Layer("Classes", _png(palette, codes), 0.7 if rgb is not None else 1.0))
    layers.append(Layer("Outlines", _png(np.array([[0, 0, 0, 0], [20, 24, 30, 255]]), _edges(codes, factor)), 0.7))
    if scores is not None:
        steps = _thinned(scores, codes.shape)
        tones = [(*_rgb(colour), 255) for colour in COLOURS]
        index = np.where((steps == NO_SCORE) | (codes == classes.nodata), len(LEVELS) - 1, level_of(steps))
        layers.append(Layer("Confidence", _png(np.array([*tones, (0, 0, 0, 0)]), index), 0.0))
    if right is not None:
        tones = [(0, 0, 0, 0), (*_rgb(RIGHT), 255), (*_rgb(WRONG), 255)]
        layers.append(Layer("Right and wrong", _png(np.array(tones), right), 0.0))
    return Stack(*shape, tuple(layers))


def thumbnail(stack: Stack, side: int = 360) -> str:
    """Lay the layers over one another as they are first shown: a small picture as data URI."""
    page = Image.new("RGBA", (stack.width, stack.height), "white")
    for layer in stack.layers:
        picture = Image.open(io.BytesIO(base64.b64decode(layer.uri.partition(",")[2]))).convert("RGBA")
        picture = picture.resize(page.size, Image.Resampling.NEAREST)
        picture.putalpha(picture.getchannel("A").point(lambda value, part=layer.opacity: int(value * part)))
        page.alpha_composite(picture)
    page.thumbnail((side, side))
    return _jpeg(np.asarray(page.convert("RGB")))


def _codes(raster: Path) -> NDArray[np.integer]:
    """Read a class raster thinned to :data:`LONGEST`, from its overviews where it has some."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with open_raster(str(raster)) as opened:
                scale = min(1.0, LONGEST / max(opened.shape))
                shape = tuple(max(1, round(side * scale)) for side in opened.shape)
                codes: NDArray[np.integer] = opened.read(1, out_shape=shape, resampling=Resampling.nearest)
                return codes
    except RasterioError as error:
        raise ResegeoError(f"{raster} is damaged: its pixels cannot be read. Run segment again.") from error


def _edges(codes: NDArray[np.integer], factor: int) -> NDArray[np.uint8]:
    """Tell where codes change: lines of one pixel after enlargement by ``factor``."""
    large = codes.repeat(factor, axis=0).repeat(factor, axis=1)
    edges = np.zeros(large.shape, dtype=np.uint8)
    edges[1:] |= large[1:] != large[:-1]
    edges[:, 1:] |= large[:, 1:] != large[:, :-1]
    return edges


def _thinned(scores: Any, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Take scores at evenly spread pixels, strip by strip."""
    rows, cols = (
        (np.arange(count) * 2 + 1) * size // (2 * count) for count, size in zip(shape, scores.shape, strict=True)
    )
    result = np.empty(tuple(shape), dtype=np.uint8)
    for top in range(0, scores.shape[0], 512):
        first, end = np.searchsorted(rows, [top, top + 512])
        if first < end:
            result[first:end] = np.asarray(scores[top : top + 512])[np.ix_(rows[first:end] - top, cols)]
    return result


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _resized(rgb: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    if rgb.shape[:2] == shape:
        return rgb
    picture = Image.fromarray(rgb).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def _jpeg(rgb: NDArray[np.uint8]) -> str:
    return _uri(Image.fromarray(rgb), "jpeg", quality=_JPEG)


def _png(palette: NDArray[np.integer], index: NDArray[np.integer]) -> str:
    """Write an image of few colours; of many classes, or codes beyond a byte, as plain RGBA."""
    used, places = np.unique(index, return_inverse=True)
    colours = palette[used].astype(np.uint8)
    if len(used) > 256:
        return _uri(Image.fromarray(palette[index].astype(np.uint8)), "png", optimize=True)
    picture = Image.fromarray(places.reshape(index.shape).astype(np.uint8), "P")
    picture.putpalette(colours[:, :3].tobytes())
    return _uri(picture, "png", optimize=True, transparency=colours[:, 3].tobytes())


def _uri(picture: Image.Image, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    picture.save(stream, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
