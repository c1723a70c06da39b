"""Carry out a plan: the image side item by item into a store, then the labels block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resegeo.attention import INVALID_GROUP, mostly_invalid, patch_ids
from resegeo.canvas import VALID
from resegeo.encoder import Encoder
from resegeo.features import ItemResult, PatchStore
from resegeo.labels import Blender, Voting, WindowScores, class_codes, class_probabilities
from resegeo.plan import Plan
from resegeo.scores import EXTRA, patch_scores, unit
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


@dataclass(frozen=True)
class Batch:
    """The windows of one work item, read and ready for the model."""

    windows: NDArray[np.bool_]
    """A flag for each window of the item; False where it has no valid pixel."""
    rgb: NDArray[np.uint8]
    """(B, S, S, 3), the flagged ones alone, like all that follows."""
    valid: NDArray[np.bool_]
    """(B, S, S)"""
    levels: NDArray[np.int64]
    """Patch ids (B, K, g, g)."""
    finest: NDArray[np.int64]
    """Segment ids (B, S, S) of the finest level."""


def open_store(plan: Plan, path: Path) -> PatchStore:
    """Lay out the store that :func:`encode_scene` fills."""
    down, across = plan.grid.item_shape
    grid, side, prompts = plan.geometry.grid, plan.geometry.image_size, len(plan.classes.prompt_texts)
    arrays: dict[str, tuple[tuple[int, ...], str]] = {
        "reduced": ((prompts + EXTRA, grid, grid), "float32"),
        "cls": ((prompts,), "float32"),
    }
    if plan.settings.vote_segments:
        arrays["segments"] = ((side, side), "uint16")
    return PatchStore(path, items=down * across, arrays=arrays)


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
    # The next item is read and segmented while the model is busy with this one.
    with ThreadPoolExecutor(max_workers=1) as ahead:
        coming = ahead.submit(read_item, plan, segments, items[0])
        for number, item in enumerate(items):
            batch = coming.result()
            if number + 1 < len(items):
                coming = ahead.submit(read_item, plan, segments, items[number + 1])
            used = int(batch.windows.sum())
            counts.done += used
            counts.skipped += len(batch.windows) - used
            if used:
                features, cls = encode_batch(plan, encoder, batch)
                values: dict[str, NDArray[Any]] = {"reduced": patch_scores(features, texts), "cls": unit(cls) @ texts.T}
                if plan.settings.vote_segments:
                    values["segments"] = _numbered(batch.finest)
                store.put(item.index, ItemResult(batch.windows, values))
            progress("windows", number + 1, len(items))
    return counts


def read_item(plan: Plan, segments: SegmentSource, item: WorkItem) -> Batch:
    """Read the windows of one work item and bring their segments to the patches."""
    bounds, side = item.bounds, plan.geometry.image_size
    rgb, share = plan.canvas.read(bounds.row, bounds.col, bounds.height, bounds.width)
    cuts = [_cut(window, bounds) for window in item.windows]
    # What a window covers decides whether it is worth computing, not what it sees.
    wanted = share > 0
    if plan.region is not None:
        wanted &= plan.region.mask(bounds, plan.canvas.to_scene, touched=not plan.canvas.native)
    flags = np.asarray([bool(wanted[cut].any()) for cut in cuts])
    if not flags.any():
        none = np.empty((0, side, side), dtype=np.int64)
        return Batch(flags, np.empty((0, side, side, 3), np.uint8), none.astype(bool), none[:, None], none)
    used = [number for number, flag in enumerate(flags) if flag]
    pixels = np.stack([rgb[cuts[number]] for number in used])
    valid = np.stack([share[cuts[number]] >= VALID for number in used])
    ids = segments.propose([item.windows[number] for number in used], pixels)
    levels = patch_ids(ids, plan.geometry.patch_size)
    levels[np.broadcast_to(mostly_invalid(valid, plan.geometry.patch_size)[:, None], levels.shape)] = INVALID_GROUP
    return Batch(flags, pixels, valid, levels, ids[:, segments.finest])


def encode_batch(plan: Plan, encoder: Encoder, batch: Batch) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Patch features (B, g, g, D) and CLS features (B, D), rounded to the store's dtype."""
    patches, cls = encoder.encode_windows(
        batch.rgb,
        batch.valid,
        batch.levels,
        plan.schedule,
        fill=plan.settings.fill,
        self_self=plan.settings.self_self,
    )
    return patches.astype(FEATURE_DTYPE), cls.astype(FEATURE_DTYPE)


def label_scene(
    plan: Plan, store: PatchStore, logit_scale: float, progress: Progress
) -> Iterator[tuple[int, int, NDArray[np.unsignedinteger]]]:
    """Yield the class codes of the scene, block by block: (row, col, codes)."""
    settings, classes = plan.settings, plan.classes
    voting = Voting(tuple(classes.prompt_class), len(classes.classes), settings.reduction)
    blender = Blender(
        plan.canvas,
        logit_scale=logit_scale if settings.logit_scale is None else settings.logit_scale,
        taper=settings.taper,
        subtract_cls=settings.subtract_cls,
        voting=voting if settings.vote_segments else None,
    )
    channels = len(classes.classes) if settings.vote_segments else len(classes.prompt_texts)
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
            by_class = blender.blend(block, _windows_over(plan, store, block), channels)
            if blender.voting is None:
                by_class = class_probabilities(
                    by_class, classes.prompt_class, len(classes.classes), reduction=settings.reduction
                )
            codes = class_codes(by_class, valid, classes, floors)
            if plan.only is not None:
                codes[valid & ~np.isin(codes, list(plan.only))] = 0
        else:
            codes = np.full(valid.shape, classes.nodata, dtype=classes.dtype)
        yield block.row, block.col, codes
        progress("labels", done + 1, len(cut))


def _windows_over(plan: Plan, store: PatchStore, block: Rect) -> Iterator[WindowScores]:
    """Yield the stored windows that touch a block of the scene, in the grid's order."""
    for item in plan.grid.items_over(plan.canvas.canvas_rect(block)):
        stored = store.get(item.index)
        if stored is not None:
            used = (window for window, flag in zip(item.windows, stored.windows, strict=False) if flag)
            for number, window in enumerate(used):
                segments = stored.values["segments"][number] if "segments" in stored.values else None
                yield WindowScores(window, stored.values["reduced"][number], stored.values["cls"][number], segments)


def _numbered(ids: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Number the segments of each window (B, S, S) anew from 1, so that they fit 16 bits; 0 stays 0."""
    result = np.zeros(ids.shape, dtype=np.uint16)
    for window, numbers in zip(ids, result, strict=True):
        found, inverse = np.unique(window, return_inverse=True)
        numbers[:] = inverse.reshape(window.shape) + (found[0] != 0)
    return result


def _cut(window: Rect, bounds: Rect) -> tuple[slice, slice]:
    row, col = window.row - bounds.row, window.col - bounds.col
    return slice(row, row + window.height), slice(col, col + window.width)
