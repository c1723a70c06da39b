"""What a teacher says of a picture, and how that follows the picture's pixels into a crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORD_CELL, HIDDEN_CELL = 4, 8
"""Sides in pixels of the cells of :class:`Taught`."""


@dataclass(frozen=True)
class Taught:
    """What a teacher makes of a picture or of a crop, on grids of cells; NaN where it was not asked."""

    words: NDArray[np.float16]
    """(H / 4, W / 4, words) logits of the words."""
    hidden: NDArray[np.float16]
    """(H / 8, W / 8, F) standardised features."""

    def empty(self, size: int) -> Taught:
        """The same for a crop of ``size`` pixels of which nothing is known yet."""

        def grid(like: NDArray[np.float16], cell: int) -> NDArray[np.float16]:
            return np.full((size // cell, size // cell, like.shape[2]), np.nan, dtype=np.float16)

        return Taught(grid(self.words, WORD_CELL), grid(self.hidden, HIDDEN_CELL))

    def turned(self, *, flip: bool, turns: int) -> Taught:
        """Mirrored, then turned by ``turns`` quarters."""
        both = (np.rot90(a[:, ::-1] if flip else a, turns) for a in (self.words, self.hidden))
        return Taught(*both)

    def put(self, other: Taught, row: int, col: int) -> None:
        """Write ``other`` with its corner at pixel (row, col), as far as there is room."""
        for here, there, cell in (
            (self.words, other.words, WORD_CELL),
            (self.hidden, other.hidden, HIDDEN_CELL),
        ):
            place = here[row // cell :, col // cell :][: there.shape[0], : there.shape[1]]
            place[:] = there[: place.shape[0], : place.shape[1]]

    def larger(self, times: int) -> Taught:
        """Each cell repeated ``times`` along both sides."""
        return Taught(*(a.repeat(times, 0).repeat(times, 1) for a in (self.words, self.hidden)))

    def warped(self, matrix: NDArray[np.float64], size: int) -> Taught:
        """A crop: ``matrix`` (2, 3) maps its x and y to those of the picture."""
        return Taught(_sampled(self.words, matrix, size, WORD_CELL), _sampled(self.hidden, matrix, size, HIDDEN_CELL))


def _sampled(grid: NDArray[np.float16], matrix: NDArray[np.float64], size: int, cell: int) -> NDArray[np.float16]:
    """``grid`` at the centres of the cells of a crop, bilinear; NaN outside the picture."""
    centre = (np.arange(size // cell) + 0.5) * cell - 0.5
    x, y = np.meshgrid(centre, centre)
    u, v = ((row[0] * x + row[1] * y + row[2] + 0.5) / cell - 0.5 for row in matrix)
    height, width = grid.shape[:2]
    outside = (u < -0.5) | (v < -0.5) | (u > width - 0.5) | (v > height - 0.5)
    u, v = np.clip(u, 0, width - 1), np.clip(v, 0, height - 1)
    left, top = np.minimum(u.astype(int), max(width - 2, 0)), np.minimum(v.astype(int), max(height - 2, 0))
    right, low = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    a, b = ((t - t0)[..., None].astype(np.float32) for t, t0 in ((u, left), (v, top)))
    upper = grid[top, left] * (1 - a) + grid[top, right] * a
    lower = grid[low, left] * (1 - a) + grid[low, right] * a
    found = (upper * (1 - b) + lower * b).astype(np.float16)
    found[outside] = np.nan
    return found
