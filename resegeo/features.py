"""The store between the image side and the labels: one chunk a work item, on disk.

What a window leaves behind is tiny (see :mod:`resegeo.scores`), but a scene has many windows, so
memory stays bounded by keeping it in a Zarr array with one chunk a work item. The store knows no words.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType

import numpy as np
import zarr
from numpy.typing import NDArray

from resegeo.windows import ITEM_SIDE


class PatchStore:
    """Reduced patch scores of all work items, in a folder that is removed on leaving the context.

    Items are written once, whole; an item never written (no valid pixel in it) is answered by None.
    """

    def __init__(self, path: Path, *, items: int, channels: int, grid: int) -> None:
        """Lay out an array (items, windows, channels, grid, grid) float32 in the new folder ``path``."""
        self.path = path
        self._written: dict[int, NDArray[np.bool_]] = {}
        shutil.rmtree(path, ignore_errors=True)  # what a killed run may have left
        shape = (items, ITEM_SIDE * ITEM_SIDE, channels, grid, grid)
        self._array = zarr.create_array(
            store=str(path), shape=shape, chunks=(1, *shape[1:]), dtype="float32", compressors=None
        )

    def put(self, index: int, windows: NDArray[np.bool_], values: NDArray[np.float32]) -> None:
        """Store the windows of one item: a flag for each of its windows, the values of those flagged True."""
        padded = np.zeros(self._array.shape[1:], dtype=np.float32)
        padded[np.flatnonzero(windows)] = values
        self._array[index] = padded
        self._written[index] = windows

    def get(self, index: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]] | None:
        """Return the flags of an item's windows and their values (windows, channels, g, g), or None."""
        windows = self._written.get(index)
        if windows is None:
            return None
        return windows, np.asarray(self._array[index])

    def __enter__(self) -> PatchStore:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
