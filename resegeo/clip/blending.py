"""Overlapping scores to class codes, one output block at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resegeo.classes.class_list import ClassList
from resegeo.clip.scores import EXTRA, axis_weights, blend_weights, pixel_cosines, softmax
from resegeo.scene.resampling import Canvas
from resegeo.scene.windows import Rect


@dataclass(frozen=True)
class WindowScores:
    """What one window of the canvas left behind."""

    rect: Rect
    reduced: NDArray[np.float32]
    """(Q + 4, g, g), see :func:`resegeo.clip.scores.patch_scores`."""
    cls: NDArray[np.float32]
    """(Q,) cosines of the window's CLS token with the prompts."""
    segments: NDArray[np.integer] | None = None
    """(S, S) segment ids of the finest level, 0 in none; needed by label voting alone."""

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        return self.reduced.nbytes + self.cls.nbytes + (0 if self.segments is None else self.segments.nbytes)


@dataclass(frozen=True)
class Grouping:
    """Which class each prompt belongs to, and how the scores of prompts become those of classes."""

    prompt_class: tuple[int, ...]
    """For each of the Q prompts the index of its class."""
    classes: int
    """C, with or without prompts."""
    reduction: str = "max"
    """``max``, ``mean`` or ``logsumexp``, see :func:`class_logits` and :func:`class_probabilities`."""
    softmax_over: str = "classes"
    """``classes``: prompts become classes as logits, then one softmax over classes, so that a class's probability does
    not depend on how many words it has. ``prompts``: the order of ReSeg-CLIP's code, a softmax over prompts first."""
    corrected: bool = False
    """Whether the scores are those of the vectors that :meth:`corrected_by` gives."""

    @classmethod
    def of(cls, classes: ClassList, reduction: str, softmax_over: str) -> Grouping:
        """Group the prompts of a class list."""
        return cls(tuple(classes.prompt_class), len(classes.classes), reduction, softmax_over)

    @property
    def wordless(self) -> NDArray[np.int64]:
        """Indices of the classes without a prompt."""
        return np.setdiff1d(np.arange(self.classes), self.prompt_class)

    def corrected_by(
        self, texts: NDArray[np.float32], residuals: NDArray[np.float32], logit_scale: float
    ) -> NDArray[np.float32]:
        """Add the residuals of classes (C, D), products with which join the logits of classes, to the prompts (Q, D).

        What joins the logits of all prompts of a class joins the class's own by any reduction of
        :func:`class_logits`, so that no more scores are needed than there were; only residuals of classes without a
        prompt follow behind, in the order of :attr:`wordless`.
        """
        own = texts + residuals[list(self.prompt_class)] / np.float32(logit_scale)
        return np.concatenate([own, residuals[self.wordless]], dtype=np.float32)


@dataclass(frozen=True)
class Blender:
    """Turns the scores of overlapping windows into class probabilities at the scene's own pixels."""

    canvas: Canvas
    grouping: Grouping
    logit_scale: float
    """Factor of the scores before the softmax."""
    taper: bool
    """Whether a window's middle outweighs its border."""
    subtract_cls: float = 0.0
    """λ: the score is the pixel's cosine less λ times that of the window's CLS token (SegEarth-OV)."""
    vote: bool = False
    """Label voting: the pixels of a segment share the votes for their classes (CorrCLIP)."""
    interpolate: str = "features"
    """``features`` or ``scores``, see :func:`resegeo.clip.scores.pixel_cosines`."""
    average: str = "probabilities"
    """What overlapping windows are averaged as: ``probabilities``, or the prompts' ``logits``. Votes are votes."""

    def blend(
        self, block: Rect, windows: Iterable[WindowScores], added: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Average the probabilities of all windows that cover a block.

        Parameters
        ----------
        block:
            The output block in scene pixels.
        windows:
            Windows in canvas pixels; those beside the block are passed over.
        added:
            (C, h, w), or (C, 1, 1) where it is the same everywhere: what is added to the logits of the classes. With
            ``vote`` only the latter, since segments vote as a whole.

        Returns
        -------
        (C, h, w) float32 probabilities of the classes, or with ``vote`` shares of votes. NaN where no window covers a
        pixel. They sum to 1, except where a softmax over prompts was reduced by ``max`` or ``mean``.

        """
        grouping, prompts = self.grouping, len(self.grouping.prompt_class)
        behind = len(grouping.wordless) if grouping.corrected else 0
        logits = self.average == "logits" and not self.vote
        late = logits or (grouping.softmax_over == "prompts" and not self.vote)  # averaged before they are reduced
        channels = prompts + behind if late else grouping.classes
        total = np.zeros((channels, block.height, block.width), dtype=np.float32)
        weight = np.zeros((block.height, block.width), dtype=np.float32)
        room = np.empty(0, dtype=np.float32)  # for the products of every window: new memory each time is slow
        everywhere = added is None or added.shape[1:] == (1, 1)
        for window in windows:
            covered = self.canvas.scene_rect(window.rect)
            common = block.intersection(covered)
            if common is None:
                continue
            rows, cols = self.canvas.positions(common, window.rect)
            here = (
                slice(common.row - block.row, common.bottom - block.row),
                slice(common.col - block.col, common.right - block.col),
            )
            share = blend_weights(rows, taper=self.taper)[:, None] * blend_weights(cols, taper=self.taper)
            if self.vote:
                values = self._vote(window, rows, cols, added)
            else:
                shape = (len(window.reduced) - EXTRA, common.height, common.width)
                if room.size < math.prod(shape):
                    room = np.empty(math.prod(shape), dtype=np.float32)
                values = self._scores(window, rows, cols, room[: math.prod(shape)].reshape(shape))
                if not logits:
                    own = added if everywhere or added is None else added[:, *here]
                    values = softmax(values) if late else self._probabilities(values, own)
            values *= share
            total[:, *here] += values
            weight[here] += share
        with np.errstate(invalid="ignore"):
            total /= weight
        if logits:
            return self._probabilities(total, added)
        if late:
            return class_probabilities(total, grouping.prompt_class, grouping.classes, reduction=grouping.reduction)
        return total

    def _scores(
        self,
        window: WindowScores,
        rows: NDArray[np.float64],
        cols: NDArray[np.float64],
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Logits (Q, h, w) of the prompts at points of a window, and behind them those of corrected classes without."""
        patches, prompts = window.reduced.shape[-1], len(self.grouping.prompt_class)
        scores = pixel_cosines(
            window.reduced,
            axis_weights(patches, rows),
            axis_weights(patches, cols),
            cosines=not self.grouping.corrected,
            interpolate=self.interpolate,
            out=out,
        )
        if self.subtract_cls:
            scores[:prompts] -= np.float32(self.subtract_cls) * window.cls[:, None, None]
        scores[:prompts] *= np.float32(self.logit_scale)
        return scores

    def _probabilities(
        self, scores: NDArray[np.float32], added: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Probabilities (C, h, w) of the classes from what :meth:`_scores` gives, which is spent; see :meth:`blend`."""
        grouping, prompts = self.grouping, len(self.grouping.prompt_class)
        if grouping.softmax_over == "prompts":
            return class_probabilities(
                softmax(scores), grouping.prompt_class, grouping.classes, reduction=grouping.reduction
            )
        logits = class_logits(scores[:prompts], grouping.prompt_class, grouping.classes, reduction=grouping.reduction)
        if grouping.corrected and len(scores) > prompts:
            logits[grouping.wordless] = scores[prompts:]
        if added is not None:
            logits += added
        return softmax(logits)

    def _vote(
        self,
        window: WindowScores,
        rows: NDArray[np.float64],
        cols: NDArray[np.float64],
        added: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        """Shares of votes (C, h, w) at points of a window: those of a point's segment, or its own vote in none."""
        if window.segments is None:
            raise ValueError("voting needs the segments of every window")
        classes = self.grouping.classes
        # All of the window votes, whatever part of it the block wants: a segment does not end at a block's border.
        size = window.segments.shape[0]
        centres = (np.arange(size) + 0.5) / size
        by_class = self._probabilities(self._scores(window, centres, centres), added)
        ids, segment = np.unique(window.segments, return_inverse=True)
        label = by_class.argmax(axis=0).ravel()
        votes = np.bincount(segment.ravel() * classes + label, minlength=len(ids) * classes)
        shares = votes.reshape(len(ids), classes).astype(np.float32)
        shares /= shares.sum(axis=1, keepdims=True)
        own = np.eye(classes, dtype=np.float32)[label]
        result = np.where((window.segments != 0).ravel()[:, None], shares[segment.ravel()], own)
        row, col = ((at * size).astype(np.int64).clip(0, size - 1) for at in (rows, cols))
        picked = result.reshape(size, size, classes)[row[:, None], col]
        return np.ascontiguousarray(picked.transpose(2, 0, 1))  # (h, w, C) -> (C, h, w)


def class_logits(
    logits: NDArray[np.float32], prompt_class: Sequence[int], count: int, *, reduction: str = "max"
) -> NDArray[np.float32]:
    """Reduce prompts to classes as logits: (Q, h, w) -> (C, h, w).

    ``max`` takes a class's best prompt, ``mean`` the mean of its prompts, ``logsumexp`` the logarithm of the mean of
    their exponentials: each is the same for one prompt and for five equal ones. A class without prompts gets 0. Where
    every class has one prompt these are the logits themselves, not a copy.
    """
    if list(prompt_class) == list(range(count)):  # one prompt a class
        return logits
    owner = np.asarray(prompt_class)
    result = np.zeros((count, *logits.shape[1:]), dtype=np.float32)
    for index, own in ((index, _own(logits, owner, index)) for index in range(count)):
        if not len(own):
            continue
        if reduction == "mean":
            result[index] = own.mean(axis=0)
            continue
        np.max(own, axis=0, out=result[index])
        if reduction == "logsumexp":
            result[index] += np.log(np.exp(own - result[index]).mean(axis=0))
    return result


def _own(values: NDArray[np.float32], owner: NDArray[np.integer], index: int) -> NDArray[np.float32]:
    """Rows of the prompts of a class: a view where they stand together, as those of a class list do."""
    rows = np.flatnonzero(owner == index)
    together = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
    return values[rows[0] : rows[-1] + 1] if together else values[rows]


def class_probabilities(
    probabilities: NDArray[np.float32], prompt_class: Sequence[int], count: int, *, reduction: str = "max"
) -> NDArray[np.float32]:
    """Reduce prompts to classes as probabilities, as ReSeg-CLIP's code does: (Q, h, w) -> (C, h, w).

    ``max`` takes a class's best prompt, ``mean`` the mean of its prompts, ``logsumexp`` their sum, which is
    the probability that a softmax over the log-sum-exp of each class's logits would give.
    """
    owner = np.asarray(prompt_class)
    own = [_own(probabilities, owner, index) for index in range(count)]
    if reduction == "max":
        return np.stack([part.max(axis=0) for part in own])
    if reduction == "mean":
        return np.stack([part.mean(axis=0) for part in own])
    return np.stack([part.sum(axis=0) for part in own])


def rescaled(by_class: NDArray[np.float32], scales: Sequence[float | None]) -> NDArray[np.float32]:
    """Raise each class's probability to its power and norm all anew: (C, ...) -> (C, ...); NaN stays NaN.

    As softmax(s · log p), vector scaling without biases (C. Guo et al. 2017, On calibration of modern neural networks).
    """
    if all(scale is None for scale in scales):
        return by_class
    powers = np.asarray([1.0 if scale is None else scale for scale in scales], dtype=np.float32)
    logits = np.log(np.maximum(by_class, LEAST)) * powers.reshape(-1, *[1] * (by_class.ndim - 1))
    return softmax(logits)


LEAST = np.float32(1e-6)
"""Probability that stands for smaller ones where logarithms are taken."""

SCORE_STEPS = 200
"""Steps of a stored score: 0 is a probability of 0, this one of 1."""
NO_SCORE = 255
"""Stands for the score of a pixel that has none."""


def class_scores(by_class: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probability of each pixel's best class, (C, h, w) -> (h, w), in :data:`SCORE_STEPS` steps."""
    best = by_class.max(axis=0)
    steps = np.rint(np.nan_to_num(best) * SCORE_STEPS)
    return np.where(np.isnan(best), NO_SCORE, steps).astype(np.uint8)


def score_steps(by_class: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Probabilities (C, h, w) in :data:`SCORE_STEPS` steps; NO_SCORE where there are none, or not ``valid`` (h, w)."""
    steps = np.rint(np.nan_to_num(by_class) * SCORE_STEPS).astype(np.uint8)
    steps[np.isnan(by_class)] = NO_SCORE
    steps[:, ~valid] = NO_SCORE
    return steps


def class_ranks(
    by_class: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Best and second class (h, w) of each pixel and the margin between their probabilities; NaN where there are none.

    Ties go to the class named first; of a single class the second is itself and the margin its probability.
    """
    best, top = best_class(by_class)
    if len(by_class) == 1:
        return best, best, top
    rest = by_class.copy()
    np.put_along_axis(rest, best[None], -1, axis=0)
    second, next_to_top = best_class(rest)
    return best, second, top - next_to_top


def best_class(by_class: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Index of each pixel's best class and its probability, (C, ...) -> twice (...).

    Ties go to the class named first; where there are no probabilities (NaN for all classes) it is that one too. As
    ``argmax`` over the first axis, which takes 10 times as long.
    """
    top = by_class[0].copy()
    best = np.zeros(top.shape, dtype=np.min_scalar_type(len(by_class)))
    for index, other in enumerate(by_class[1:], start=1):
        # What is better than all before it has the largest index yet.
        np.maximum(best, (other > top) * best.dtype.type(index), out=best)
        np.maximum(top, other, out=top)
    return best.astype(np.int64), top


def class_codes(
    by_class: NDArray[np.float32], valid: NDArray[np.bool_], classes: ClassList, floors: Sequence[float | None]
) -> NDArray[np.unsignedinteger]:
    """Choose each pixel's class code.

    Parameters
    ----------
    by_class:
        Class probabilities (C, h, w) in the order of ``classes.classes``.
    valid:
        (h, w) bool; False becomes nodata. Where it is True and the probabilities are NaN, the pixel was not
        processed.
    classes:
        The class list.
    floors:
        For each class the probability below which its pixels become background, or None.

    Returns
    -------
    (h, w) codes of ``classes.dtype``. Ties go to the class named first.

    """
    winner, top = best_class(by_class)
    codes = np.asarray([spec.code for spec in classes.classes], dtype=classes.dtype)
    result: NDArray[np.unsignedinteger] = codes[winner]
    if any(floor is not None for floor in floors):
        least = np.asarray([0.0 if floor is None else floor for floor in floors], dtype=np.float32)
        result[top < least[winner]] = 0
    result[np.isnan(by_class[0])] = classes.unprocessed
    result[~valid] = classes.nodata
    return result
