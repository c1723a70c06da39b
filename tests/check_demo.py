"""Check what `make demo` wrote: python tests/check_demo.py FOLDER. Exits with 1 and says why if anything is off."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from PIL import Image

SCENE = Path(__file__).parent.parent / "examples/demo/sentinel2.tif"


def main(folder: Path) -> None:
    stem = SCENE.stem
    with rasterio.open(SCENE) as scene, rasterio.open(folder / f"{stem}.classes.tif") as raster:
        assert (scene.height, scene.width, scene.crs, scene.transform) == (
            raster.height,
            raster.width,
            raster.crs,
            raster.transform,
        )
        codes = raster.read(1)
        assert raster.colormap(1)[1][3] == 255
    shares = np.bincount(codes.ravel(), minlength=256) / codes.size
    assert (shares[1:254] > 0.02).sum() >= 3, f"fewer than three classes of note: {shares[shares > 0]}"
    assert shares.max() < 0.9, "one class covers nearly everything"
    frame = gpd.read_file(folder / f"{stem}.gpkg", layer=stem)
    assert shapely.is_valid(frame.geometry.values).all()
    assert shapely.coverage_is_valid(frame.geometry.values)
    pixels = ((codes > 0) & (codes < 254)).sum()
    assert np.isclose(frame.area_m2.sum(), pixels * abs(rasterio.open(SCENE).transform.determinant))
    with sqlite3.connect(folder / f"{stem}.gpkg") as database:
        assert database.execute("SELECT count(*) FROM layer_styles").fetchone() == (1,)
    with Image.open(folder / f"{stem}.png") as picture:
        assert max(picture.size) <= 2048
    report = json.loads((folder / f"{stem}.json").read_text("utf-8"))
    assert report["windows"]["failed"] == 0
    print(f"demo is right: {len(frame)} polygons; seconds: {report['seconds']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
