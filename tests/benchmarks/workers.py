"""Two local workers against one, one thread each: seconds of the image side, and the same bytes.

    python tests/benchmarks/workers.py [SIDE]

A scene of SIDE x SIDE pixels (default 3,000) made by tiling the demo scene, the bundled model, superpixels. Workers are
started, and load the model, with a small scene before; those seconds are printed too. Exits with 1 below 1.8 times, or
if the class rasters differ. Needs two cores that nothing else uses.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from distributed import Client
from memory import make

from resegeo import Segmentation, segment
from resegeo.run import connect


def main() -> int:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "scene.tif", side)
        make(folder / "small.tif", 300)

        def run(client: Client, scene: str) -> Segmentation:
            words, out = ["water", "forest", "cropland", "building"], folder / str(len(rasters))
            return segment(folder / scene, words, out, cluster=client, threads=1, vector=())

        seconds: list[float] = []
        rasters: list[bytes] = []
        for workers in ("1", "2"):
            start = time.perf_counter()
            with connect(workers) as client:
                run(client, "small.tif")
                started = time.perf_counter() - start
                result = run(client, "scene.tif")
            seconds.append(json.loads(result.report.read_text("utf-8"))["seconds"]["windows"])
            rasters.append(result.raster.read_bytes())
            print(f"{workers} worker(s): {seconds[-1]:.1f} s, after {started:.1f} s to start", flush=True)
    ratio = seconds[0] / seconds[1]
    print(f"two workers are {ratio:.2f} times as fast; rasters {'equal' if rasters[0] == rasters[1] else 'DIFFER'}")
    return int(ratio < 1.8 or rasters[0] != rasters[1])


if __name__ == "__main__":
    sys.exit(main())
