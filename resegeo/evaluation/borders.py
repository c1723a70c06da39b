"""Where classes meet: pixels near the borders of a label map, and how well two maps agree there.

Sources: B. Cheng, R. Girshick, P. Dollár, A. C. Berg, A. Kirillov (2021), Boundary IoU: Improving Object-Centric Image
Segmentation Evaluation, CVPR; distances count as in its authors' code, which erodes by squares and takes the edge of
the image for a border. Leaving out what a disc around a border covers: as the ISPRS labelling contests do.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, maximum_filter1d, minimum_filter, minimum_filter1d

from resegeo.errors import UsageError
from resegeo.evaluation.metrics import UNKNOWN, ratios
from resegeo.outputs.area_table import pixel_areas
from resegeo.scene.source import GeoReference
from resegeo.units import length

WIDEST = 512
"""Pixels that a margin may have: as much more is read around each block."""


@dataclass(frozen=True, eq=False)
class Boundaries:
    """Pixels within some distance of the contours of each class, summed over blocks and images."""

    hits: NDArray[np.int64]
    """(C,) near the contour of the class in truth and prediction alike."""
    union: NDArray[np.int64]
    """(C,) near it in one of them at least."""

    @classmethod
    def none(cls, classes: int) -> Boundaries:
        """Nothing counted yet."""
        return cls(np.zeros(classes, dtype=np.int64), np.zeros(classes, dtype=np.int64))

    def __add__(self, other: Boundaries) -> Boundaries:
        """Add up what was counted of two blocks or images."""
        return Boundaries(self.hits + other.hits, self.union + other.union)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Boundary IoU of each class (C,); NaN where it has no contour in either."""
        return ratios(self.hits, self.union)


def boundaries(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], margin: int, width: int, classes: int
) -> Boundaries:
    """Count one block.

    Parameters
    ----------
    truth, predicted:
        (h + 2 margin, w + 2 margin) indices of a block and what lies around it; :data:`UNKNOWN` beyond the image.
    margin:
        Pixels around the block.
    width:
        Distance from a contour in pixels, at most ``margin``.
    classes:
        C; larger indices in ``predicted`` are answers that are no class.

    """
    known = (truth != UNKNOWN) & (predicted != UNKNOWN)  # what is not labelled ends the classes of both alike
    truth, predicted = np.where(known, truth, UNKNOWN), np.where(known, predicted, UNKNOWN)
    inner = _inner(margin)
    edge, said_edge = (_mixed(labels, width)[inner] & known[inner] for labels in (truth, predicted))
    truth, predicted = truth[inner], predicted[inner]
    said_edge &= predicted < classes

    def count(values: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(values, minlength=classes)[:classes]

    hits = count(truth[edge & said_edge & (truth == predicted)])
    return Boundaries(hits, count(truth[edge]) + count(predicted[said_edge]) - hits)


def near_borders(truth: NDArray[np.int64], margin: int, radius: int) -> NDArray[np.bool_]:
    """Tell the pixels (h, w) of a block that have a pixel of another class within ``radius``, in a straight line.

    ``truth`` is as for :func:`boundaries`; what is not labelled, and the edge of the image, are no borders.
    """
    low, high = np.where(truth == UNKNOWN, 2**20, truth), truth  # more than there are classes
    lowest, highest = low.copy(), high.copy()
    for shift in range(-radius, radius + 1):  # a disc is a stack of rows
        half = math.isqrt(radius * radius - shift * shift)
        to, source = _rows(shift, len(truth))
        across = minimum_filter1d(low[source], 2 * half + 1, axis=1, mode="nearest")
        lowest[to] = np.minimum(lowest[to], across)
        across = maximum_filter1d(high[source], 2 * half + 1, axis=1, mode="nearest")
        highest[to] = np.maximum(highest[to], across)
    known = truth != UNKNOWN
    return np.asarray((known & (lowest < highest))[_inner(margin)])


def _rows(shift: int, height: int) -> tuple[slice, slice]:
    return slice(max(0, -shift), height - max(0, shift)), slice(max(0, shift), height - max(0, -shift))


def _inner(margin: int) -> tuple[slice, slice]:
    part = slice(margin, -margin or None)
    return part, part


def _mixed(labels: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Tell the pixels whose square of ``width`` pixels to each side holds another label."""
    size = 2 * width + 1
    outside = {"mode": "constant", "cval": UNKNOWN}
    return np.asarray(minimum_filter(labels, size, **outside) != maximum_filter(labels, size, **outside))


def width_in_pixels(text: str | float, name: str, height: int, width: int, where: GeoReference) -> int:
    """Turn the width of a margin into whole pixels, at least 1.

    Parameters
    ----------
    text:
        A length such as ``3px`` or ``1.5m``, or ``2%`` of the image's diagonal.
    name:
        Parameter that it was given for, named in messages.
    height, width, where:
        Of the image.

    Raises
    ------
    UsageError:
        When it is none, or so wide that it makes no sense.

    """
    share = re.fullmatch(r"\s*([0-9.]+)\s*%\s*", str(text))
    if share:
        try:
            pixels = float(share[1]) / 100 * math.hypot(height, width)
        except ValueError as error:
            raise UsageError(f"[[{name}={text}]] is no share of the diagonal; expected such as 2%.") from error
    else:
        middle = pixel_areas(where, height // 2, height // 2 + 1, width)
        try:
            wide = length(text, name)
        except UsageError as error:
            raise UsageError(f"[[{name}={text}]] is no width; expected such as 3px, 1.5m or 2%.") from error
        pixels = wide.in_pixels(math.sqrt(float(middle.flat[0])), f"[[{name}]]")
    if not 0 < pixels <= WIDEST:
        raise UsageError(f"[[{name}={text}]] is {pixels:,.4g} pixels; expected more than 0 and at most {WIDEST}.")
    return max(1, round(pixels))
