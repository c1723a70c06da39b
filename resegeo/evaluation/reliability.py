"""Whether probabilities mean what they say: reliability, expected calibration error, and fitting thresholds and scales.

Sources: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger (2017), On calibration of modern neural networks, ICML: expected
calibration error over bins of equal width, vector scaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from resegeo.clip.blending import LEAST
from resegeo.evaluation.metrics import ratios

BINS = 15
"""Of equal width."""
_PULL = 1e-3
"""Weight of log(scale)²: without reason a scale stays 1."""
_FARTHEST = np.log(8.0)
"""Scales are fitted between 1/8 and 8."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often answers were right, by the probability that they had."""

    count: NDArray[np.int64]
    """(BINS,) pixels in each bin of probability."""
    confidence: NDArray[np.float64]
    """Mean probability in each bin; NaN where it is empty."""
    accuracy: NDArray[np.float64]
    """Share of right answers in each bin; NaN where it is empty."""

    @property
    def error(self) -> float:
        """Expected calibration error: Σ n_b / n · |accuracy_b − confidence_b|."""
        full = self.count > 0
        gaps = np.abs(self.accuracy - self.confidence)[full]
        return float(np.average(gaps, weights=self.count[full])) if full.any() else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON; empty bins are None."""
        return {
            "expected_calibration_error": self.error,
            "bins": [
                None if not n else {"pixels": int(n), "confidence": float(c), "accuracy": float(a)}
                for n, c, a in zip(self.count, self.confidence, self.accuracy, strict=True)
            ],
        }


def reliability(confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_]) -> Reliability:
    """Sort answers (n,) into bins by their probability; a bin holds its upper end, as in the source."""
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    return Reliability(
        count,
        ratios(np.bincount(place, weights=confidence, minlength=BINS), count),
        ratios(np.bincount(place, weights=right, minlength=BINS), count),
    )


def fit_scales(
    probabilities: NDArray[np.floating[Any]], target: NDArray[np.int64], groups: Sequence[int], free: Sequence[bool]
) -> NDArray[np.float64]:
    """Fit the powers (C,) by which :func:`resegeo.clip.blending.rescaled` makes the truth most probable.

    Parameters
    ----------
    probabilities:
        (n, C).
    target:
        (n,) group of each pixel's truth.
    groups:
        Group of each class: several classes that are written as background are one.
    free:
        Which classes' powers are fitted; the others keep 1.

    """
    from scipy.optimize import minimize

    logs = np.log(np.maximum(probabilities, LEAST)).astype(np.float64)
    inside = np.asarray(groups)[None] == target[:, None]

    def loss(u: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scaled = logs * np.exp(u)
        each = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        every = each / each.sum(axis=1, keepdims=True)
        own = np.where(inside, every, 0)
        total = np.maximum(own.sum(axis=1, keepdims=True), 1e-30)
        slope = ((every - own / total) * scaled).mean(axis=0) + 2 * _PULL * u
        return float(-np.log(total).mean() + _PULL * (u @ u)), slope

    bounds = [(-_FARTHEST, _FARTHEST) if each else (0.0, 0.0) for each in free]
    found = minimize(loss, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(np.exp(found.x))


def fit_threshold(scores: NDArray[np.floating[Any]], right: NDArray[np.bool_], true: int) -> float | None:
    """Find the probability below which a class had better not be given: it makes the class's IoU largest.

    Parameters
    ----------
    scores:
        (n,) probabilities of the pixels that the class was given.
    right:
        (n,) whether they are of the class.
    true:
        Pixels that truly are of the class, found or not.

    Returns
    -------
    The threshold, or None where none does better than to keep all.

    """
    if not len(scores) or not true:
        return None
    order = np.argsort(scores, kind="stable")[::-1]
    hits = np.cumsum(right[order])
    iou = hits / (true + np.arange(1, len(order) + 1) - hits)
    # Pixels of one probability stand or fall together.
    last = np.append(scores[order][1:] < scores[order][:-1], True)
    best = int(np.argmax(np.where(last, iou, -1)))
    if best == len(order) - 1 or iou[best] <= iou[-1]:
        return None
    low, high = float(scores[order][best + 1]), float(scores[order][best])
    middle = (low + high) / 2
    return round(middle, 4) if low < round(middle, 4) <= high else high


def draw_reliability(parts: Sequence[tuple[str, Reliability]]) -> Image.Image:
    """Draw reliability diagrams side by side: bars of accuracy over the diagonal on which they should end."""
    side, margin, gap = 360, 64, 40
    page = Image.new("RGB", (margin + len(parts) * (side + gap) + 10, side + 176), "white")
    draw = ImageDraw.Draw(page)
    font, small = ImageFont.load_default(size=17), ImageFont.load_default(size=13)
    for number, (name, found) in enumerate(parts):
        left, base = margin + number * (side + gap), 50 + side
        draw.text((left, 24), f"{name}: error {found.error:.3f}", fill=(30, 30, 30), font=font, anchor="lm")
        for tick in range(0, 11, 2):
            at = side * tick // 10
            draw.line((left, base - at, left + side, base - at), fill=(232, 236, 240))
            draw.text((left + at, base + 14), f"{tick / 10:g}", fill=(110, 110, 110), font=small, anchor="mm")
            if number == 0:
                draw.text((left - 10, base - at), f"{tick / 10:g}", fill=(110, 110, 110), font=small, anchor="rm")
        most = max(1, int(found.count.max()))
        for place in range(BINS):
            if not found.count[place]:
                continue
            x0, x1 = left + side * place / BINS + 2, left + side * (place + 1) / BINS - 2
            top = base - side * float(found.accuracy[place])
            draw.rectangle((x0, top, x1, base), fill=(61, 122, 181))
            wanted = base - side * float(found.confidence[place])
            if abs(wanted - top) > 1:
                draw.rectangle((x0, min(wanted, top), x1, max(wanted, top)), fill=(239, 138, 98))
            draw.rectangle((x0, base + 28, x1, base + 28 + 28 * int(found.count[place]) / most), fill=(170, 180, 190))
        draw.line((left, base, left + side, base - side), fill=(30, 30, 30), width=2)
        draw.rectangle((left, base - side, left + side, base), outline=(150, 158, 166))
        said = "probability; below: how many pixels have it"
        draw.text((left + side / 2, base + 76), said, fill=(90, 90, 90), font=small, anchor="mm")
    where = (margin, page.height - 14)
    draw.text(
        where,
        "bars: share of right answers; orange: what it lacks or has too much",
        fill=(90, 90, 90),
        font=small,
        anchor="lm",
    )
    return page


def save_reliability(parts: Sequence[tuple[str, Reliability]], path: Path) -> None:
    """Write :func:`draw_reliability` as PNG.

    Raises
    ------
    OSError:
        When the file cannot be written.

    """
    draw_reliability(parts).save(path, format="PNG")
