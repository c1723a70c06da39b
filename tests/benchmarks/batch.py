"""What a scene of a batch costs beside the model's forward passes, and whether time and memory stay flat.

    python tests/benchmarks/batch.py [FEW MANY] [--profile]
    python tests/benchmarks/batch.py 200 --workers

FEW and MANY scenes of 64 × 64 pixels (100 and 1,000) in one batch with the bundled model, all outputs, each batch in a
process of its own. Prints milliseconds a scene and peak memory of both, the slope of memory over the later half of the
larger one, and what 100,000 scenes would take; then the same command again, which finds all of them finished. Exits
with 1 if the last quarter of the scenes takes more than 1.2 times the processor time of the first (what else the
machine does sways the clock on the wall), or the larger batch more than 1.2 times the memory of the smaller.
``--profile`` lists the functions that take most of what is not the model's.

``--workers`` instead segments the scenes by one local worker and by two, one thread each, warmed up, and prints how
many times as fast two are; exits with 1 below 1.6 times, or where a class raster differs.
"""

from __future__ import annotations

import argparse
import cProfile
import dataclasses
import multiprocessing
import pstats
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["water", "forest", "grass", "road", "building", "bare soil"]
FAR = 100_000


def make(folder: Path, count: int) -> None:
    """Cut scenes from the demo scene, at places of their own."""
    import rasterio
    from affine import Affine

    from resegeo import open_scene

    scene = open_scene(Path(__file__).parents[2] / "examples/demo/sentinel2.tif")
    whole = np.maximum(scene.read(0, 0, scene.height, scene.width)[0].transpose(2, 0, 1), 1)
    numbers = np.random.default_rng(0)
    where = scene.georeference
    assert where.transform is not None
    size = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": 64, "width": 64, "nodata": 0}
    folder.mkdir()
    for number in range(count):
        row, col = numbers.integers(0, scene.height - 64), numbers.integers(0, scene.width - 64)
        place = where.transform * Affine.translation(int(col), int(row))
        with rasterio.open(folder / f"{number:06}.tif", "w", crs=where.crs, transform=place, **size) as raster:
            raster.write(whole[:, row : row + 64, col : col + 64])


def resident() -> float:
    """Memory of this process now, in MiB; where /proc does not tell, its peak so far."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(scenes: Path, profiled: bool, answer: multiprocessing.Queue[dict[str, Any]]) -> None:
    """Run a batch; report when each scene ended, the model's share and the peak of memory."""
    import resegeo.run.compute
    from resegeo import segment_many

    model = {"seconds": 0.0}
    load = resegeo.run.compute.load_encoder

    def timed(*positional: Any, **named: Any) -> Any:
        encoder = load(*positional, **named)
        inner = encoder.forward

        def run(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            tokens = inner(*args, **options)
            model["seconds"] += time.perf_counter() - start
            return tokens

        return dataclasses.replace(encoder, forward=run)

    resegeo.run.compute.load_encoder = timed
    times: list[tuple[float, float, float, float]] = []
    seen = {"done": 0}

    def watch(done: int, total: int, what: str) -> None:
        if done != seen["done"] or not times:
            seen["done"] = done
            times.append((time.perf_counter(), time.process_time(), model["seconds"], resident()))

    profiler = cProfile.Profile()
    if profiled:
        profiler.enable()
    result = segment_many(scenes, WORDS, scenes.with_suffix(".out"), progress=watch)
    profiler.disable()
    assert not result.failed
    if profiled:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(70)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer.put({"times": times, "peak": peak, "counts": dict(result.counts)})


def in_a_process(*arguments: Any) -> dict[str, Any]:
    spawn = multiprocessing.get_context("spawn")
    answer = spawn.Queue()
    worker = spawn.Process(target=measure, args=(*arguments, answer))
    worker.start()
    found: dict[str, Any] = answer.get()
    worker.join()
    return found


def by_workers(count: int) -> float:
    """Return how many times as fast two workers segment scenes, in pairs of runs one after another."""
    from resegeo import segment_many
    from resegeo.run.clusters import connect

    seconds: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        warm, scenes = Path(name) / "warm", Path(name) / "scenes"
        make(warm, 12)
        make(scenes, count)
        for workers in (1, 2):
            with connect(workers) as client:
                segment_many(warm, WORDS, Path(name) / f"warm{workers}", cluster=client)
                began = time.perf_counter()
                result = segment_many(scenes, WORDS, Path(name) / f"out{workers}", cluster=client)
                seconds[workers] = time.perf_counter() - began
            assert dict(result.counts) == {"done": count}
        for raster in sorted(Path(name, "out1").rglob("*.classes.tif")):
            assert raster.read_bytes() == Path(name, "out2", raster.relative_to(Path(name, "out1"))).read_bytes()
    ratio = seconds[1] / seconds[2]
    print(f"{count} scenes: one worker {seconds[1]:.1f} s, two {seconds[2]:.1f} s: {ratio:.2f} times; the same bytes")
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[100, 1000])
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--workers", action="store_true")
    args = parser.parse_args()
    if args.workers:
        sys.exit(by_workers(args.sizes[0]) < 1.6)
    peaks, flat = [], 0.0
    for count in args.sizes:
        with tempfile.TemporaryDirectory() as name:
            scenes = Path(name) / "scenes"
            make(scenes, count)
            found = in_a_process(scenes, args.profile)
            began = time.perf_counter()
            again = in_a_process(scenes, False)
            resumed = time.perf_counter() - began
        assert again["counts"] == {"skipped": count}
        # Without the first ten: they load the model and warm up what is loaded lazily.
        wall, processor, model, memory = (np.array(part) for part in zip(*found["times"][10:], strict=True))
        whole, forward = (float(part[-1] - part[0]) / (len(part) - 1) * 1e3 for part in (wall, model))
        spent, quarter = np.diff(processor) * 1e3, len(processor) // 4
        early, late = spent[:quarter].mean(), spent[-quarter:].mean()
        peaks.append(found["peak"])
        half = len(memory) // 2
        slope = float(np.polyfit(np.arange(half), memory[-half:], 1)[0])
        flat = max(flat, late / early)
        print(
            f"{count} scenes: {whole:.0f} ms a scene, of which the model {forward:.0f} ms, the rest "
            f"{whole - forward:.0f} ms; processor time {early:.0f} ms in the first quarter, {late:.0f} ms in the last; "
            f"peak {peaks[-1]:.0f} MiB; the same command again {resumed:.1f} s in all",
            flush=True,
        )
    far = peaks[-1] + max(slope, 0.0) * (FAR - args.sizes[-1])
    print(
        f"{slope * 1000:.2f} MiB more for each 1,000 scenes; {FAR:,} scenes would take {whole * FAR / 3.6e6:.1f} hours "
        f"and {far:.0f} MiB"
    )
    sys.exit(flat > 1.2 or peaks[-1] > 1.2 * peaks[0])


if __name__ == "__main__":
    main()
