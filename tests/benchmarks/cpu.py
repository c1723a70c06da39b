"""What the CPU does best: superpixel algorithms, threads, precision. Ratios within one run.

    python tests/benchmarks/cpu.py

Superpixels of one 512-pixel tile with its halo by SLIC, Felzenszwalb and watershed, about 16 patches of the bundled
model each, against the bundled model's forward passes of the windows that the tile feeds (half overlap). Then the
forward pass with 1 and 2 threads, in float32 and bfloat16. Exits with 1 if the superpixels in use (SLIC) take longer
than the model that they feed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from skimage.color import rgb2lab
from skimage.filters import sobel
from skimage.segmentation import felzenszwalb, slic, watershed

from resegeo.checkpoints.sources import resolve_model
from resegeo.clip.attention import default_schedule
from resegeo.clip.encoder import load_encoder
from resegeo.scene.reader import open_scene
from resegeo.segments.segment_sources import HALO, TILE

SCENE = Path(__file__).parents[2] / "examples/demo/sentinel2.tif"
AREA = 1024


def best(function: Callable[[], object], runs: int = 3) -> float:
    function()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    scene = open_scene(SCENE)
    side = TILE + 2 * HALO
    rgb = np.tile(scene.read(0, 0, scene.height, scene.width)[0], (2, 2, 1))[:side, :side]
    count = side * side // AREA
    algorithms: dict[str, Callable[[], np.ndarray]] = {
        "SLIC": lambda: slic(rgb, n_segments=count, compactness=10.0, max_num_iter=5, start_label=1, channel_axis=-1),
        "Felzenszwalb": lambda: felzenszwalb(rgb, scale=100, sigma=0.8, min_size=AREA // 4),
        "watershed": lambda: watershed(sobel(rgb2lab(rgb)[..., 0]), markers=count, compactness=0.001),
    }
    took = {}
    for name, function in algorithms.items():
        took[name] = best(function)
        print(f"{name}: {took[name]:.2f} s a tile, {len(np.unique(function()))} segments")
    windows = (TILE // 64) ** 2
    pixels = np.stack([rgb[:128, :128]] * 16)
    valid, ids = np.ones((16, 128, 128), bool), np.arange(16 * 256).reshape(16, 1, 16, 16) // 40
    forward = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for precision in ("float32", "bfloat16"):
            encoder = load_encoder(resolve_model(), device="cpu", precision=precision)
            schedule = default_schedule(encoder.depth)
            forward[threads, precision] = best(lambda: encoder.encode_windows(pixels, valid, ids, schedule)) / 16  # noqa: B023
            print(
                f"forward pass, {threads} thread(s), {precision}: {forward[threads, precision] * 1e3:.1f} ms a window"
            )
    model = forward[2, "float32"] * windows
    print(f"the {windows} windows of a tile: {model:.2f} s; SLIC takes {took['SLIC'] / model:.0%} of that")
    sys.exit(took["SLIC"] > model)


if __name__ == "__main__":
    main()
