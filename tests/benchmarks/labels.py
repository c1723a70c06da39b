"""New words for a finished store: what becomes of stored features until the class raster is written.

    python tests/benchmarks/labels.py [vitb16|bundled] [SIDE] [PYTHON ...]

Each PYTHON is an interpreter in whose environment a checkout is installed, such as one of before a change and one of
after it; by default the one that runs this. The store is made once a checkout by a stand-in for the vision transformer
(features of a patch from its mean colour, in the geometry of ViT-B/16, with random weights for its words, or of the
bundled model), from a scene that is made by tiling the demo scene. Prints for each the least of three times: seconds
on the clock and processor seconds of the whole stage and of its parts by themselves, on one thread, and their ratios to
the first; at last whether the codes of all class rasters are the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURE = """
import dataclasses, hashlib, json, sys, time, warnings
from pathlib import Path
import numpy as np
import torch
warnings.simplefilter("ignore")
import resegeo.run.compute, resegeo.run.execution as execution, resegeo.run.results as results
from resegeo import segment

scene, out, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])


def stand_in(visual, images, masks, *, last=None):
    colours = torch.nn.functional.avg_pool2d(images, visual.patch_size).flatten(2).transpose(1, 2)
    tokens = torch.cat([colours.mean(dim=1, keepdim=True), colours], dim=1)
    random = torch.Generator().manual_seed(0)
    spread, phase = 3 * torch.randn(3, 64, generator=random), 6 * torch.rand(64, generator=random)
    return torch.cos(tokens @ spread + phase) @ torch.randn(64, int(visual.output_dim), generator=random)


load = resegeo.run.compute.load_encoder
resegeo.run.compute.load_encoder = lambda *given, **named: dataclasses.replace(load(*given, **named), forward=stand_in)
first = segment(scene, ["one", "two"], out, segments="none", vector=(), keep_features=True, **options)
store = out / "scene.store.zarr"

inner_blocks, inner_raster = execution.label_scene, results.write_class_raster
user = results if hasattr(results, "label_scene") else execution  # which of the two labels has changed
found, laps = [], {}


def timed(name, make):
    cpu, wall = time.process_time(), time.perf_counter()
    value = make()
    laps[name] = (time.perf_counter() - wall, time.process_time() - cpu)
    return value


def label_scene(*given, **named):
    found[:] = timed("labels", lambda: list(inner_blocks(*given, **named)))
    return iter(found)


def write(path, blocks, **named):
    pieces = list(blocks)
    return timed("raster", lambda: inner_raster(path, iter(pieces), **named))


inner_stage = execution.make_raster
best = {}
for number, parts in enumerate((False, True, False, True, False, True)):
    laps.clear()
    user.label_scene, results.write_class_raster = (label_scene, write) if parts else (inner_blocks, inner_raster)
    stage = lambda *given, **named: timed("stage", lambda: inner_stage(*given, **named))
    execution.make_raster = inner_stage if parts else stage
    words = ["water", "wetland", "forest", "cropland", "bare soil", "building"]
    result = segment(store, words, out / str(number), vector=(), threads=1 if parts else None, **options)
    for name, lap in laps.items():
        best[name] = min(best.get(name, lap), lap)
import rasterio
with rasterio.open(result.raster) as raster:
    codes = raster.read(1)
print(json.dumps({"best": best, "sum": hashlib.sha256(codes.tobytes()).hexdigest()}))
"""


def main() -> int:
    kind = sys.argv[1] if len(sys.argv) > 1 else "vitb16"
    side = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
    from given import model
    from memory import make

    rows, sums = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "scene.tif", side)
        options = model(kind, folder)
        for number, python in enumerate(sys.argv[3:] or [sys.executable]):
            paths = [str(folder / "scene.tif"), str(folder / f"out{number}")]
            done = subprocess.run(
                [python, "-c", MEASURE, *paths, json.dumps(options)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                cwd=folder,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            rows.append((python, found["best"]))
            sums.append(found["sum"])
    print(f"{side} x {side}, {kind}, six words")
    for python, best in rows:
        for part, lap in best.items():
            ratios = "  ".join(f"{mine / its:.2f}" for mine, its in zip(lap, rows[0][1][part], strict=True))
            print(f"{part:8} {lap[0]:7.2f} s {lap[1]:7.2f} CPU s   ratios {ratios}   {python}")
    print("the codes of all class rasters are the same" if len(set(sums)) == 1 else "THE CODES DIFFER")
    return int(len(set(sums)) != 1)


if __name__ == "__main__":
    sys.exit(main())
