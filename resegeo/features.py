"""The store between the image side and the labels: one chunk a work item, on disk.

What a window leaves behind is tiny (see :mod:`resegeo.scores`), but a scene has many windows, so
memory stays bounded by keeping it in a Zarr array with one chunk a work item. The store knows no words.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from resegeo.windows import ITEM_SIDE


@dataclass(frozen=True)
class ItemResult:
    """What the windows of one work item left behind."""

    windows: NDArray[np.bool_]
    """A flag for each window of the item; False where it has no valid pixel."""
    values: Mapping[str, NDArray[Any]]
    """Arrays by name, one row for each window flagged True."""


class PatchStore:
    """Results of all work items, in a folder that is removed on leaving the context.

    Items are written once, whole; an item never written (no valid pixel in it) is answered by None.
    """

    def __init__(self, path: Path, *, items: int, arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        """Lay out ``arrays`` (shape and dtype of one window's values) in the new folder ``path``."""
        self.path = path
        self._written: dict[int, NDArray[np.bool_]] = {}
        shutil.rmtree(path, ignore_errors=True)  # what a killed run may have left
        group = zarr.open_group(store=str(path), mode="w")
        self._arrays = {
            name: group.create_array(
                name,
                shape=(items, ITEM_SIDE * ITEM_SIDE, *shape),
                chunks=(1, ITEM_SIDE * ITEM_SIDE, *shape),
                dtype=dtype,
                compressors=None,
            )
            for name, (shape, dtype) in arrays.items()
        }

    def put(self, index: int, result: ItemResult) -> None:
        """Store one item."""
        for name, array in self._arrays.items():
            padded = np.zeros(array.shape[1:], dtype=array.dtype)
            padded[np.flatnonzero(result.windows)] = result.values[name]
            array[index] = padded
        self._written[index] = result.windows

    def get(self, index: int) -> ItemResult | None:
        """Return one item, or None."""
        windows = self._written.get(index)
        if windows is None:
            return None
        used = np.flatnonzero(windows)
        return ItemResult(windows, {name: np.asarray(array[index])[used] for name, array in self._arrays.items()})

    def __enter__(self) -> PatchStore:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
