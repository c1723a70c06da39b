"""Overlapping scores to class codes, one output block at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from resegeo.classes import ClassList
from resegeo.scores import AxisWeights, pixel_cosines, softmax
from resegeo.windows import Rect

REDUCTIONS = ("max", "mean", "logsumexp")


def blend(
    block: Rect,
    windows: Iterable[tuple[Rect, NDArray[np.float32]]],
    *,
    prompts: int,
    logit_scale: float,
    axis: AxisWeights,
    taper: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Average the prompt probabilities of all windows that cover a block.

    Parameters
    ----------
    block:
        The output block.
    windows:
        Pairs of a window and its reduced scores (Q + 4, g, g); windows beside the block are passed over.
    prompts:
        Q.
    logit_scale:
        Factor of the cosines before the softmax over prompts.
    axis:
        Interpolation from a window's patches to all of its pixels, the same down and across.
    taper:
        Weight of each pixel along one axis of a window.

    Returns
    -------
    (Q, h, w) float32 that sums to 1 over Q; NaN where no window covers a pixel.

    """
    total = np.zeros((prompts, block.height, block.width), dtype=np.float32)
    weight = np.zeros((block.height, block.width), dtype=np.float32)
    for window, reduced in windows:
        common = block.intersection(window)
        if common is None:
            continue
        rows = slice(common.row - window.row, common.bottom - window.row)
        cols = slice(common.col - window.col, common.right - window.col)
        cosines = pixel_cosines(reduced, axis.rows(rows.start, rows.stop), axis.rows(cols.start, cols.stop))
        cosines *= np.float32(logit_scale)
        share = taper[rows, None] * taper[None, cols]
        here = (
            slice(common.row - block.row, common.bottom - block.row),
            slice(common.col - block.col, common.right - block.col),
        )
        total[:, *here] += softmax(cosines) * share
        weight[here] += share
    with np.errstate(invalid="ignore"):
        total /= weight
    return total


def class_probabilities(
    probabilities: NDArray[np.float32], prompt_class: Sequence[int], count: int, *, reduction: str = "max"
) -> NDArray[np.float32]:
    """Reduce prompts to classes: (Q, h, w) -> (C, h, w).

    ``max`` takes a class's best prompt, ``mean`` the mean of its prompts, ``logsumexp`` their sum, which is
    the probability that a softmax over the log-sum-exp of each class's logits would give.
    """
    owner = np.asarray(prompt_class)
    own = [probabilities[owner == index] for index in range(count)]
    if reduction == "max":
        return np.stack([part.max(axis=0) for part in own])
    if reduction == "mean":
        return np.stack([part.mean(axis=0) for part in own])
    return np.stack([part.sum(axis=0) for part in own])


def class_codes(
    by_class: NDArray[np.float32], valid: NDArray[np.bool_], classes: ClassList, floors: Sequence[float | None]
) -> NDArray[np.unsignedinteger]:
    """Choose each pixel's class code.

    Parameters
    ----------
    by_class:
        Class probabilities (C, h, w) in the order of ``classes.classes``.
    valid:
        (h, w) bool; False becomes nodata.
    classes:
        The class list.
    floors:
        For each class the probability below which its pixels become background, or None.

    Returns
    -------
    (h, w) codes of ``classes.dtype``. Ties go to the class named first.

    """
    winner = by_class.argmax(axis=0)
    codes = np.asarray([spec.code for spec in classes.classes], dtype=classes.dtype)
    result: NDArray[np.unsignedinteger] = codes[winner]
    if any(floor is not None for floor in floors):
        least = np.asarray([0.0 if floor is None else floor for floor in floors], dtype=np.float32)
        result[by_class.max(axis=0) < least[winner]] = 0
    result[~valid] = classes.nodata
    return result
