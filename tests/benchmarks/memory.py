"""Peak memory of a small and a large scene up to the class raster, each in a process of its own.

    python tests/benchmarks/memory.py [SMALL LARGE]

Prints both peaks and their ratio; exits with 1 if the large one takes more than 1.2 times the small one.
The scenes are made by tiling the demo scene to uint8; stride = window and no segments keep it short.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
from pathlib import Path

SCENE = Path(__file__).parents[2] / "examples/demo/sentinel2.tif"


def make(path: Path, side: int) -> None:
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    from resegeo import open_scene

    scene = open_scene(SCENE)
    tile = scene.read(0, 0, scene.height, scene.width)[0].transpose(2, 0, 1)
    tile = np.maximum(tile, 1)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": side, "width": side, "nodata": 0}
    profile |= {"crs": scene.georeference.crs, "transform": scene.georeference.transform, "tiled": True}
    with rasterio.open(path, "w", compress="deflate", blockxsize=512, blockysize=512, **profile) as raster:
        for row in range(0, side, tile.shape[1]):
            for col in range(0, side, tile.shape[2]):
                part = tile[:, : side - row, : side - col]
                raster.write(part, window=Window(col, row, part.shape[2], part.shape[1]))


def peak(path: Path, segments: str, answer: multiprocessing.Queue[float]) -> None:
    from resegeo import segment

    segment(
        path, ["water", "forest", "grass", "building"], path.with_suffix(""), segments=segments, stride=128, vector=()
    )
    answer.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    sides = [int(side) for side in sys.argv[1:3]] or [1500, 6000]
    spawn = multiprocessing.get_context("spawn")
    peaks = []
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"scene{side}.tif"
            maker = spawn.Process(target=make, args=(path, side))
            maker.start()
            maker.join()
            answer = spawn.Queue()
            worker = spawn.Process(target=peak, args=(path, "none", answer))
            worker.start()
            peaks.append(answer.get())
            worker.join()
        print(f"{side} x {side} pixels: peak {peaks[-1]:.0f} MiB", flush=True)
    ratio = peaks[1] / peaks[0]
    print(f"ratio {ratio:.3f}")
    sys.exit(ratio > 1.2)


if __name__ == "__main__":
    main()
