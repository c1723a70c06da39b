"""How much of the time a device is busy: with one thread that reads ahead, as before, and with a pipeline around it.

    python tests/benchmarks/pipeline.py [--side 3000] [--pace 0.1] [--cores N] [--model bundled|vitb16|vitl14]

A device that takes ``--pace`` seconds a megapixel of the scene is stood in for by one that sleeps: it computes batch
after batch, as a GPU does, while the caller goes on. Everything else is real: reading, superpixels, patch ids, rounding
and the store, on the cores of this machine. ``--cores`` makes up a machine of so many: reading sleeps for as long as it
was measured to compute, in so many threads, so that this machine's own cores are left to the rest. Prints megapixels a
second and the device's share of busy time of both ways, and how much this machine's cores can feed at most.

Where there is a GPU it is measured instead, by models with random weights: windows a second of a run in bfloat16
against the bare forward passes of the same batches. Without one that is said.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory import make

from resegeo import prepare
from resegeo.run import capacity
from resegeo.run.compute import Batch, Machine, start_machine
from resegeo.run.pipeline import Room, settled
from resegeo.run.plan import Plan
from resegeo.run.resume import new_store
from resegeo.run.store import Store
from resegeo.scene.windows import WorkItem

WORDS = ["water", "forest", "cropland", "building"]
MODELS = {"vitb16": "ViT-B-16", "vitl14": "ViT-L-14"}


@dataclass
class Sleeping:
    """A device that takes a fixed time a window and computes nothing; batches queue up for it as for a GPU."""

    seconds: float
    grid: int
    dimension: int
    device: str = "cpu"
    free: float = 0.0
    """When it has computed all that it was given."""
    busy: float = 0.0

    def start_windows(self, rgb: Any, *_: Any, **__: Any) -> Any:
        count = len(rgb)
        self.free = max(time.perf_counter(), self.free) + count * self.seconds
        self.busy += count * self.seconds
        ready = self.free
        features = np.ones((count, self.grid, self.grid, self.dimension), dtype=np.float32)

        def wait() -> Any:
            time.sleep(max(0.0, ready - time.perf_counter()))
            return features, features[:, 0, 0]

        return wait


@dataclass(frozen=True)
class Dozing(Machine):
    """A machine whose reading takes its time but none of this machine's cores."""

    seconds: float = 0.0
    batch: Batch | None = field(default=None)

    def read(self, item: WorkItem) -> Batch:
        time.sleep(self.seconds * len(item.windows))
        assert self.batch is not None
        count = len(item.windows)
        return Batch(*(array[:count] for array in (self.batch.windows, self.batch.rgb, self.batch.valid)),
                     self.batch.levels[:count])  # fmt: skip


def before(machine: Machine, store: Store, items: list[WorkItem]) -> Iterator[WorkItem]:
    """One thread reads one item ahead; rounding and storing keep the model waiting."""
    with ThreadPoolExecutor(1) as pool:
        coming: deque[Future[Batch]] = deque()
        for number, item in enumerate(items):
            while len(coming) <= 1 and number + len(coming) < len(items):
                coming.append(pool.submit(machine.read, items[number + len(coming)]))
            store.put(item.index, machine.encode(coming.popleft().result()))
            yield item


def plan_of(folder: Path, side: int, model: str, **options: Any) -> tuple[Plan, Machine]:
    scene = folder / "scene.tif"
    if not scene.exists():
        make(scene, side)
    if model != "bundled":
        options |= {"model": str(weights(folder, MODELS[model])), "arch": MODELS[model], "activation": "gelu"}
    run = prepare(scene, WORDS, folder / "out", segments="superpixels", **options)
    return run.plan, start_machine(run.plan, run.plan.kept(features=True), device=options.get("device"))


def weights(folder: Path, architecture: str) -> Path:
    import open_clip
    from safetensors.torch import save_file

    path = folder / f"{architecture}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        state = open_clip.create_model(architecture, pretrained=None).state_dict()
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def fresh(machine: Machine) -> Machine:
    """Return a machine that has segmented nothing yet."""
    segments = type(machine.segments)(machine.plan.canvas, machine.segments._areas)  # type: ignore
    return replace(machine, segments=segments)


def elsewhere() -> float:
    """Seconds that all processes of this machine have computed for."""
    import psutil

    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice)


def show(name: str, megapixels: float, seconds: float, busy: float | None = None) -> None:
    share = "" if busy is None else f", device busy {busy / seconds:.0%}"
    print(f"{name:58} {megapixels / seconds:6.2f} megapixels a second{share}", flush=True)


def measure(plan: Plan, machine: Machine, folder: Path, pace: float, cores: int | None) -> None:
    megapixels = plan.scene.height * plan.scene.width / 1e6
    a_window = pace * megapixels / plan.grid.count
    items = list(plan.grid.items())
    cpu = time.process_time()
    part = items[: 64 if cores is not None else None]
    batches = [machine.read(item) for item in part]
    share = len(items) / len(part)
    spent = (time.process_time() - cpu) * share
    print(f"reading alone, one thread: {spent / megapixels:.2f} core seconds a megapixel")
    ways: list[tuple[str, Any, int]] = [("one thread reads ahead", before, 1)]
    have = cores or capacity.cores()
    room = Room.of(plan, threads=have)
    ways += [(f"{room.ahead} items read ahead", lambda *given: settled(*given, room), have)]
    number = itertools.count()
    shares = []
    for name, way, _ in ways:
        device = Sleeping(a_window, plan.geometry.grid, int(machine.encoder.dimension))
        used = replace(fresh(machine), encoder=device)  # type: ignore[arg-type]
        if cores is not None:
            used = Dozing(
                used.plan, used.encoder, used.segments, used.kept, used.texts,
                spent / plan.grid.count, batches[0],
            )  # fmt: skip
        store = new_store(plan, str(folder / f"{next(number)}.store.zarr"), machine.kept)
        start, cpu, others = time.perf_counter(), time.process_time(), elsewhere()
        for _ in way(used, store, items):
            pass
        seconds, used_here = time.perf_counter() - start, time.process_time() - cpu
        others = elsewhere() - others - used_here
        show(f"{name}, device {pace:g} s a megapixel", megapixels, seconds, device.busy)
        print(
            f"    {used_here / megapixels:.2f} core seconds a megapixel, {used_here / seconds:.2f} cores at a time; "
            f"other processes took {max(0.0, others) / seconds:.2f}"
        )
        shares.append(device.busy / seconds)
    print(f"busy share after / before: {shares[1] / shares[0]:.2f}")
    if cores is None:
        most = have / (spent / megapixels)
        print(f"{have} cores can read {most:.2f} megapixels a second at most")


def measure_gpu(folder: Path, side: int, model: str) -> None:
    plan, machine = plan_of(folder, side, model, device="cuda", precision="bfloat16")
    items = list(plan.grid.items())
    batches = [machine.read(item) for item in items[:8]]
    for batch in batches[:2]:
        machine.start(batch)()
    torch.cuda.synchronize()
    start = time.perf_counter()
    waiting = [machine.start(batch) for batch in batches * 8]
    torch.cuda.synchronize()
    bare = 8 * sum(int(batch.windows.sum()) for batch in batches) / (time.perf_counter() - start)
    del waiting
    rates = []
    for way in (before, lambda *given: settled(*given, Room.of(plan))):
        store = new_store(plan, str(folder / f"{len(rates)}{model}.store.zarr"), machine.kept)
        start = time.perf_counter()
        for _ in way(fresh(machine), store, items):
            pass
        rates.append(plan.grid.count / (time.perf_counter() - start))
    print(
        f"{model} on {torch.cuda.get_device_name()}: bare {bare:.0f} windows a second, one thread ahead {rates[0]:.0f} "
        f"({rates[0] / bare:.0%}), pipeline {rates[1]:.0f} ({rates[1] / bare:.0%})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=3000)
    parser.add_argument("--pace", type=float, default=0.1)
    parser.add_argument("--cores", type=int)
    parser.add_argument("--model", choices=("bundled", *MODELS), default="bundled")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if torch.cuda.is_available():
            for model in MODELS:
                measure_gpu(folder, given.side, model)
        else:
            print("no GPU here: what follows is a device that sleeps")
        plan, machine = plan_of(folder, given.side, given.model)
        measure(plan, machine, folder, given.pace, given.cores)


if __name__ == "__main__":
    main()
