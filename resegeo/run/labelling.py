"""Stored windows to blocks of class codes: scores, blending, classes, by several threads in bounded memory."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from resegeo.checkpoints.model_card import TIED
from resegeo.classes.class_list import ClassList
from resegeo.clip.blending import (
    Blender,
    Grouping,
    WindowScores,
    class_codes,
    class_ranks,
    class_scores,
    rescaled,
    score_steps,
)
from resegeo.clip.fitting import Fitted
from resegeo.clip.scores import EXTRA
from resegeo.errors import ResegeoError
from resegeo.outputs.picture import Quicklook
from resegeo.progress import Progress
from resegeo.run.compute import reduced
from resegeo.run.plan import Plan
from resegeo.run.store import Store
from resegeo.run.threads import in_order, one_thread_each
from resegeo.scene.windows import Rect, WorkItem, blocks

SCORES_KEPT = 64 * 2**20
"""Bytes of scores that are kept while blocks are labelled: those of a row of blocks, or every block reads them anew."""


class Scores(Protocol):
    """Answers the scores of a work item's windows."""

    def windows(self, item: WorkItem) -> list[WindowScores]:
        """Scores of the windows of an item; none where there are none."""
        ...


class Scorer:
    """Answers the scores of stored windows, whatever the store holds; any thread may ask.

    Neighbouring blocks ask for the same items, so those asked for last are kept, reduced to scores.
    """

    def __init__(
        self,
        store: Store,
        texts: NDArray[np.float32] | None = None,
        channels: tuple[int, ...] | None = None,
        *,
        vectors: NDArray[np.float32] | None = None,
    ) -> None:
        """Take a store with ``texts`` (Q, D) for its features, or with the numbers of the stored prompts asked for.

        ``vectors`` are what examples have made of the texts, see :meth:`Grouping.corrected_by`.
        """
        self._store, self._texts, self._channels, self._vectors = store, texts, channels, vectors
        self._recent: OrderedDict[int, Future[list[WindowScores]]] = OrderedDict()
        self._most = 16
        self._lock = threading.Lock()

    def windows(self, item: WorkItem) -> list[WindowScores]:
        """Scores of the windows of an item; none where it is not done."""
        with self._lock:
            asked = self._recent.get(item.index)
            if asked is not None:
                self._recent.move_to_end(item.index)
            else:
                mine: Future[list[WindowScores]] = Future()
                self._recent[item.index] = mine
        if asked is not None:
            return asked.result()
        try:
            found = self._read(item)
        except BaseException as error:
            mine.set_exception(error)
            raise
        mine.set_result(found)
        with self._lock:
            if found:
                self._most = max(16, int(SCORES_KEPT / sum(window.nbytes for window in found)))
            while len(self._recent) > self._most:
                self._recent.popitem(last=False)
        return found

    def _read(self, item: WorkItem) -> list[WindowScores]:
        stored = self._store.get(item.index)
        if stored is None or not stored.windows.any():
            return []
        values = dict(stored.values)
        segments = values.get("segments")
        if "features" in values:
            if self._texts is None:
                raise ValueError("stored features need prompts")
            values = reduced(values, self._texts, self._vectors)
        elif self._channels is not None:
            count = values["reduced"].shape[1] - EXTRA
            pick = [*self._channels, *range(count, count + EXTRA)]
            values = {"reduced": values["reduced"][:, pick], "cls": values["cls"][:, list(self._channels)]}
        used = [window for window, flag in zip(item.windows, stored.windows, strict=False) if flag]
        return [
            WindowScores(window, values["reduced"][n], values["cls"][n], None if segments is None else segments[n])
            for n, window in enumerate(used)
        ]


THINNED = 4
"""Every so-manieth row and column is looked at for doubts."""


@dataclass(frozen=True)
class Doubt:
    """How sure the scores are of the classes, on a thin grid of pixels; sums, so that blocks can be added."""

    pixels: NDArray[np.int64]
    """(C,) pixels of each class."""
    scores: NDArray[np.float64]
    """(C,) sum of their probabilities."""
    ties: NDArray[np.int64]
    """(C, C) pixels of the class in the row that are nearly ties with the one in the column."""

    @classmethod
    def of(cls, by_class: NDArray[np.float32], chosen: NDArray[np.bool_]) -> Doubt:
        """Look at the pixels ``chosen`` (h, w) of probabilities (C, h, w); those without any are left out."""
        count = len(by_class)
        best, second, margin = class_ranks(by_class)
        seen = chosen & np.isfinite(margin)
        tied = seen & (margin < TIED) & (best != second)
        top = np.nan_to_num(by_class.max(axis=0))
        pairs = np.bincount(best[tied] * count + second[tied], minlength=count**2)
        return cls(
            np.bincount(best[seen], minlength=count),
            np.bincount(best[seen], weights=top[seen], minlength=count).astype(np.float64),
            pairs.reshape(count, count),
        )

    def __add__(self, other: Doubt) -> Doubt:
        return Doubt(self.pixels + other.pixels, self.scores + other.scores, self.ties + other.ties)

    def facts(self, names: Sequence[str]) -> dict[str, Any]:
        """Mean score of each class that has pixels, and which class it is nearly tied with most often."""
        shown = [n for n in range(len(names)) if self.pixels[n]]
        ties = {names[n]: (names[self.ties[n].argmax()], self.ties[n].max() / self.pixels[n]) for n in shown}
        return {
            "mean_scores": {names[n]: round(float(self.scores[n] / self.pixels[n]), 4) for n in shown},
            "near_ties": {
                name: {"with": other, "share": round(float(share), 4)} for name, (other, share) in ties.items() if share
            },
        }


@dataclass(frozen=True)
class Block:
    """A finished block of the class raster."""

    rect: Rect
    codes: NDArray[np.unsignedinteger]
    rgb: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    """Of the scene, and inside the region."""
    readable: bool
    scores: NDArray[np.uint8] | None = None
    """Probability of the best class, see :func:`resegeo.clip.blending.class_scores`; None where nobody asked."""
    ranks: tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]], NDArray[np.float32]] | None = None
    """Best and second class and the margin between their scores, see :func:`resegeo.clip.blending.class_ranks`."""
    by_class: NDArray[np.uint8] | None = None
    """Scores (C, h, w) of all classes in steps, NO_SCORE where there are none; None where nobody asked."""
    doubt: Doubt | None = None
    """Of its pixels on a thin grid; None where nothing was chosen by scores."""

    def within(self, frame: Rect) -> Block | None:
        """Return the part inside ``frame``, its place counted from that one's corner; None where there is none."""
        common = self.rect.intersection(frame)
        if common is None:
            return None
        rect = replace(common, row=common.row - frame.row, col=common.col - frame.col)
        if common == self.rect:
            return replace(self, rect=rect)
        here = (
            slice(common.row - self.rect.row, common.bottom - self.rect.row),
            slice(common.col - self.rect.col, common.right - self.rect.col),
        )
        best = None if self.ranks is None else (self.ranks[0][here], self.ranks[1][here], self.ranks[2][here])
        return Block(
            rect,
            self.codes[here],
            self.rgb[here],
            self.valid[here],
            self.readable,
            None if self.scores is None else self.scores[here],
            best,
            None if self.by_class is None else self.by_class[:, *here],
        )


@dataclass(frozen=True)
class Labeller:
    """Turns the scores of stored windows into blocks of class codes; any thread may call it."""

    plan: Plan
    scorer: Scores
    blender: Blender
    floors: tuple[float | None, ...]
    """Least probability of each class."""
    scored: bool = False
    """Whether blocks shall bring their scores."""
    ranked: bool = False
    """Whether they shall bring best and second class, and the scores of all."""
    fitted: Fitted | None = None
    """What examples add to the logits of classes."""

    @classmethod
    def of(
        cls,
        plan: Plan,
        scorer: Scores,
        logit_scale: float,
        *,
        scored: bool = False,
        fitted: Fitted | None = None,
        ranked: bool = False,
    ) -> Labeller:
        """Settle what all blocks share; ``logit_scale`` is the model's own, which the settings may override."""
        settings, classes = plan.settings, plan.classes
        blender = Blender(
            plan.canvas,
            replace(Grouping.of(classes, settings.reduction, settings.softmax_over), corrected=fitted is not None),
            logit_scale=logit_scale if settings.logit_scale is None else settings.logit_scale,
            taper=settings.taper,
            subtract_cls=settings.subtract_cls,
            vote=settings.vote_segments,
            interpolate=settings.interpolate,
            average=settings.average,
        )
        threshold = settings.threshold if settings.threshold is not None else classes.threshold
        floors: tuple[float | None, ...] = (None,) * len(classes.classes)
        if settings.use_thresholds:
            floors = tuple(threshold if spec.threshold is None else spec.threshold for spec in classes.classes)
        return cls(plan, scorer, blender, floors, scored, ranked, fitted)

    def __call__(self, rect: Rect) -> Block:
        """Label one block of the scene."""
        plan, classes, legend = self.plan, self.plan.classes, self.plan.legend
        try:
            rgb, valid = plan.scene.read(rect.row, rect.col, rect.height, rect.width)
        except ResegeoError:
            codes = np.full((rect.height, rect.width), legend.unprocessed, dtype=legend.dtype)
            blank = np.full((*codes.shape, 3), 255, dtype=np.uint8)
            return Block(rect, codes, blank, np.ones(codes.shape, dtype=bool), readable=False)
        if plan.region is not None:
            valid &= plan.region.mask(rect)
        if not valid.any():
            codes = np.full(valid.shape, legend.nodata, dtype=legend.dtype)
            return Block(rect, codes, rgb, valid, readable=True)
        by_class = rescaled(self.blended(rect, rgb), [spec.scale for spec in classes.classes])
        codes = class_codes(by_class, valid, classes, self.floors)
        if plan.merge is not None:
            codes, by_class = plan.merge.codes(codes), plan.merge.scores(by_class)
        if plan.only is not None:
            codes = only(codes, valid, plan.only, legend)
        scores = class_scores(by_class) if self.scored else None
        ranks = class_ranks(by_class) if self.ranked else None
        steps = score_steps(by_class, valid) if self.ranked else None
        thin = tuple(slice(-start % THINNED, None, THINNED) for start in (rect.row, rect.col))
        doubt = Doubt.of(by_class[:, *thin], valid[thin])
        return Block(rect, codes, rgb, valid, readable=True, scores=scores, ranks=ranks, by_class=steps, doubt=doubt)

    def blended(self, rect: Rect, rgb: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Return what the model says of a block (C, h, w), before thresholds and scales; NaN where no window is.

        ``rgb`` (h, w, 3) are its pixels; None where examples have said nothing of colours.
        """
        over = self.plan.grid.items_over(self.plan.canvas.canvas_rect(rect))
        windows = (window for item in over for window in self.scorer.windows(item))
        added = None
        if self.fitted is not None:
            added = self.fitted.beside(rgb)
            added = added if added.ndim == 3 else added[:, None, None]
        return self.blender.blend(rect, windows, added)


def only(
    codes: NDArray[np.unsignedinteger], valid: NDArray[np.bool_], kept: Iterable[int], legend: ClassList
) -> NDArray[np.unsignedinteger]:
    """Turn valid pixels (h, w) of all classes but those kept into background."""
    return np.where(valid & ~np.isin(codes, [*kept, legend.unprocessed]), 0, codes).astype(codes.dtype)


def blocks_of(plan: Plan) -> list[Rect]:
    """Blocks to be labelled: of a finished store those that results show; a new one learns of all of its scene."""
    cut = blocks(plan.scene.height, plan.scene.width)
    return [rect for rect in cut if plan.made_with is None or rect.intersection(plan.frame) is not None]


def label_scene(
    plan: Plan,
    scorer: Scores,
    logit_scale: float,
    progress: Progress,
    *,
    threads: int | None = None,
    scored: bool = False,
    fitted: Fitted | None = None,
    ranked: bool = False,
) -> Iterator[Block]:
    """Yield the class codes of the scene, with ``scored`` their scores too, block by block in order, by threads."""
    label = Labeller.of(plan, scorer, logit_scale, scored=scored, fitted=fitted, ranked=ranked)
    cut = blocks_of(plan)
    with one_thread_each():
        for done, block in enumerate(in_order(label, cut, threads or os.cpu_count() or 1), start=1):
            yield block
            progress("labels", done, len(cut))


def look_of(
    blocks_: Iterable[Block],
    look: Quicklook,
    valid: Any | None = None,
    scores: Any | None = None,
    colours: Any | None = None,
) -> Iterator[Block]:
    """Pass blocks on; on the way fill a quicklook, and keep validity, scores and colours in Zarr arrays."""
    for block in blocks_:
        rect = block.rect
        look.put(rect.row, rect.col, block.rgb, block.valid)
        if valid is not None:
            valid[rect.row : rect.bottom, rect.col : rect.right] = block.valid
        if colours is not None:
            colours[rect.row : rect.bottom, rect.col : rect.right] = block.rgb
        if scores is not None and block.scores is not None:
            scores[rect.row : rect.bottom, rect.col : rect.right] = block.scores
        yield block
