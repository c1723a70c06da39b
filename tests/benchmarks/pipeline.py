"""How much of the time a device is busy: with one thread that reads ahead, as before, and with a pipeline around it.

    python tests/benchmarks/pipeline.py [--side N] [--pace 0.1] [--cores N] [--model bundled|vitb16|vitl14|sam_vitb|…]
    python tests/benchmarks/pipeline.py --device cuda|cpu [--side N] [--model …]

A device that takes ``--pace`` seconds a megapixel of the scene is stood in for by one that sleeps: it computes batch
after batch, as a GPU does, while the caller goes on. Everything else is real: reading, superpixels, patch ids, rounding
and the store, on the cores of this machine. Beside the device's share of busy time stands the most that the cores could
feed it with: their number over the processor seconds a megapixel of reading and of storing, each measured by itself.

``--cores`` makes up a machine of so many: reading sleeps, in so many threads at a time, for as long as it was measured
to compute, so that this machine's own cores are left to storing, which is real. That tells what the pipeline's
structure is worth, and nothing about this machine. ``--folder`` says where scene and stores go (a disk in memory takes
the disk out of it).

Where there is a GPU, or with ``--device``, that is measured instead, by models with random weights: windows a second of
a run (bfloat16 on a GPU) against the bare forward passes of the same batches, whose input lies on the device already.
``sam_…`` segments by SAM in tiles of 1,024 pixels on the same device; its bare passes are the image encoder's, a tile
each. On the processor (``--device cpu --side 300``) that shows that the way runs, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from given import ARCHITECTURES, SAMS, WORDS, model
from memory import make

from resegeo import prepare
from resegeo.run import capacity
from resegeo.run.compute import Batch, Machine, Models, open_segments, start_machine
from resegeo.run.pipeline import Room, settled
from resegeo.run.plan import Plan
from resegeo.run.resume import new_store
from resegeo.run.store import Store
from resegeo.scene.windows import WorkItem

Way = Callable[[Machine, Store, list[WorkItem]], Iterable[WorkItem]]
NUMBER = itertools.count()


class Sleeping:
    """A device that takes a fixed time a window and computes nothing; batches queue up for it as for a GPU."""

    device = "cpu"

    def __init__(self, seconds: float, machine: Machine) -> None:
        self.seconds, self.free, self.busy = seconds, 0.0, 0.0
        shape = machine.plan.geometry.grid, machine.plan.geometry.grid, int(machine.encoder.dimension)
        self.features = np.random.default_rng(0).standard_normal((16, *shape), dtype=np.float32)

    def start_windows(self, rgb: Any, *_: Any, **__: Any) -> Any:
        count = len(rgb)
        self.free = max(time.perf_counter(), self.free) + count * self.seconds
        self.busy += count * self.seconds
        ready, features = self.free, self.features[:count]

        def wait() -> Any:
            time.sleep(max(0.0, ready - time.perf_counter()))
            return features, features[:, 0, 0]

        return wait


@dataclass(frozen=True)
class Dozing(Machine):
    """A machine whose reading takes its time, on made-up cores, and none of this machine's."""

    seconds: float = 0.0
    """A window."""
    batch: Batch | None = None
    made_up: threading.Semaphore | None = None

    def read(self, item: WorkItem) -> Batch:
        count = len(item.windows)
        if self.made_up is not None:
            with self.made_up:
                time.sleep(self.seconds * count)
        assert self.batch is not None
        batch = self.batch
        return Batch(batch.windows[:count], batch.rgb[:count], batch.valid[:count], batch.levels[:count])


def before(machine: Machine, store: Store, items: list[WorkItem]) -> Iterator[WorkItem]:
    """One thread reads one item ahead; rounding and storing keep the model waiting."""
    with ThreadPoolExecutor(1) as pool:
        coming: deque[Future[Batch]] = deque()
        for number, item in enumerate(items):
            while len(coming) <= 1 and number + len(coming) < len(items):
                coming.append(pool.submit(machine.read, items[number + len(coming)]))
            store.put(item.index, machine.encode(coming.popleft().result()))
            yield item


def ahead(room: Room) -> Way:
    return lambda machine, store, items: settled(machine, store, items, room)


def start(folder: Path, side: int, kind: str, models: Models, **options: Any) -> Machine:
    scene = folder / "scene.tif"
    make(scene, side)
    given = {"segments": "superpixels", **model(kind, folder), **options}
    run = prepare(scene, WORDS, folder / "out", **given)
    return start_machine(run.plan, run.plan.kept(features=True), device=given.get("device"), models=models)


def fresh(machine: Machine, models: Models) -> Machine:
    """Return a machine that has segmented nothing yet."""
    return replace(machine, segments=open_segments(machine.plan, machine.encoder.device, None, models))


def megapixels(plan: Plan) -> float:
    return plan.scene.height * plan.scene.width / 1e6


@dataclass(frozen=True)
class Took:
    """What a run took: seconds by the clock, of this process's processors, and of all others'."""

    seconds: float
    cpu: float
    others: float


def run(way: Way, machine: Machine, folder: Path) -> Took:
    store = new_store(machine.plan, str(folder / f"{next(NUMBER)}.store.zarr"), machine.kept)
    items = list(machine.plan.grid.items())
    begin, cpu, all_ = time.perf_counter(), time.process_time(), _everybody()
    deque(way(machine, store, items), maxlen=0)
    used = time.process_time() - cpu
    return Took(time.perf_counter() - begin, used, max(0.0, _everybody() - all_ - used))


def _everybody() -> float:
    """Seconds that all processes of this machine have computed for."""
    import psutil

    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice)


def measure_stand_in(machine: Machine, models: Models, folder: Path, pace: float, made_up: int | None) -> None:
    plan = machine.plan
    size, have = megapixels(plan), capacity.cores()
    items = list(plan.grid.items())
    part = items[: 64 if made_up else None]
    cpu = time.process_time()
    batches = [machine.read(item) for item in part]
    reading = (time.process_time() - cpu) / sum(len(item.windows) for item in part) * plan.grid.count / size
    full = max(batches, key=lambda batch: len(batch.rgb))
    del batches

    def dozing(seconds: float, device: Sleeping, turns: threading.Semaphore | None) -> Machine:
        return Dozing(plan, device, machine.segments, machine.kept, None, seconds, full, turns)  # type: ignore[arg-type]

    alone = run(ahead(Room(8)), dozing(0.0, Sleeping(0.0, machine), None), folder)
    storing = alone.cpu / size
    print(
        f"processor seconds a megapixel, measured alone: reading {reading:.3f}, storing {storing:.3f} "
        f"(the store takes {size / alone.seconds:.1f} megapixels a second at most)"
    )
    if made_up is None:
        feed, whose = have / (reading + storing), f"the {have} cores of this machine"
    else:
        feed, whose = min(made_up / reading, have / storing), f"{made_up} MADE-UP cores that sleep while they read"
    most = min(1.0, pace * min(feed, size / alone.seconds))
    print(f"{whose} feed {feed:.2f} megapixels a second at most: a device of {pace:g} s a megapixel is busy {most:.0%}")
    room = Room.of(plan, threads=made_up)
    shares = []
    for name, way in (("one thread reads ahead", before), (f"{room.ahead} items read ahead", ahead(room))):
        device = Sleeping(pace * size / plan.grid.count, machine)
        turns = threading.Semaphore(made_up or 1)
        used = (
            dozing(reading * size / plan.grid.count, device, turns)
            if made_up
            else replace(fresh(machine, models), encoder=device)  # type: ignore[arg-type]
        )
        took = run(way, used, folder)
        shares.append(device.busy / took.seconds)
        left = have - took.others / took.seconds
        reached = (
            "" if made_up else f", {size / took.seconds * (reading + storing) / left:.0%} of what others left of it"
        )
        print(
            f"{name:24} {size / took.seconds:6.2f} megapixels a second, device busy {shares[-1]:.0%}, "
            f"{shares[-1] / most:.0%} of the most{reached}; {took.cpu / took.seconds:.2f} cores at a time, other "
            f"programs {took.others / took.seconds:.2f}",
            flush=True,
        )
    print(f"busy share after / before: {shares[1] / shares[0]:.2f}")


def measure_device(machine: Machine, models: Models, folder: Path, kind: str) -> None:
    plan, device = machine.plan, machine.encoder.device
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "the processor, to see that it runs"
    clip = 1 / _bare_windows(machine)
    sam = _bare_tiles(machine) / plan.grid.count if kind in SAMS else 0.0
    rates = []
    for way in (before, ahead(Room.of(plan))):
        rates.append(plan.grid.count / run(way, fresh(machine, models), folder).seconds)
    bare = 1 / (clip + sam)
    print(
        f"{kind} on {name}, {machine.encoder.precision}: bare forward passes {bare:.1f} windows a second"
        f"{f' (SAM takes {sam / (clip + sam):.0%} of the time)' if sam else ''}, one thread ahead {rates[0]:.1f} "
        f"({rates[0] / bare:.0%}), pipeline {rates[1]:.1f} ({rates[1] / bare:.0%})",
        flush=True,
    )


def _bare_windows(machine: Machine) -> float:
    """Windows a second of the vision transformer alone, whose input lies on the device."""
    encoder, given = machine.encoder, []

    def noting(*arguments: Any, **options: Any) -> torch.Tensor:
        given.append((arguments, options))
        return encoder.forward(*arguments, **options)

    batch = machine.read(machine.plan.grid.item(0))
    replace(machine, encoder=replace(encoder, forward=noting)).encode(batch)
    arguments, options = given[0]
    half = encoder.precision != "float32"
    with torch.inference_mode(), torch.autocast(encoder.device.split(":")[0], torch.bfloat16, enabled=half):
        return len(batch.rgb) / _seconds(lambda: encoder.forward(*arguments, **options), encoder.device)


def _bare_tiles(machine: Machine) -> float:
    """Seconds of SAM's image encoder alone for all tiles of the scene."""
    from resegeo.segments.segment_sources import SAM_TILE

    sam, device = machine.segments._segmenter._predictor.model, machine.encoder.device  # type: ignore[attr-defined]
    image = torch.zeros(1, 3, 1024, 1024, device=device)
    half = machine.encoder.precision != "float32"
    with torch.inference_mode(), torch.autocast(device.split(":")[0], torch.bfloat16, enabled=half):
        tile = _seconds(lambda: sam.image_encoder(image), device)
    canvas = machine.plan.canvas
    return tile * -(-canvas.height // SAM_TILE) * -(-canvas.width // SAM_TILE)


def _seconds(act: Callable[[], Any], device: str, patience: float = 2.0) -> float:
    """Seconds of one call, after a first one that warms up."""
    cuda = device.startswith("cuda")

    def timed(count: int) -> float:
        begin = time.perf_counter()
        for _ in range(count):
            act()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    timed(1)
    count = max(1, min(100, int(patience / timed(1))))
    return timed(count) / count


def main() -> None:
    kinds = ("bundled", *ARCHITECTURES, *SAMS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, help="pixels of the scene (3,000; 6,000 with --cores)")
    parser.add_argument("--pace", type=float, default=0.1)
    parser.add_argument("--cores", type=int)
    parser.add_argument("--model", choices=kinds, help="vitb16; on a GPU all but the bundled one")
    parser.add_argument("--device", help="cuda, where there is one; else a device that sleeps")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    device = given.device or ("cuda" if torch.cuda.is_available() else None)
    side = given.side or (6000 if given.cores else 3000)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder, models = Path(name), Models()
        if device is None:
            print("NO GPU HERE: what follows is a device that sleeps")
            machine = start(folder, side, given.model or "vitb16", models)
            measure_stand_in(machine, models, folder, given.pace, given.cores)
            return
        precision = "bfloat16" if device.startswith("cuda") else "float32"
        for kind in [given.model] if given.model else kinds[1:]:
            machine = start(folder, side, kind, models, device=device, precision=precision)
            if kind in SAMS:
                from sam import bump

                decoder = models.sam(machine.plan.sam, device).mask_decoder  # type: ignore[arg-type]
                decoder.transformer.register_forward_hook(bump)
            measure_device(machine, models, folder, kind)


if __name__ == "__main__":
    main()
