"""A plan with its model loaded: one work item from pixels to what its windows leave behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resegeo.checkpoints.sources import ModelSource, SamSource
from resegeo.clip.attention import INVALID_GROUP, mostly_invalid, patch_ids
from resegeo.clip.device_memory import FullDeviceError, memory_for
from resegeo.clip.encoder import Encoded, Encoder, load_encoder, pick_device, quick_at_bfloat16, set_threads
from resegeo.clip.scores import patch_scores, unit
from resegeo.errors import ResegeoError
from resegeo.run.header import Kept
from resegeo.run.plan import Plan
from resegeo.run.quantisation import quantise, restore
from resegeo.run.store import ItemResult
from resegeo.scene.resampling import VALID, Canvas
from resegeo.scene.windows import Rect, WorkItem
from resegeo.segments.segment_sources import SamTiles, SamWindows, SegmentSource, segment_source


class Models:
    """Models and embedded words that several runs share: what was loaded last is kept."""

    def __init__(self) -> None:
        """Begin without any."""
        self.failure: ResegeoError | None = None
        """Why a model could not be had, the last time that happened: no matter of a scene."""
        self._encoder = lru_cache(maxsize=2)(load_encoder)
        self._texts = lru_cache(maxsize=64)(Encoder.encode_texts)
        self._sam = lru_cache(maxsize=1)(_load_sam)

    def encoder(self, source: ModelSource, *, device: str | None, precision: str, compiled: bool = False) -> Encoder:
        """Return a CLIP model, see :func:`resegeo.clip.encoder.load_encoder`."""
        try:
            return self._encoder(source, device=device, precision=precision, compiled=compiled)
        except ResegeoError as error:
            self.failure = error
            raise

    def texts(self, encoder: Encoder, prompts: tuple[tuple[str, ...], ...]) -> NDArray[np.float32]:
        """Embed prompts: (Q, D), see :meth:`resegeo.clip.encoder.Encoder.encode_texts`."""
        return self._texts(encoder, prompts)

    def sam(self, source: SamSource, device: str) -> Any:
        """Return a model of Segment Anything, see :func:`resegeo.segments.sam.load_sam`."""
        try:
            return self._sam(source, device)
        except ResegeoError as error:
            self.failure = error
            raise


def _load_sam(source: SamSource, device: str) -> Any:
    from resegeo.segments.sam import load_sam

    with memory_for("SAM", device):
        return load_sam(source.path, source.architecture, device=device)


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
    segments: NDArray[np.uint16] | None = None
    """Segments (B, S, S) of the finest level, numbered window by window; None where nobody keeps them."""


Computed = Callable[[], "ItemResult"]
"""Answers what an item left behind, once the device has computed it."""


@dataclass(frozen=True)
class Machine:
    """A plan with its model and segment source loaded: computes items."""

    plan: Plan
    encoder: Encoder
    segments: SegmentSource
    kept: Kept
    texts: NDArray[np.float32] | None
    """(Q, D) the prompts of ``kept``, where scores are stored; None where features are."""

    def read(self, item: WorkItem) -> Batch:
        """Read the windows of an item and bring their segments to the patches."""
        with memory_for("the segments of a work item", self.encoder.device):  # SAM's
            return read_item(self.plan, self.segments, item, keep_segments=self.kept.segments)

    def encode(self, batch: Batch) -> ItemResult:
        """Compute what the windows leave behind, rounded to what the store keeps."""
        return self.start(batch)()

    def start(self, batch: Batch) -> Computed:
        """Give windows to the model; what is returned waits for the device, from any thread, and does the rest."""
        if not batch.windows.any():
            return lambda: ItemResult(batch.windows, {})
        parts = _encode(self.plan, self.encoder, batch)
        return lambda: self._rounded(parts, batch.windows, batch.segments)

    def _rounded(
        self, parts: Sequence[Encoded], windows: NDArray[np.bool_], segments: NDArray[np.uint16] | None
    ) -> ItemResult:
        found = [part() for part in parts]
        patches, cls = found[0] if len(found) == 1 else (np.concatenate([each[n] for each in found]) for n in (0, 1))
        kept = quantise(patches, self.plan.settings.feature_dtype)
        values: dict[str, NDArray[Any]] = {**kept, "cls": cls.astype(np.float16)}
        if self.texts is not None:
            values = reduced(values, self.texts)
        if segments is not None:
            values["segments"] = segments
        return ItemResult(windows, values, halved=len(parts) > 1)


def reduced(
    kept: Mapping[str, NDArray[Any]], texts: NDArray[np.float32], vectors: NDArray[np.float32] | None = None
) -> dict[str, NDArray[Any]]:
    """Scores of rounded features: ``reduced`` (B, Q + 4, g, g), of ``vectors`` if given, and ``cls`` (B, Q)."""
    # Window by window, since the features of one fit the processor's cache.
    each = ({name: values[n : n + 1] for name, values in kept.items()} for n in range(len(kept["cls"])))
    found = [patch_scores(restore(window), texts if vectors is None else vectors) for window in each]
    return {"reduced": np.concatenate(found), "cls": unit(kept["cls"]) @ texts.T}


def start_machine(
    plan: Plan,
    kept: Kept,
    *,
    device: str | None = None,
    threads: int | None = None,
    tiles: Path | None = None,
    models: Models | None = None,
) -> Machine:
    """Load the model and open the segment source; finished SAM tiles go to the folder ``tiles``.

    What ``models`` holds already is not loaded again. The model computes in what ``kept`` says; where that is ``auto``,
    in what the device suggests, which :func:`resegeo.run.arithmetic.settled` looks into.

    Raises
    ------
    ResegeoError:
        When the model, SAM or the segments can't be had.

    """
    set_threads(threads)
    settings = plan.settings
    models = models or Models()
    where, precision = pick_device(device), kept.arithmetic.precision
    if precision == "auto":
        precision = "bfloat16" if quick_at_bfloat16(where) else "float32"
    segments = open_segments(plan, where, tiles, models, threads=threads)
    encoder = models.encoder(plan.source, device=device, precision=precision, compiled=settings.compile)
    texts = None if kept.prompts is None else models.texts(encoder, kept.prompts)
    return Machine(plan, encoder, segments, kept, texts)


def open_segments(
    plan: Plan, device: str, tiles: Path | None, models: Models, *, threads: int | None = None
) -> SegmentSource:
    """Build the segment source of a plan."""
    settings = plan.settings
    if plan.sam is None:
        areas = settings.superpixel_area or (16 * plan.geometry.patch_size**2,)
        scale = settings.superpixel_scale
        return segment_source(settings.segments, plan.canvas, areas=areas, scale=scale, threads=threads)
    from resegeo.segments.sam_masks import SamSegmenter

    # What ``auto`` comes to is the image model's: segments are made before it is asked.
    half = None if settings.precision in ("float32", "auto") else getattr(torch, settings.precision)
    # SAM's library sends points as float64, which MPS does not have.
    model = models.sam(plan.sam, "cpu" if device.startswith("mps") else device)
    segmenter = SamSegmenter(model, settings.sam_levels, autocast=half)
    if settings.sam_mode == "exact":
        return SamWindows(segmenter)
    return SamTiles(plan.canvas, segmenter, folder=tiles)


def read_item(plan: Plan, segments: SegmentSource, item: WorkItem, *, keep_segments: bool = False) -> Batch:
    """Read the windows of one work item and bring their segments to the patches, with ``keep_segments`` them too."""
    side = plan.geometry.image_size
    cuts = [_cut(window, item.bounds) for window in item.windows]
    flags, rgb, share = _seen(plan, item)
    if not flags.any():
        none = np.empty((0, side, side), dtype=np.int64)
        return Batch(flags, np.empty((0, side, side, 3), np.uint8), none.astype(bool), none[:, None])
    used = [number for number, flag in enumerate(flags) if flag]
    pixels = np.stack([rgb[cuts[number]] for number in used])
    valid = np.stack([share[cuts[number]] >= VALID for number in used])
    ids = segments.propose([item.windows[number] for number in used], pixels)
    levels = patch_ids(ids, plan.geometry.patch_size)
    held = valid
    if plan.settings.padding_has_segments:  # what lies beyond the scene is as good as any other pixel
        inside = np.stack([_inside(plan.canvas, item.windows[number]) for number in used])
        held = valid | ~inside
    levels[np.broadcast_to(mostly_invalid(held, plan.geometry.patch_size)[:, None], levels.shape)] = INVALID_GROUP
    numbers = _numbered(ids[:, segments.finest]) if keep_segments else None
    return Batch(flags, pixels, valid, levels, numbers)


def worth_computing(plan: Plan, item: WorkItem) -> NDArray[np.bool_]:
    """Return a flag for each window of an item: whether it covers a valid pixel of the region."""
    return _seen(plan, item)[0]


def _seen(plan: Plan, item: WorkItem) -> tuple[NDArray[np.bool_], NDArray[np.uint8], NDArray[np.floating]]:
    """Flags of the windows that are worth computing, and colours and validity of their common rectangle.

    What a window covers decides, not what it sees; what lies outside the region costs no reading.
    """
    bounds, canvas = item.bounds, plan.canvas
    wanted = np.ones((bounds.height, bounds.width), dtype=bool)
    if plan.region is not None:
        wanted = plan.region.mask(bounds, canvas.to_scene, touched=not canvas.native)
    if not wanted.any():
        empty = np.empty((0, 0, 3), np.uint8)
        return np.zeros(len(item.windows), dtype=bool), empty, np.empty((0, 0))
    rgb, share = canvas.read(bounds.row, bounds.col, bounds.height, bounds.width)
    wanted &= share > 0
    return np.asarray([bool(wanted[_cut(window, bounds)].any()) for window in item.windows]), rgb, share


def _encode(plan: Plan, encoder: Encoder, batch: Batch) -> list[Encoded]:
    """Give a batch to the device: the parts that it was cut into, halved while the device lacks memory."""

    def run(part: slice) -> Encoded:
        return encoder.start_windows(
            batch.rgb[part],
            batch.valid[part],
            batch.levels[part],
            plan.schedule,
            fill=plan.settings.fill,
            last=plan.settings.last_layer,
        )

    size = count = len(batch.rgb)
    while True:
        try:
            with memory_for("a single window", encoder.device):
                return [run(slice(start, start + size)) for start in range(0, count, size)]
        except FullDeviceError:
            if size == 1:
                raise
            size = -(-size // 2)
            if encoder.device.startswith("cuda"):
                torch.cuda.empty_cache()


def _numbered(ids: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Number the segments of each window (B, S, S) anew from 1, so that they fit 16 bits; 0 stays 0."""
    result = np.zeros(ids.shape, dtype=np.uint16)
    for window, numbers in zip(ids, result, strict=True):
        found, inverse = np.unique(window, return_inverse=True)
        numbers[:] = inverse.reshape(window.shape) + (found[0] != 0)
    return result


def _inside(canvas: Canvas, window: Rect) -> NDArray[np.bool_]:
    """Pixels (S, S) of a window that lie in the canvas."""
    rows = np.arange(window.row, window.bottom) < canvas.height
    cols = np.arange(window.col, window.right) < canvas.width
    return rows[:, None] & cols


def _cut(window: Rect, bounds: Rect) -> tuple[slice, slice]:
    row, col = window.row - bounds.row, window.col - bounds.col
    return slice(row, row + window.height), slice(col, col + window.width)
