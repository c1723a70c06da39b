"""Whether ``resegeo plan`` tells what a run takes: time, disk and memory foreseen against those taken.

    python tests/benchmarks/estimate.py [--side 1500] [--only drone|sentinel|nodata|aoi|batch]

Scenes of SIDE x SIDE pixels that the demo scene is tiled to: ``drone`` (8-bit RGB, pixels of 10 cm), ``sentinel`` (ten
16-bit bands with superpixels, its stretch measured), ``nodata`` (a strip of it aslant, the rest nodata; scores instead
of features), ``aoi`` (a corner of the first with superpixels), ``batch`` (the drone's in four sizes, and the strip).

Every run, and what is foreseen of it, has a process of its own, whose peak of memory counts. Prints both numbers and
their ratio; exits with 1 where time or memory is off by more than a quarter, or store or rasters take more than was
said: what they take is foreseen as if it could not be compressed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from given import WORDS
from memory import make

Needs = tuple[float, int, int, int]
"""Seconds, bytes of the store, bytes of memory, and of rasters."""


def drone(folder: Path, side: int, name: str = "drone") -> Path:
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    path = folder / f"{name}.tif"
    make(path, side)
    with rasterio.open(path) as raster:
        values, profile = raster.read(), raster.profile
    noise = np.random.default_rng(0).integers(0, 4, values.shape)  # no repetition that compression would find
    with rasterio.open(path, "w", **profile | {"transform": from_origin(5e5, 5e6, 0.1, 0.1)}) as raster:
        raster.write(np.clip(values.astype(int) + noise, 1, 255).astype("uint8"))
    return path


def sentinel(folder: Path, side: int) -> Path:
    import rasterio

    with rasterio.open(drone(folder, side, "rgb")) as raster:
        values, profile = raster.read().astype("uint16") * 17, raster.profile | {"dtype": "uint16", "count": 10}
    with rasterio.open(folder / "sentinel.tif", "w", **profile) as raster:
        for band in range(10):
            raster.write(values[band % 3], band + 1)
    return folder / "sentinel.tif"


def nodata(folder: Path, side: int) -> Path:
    import numpy as np
    import rasterio

    path = drone(folder, side, "nodata")
    rows, cols = np.indices((side, side))
    with rasterio.open(path) as raster:
        values, profile = raster.read(), raster.profile
    values[:, abs(rows - cols) > side // 4] = 0
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(values)
    return path


def batch(folder: Path, side: int) -> list[Path]:
    sides = (side // 3, side // 2, side // 2, side)
    return [drone(folder, each, f"{number}") for number, each in enumerate(sides)] + [nodata(folder, side)]


def corner(side: int) -> tuple[float, ...]:
    part = 0.1 * side / 2
    return (5e5, 5e6 - part, 5e5 + part, 5e6)


KINDS: dict[str, tuple[Callable[[Path, int], Any], Callable[[int], dict[str, Any]]]] = {
    "drone": (drone, lambda _: {}),
    "sentinel": (sentinel, lambda _: {"segments": "superpixels", "bands": (1, 2, 3)}),
    "nodata": (nodata, lambda _: {"keep_features": False}),
    "aoi": (drone, lambda side: {"segments": "superpixels", "bbox": corner(side)}),
    "batch": (batch, lambda _: {}),
}


def _foresee(scene: Any, out: Path, options: dict[str, Any]) -> Needs:
    import resegeo
    from resegeo.batches.planning import estimate_many

    if isinstance(scene, list):
        many = estimate_many(scene, WORDS, out, **options)
        return many.total_seconds, many.store_bytes, many.memory_bytes, many.output_bytes
    found = resegeo.estimate(scene, WORDS, out, **options)
    print(f"    foreseen {_stages(found.seconds)}", flush=True)
    return found.total_seconds, found.store_bytes, found.memory_bytes + found.polygon_bytes, found.output_bytes


def _take(scene: Any, out: Path, options: dict[str, Any]) -> Needs:
    import resegeo

    if isinstance(scene, list):
        resegeo.segment_many(scene, WORDS, out, **options)
    else:
        resegeo.segment(scene, WORDS, out, **options)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    reports = [json.loads(path.read_text("utf-8")) for path in out.rglob("*.json") if ".stac." not in path.name]
    laps = [report["seconds"] for report in reports if "seconds" in report]
    if not isinstance(scene, list):
        print(f"    taken    {_stages(laps[0])}", flush=True)
    seconds = sum(value for lap in laps for stage, value in lap.items() if stage != "model")
    stores, rasters = (
        sum(path.stat().st_size for path in out.rglob(pattern) if path.is_file())
        for pattern in ("*.zarr/**/*", "*.tif")
    )
    return seconds, stores, memory, rasters


def _stages(seconds: Any) -> str:
    return ", ".join(f"{stage} {value:.2f}" for stage, value in seconds.items())


def _apart(answers: Any, function: Callable[..., Any], *given: Any) -> None:
    warnings.simplefilter("ignore")
    answers.put(function(*given))


def apart(function: Callable[..., Any], *given: Any) -> Any:
    """Call a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_apart, args=(answers, function, *given))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{function.__name__} failed")
    return answers.get()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1500)
    parser.add_argument("--only", choices=KINDS)
    given = parser.parse_args()
    worst = 1.0
    for kind in [given.only] if given.only else KINDS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            draw, options = KINDS[kind]
            scene = draw(folder, given.side)
            foreseen = apart(_foresee, scene, folder / "out", options(given.side))
            taken = apart(_take, scene, folder / "out", options(given.side))
            said = []
            for what, unit, one, other in zip(
                ("time", "store", "memory"), (1, 1e6, 1e6), foreseen[:3], taken[:3], strict=True
            ):
                worst = max(worst, other / one if what == "store" else max(one / other, other / one))
                said.append(
                    f"{what} {one / unit:.1f} / {other / unit:.1f} {'s' if unit == 1 else 'MB'} = {one / other:.2f}"
                )
            if taken[3] > foreseen[3]:
                sys.exit(f"{kind}: rasters take {taken[3]} bytes, and {foreseen[3]} were foreseen")
            print(f"{kind:10} foreseen / taken: {', '.join(said)}", flush=True)
    return int(worst > 1.25)


if __name__ == "__main__":
    sys.exit(main())
