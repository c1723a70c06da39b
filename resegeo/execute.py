"""Carry out a plan: the image side item by item into a store, then the labels block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resegeo.attention import INVALID_GROUP, mostly_invalid, patch_ids
from resegeo.encoder import Encoder
from resegeo.features import PatchStore
from resegeo.labels import blend, class_codes, class_probabilities
from resegeo.plan import Plan
from resegeo.scores import EXTRA, axis_weights, blend_weights, patch_scores
from resegeo.segments import SegmentSource
from resegeo.windows import Rect, WorkItem, blocks

Progress = Callable[[str, int, int], None]
"""Called with a stage, the steps done and the steps in all."""

FEATURE_DTYPE = np.float16
"""Features are rounded to this before scoring, kept or not, so that stored features give equal labels."""


@dataclass
class WindowCounts:
    """How many windows were computed, and how many had no valid pixel."""

    done: int = 0
    skipped: int = 0


def open_store(plan: Plan, path: Path) -> PatchStore:
    """Lay out the store that :func:`encode_scene` fills."""
    down, across = plan.grid.item_shape
    return PatchStore(
        path,
        items=down * across,
        channels=len(plan.classes.prompt_texts) + EXTRA,
        grid=plan.geometry.grid,
    )


def encode_scene(
    plan: Plan,
    encoder: Encoder,
    segments: SegmentSource,
    texts: NDArray[np.float32],
    store: PatchStore,
    progress: Progress,
) -> WindowCounts:
    """Compute every work item: windows -> segments -> masked CLIP -> reduced scores, into ``store``."""
    counts = WindowCounts()
    items = plan.grid.items()
    for item in items:
        keep, features = encode_item(plan, encoder, segments, item)
        counts.done += int(keep.sum())
        counts.skipped += int((~keep).sum())
        if keep.any():
            store.put(item.index, keep, patch_scores(features, texts))
        progress("windows", item.index + 1, len(items))
    return counts


def encode_item(
    plan: Plan, encoder: Encoder, segments: SegmentSource, item: WorkItem
) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    """Encode the windows of one work item as one batch.

    Returns
    -------
    A flag for each window, False where it has no valid pixel, and the features (B, g, g, D) of the
    others, rounded to the store's dtype.

    """
    bounds, patch = item.bounds, encoder.patch_size
    rgb, valid = plan.scene.read(bounds.row, bounds.col, bounds.height, bounds.width)
    cuts = [_cut(window, bounds) for window in item.windows]
    # A region decides which windows are worth computing, not what they see.
    wanted = valid if plan.region is None else valid & plan.region.mask(bounds)
    keep = np.asarray([bool(wanted[cut].any()) for cut in cuts])
    if not keep.any():
        return keep, np.empty((0, encoder.grid, encoder.grid, encoder.dimension), dtype=FEATURE_DTYPE)
    ids = segments.ids(bounds)
    used = [cut for cut, flag in zip(cuts, keep, strict=True) if flag]
    window_valid = np.stack([valid[cut] for cut in used])
    levels = patch_ids(np.stack([ids[:, *cut] for cut in used]), patch)
    levels[np.broadcast_to(mostly_invalid(window_valid, patch)[:, None], levels.shape)] = INVALID_GROUP
    features = encoder.encode_windows(
        np.stack([rgb[cut] for cut in used]), window_valid, levels, plan.schedule, fill=plan.settings.fill
    )
    return keep, features.astype(FEATURE_DTYPE)


def label_scene(
    plan: Plan, store: PatchStore, logit_scale: float, progress: Progress
) -> Iterator[tuple[int, int, NDArray[np.unsignedinteger]]]:
    """Yield the class codes of the scene, block by block: (row, col, codes)."""
    settings, classes = plan.settings, plan.classes
    axis = axis_weights(plan.geometry.grid, plan.geometry.image_size)
    taper = blend_weights(plan.geometry.image_size, taper=settings.taper)
    threshold = settings.threshold if settings.threshold is not None else classes.threshold
    floors: list[float | None] = [None] * len(classes.classes)
    if settings.use_thresholds:
        floors = [threshold if spec.threshold is None else spec.threshold for spec in classes.classes]
    cut = list(blocks(plan.scene.height, plan.scene.width))
    for done, block in enumerate(cut):
        valid = plan.scene.valid(block.row, block.col, block.height, block.width)
        if plan.region is not None:
            valid &= plan.region.mask(block)
        if valid.any():
            probabilities = blend(
                block,
                _windows_over(plan, store, block),
                prompts=len(classes.prompt_texts),
                logit_scale=logit_scale if settings.logit_scale is None else settings.logit_scale,
                axis=axis,
                taper=taper,
            )
            by_class = class_probabilities(
                probabilities, classes.prompt_class, len(classes.classes), reduction=settings.reduction
            )
            codes = class_codes(by_class, valid, classes, floors)
            if plan.only is not None:
                codes[valid & ~np.isin(codes, list(plan.only))] = 0
        else:
            codes = np.full(valid.shape, classes.nodata, dtype=classes.dtype)
        yield block.row, block.col, codes
        progress("labels", done + 1, len(cut))


def _windows_over(plan: Plan, store: PatchStore, block: Rect) -> Iterator[tuple[Rect, NDArray[np.float32]]]:
    """Yield the stored windows that touch a block, in the grid's order."""
    for item in plan.grid.items_over(block):
        stored = store.get(item.index)
        if stored is not None:
            for window, flag, values in zip(item.windows, *stored, strict=False):
                if flag:
                    yield window, values


def _cut(window: Rect, bounds: Rect) -> tuple[slice, slice]:
    row, col = window.row - bounds.row, window.col - bounds.col
    return slice(row, row + window.height), slice(col, col + window.width)
