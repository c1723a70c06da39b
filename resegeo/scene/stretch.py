"""What is looked at of a scene before it is read: a fixed sample, and the range of values that it holds.

Everything is anchored to the scene and read at full resolution: never overviews, which come and go, and whatever the
file's own blocks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from resegeo.errors import notice
from resegeo.scene.formats import opened
from resegeo.scene.pixels import Pixels, nodata_pixels, reading
from resegeo.scene.source import CHUNK, Complaints, Source, damaged

SAMPLE_SIDE = 64
SAMPLE_COUNT = 16
"""A sample is at most SAMPLE_COUNT² squares of SAMPLE_SIDE² pixels at full resolution."""

ENOUGH = 1000
"""Valid values of a band from which on its range is taken from the sample alone."""

MOST = (SAMPLE_COUNT * SAMPLE_SIDE) ** 2
"""Values of a band that are kept at most, however many the scene has."""


def sample_squares(raw: Source, used: tuple[int, int, int], pixels: Pixels) -> Iterator[NDArray[Any]]:
    """Yield squares (3 bands + validity, h, w) on a grid over the whole scene, all of it where that is small."""
    return _squares(raw, used, pixels, _starts(raw.height), _starts(raw.width), SAMPLE_SIDE)


def _starts(size: int) -> Sequence[int]:
    """First rows or columns of the sample's squares."""
    if size <= SAMPLE_COUNT * SAMPLE_SIDE:
        return range(0, size, SAMPLE_SIDE)
    return [int(k * (size - SAMPLE_SIDE) / (SAMPLE_COUNT - 1)) for k in range(SAMPLE_COUNT)]


def alpha_holds_data(raw: Source, band: int) -> bool:
    """Whether an alpha band looks like an image: where it is not 0, most values of the sample are below its largest.

    A mask has one value there, and with soft edges some others.
    """
    found: list[NDArray[Any]] = []
    try:
        with warnings.catch_warnings(), Complaints():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with opened(raw.label, raw.drivers) as raster:
                for row in _starts(raw.height):
                    for col in _starts(raw.width):
                        size = min(SAMPLE_SIDE, raw.width - col), min(SAMPLE_SIDE, raw.height - row)
                        found.append(raster.read(band, window=Window(col, row, *size)).ravel())
    except (RasterioError, OSError) as error:
        raise damaged(raw.label, f"band {band}", error) from error
    values = np.concatenate(found)
    values = values[values > 0]
    return np.unique(values).size > 16 and bool((values < values.max()).mean() > 0.5)


def value_range(
    raw: Source, used: tuple[int, int, int], pixels: Pixels, sample: Sequence[NDArray[Any]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the 2nd and 98th percentile of the valid values of each used band; 0 to 255 where they were uint8.

    They come from the sample. A band of which that holds fewer than :data:`ENOUGH` values, or one value alone, is
    looked for in the whole scene: a small patch of data in a large frame lies between the squares. Where both
    percentiles are one value, which then fills nearly all of the band, they are those of the other values.
    """
    if raw.stored == np.uint8 and _whole_bytes(sample):
        return (0.0,) * 3, (255.0,) * 3
    nodata = raw.nodata_of(used)
    values = [np.concatenate([_valid_values(piece, band, nodata) for piece in sample]) for band in range(3)]
    missed = sum(piece[0].size for piece in sample) < raw.height * raw.width
    few = [band for band, found in enumerate(values) if found.size < ENOUGH or found.min() == found.max()]
    if few and missed:
        kept = {band: _Thinned() for band in few}
        for block in _squares(raw, used, pixels, range(0, raw.height, CHUNK), range(0, raw.width, CHUNK), CHUNK):
            for band, thinned in kept.items():
                thinned.add(_valid_values(block, band, nodata))
        for band, thinned in kept.items():
            values[band] = thinned.values()
    empty = dict.fromkeys(used[band] for band in range(3) if not values[band].size)
    if empty and any(found.size for found in values):
        notice(
            f"{raw.label} holds nothing but nodata in band {', '.join(map(str, empty))}, which is shown as black.",
        )
    # A range of nothing makes a band black; a scene without any valid pixel is refused later.
    ends = [_percentiles(found) if found.size else (0.0, 0.0) for found in values]
    _mention_fill(raw, used, values, ends)
    ends = [_range(found, *both) for found, both in zip(values, ends, strict=True)]
    return tuple(low for low, _ in ends), tuple(high for _, high in ends)


def _percentiles(found: NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(found.astype(np.float64), (2, 98))
    return float(low), float(high)


def _range(found: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """Return percentiles that differ, where the values do."""
    others = found[found != low] if low == high else found[:0]
    if not others.size:
        return low, high
    least, most = _percentiles(others)
    return (least, most) if least < most else (min(low, least), max(high, most))


def _mention_fill(
    raw: Source, used: Sequence[int], values: Sequence[NDArray[Any]], ends: Sequence[tuple[float, float]]
) -> None:
    """Say where one value spoils the stretch: one that lies further from all others than these from one another."""
    for band, found, both in zip(used, values, ends, strict=True):
        for value in both:
            others = found[found != value]
            if not others.size or value not in (found.min(), found.max()):
                continue
            low, high = _percentiles(others)
            if low < high and max(low - value, value - high) > high - low:
                said = repr(value).removesuffix(".0")
                notice(
                    f"{raw.label} holds {said} in {1 - others.size / found.size:.0%} of band {band}, far from all "
                    f"other values. If that stands for no data, declare it by gdal_edit.py -a_nodata {said}; else set "
                    f"the range, such as by [[stretch={low:g}:{high:g}]].",
                )
                return


def _squares(
    raw: Source, used: tuple[int, int, int], pixels: Pixels, rows: Sequence[int], cols: Sequence[int], side: int
) -> Iterator[NDArray[Any]]:
    read = reading(raw, used, pixels)
    for row in rows:
        bottom = min(row + side, raw.height)
        try:
            for col in cols:
                yield read(row, col, bottom, min(col + side, raw.width))
        except (RasterioError, OSError) as error:
            raise damaged(raw.label, f"rows {row} to {bottom - 1}", error) from error


def _valid_values(piece: NDArray[Any], band: int, nodata: Sequence[float | None]) -> NDArray[Any]:
    """Values of one band at valid pixels, but where the band itself is nodata beside valid ones."""
    return np.asarray(piece[band][(piece[-1] != 0) & ~nodata_pixels(piece[:3], nodata)[band]])


def _whole_bytes(sample: Sequence[NDArray[Any]]) -> bool:
    """Whether all valid values are those that uint8 can hold: an array may have been changed since it was read."""
    valid = (piece[:3, piece[-1] != 0] for piece in sample)
    return all(bool(((found == np.rint(found)) & (found >= 0) & (found <= 255)).all()) for found in valid)


class _Thinned:
    """Every n-th of the values added, n growing with their number, so that no more than MOST are kept."""

    def __init__(self) -> None:
        self._pieces: list[NDArray[Any]] = []
        self._step, self._seen, self._kept = 1, 0, 0

    def add(self, values: NDArray[Any]) -> None:
        """Take the next values, in the order of the scene."""
        self._pieces.append(values[-self._seen % self._step :: self._step].copy())
        self._seen += values.size
        self._kept += self._pieces[-1].size
        while self._kept > MOST:
            self._pieces = [self.values()[::2].copy()]
            self._step, self._kept = 2 * self._step, self._pieces[0].size

    def values(self) -> NDArray[Any]:
        """Return what is kept."""
        return np.concatenate(self._pieces)
