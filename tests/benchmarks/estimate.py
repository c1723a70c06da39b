"""Whether ``resegeo plan`` tells the time of a run: seconds foreseen against seconds taken, for scenes of three kinds.

    python tests/benchmarks/estimate.py [SIDE]

A scene of SIDE x SIDE pixels (default 1,500) made by tiling the demo scene, with superpixels; the same as uint16, whose
stretch is measured, without segments; and resampled by half, with finer superpixels and scores instead of features.
Prints both numbers for the whole and for windows and labels; exits with 1 where a whole is off by more than a quarter.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import rasterio
from memory import make

import resegeo

WORDS = ["water", "forest", "cropland", "building"]
KINDS: dict[str, tuple[bool, dict[str, Any]]] = {
    "uint8, superpixels": (False, {"segments": "superpixels"}),
    "uint16, no segments": (True, {"segments": "none"}),
    "resampled by half, finer superpixels": (
        False,
        {"segments": "superpixels", "superpixel_area": (256,), "resize": "half", "keep_features": False},
    ),
}


def main() -> int:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 1500
    warnings.simplefilter("ignore")
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, (kind, (deep, options)) in enumerate(KINDS.items()):
            scene = folder / f"{number}.tif"
            make(scene, side)
            if deep:
                with rasterio.open(scene) as raster:
                    values, profile = raster.read().astype("uint16") * 17, raster.profile | {"dtype": "uint16"}
                with rasterio.open(scene, "w", **profile) as raster:
                    raster.write(values)
            if "resize" in options:
                options["resize"] = side // 2
            found = resegeo.estimate(scene, WORDS, folder / str(number), **options)
            result = resegeo.segment(scene, WORDS, folder / str(number), **options)
            taken = json.loads(result.report.read_text("utf-8"))["seconds"]
            real = sum(seconds for stage, seconds in taken.items() if stage != "model")
            ratio = found.total_seconds / real
            worst = max(worst, abs(ratio - 1))
            stages = ", ".join(
                f"{stage} {found.seconds[stage]:.1f} / {taken[stage]:.1f}" for stage in ("windows", "labels")
            )
            print(
                f"{kind:40} foreseen {found.total_seconds:.1f} s, taken {real:.1f} s, {ratio:.2f}; {stages}", flush=True
            )
    return int(worst > 0.25)


if __name__ == "__main__":
    sys.exit(main())
