"""Which patches may see which: segments to patch ids, the layer schedule, keep-masks.

The late layers of CLIP's vision transformer are restricted: first by segments (a patch attends
only the patches of its own segment, one level of the hierarchy per layer), at last to the patch's
own neighbourhood. Source: ReSeg-CLIP (arXiv 2602.23869).

Masks are boolean **keep**-masks, True where a query may attend a key. They are meant for
:func:`torch.nn.functional.scaled_dot_product_attention`, which reads a boolean mask this way. They
must never be cast to the dtype of the activations: "blocked" would silently become an additive +1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from resegeo.errors import UsageError

if TYPE_CHECKING:
    import torch

INVALID_GROUP = -1
"""Patch id of patches that lie mostly on invalid pixels: a group of their own."""


@dataclass(frozen=True)
class Schedule:
    """How many layers of the vision transformer are free, segment-restricted and local.

    ``radius`` is the Chebyshev distance in patches that a local layer reaches; 0 is the patch alone.
    """

    free: int
    segment: int
    local: int
    radius: int = 0

    def __post_init__(self) -> None:
        """Refuse negative counts."""
        if min(self.free, self.segment, self.local, self.radius) < 0:
            raise UsageError(
                f"The attention schedule free={self.free}, segment={self.segment}, local={self.local}, "
                f"radius={self.radius} has a negative number; all four must be 0 or more."
            )

    @property
    def depth(self) -> int:
        """The number of layers that the schedule describes."""
        return self.free + self.segment + self.local

    def level_of(self, segment_layer: int, levels: int) -> int:
        """Level of the hierarchy (from 0) that the ``segment_layer``-th restricted layer uses."""
        return segment_layer * levels // self.segment


@dataclass(frozen=True)
class LastLayer:
    """How the last layer of the vision transformer computes; by default as it was trained."""

    terms: tuple[str, ...] = ("qk",)
    """Whom a token attends: by its query and the others' keys (``qk``), or by likes alone (``qq``, ``kk``, ``vv``). Of
    several terms each has a softmax of its own, and what they gather from the values is added."""
    residual: bool = True
    """Whether the layer's input is added to what its attention gives."""
    mlp: bool = True
    """Whether the layer's MLP follows, itself with a residual."""


def default_schedule(depth: int, *, radius: int = 0) -> Schedule:
    """Return the paper's schedule scaled to ``depth`` layers (24 layers: 18 free, 4 segment, 2 local)."""
    segment = max(1, int(depth / 6 + 0.5))
    local = max(1, int(depth / 12 + 0.5))
    return Schedule(free=max(0, depth - segment - local), segment=segment, local=local, radius=radius)


def patch_ids(id_maps: NDArray[np.integer], patch: int) -> NDArray[np.int64]:
    """Give each patch the id that most of its pixels hold; ties go to the smallest id.

    Parameters
    ----------
    id_maps:
        Segment ids, shape (..., H, W); H and W are multiples of ``patch``.
    patch:
        Patch side in pixels.

    Returns
    -------
    Shape (..., H // patch, W // patch), int64.

    """
    *lead, height, width = id_maps.shape
    rows, cols = height // patch, width // patch
    cells = id_maps.reshape(-1, rows, patch, cols, patch).transpose(0, 1, 3, 2, 4)
    # (M, patch²), sorted: equal ids become runs, and the first longest run is the smallest mode.
    cells = np.sort(cells.reshape(-1, patch * patch).astype(np.int64, copy=False), axis=1)
    mode = cells[:, 0].copy()
    mixed = np.flatnonzero(cells[:, 0] != cells[:, -1])
    if mixed.size:
        runs = cells[mixed]
        position = np.arange(patch * patch)
        starts = np.ones(runs.shape, dtype=bool)
        starts[:, 1:] = runs[:, 1:] != runs[:, :-1]
        begin = np.maximum.accumulate(np.where(starts, position, 0), axis=1)
        length = position - begin + 1
        mode[mixed] = runs[np.arange(len(runs)), length.argmax(axis=1)]
    return np.asarray(mode.reshape(*lead, rows, cols), dtype=np.int64)


def mostly_invalid(valid: NDArray[np.bool_], patch: int) -> NDArray[np.bool_]:
    """Mark patches with more invalid than valid pixels: (..., H, W) -> (..., H // patch, W // patch)."""
    *lead, height, width = valid.shape
    cells = valid.reshape(*lead, height // patch, patch, width // patch, patch)
    return np.asarray(cells.mean(axis=(-3, -1)) < 0.5)


@lru_cache(maxsize=16)
def _local_keep(rows: int, cols: int, radius: int, device: str) -> torch.Tensor:
    """Keep-mask (1, 1, 1 + N, 1 + N) of a local layer; the same for every window."""
    import torch

    row = torch.arange(rows).repeat_interleave(cols)
    col = torch.arange(cols).repeat(rows)
    near = ((row[:, None] - row[None, :]).abs() <= radius) & ((col[:, None] - col[None, :]).abs() <= radius)
    return _with_lonely_cls(near[None]).to(device)


def _with_lonely_cls(keep: torch.Tensor) -> torch.Tensor:
    """Add a CLS token that attends only itself and that no patch attends: (B, N, N) -> (B, 1, 1+N, 1+N)."""
    import torch

    batch, count, _ = keep.shape
    full = torch.zeros((batch, 1, 1 + count, 1 + count), dtype=torch.bool, device=keep.device)
    full[:, :, 0, 0] = True
    full[:, 0, 1:, 1:] = keep
    return full


def layer_masks(schedule: Schedule, levels: torch.Tensor) -> list[torch.Tensor | None]:
    """Build one keep-mask a layer from the patch ids of a batch of windows.

    Parameters
    ----------
    schedule:
        The layer schedule.
    levels:
        Patch ids, shape (B, K, rows, cols), K levels of the hierarchy, any integer type.

    Returns
    -------
    ``schedule.depth`` entries: None for a free layer, else a boolean keep-mask of shape
    (B or 1, 1, 1 + N, 1 + N), token 0 being CLS. Row i says which keys query i may attend.

    """
    _, count, rows, cols = levels.shape
    by_level = {}
    masks: list[torch.Tensor | None] = [None] * schedule.free
    for layer in range(schedule.segment):
        level = schedule.level_of(layer, count)
        if level not in by_level:
            ids = levels[:, level].flatten(1)  # (B, rows, cols) -> (B, N)
            by_level[level] = _with_lonely_cls(ids[:, :, None] == ids[:, None, :])
        masks.append(by_level[level])
    if schedule.local:
        local = _local_keep(rows, cols, schedule.radius, str(levels.device))
        masks.extend([local] * schedule.local)
    return masks
