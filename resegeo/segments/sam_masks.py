"""Segment Anything at work: an image to a hierarchy of segment-id maps.

Two ways. ``window_ids`` is the paper's to the bit: one run of segment-anything's own automatic mask generator
a level, five crops each. Neither the embedding of a crop nor the masks decoded at its points depend on the level,
so the runs share a predictor that remembers both: 5 image encodings instead of 20. ``tile_ids`` is the fast one:
one encoding for a tile of many windows, no crops, and masks judged at the decoder's own low resolution.

0 means "in no mask"; ids from 1 follow the order of the masks, and a later mask overwrites an earlier one.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.utils.amg import (
    batch_iterator,
    batched_mask_to_box,
    calculate_stability_score,
    remove_small_regions,
)
from torch.nn import functional
from torchvision.ops import batched_nms  # type: ignore[import-untyped]

from resegeo.segments.sam_levels import PAPER_LEVELS, SamLevel
from resegeo.segments.sam_predictor import SharingGenerator, SharingPredictor

WINDOW = 224
"""Side of the window, in pixels, that a level's ``points_per_side`` is meant for."""

STABILITY_OFFSET = 1.0
"""Shift of the threshold, in logits, for the stability score; segment-anything's default."""

NMS_THRESHOLD = 0.7
"""Overlap of two boxes from which the lesser mask is dropped; segment-anything's default."""


@dataclass(frozen=True)
class _Candidates:
    """Masks that at least one level of a point grid may keep, at the decoder's resolution."""

    logits: torch.Tensor
    """(M, h, w), with the padding of the input frame."""
    quality: torch.Tensor
    stability: torch.Tensor
    boxes: torch.Tensor
    """(M, 4) first and last column and row: left, top, right, bottom."""


class SamSegmenter:
    """Segment-id maps of images by one SAM model and a table of levels."""

    def __init__(
        self,
        model: Any,
        levels: Sequence[SamLevel] = PAPER_LEVELS,
        *,
        points_per_batch: int = 64,
        autocast: torch.dtype | None = None,
    ) -> None:
        """Segment with ``model`` on the device where it lies.

        Parameters
        ----------
        model:
            A ``segment_anything.modeling.Sam`` in evaluation mode, see :func:`resegeo.segments.sam.load_sam`.
        levels:
            One level of the hierarchy each.
        points_per_batch:
            Points decoded together.
        autocast:
            Half precision that encoder and decoder compute in, such as ``torch.bfloat16``; None: float32.

        """
        self.levels = tuple(levels)
        self._batch = points_per_batch
        self._predictor = SharingPredictor(model, autocast)
        self._alone = threading.Lock()  # the predictor keeps the image that it was given last

    def window_ids(self, rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Segment a window exactly as the paper does: (H, W, 3) uint8 -> (K, H, W).

        Level k equals a run of ``SamAutomaticMaskGenerator`` with the level's numbers; all zero where no mask survives.
        """
        generators = [
            SharingGenerator(
                self._predictor,
                points_per_side=level.points_per_side,
                crop_n_layers=level.crop_n_layers,
                crop_n_points_downscale_factor=level.crop_n_points_downscale_factor,
                **self._options(level),
            )
            for level in self.levels
        ]
        with self._alone:
            return self._painted(rgb, generators)

    def tile_ids(
        self, rgb: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None, *, full_resolution: bool = False
    ) -> NDArray[np.int64]:
        """Segment a tile of many windows with one image encoding: (H, W, 3) uint8 -> (K, H, W).

        The points lie as densely as in a window of 224 pixels: 18 and 9 a side of a 1024-pixel tile for the
        paper's 4 and 2.

        Parameters
        ----------
        rgb:
            The tile; SAM resizes it so that its longer side is 1024.
        valid:
            (H, W); pixels that are False get id 0, and without any valid pixel nothing is computed.
        full_resolution:
            Judge masks at the tile's resolution, as the library's generator does without crops, instead of the
            decoder's (256 for 1024 pixels): slower, to measure what the low resolution changes.

        """
        if valid is not None and not valid.any():
            return np.zeros((len(self.levels), *rgb.shape[:2]), dtype=np.int64)
        with self._alone:
            if full_resolution:
                ids = self._painted(
                    rgb,
                    [
                        SharingGenerator(
                            self._predictor,
                            points_per_side=None,
                            point_grids=[tile_points(level, rgb.shape[0], rgb.shape[1])],
                            **self._options(level),
                        )
                        for level in self.levels
                    ],
                )
            else:
                ids = self._quick(rgb)
        if valid is not None:
            ids[:, ~valid] = 0
        return ids

    def _options(self, level: SamLevel) -> dict[str, Any]:
        return {
            "points_per_batch": self._batch,
            "pred_iou_thresh": level.pred_iou_thresh,
            "stability_score_thresh": level.stability_score_thresh,
            "min_mask_region_area": level.min_mask_region_area,
        }

    def _painted(self, rgb: NDArray[np.uint8], generators: Sequence[SharingGenerator]) -> NDArray[np.int64]:
        """Run one generator a level and paint its masks in their order."""
        ids = np.zeros((len(generators), *rgb.shape[:2]), dtype=np.int64)
        with self._predictor.remembering():
            for level, generator in zip(ids, generators, strict=True):
                for number, record in enumerate(generator.generate(rgb), start=1):
                    level[record["segmentation"]] = number
        return ids

    def _quick(self, rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Judge masks at the decoder's resolution, and upsample those alone that survive."""
        sharing: dict[int, list[int]] = {}
        for index, level in enumerate(self.levels):
            sharing.setdefault(level.points_per_side, []).append(index)
        with self._predictor.remembering():
            self._predictor.set_image(rgb)
            ids = torch.zeros((len(self.levels), *rgb.shape[:2]), dtype=torch.int64, device=self._predictor.device)
            rows, cols = (self._axis(axis) for axis in (0, 1))
            for members in sharing.values():
                candidates = self._candidates([self.levels[index] for index in members])
                for index in members:
                    self._paint(ids[index], self._survivors(candidates, self.levels[index]), rows, cols)
        return np.asarray(ids.cpu().numpy())

    def _candidates(self, levels: Sequence[SamLevel]) -> _Candidates:
        """Decode the one point grid of ``levels`` and keep what any of them may keep."""
        predictor = self._predictor
        height, width = predictor.original_size
        points = tile_points(levels[0], height, width) * (width, height)
        least_quality = min(level.pred_iou_thresh for level in levels)
        least_stability = min(level.stability_score_thresh for level in levels)
        parts = []
        for (batch,) in batch_iterator(self._batch, points):
            moved = predictor.transform.apply_coords(batch, predictor.original_size)
            coordinates = torch.as_tensor(moved, dtype=torch.float32, device=predictor.device)[:, None]
            labels = torch.ones((len(batch), 1), dtype=torch.int, device=predictor.device)
            logits, quality = predictor.decode_best(coordinates, labels, least_quality)
            stability = calculate_stability_score(self._inside(logits), self._threshold, STABILITY_OFFSET)
            if least_stability > 0:
                kept = stability >= least_stability
                logits, quality, stability = logits[kept], quality[kept], stability[kept]
            boxes = batched_mask_to_box(self._inside(logits) > self._threshold)
            parts.append((logits, quality, stability, boxes))
        return _Candidates(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _survivors(self, candidates: _Candidates, level: SamLevel) -> torch.Tensor:
        """Choose the masks of one level, in the order in which they are painted: logits (M, h, w)."""
        kept = torch.ones_like(candidates.quality, dtype=torch.bool)
        if level.pred_iou_thresh > 0:
            kept &= candidates.quality > level.pred_iou_thresh
        if level.stability_score_thresh > 0:
            kept &= candidates.stability >= level.stability_score_thresh
        (indices,) = kept.nonzero(as_tuple=True)
        best = indices[self._distinct(candidates.boxes[indices], candidates.quality[indices])]
        logits = candidates.logits[best]
        if level.min_mask_region_area == 0 or len(logits) == 0:
            return logits
        inside = self._inside(logits)
        height, width = self._predictor.original_size
        area = level.min_mask_region_area * inside.shape[1] * inside.shape[2] / (height * width)
        cleaned, untouched = [], []
        for mask in (inside > self._threshold).cpu().numpy():
            filled, had_holes = remove_small_regions(mask, area, "holes")
            whole, had_islands = remove_small_regions(filled, area, "islands")
            cleaned.append(torch.from_numpy(whole))
            untouched.append(float(not (had_holes or had_islands)))
        masks = torch.stack(cleaned).to(logits.device)
        # A removed region keeps its distance from the threshold on the other side: no border moves when upsampled.
        distance = (inside - self._threshold).abs().clamp_(min=1e-6)
        inside[:] = self._threshold + torch.where(masks, distance, -distance)
        return logits[self._distinct(batched_mask_to_box(masks), torch.tensor(untouched, device=logits.device))]

    def _distinct(self, boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Drop masks whose low-resolution box overlaps a better one's: indices of the others, best first."""
        # The last row and column belong to a box: its border in the input frame is that of the last pixel there.
        step = self._predictor.model.image_encoder.img_size // self._low_side
        borders = boxes * step + torch.tensor([0, 0, step - 1, step - 1], device=boxes.device)
        kept: torch.Tensor = batched_nms(borders.float(), scores, torch.zeros_like(scores), NMS_THRESHOLD)
        return kept

    def _paint(self, ids: torch.Tensor, logits: torch.Tensor, rows: torch.Tensor, cols: torch.Tensor) -> None:
        """Paint masks (M, h, w) into one level (H, W), upsampling each only where its box reaches."""
        boxes = batched_mask_to_box(self._inside(logits) > self._threshold).tolist()
        touched_rows, touched_cols = (axis.cpu().numpy() > 0 for axis in (rows, cols))
        for number, (mask, (left, top, right, bottom)) in enumerate(zip(logits, boxes, strict=True), start=1):
            y = np.flatnonzero(touched_rows[:, int(top) : int(bottom) + 1].any(axis=1))
            x = np.flatnonzero(touched_cols[:, int(left) : int(right) + 1].any(axis=1))
            if y.size and x.size:
                part = slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1)
                full = rows[part[0]] @ mask @ cols[part[1]].T  # (H', h) @ (h, w) @ (w, W')
                ids[part].masked_fill_(full > self._threshold, number)

    def _axis(self, axis: int) -> torch.Tensor:
        """Weights (H, h) or (W, w) of the library's upsampling, which is bilinear twice, along one axis."""
        predictor = self._predictor
        eye = torch.eye(self._low_side, device=predictor.device)[None, :, :, None]  # each column an image of width 1
        padded = functional.interpolate(eye, (predictor.model.image_encoder.img_size, 1), mode="bilinear")
        cut = padded[:, :, : predictor.input_size[axis]]
        return functional.interpolate(cut, (predictor.original_size[axis], 1), mode="bilinear")[0, :, :, 0].T

    def _inside(self, logits: torch.Tensor) -> torch.Tensor:
        """View of low-resolution logits (M, h, w) without the padding."""
        side = self._predictor.model.image_encoder.img_size
        height, width = (-(-size * self._low_side // side) for size in self._predictor.input_size)
        return logits[:, :height, :width]

    @property
    def _low_side(self) -> int:
        return int(self._predictor.model.prompt_encoder.mask_input_size[0])

    @property
    def _threshold(self) -> float:
        return float(self._predictor.model.mask_threshold)


def tile_points(level: SamLevel, height: int, width: int) -> NDArray[np.float64]:
    """Grid of points (P, 2) as x, y in [0, 1], as dense as the level's in a window of 224 pixels, row by row."""
    rows, cols = (max(1, round(level.points_per_side * size / WINDOW)) for size in (height, width))
    y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(cols) + 0.5) / cols, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)
