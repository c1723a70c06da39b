"""Seconds of each stage on a 2,000 x 2,000 scene with the bundled model, and each stage's share of the total.

    python tests/benchmarks/speed.py [SIDE]

The scene is made by tiling the demo scene. Prints the seconds with superpixels and without segments; the seconds of
drawing polygons of that class raster and of sixteen of it laid side by side, so that one polygon has thousands of
neighbours; and the score head against its naive form (interpolating the features to every pixel) on features of
ViT-L/14's size.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from memory import make

from resegeo import polygonize, segment
from resegeo.clip.scores import axis_weights, patch_scores, pixel_centres, pixel_cosines


def line(side: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.tif"
        make(path, side)
        for segments in ("superpixels", "none"):
            words = ["water", "wetland", "forest", "cropland", "bare soil", "building"]
            result = segment(path, words, Path(folder) / segments, segments=segments)
            seconds = json.loads(result.report.read_text("utf-8"))["seconds"]
            total = sum(seconds.values())
            shares = ", ".join(f"{stage} {value:.1f} s ({value / total:.0%})" for stage, value in seconds.items())
            print(f"{side} x {side}, {segments}: {total:.1f} s: {shares}", flush=True)
        drawing(result.raster, Path(folder) / "tiled.tif")


def drawing(one: Path, many: Path) -> None:
    with rasterio.open(one) as raster:
        codes, tags = np.tile(raster.read(1), (4, 4)), raster.tags()
        profile = raster.profile | {"height": codes.shape[0], "width": codes.shape[1]}
    with rasterio.open(many, "w", **profile) as raster:
        raster.write(codes, 1)
        raster.update_tags(**tags)
    pace = []
    for path, pixels in ((one, codes.size // 16), (many, codes.size)):
        start = time.perf_counter()
        drawn = polygonize(path)
        pace.append((time.perf_counter() - start) / pixels * 1e6)
        print(
            f"{len(drawn)} polygons of {pixels / 1e6:.0f} million pixels: {pace[-1]:.3f} s a million pixels", flush=True
        )
    print(f"a pixel of the larger takes {pace[1] / pace[0]:.2f} times as long")


def head() -> None:
    random = np.random.default_rng(0)
    features = (random.normal(size=(1, 16, 16, 768)) + random.normal(size=768)).astype(np.float32)
    texts = random.normal(size=(19, 768)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    axis = axis_weights(16, pixel_centres(224))

    def ours() -> np.ndarray:
        return pixel_cosines(patch_scores(features, texts)[0], axis, axis)

    def naive() -> np.ndarray:
        maps = torch.from_numpy(features).permute(0, 3, 1, 2)
        dense = torch.nn.functional.interpolate(maps, size=(224, 224), mode="bilinear", align_corners=False)
        dense = torch.nn.functional.normalize(dense[0], dim=0)
        return torch.einsum("dhw,qd->qhw", dense, torch.from_numpy(texts)).numpy()

    def direct() -> np.ndarray:
        """The formula as it stands: the feature at every pixel, then its cosine with one prompt after the other."""
        at = np.clip((np.arange(224) + 0.5) * 16 / 224 - 0.5, 0, None)
        first = at.astype(int)
        second = np.minimum(first + 1, 15)
        b = (at - first).astype(np.float32)[:, None, None]
        rows = features[0][first] * (1 - b) + features[0][second] * b
        b = b[:, 0]
        dense = rows[:, first] * (1 - b) + rows[:, second] * b
        return np.stack([dense @ text / np.linalg.norm(dense, axis=-1) for text in texts])

    best = {}
    for name, function, runs in (("ours", ours, 20), ("torch", naive, 5), ("direct", direct, 2)):
        function()
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        best[name] = min(seconds)
        difference = float(np.abs(ours() - function()).max())
        print(
            f"score head, 16 x 16 patches of 768 numbers, 19 prompts, 224 x 224 pixels, {name}: "
            f"{best[name] * 1e3:.1f} ms, {best[name] / best['ours']:.0f} times ours, difference {difference:.1e}"
        )


if __name__ == "__main__":
    head()
    line(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
