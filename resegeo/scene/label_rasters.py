"""What rasters of labels have in common, be they segments or truths: which of their pixels say nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags

from resegeo.scene.pixels import holds


def is_masked(dataset: Any) -> bool:
    """Whether a mask of the whole dataset, in it or beside it as ``.msk``, says which pixels count; alpha is none.

    Or the mask that GDAL makes of a nodata value that rasterio cannot tell, as it is beyond a float's whole numbers.
    """
    flags = dataset.mask_flag_enums[0]
    untold = MaskFlags.nodata in flags and dataset.nodata is None
    return untold or (MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags)


def blank(dataset: Any, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where values (h, w) of a dataset's first band are its nodata value; nowhere if it has none, or NaN.

    NaN and infinity are told by the values themselves.
    """
    nodata = dataset.nodata
    if nodata is None or np.isnan(nodata):
        return np.zeros(values.shape, dtype=bool)
    return holds(values, nodata)


def masked(dataset: Any, window: Any) -> NDArray[np.bool_]:
    """Pixels (h, w) of a window that a mask of the dataset leaves out."""
    return np.asarray(dataset.read_masks(1, window=window) == 0)
