"""Random crops of the training pictures: where, how large, how turned, under what light."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np
from bundled_model_data import CODES, Picture
from numpy.typing import NDArray

SOURCE_WEIGHTS = {
    "road": 0.20,
    "solar_panel": 0.16,
    "forest": 0.08,
    "dubai": 0.08,
    "korea": 0.17,
    "eurosat": 0.19,
    "clouds": 0.06,
    "naip": 0.04,
    "urban": 0.06,
    "ports": 0.01,
    "sentinel2-patch": 0.01,
    "landsat": 0.01,
    "sentinel2": 0.03,
    "neon": 0.02,
    "new_brunswick": 0.02,
}


FIRM = {"road": "any road", "solar_panel": "solar panel", "forest": "tree", "naip": "any water"}
"""Source -> the code that every other centred crop of it is centred on."""


class Crop(NamedTuple):
    """What training sees at a time: (S, S, 3) and (S, S)."""

    source: str
    rgb: NDArray[np.uint8]
    codes: NDArray[np.uint8]


class Sampler:
    """Random crops: a source, an image, a pixel to centre on, a warp, a colour."""

    def __init__(self, pictures: list[Picture], size: int) -> None:
        self.size = size
        self.by_source: dict[str, list[Picture]] = {}
        for picture in pictures:
            self.by_source.setdefault(picture.source, []).append(picture)
        self.sources = [s for s in SOURCE_WEIGHTS if s in self.by_source]
        weights = np.array([SOURCE_WEIGHTS[s] for s in self.sources])
        self.weights = weights / weights.sum()

    def crop(self, rng: np.random.Generator, focus: float = 0.6) -> Crop:
        """One augmented crop.

        The share ``focus`` of all crops is centred on a pixel of the class that the source measures, or of a code
        drawn at random, so that rare ones come as often as common ones; half of them at about the picture's scale.
        """
        name = self.sources[rng.choice(len(self.sources), p=self.weights)]
        group = self.by_source[name]
        if name == "eurosat":
            return Crop(name, *self._chips(group, rng))
        picture = group[rng.integers(len(group))]
        height, width = picture.codes.shape
        if picture.centres and rng.random() < focus:
            code = rng.choice(list(picture.centres))
            if name in FIRM and CODES[FIRM[name]] in picture.centres and rng.random() < 0.5:
                code = CODES[FIRM[name]]
            spots = picture.centres[int(code)]
            row, col = spots[rng.integers(len(spots))] + rng.uniform(-50, 50, 2)
        else:
            row, col = rng.uniform(0, height), rng.uniform(0, width)
        low, high = np.log(picture.scale) if rng.random() < 0.5 else np.log((0.85, 1.2))
        zoom = float(np.exp(rng.uniform(low, high)))
        # Stay inside where the image is large enough for the crop.
        reach = self.size / zoom / 2
        row = np.clip(row, min(reach, height / 2), max(height - reach, height / 2))
        col = np.clip(col, min(reach, width / 2), max(width - reach, width / 2))
        angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
        flip = -1.0 if rng.random() < 0.5 else 1.0
        aspect = float(np.exp(rng.normal(0, 0.08)))
        cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
        # Maps crop coordinates to image coordinates (WARP_INVERSE_MAP).
        matrix = np.array([[cos * flip * aspect, -sin, 0.0], [sin * flip * aspect, cos, 0.0]])
        half = self.size / 2
        matrix[:, 2] = np.array([col, row]) - matrix[:, :2] @ np.array([half, half])
        shape = (self.size, self.size)
        source = picture.rgb
        if zoom < 0.7:  # against aliasing
            source = self._shrunk(picture)
            matrix_image = matrix * 0.5
        else:
            matrix_image = matrix
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        rgb = cv2.warpAffine(source, matrix_image, shape, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        codes = cv2.warpAffine(
            picture.codes, matrix, shape, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT
        )
        return Crop(name, recolour(rgb.astype(np.uint8), rng), codes.astype(np.uint8))

    def _chips(self, group: list[Picture], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Chips as a window: one in a corner, empty around it, some side by side, or one at the size of the window."""
        # Around a scene smaller than a window stands the model's mean colour.
        rgb = np.empty((self.size, self.size, 3), dtype=np.uint8)
        rgb[:] = (123, 117, 104)
        codes = np.zeros((self.size, self.size), dtype=np.uint8)
        way, turns, flip = rng.random(), int(rng.integers(4)), rng.random() < 0.5
        picture = group[rng.integers(len(group))]
        chip = np.rot90(picture.rgb[:, ::-1] if flip else picture.rgb, turns)
        side = chip.shape[0]
        if way < 0.45:
            rgb[:side, :side] = recolour(np.ascontiguousarray(chip), rng)
            codes[:side, :side] = picture.codes[0, 0]
            return rgb, codes
        if way < 0.6:
            large = cv2.resize(np.ascontiguousarray(chip), (self.size, self.size), interpolation=cv2.INTER_CUBIC)
            return recolour(large.astype(np.uint8), rng), np.full_like(codes, picture.codes[0, 0])
        for row in range(0, self.size, side):
            for col in range(0, self.size, side):
                picture = group[rng.integers(len(group))]
                high, wide = min(side, self.size - row), min(side, self.size - col)
                rgb[row : row + high, col : col + wide] = np.rot90(picture.rgb, turns)[:high, :wide]
                codes[row : row + high, col : col + wide] = picture.codes[0, 0]
        return recolour(rgb, rng), codes

    def _shrunk(self, picture: Picture) -> NDArray[np.uint8]:
        if picture.half is None:
            half = cv2.resize(picture.rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            picture.half = half.astype(np.uint8)
        return picture.half


def recolour(rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change brightness, contrast, gamma, white balance, haze, saturation, sharpness, stretch; add noise."""
    if rng.random() < 0.15:
        return rgb
    if rng.random() < 0.15:
        # Another stretch, as of another sensor or a part of a scene: each channel by its own percentiles.
        low, high = np.percentile(rgb[::4, ::4], [rng.uniform(0, 4), rng.uniform(95, 100)], axis=(0, 1))
        span = np.maximum(high - low, 24)
        mixed = rng.uniform(0.3, 1.0)
        rgb = np.clip(rgb * (1 - mixed) + (rgb - low) / span * 255 * mixed, 0, 255).astype(np.uint8)
    # Gamma, white balance, brightness and contrast act on single values: one table a channel.
    tone = (np.arange(256, dtype=np.float32) / 255.0) ** np.exp(rng.normal(0, 0.28))
    table = tone[:, None] * (np.exp(rng.normal(0, 0.1, 3)) * np.exp(rng.normal(0, 0.18)))
    middle = np.mean([table[rgb[::8, ::8, c], c].mean() for c in range(3)])
    table = (table - middle) * np.exp(rng.normal(0, 0.22)) + middle + rng.normal(0, 0.05)
    if rng.random() < 0.15:  # haze: a pale, mostly bluish veil
        veil = rng.uniform(0.05, 0.4)
        table = table * (1 - veil) + veil * (rng.uniform(0.6, 0.95) + rng.uniform(0, 0.08) * np.array([-1, 0, 1]))
    x = np.stack([table[rgb[..., c], c] for c in range(3)], axis=2).astype(np.float32)
    grey = x.mean(axis=2, keepdims=True)
    x = grey + (x - grey) * np.float32(np.exp(rng.normal(0, 0.3)))
    chance = rng.random()
    if chance < 0.2:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.3))
    elif chance < 0.3:
        x = x + rng.uniform(0.3, 1.0) * (x - cv2.GaussianBlur(x, (0, 0), 1.0))
    if rng.random() < 0.2:
        x = x + rng.normal(0, rng.uniform(0.005, 0.03), x.shape)
    return np.asarray(np.clip(x, 0, 1) * 255, dtype=np.uint8)


def ahead(make: Callable[[int], Any], first: int, last: int) -> Iterator[tuple[int, Any]]:
    """Yield ``make(step)`` for each step, two of them computed ahead in a thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = deque(pool.submit(make, step) for step in range(first, min(first + 2, last)))
        for step in range(first, last):
            if step + 2 < last:
                waiting.append(pool.submit(make, step + 2))
            yield step, waiting.popleft().result()
