"""Integer arithmetic of the scene-anchored window grid, its work items and the output blocks.

The grid is fixed by scene size, window and stride alone: never by block size, the number of workers
or a resume. Everything is in pixels of the scene, numpy order (row, col).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from resegeo.errors import UsageError

ITEM_SIDE = 4
"""Windows along one side of a work item: up to 16 windows are read, encoded and stored together."""

BLOCK = 512
"""Side of an output block in pixels."""


@dataclass(frozen=True, order=True)
class Rect:
    """A rectangle of pixels; it may reach beyond the scene."""

    row: int
    col: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """First row below the rectangle."""
        return self.row + self.height

    @property
    def right(self) -> int:
        """First column right of the rectangle."""
        return self.col + self.width

    def intersection(self, other: Rect) -> Rect | None:
        """Return the common rectangle, or None where the two share no pixel."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.bottom, other.bottom) - row
        width = min(self.right, other.right) - col
        return Rect(row, col, height, width) if height > 0 and width > 0 else None


def origins(size: int, window: int, stride: int, *, overhang: bool = False) -> tuple[int, ...]:
    """Return the first pixels of all windows along one axis of ``size`` pixels.

    Multiples of ``stride``; the last one is clamped to ``size - window``, or with ``overhang`` (the
    paper's code) left to reach beyond the edge. An axis shorter than a window has one origin, 0.
    """
    if size <= window:
        return (0,)
    steps = -(-(size - window) // stride)  # windows after the first, the last one included
    regular = tuple(range(0, steps * stride, stride))
    return (*regular, steps * stride if overhang else size - window)


@dataclass(frozen=True)
class WorkItem:
    """Windows that are computed and stored together: the batch of the encoder."""

    index: int
    windows: tuple[Rect, ...]

    @property
    def bounds(self) -> Rect:
        """Smallest rectangle that holds all windows."""
        row, col = min(w.row for w in self.windows), min(w.col for w in self.windows)
        bottom, right = max(w.bottom for w in self.windows), max(w.right for w in self.windows)
        return Rect(row, col, bottom - row, right - col)


@dataclass(frozen=True)
class WindowGrid:
    """All windows of a scene: their origins along both axes."""

    height: int
    width: int
    window: int
    stride: int
    rows: tuple[int, ...]
    cols: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.rows) * len(self.cols)

    @property
    def item_shape(self) -> tuple[int, int]:
        """Number of work items down and across."""
        return -(-len(self.rows) // ITEM_SIDE), -(-len(self.cols) // ITEM_SIDE)

    def items(self) -> tuple[WorkItem, ...]:
        """Cut the grid into work items of up to ITEM_SIDE × ITEM_SIDE windows, row by row."""
        down, across = self.item_shape
        return tuple(self.item(index) for index in range(down * across))

    def item(self, index: int) -> WorkItem:
        """Return one work item, its windows row by row."""
        item_row, item_col = divmod(index, self.item_shape[1])
        rows = self.rows[item_row * ITEM_SIDE : (item_row + 1) * ITEM_SIDE]
        cols = self.cols[item_col * ITEM_SIDE : (item_col + 1) * ITEM_SIDE]
        return WorkItem(index, tuple(Rect(r, c, self.window, self.window) for r in rows for c in cols))

    def items_over(self, rect: Rect) -> Iterator[WorkItem]:
        """Yield the work items with at least one window that touches ``rect``, in order."""
        down = self._touching(self.rows, rect.row, rect.bottom)
        across = self._touching(self.cols, rect.col, rect.right)
        for item_row in sorted({i // ITEM_SIDE for i in down}):
            for item_col in sorted({j // ITEM_SIDE for j in across}):
                yield self.item(item_row * self.item_shape[1] + item_col)

    def _touching(self, starts: tuple[int, ...], begin: int, end: int) -> list[int]:
        return [i for i, start in enumerate(starts) if start < end and start + self.window > begin]


def window_grid(height: int, width: int, *, window: int, stride: int, overhang: bool = False) -> WindowGrid:
    """Lay the grid over a scene of ``height`` × ``width`` pixels.

    Raises
    ------
    UsageError:
        When the stride is not in 1 … window: a larger one would leave pixels uncovered.

    """
    if not 1 <= stride <= window:
        raise UsageError(
            f"--stride {stride} does not fit the model's window of {window} pixels; it must be from 1 to {window}."
        )
    return WindowGrid(
        height=height,
        width=width,
        window=window,
        stride=stride,
        rows=origins(height, window, stride, overhang=overhang),
        cols=origins(width, window, stride, overhang=overhang),
    )


def blocks(height: int, width: int, size: int = BLOCK) -> Iterator[Rect]:
    """Cut a scene into output blocks, row by row; those at the lower and right edge are smaller."""
    for row in range(0, height, size):
        for col in range(0, width, size):
            yield Rect(row, col, min(size, height - row), min(size, width - col))


LOOK_SIDE = 2048
"""Longest side of the quicklook that is kept, in pixels."""


def look_shape(height: int, width: int) -> tuple[int, int, int]:
    """Shape of the quicklook of a scene, thinned to at most :data:`LOOK_SIDE` pixels a side."""
    scale = min(1.0, LOOK_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale)), 3
