"""How the tests write a small raster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin


def write_raster(path: str | Path, bands: np.ndarray, **profile: Any) -> Path:
    """Write bands (b, h, w) as a GeoTIFF of 10 m pixels in UTM; options of rasterio's profile by keyword, or None."""
    count, height, width = bands.shape
    options = {
        "driver": "GTiff",
        "dtype": bands.dtype,
        "count": count,
        "height": height,
        "width": width,
        "crs": "EPSG:32633",
        "transform": from_origin(500_000, 5_200_000, 10, 10),
    }
    options.update(profile)
    with rasterio.open(path, "w", **{key: value for key, value in options.items() if value is not None}) as raster:
        raster.write(bands)
    return Path(path)
