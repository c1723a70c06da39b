"""New words for a finished scene against its first run: seconds, class raster and picture alone, labels compared.

    python tests/benchmarks/relabel.py [bundled|vitb16] [SIDE]

The scene is made by tiling the demo scene; superpixels, six words, then five others; ViT-B/16 has random weights. Both
runs load the model. Prints the ratio; exits with 1 if it is below 8 (bundled) or 30 (ViT-B/16), or if a label differs
from that of a fresh run with the same words (checked on a quarter of the side for ViT-B/16, to save time).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import rasterio
from given import model
from memory import make

from resegeo import segment

FIRST = ["water", "wetland", "forest", "cropland", "bare soil", "building"]
OTHER = ["road", "grass", "lake", "sand", "cloud"]


def main() -> int:
    warnings.simplefilter("ignore")
    kind = sys.argv[1] if len(sys.argv) > 1 else "bundled"
    side = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options: dict[str, object] = {"vector": (), **model(kind, folder)}
        make(folder / "scene.tif", side)
        make(folder / "small.tif", side if kind == "bundled" else side // 4)
        segment(folder / "small.tif", ["warm", "up"], folder / "warm", **options, stride=128)
        seconds = []
        for scene, words in ((folder / "scene.tif", FIRST), (folder / "out/scene.store.zarr", OTHER)):
            start = time.perf_counter()
            given = options | {"keep_features": True} if scene.suffix == ".tif" else {"vector": ()}
            result = segment(scene, words, folder / "out", **given)
            seconds.append(time.perf_counter() - start)
            laps = json.loads(result.report.read_text("utf-8"))["seconds"]
            print(f"{side} x {side}, {kind}, {scene.name}: {seconds[-1]:.2f} s: {laps}", flush=True)
        store = folder / "out/scene.store.zarr"
        if kind != "bundled":
            segment(folder / "small.tif", FIRST, folder / "part", **options)
            store = folder / "part/small.store.zarr"
        labels = []
        for scene, options_, out in ((store, {"vector": ()}, "new"), (folder / "small.tif", options, "fresh")):
            with rasterio.open(segment(scene, OTHER, folder / out, **options_).raster) as raster:
                labels.append(raster.read(1))
    ratio = seconds[0] / seconds[1]
    same = (labels[0] == labels[1]).mean()
    print(f"new words {ratio:.1f} times as fast; {same:.3%} of the labels equal a fresh run's")
    return int(ratio < (8 if kind == "bundled" else 30) or same < 1)


if __name__ == "__main__":
    sys.exit(main())
