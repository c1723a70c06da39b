"""``import resegeo.xarray_accessor`` gives every DataArray ``da.resegeo.segment(["water", "forest"])``.

It is a module of its own, so that ``import resegeo`` loads no xarray.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from resegeo.run.commands import segment
from resegeo.run.prepare import Classes
from resegeo.run.segmentation import Segmentation


@xr.register_dataarray_accessor("resegeo")  # type: ignore[no-untyped-call]
class Accessor:
    """What resegeo does with a scene (band, y, x)."""

    def __init__(self, array: xr.DataArray) -> None:
        """Take a scene with its CRS as rioxarray keeps it."""
        self._array = array

    def segment(
        self, classes: Classes, output: str | Path | None = None, **options: Any
    ) -> xr.DataArray | Segmentation:
        """Segment the scene by words; parameters, result and errors as for :func:`resegeo.segment`."""
        return segment(self._array, classes, output, **options)
