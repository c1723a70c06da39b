"""Two local workers against one, one thread each: seconds of the image side, and the same bytes.

    python tests/benchmarks/workers.py [SIDE]

A scene of SIDE x SIDE pixels (default 3,000) made by tiling the demo scene, the bundled model, superpixels. The seconds
are those of the stage "windows" with the model loaded by every worker, so the larger the scene the nearer to 2. Exits
with 1 below 1.8 times, or if the class rasters differ. Needs two cores that nothing else uses.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from memory import make

from resegeo import segment


def main() -> int:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "scene.tif", side)
        words, seconds, rasters = ["water", "forest", "cropland", "building"], [], []
        for workers in (1, 2):
            result = segment(folder / "scene.tif", words, folder / str(workers), cluster=workers, threads=1, vector=())
            seconds.append(json.loads(result.report.read_text("utf-8"))["seconds"]["windows"])
            rasters.append(result.raster.read_bytes())
            print(f"{workers} worker(s): {seconds[-1]:.1f} s", flush=True)
    ratio = seconds[0] / seconds[1]
    print(f"two workers are {ratio:.2f} times as fast; rasters {'equal' if rasters[0] == rasters[1] else 'DIFFER'}")
    return int(ratio < 1.8 or rasters[0] != rasters[1])


if __name__ == "__main__":
    sys.exit(main())
