"""What examples cost beside new words for a finished scene, and what showing labels in another way costs: seconds.

    python tests/benchmarks/clicks.py [SIDE] [POINTS]

The scene is made by tiling the demo scene; six words. Prints the seconds of fitting, of relabelling without and with
points, both runs in one process one after the other, and of a merge. Exits with 1 where fitting takes 2 s or more, or
the run with points more than 1.3 times the seconds of the one without.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from memory import make

from resegeo import segment

WORDS = ["water", "wetland", "forest", "cropland", "bare soil", "building"]
OTHER = ["lake", "grass", "road", "sand", "cloud", "shadow"]
"""Words that nothing was labelled by yet, or their labels would be taken."""


def main() -> int:
    warnings.simplefilter("ignore")
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "scene.tif", side)
        made = segment(folder / "scene.tif", WORDS, folder / "out", vector=(), keep_features=True)
        store = folder / "out/scene.store.zarr"
        with rasterio.open(made.raster) as raster:
            codes, transform = raster.read(1), raster.transform
        random = np.random.default_rng(0)
        # Of the four most common classes, a quarter each, so that there are enough to choose λ by.
        common = np.argsort(-np.bincount(codes[codes < 255], minlength=5))[:4]
        drawn = [random.choice(np.flatnonzero(codes == code), count // 4) for code in common]
        rows, cols = np.unravel_index(np.concatenate(drawn), codes.shape)
        x, y = transform @ (cols + 0.5, rows + 0.5)
        # Mostly what other words said; a fifth of them say otherwise.
        label = np.where(random.random(len(rows)) < 0.8, codes[rows, cols], random.choice(common, len(rows)))
        frame = gpd.GeoDataFrame({"class_id": label}, geometry=shapely.points(x, y), crs="EPSG:32610")
        with rasterio.open(made.raster) as raster:
            frame = frame.set_crs(raster.crs, allow_override=True)
        frame.to_file(folder / "clicks.gpkg")
        laps: dict[str, dict[str, float]] = {}
        seconds: dict[str, list[float]] = {}
        used: dict[str, list[float]] = {}
        options: dict[str, dict[str, Any]] = {"words": {}, "points": {"examples": folder / "clicks.gpkg"}}
        for turn in range(3):  # the first warms up
            for kind, given in options.items():
                start, spent = time.perf_counter(), time.process_time()
                result = segment(store, OTHER, folder / f"{kind}{turn}", vector=(), **given)
                seconds.setdefault(kind, []).append(time.perf_counter() - start)
                used.setdefault(kind, []).append(time.process_time() - spent)
                laps[kind] = json.loads(result.report.read_text("utf-8"))["seconds"]
                # Labels that lie there already are nothing to compare with.
                result.report.unlink()
        start = time.perf_counter()
        segment(store, merge="wetland,water=wet", vector=())
        merging = time.perf_counter() - start
    busy = {kind: min(each[1:]) for kind, each in used.items()}
    best = {kind: min(each[1:]) for kind, each in seconds.items()}
    fitting = laps["points"]["examples"]
    print(f"{side} x {side}, {count} points: fitting {fitting:.2f} s; {laps}")
    print(
        f"relabelling {best['words']:.2f} s, with points {best['points']:.2f} s: {best['points'] / best['words']:.2f}"
    )
    print(f"seconds of CPU: {busy['words']:.2f} and {busy['points']:.2f}: {busy['points'] / busy['words']:.2f}")
    print(f"a merge {merging:.2f} s")
    return int(fitting >= 2 or best["points"] > 1.3 * best["words"])


if __name__ == "__main__":
    sys.exit(main())
