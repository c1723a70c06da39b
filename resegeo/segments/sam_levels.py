"""The levels of the hierarchy of segments: what segment-anything's automatic mask generator is told for each."""

from __future__ import annotations

from dataclasses import dataclass

from resegeo.errors import UsageError


@dataclass(frozen=True)
class SamLevel:
    """One level of the hierarchy: what segment-anything's automatic mask generator is told."""

    points_per_side: int
    """Points along each side of a window, its crops take half as many."""
    pred_iou_thresh: float
    """Masks are kept whose predicted quality is higher; 0 keeps all."""
    stability_score_thresh: float
    """Masks are kept whose stability under a shifted threshold is this or higher; 0 keeps all."""
    min_mask_region_area: int
    """Holes and islands of fewer pixels are removed; 0 removes none."""
    crop_n_layers: int = 1
    """Layers of crops that the paper's passes over each window look at beside the window itself: layer i has 4^i."""
    crop_n_points_downscale_factor: int = 2
    """By what the points along a side are divided from one layer of crops to the next."""

    def __post_init__(self) -> None:
        """Check the numbers; see :class:`UsageError`."""
        for name, least, most in (("crop_n_layers", 0, 3), ("crop_n_points_downscale_factor", 1, 16)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise UsageError(
                    f"A SAM level with {name} {value} is not possible; expected a whole number from {least} to {most}."
                )
        fewest = self.crop_n_points_downscale_factor**self.crop_n_layers
        if not (isinstance(self.points_per_side, int) and self.points_per_side >= fewest):
            part = {1: "", 2: ", since the crops of a window take half as many"}.get(fewest, ", a point in each crop")
            raise UsageError(
                f"A SAM level with points_per_side {self.points_per_side} is not possible; expected a whole number "
                f"of {fewest} or more{part}."
            )
        for name in ("pred_iou_thresh", "stability_score_thresh"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"A SAM level with {name} {getattr(self, name)} is not possible; expected 0 to 1.")
        if not (isinstance(self.min_mask_region_area, int) and self.min_mask_region_area >= 0):
            raise UsageError(
                f"A SAM level with min_mask_region_area {self.min_mask_region_area} is not possible; expected a whole "
                "number of pixels, 0 or more."
            )


PAPER_LEVELS = (
    SamLevel(4, 0.5, 0.5, 500),
    SamLevel(2, 0.6, 0.6, 500),
    SamLevel(2, 0.5, 0.5, 1000),
    SamLevel(2, 0.5, 0.5, 2000),
)
"""The table of ReSeg-CLIP (arXiv 2602.23869)."""
