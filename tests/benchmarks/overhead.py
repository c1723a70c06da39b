"""How much of a run is not the model's forward pass: reading, masks, scores, blending, writing.

    python tests/benchmarks/overhead.py [SIDE] [--profile]

A scene made by tiling the demo scene, ViT-B/16 with random weights, superpixels computed beforehand and given as a
label raster, class raster and picture as outputs. Prints the shares of the run; exits with 1 if what is not the
forward pass takes more than 10 % of it. ``--profile`` lists the functions that take most of the rest.
"""

from __future__ import annotations

import argparse
import cProfile
import dataclasses
import json
import pstats
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from given import ARCHITECTURES, model
from memory import make

import resegeo.clip.encoder
from resegeo import open_scene, segment
from resegeo.scene.resampling import Canvas
from resegeo.scene.windows import Rect, blocks
from resegeo.segments.segment_sources import Superpixels


def superpixels(scene: Path, path: Path) -> None:
    with rasterio.open(scene) as raster:
        profile = raster.profile | {"count": 1, "dtype": "int32", "nodata": 0}
    source = Superpixels(Canvas(open_scene(scene)), (4096,))
    with rasterio.open(path, "w", **profile) as raster:
        for block in blocks(profile["height"], profile["width"]):
            ids = source.ids(Rect(block.row, block.col, block.height, block.width))[0]
            window = rasterio.windows.Window(block.col, block.row, block.width, block.height)
            raster.write(ids.astype(np.int32), 1, window=window)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", nargs="?", type=int, default=4000)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    forward = {"seconds": 0.0, "windows": 0}
    load = resegeo.clip.encoder.load_encoder

    def timed(*positional: Any, **named: Any) -> Any:
        encoder = load(*positional, **named)
        inner = encoder.forward

        def run(visual: Any, images: Any, masks: Any, **options: Any) -> Any:
            start = time.perf_counter()
            tokens = inner(visual, images, masks, **options)
            forward["seconds"] += time.perf_counter() - start
            forward["windows"] += len(images)
            return tokens

        return dataclasses.replace(encoder, forward=run)

    resegeo.clip.encoder.load_encoder = timed
    words = ["water", "wetland", "forest", "cropland", "bare soil", "building"]
    with tempfile.TemporaryDirectory() as folder:
        scene, ids = (Path(folder) / name for name in ("scene.tif", "ids.tif"))
        make(scene, args.side)
        superpixels(scene, ids)
        profiler = cProfile.Profile()
        if args.profile:
            profiler.enable()
        result = segment(
            scene,
            words,
            Path(folder) / "out",
            **model("vitb16", Path(folder)),
            segments=str(ids),
            vector=(),
        )
        profiler.disable()
        seconds = json.loads(result.report.read_text("utf-8"))["seconds"]
    # Loading the weights is the model's too, and not a matter of the scene.
    total = sum(value for stage, value in seconds.items() if stage != "model")
    rest = total - forward["seconds"]
    print(
        f"{args.side} x {args.side}, {ARCHITECTURES['vitb16']}: {total:.1f} s, of which forward passes of "
        f"{forward['windows']} windows {forward['seconds']:.1f} s; the rest {rest:.1f} s ({rest / total:.1%}); "
        f"stages: {seconds}"
    )
    if args.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(18)
    sys.exit(rest / total > 0.10)


if __name__ == "__main__":
    main()
