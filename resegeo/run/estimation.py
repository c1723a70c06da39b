"""What a run would need: items, memory, disk and time; the time by computing a few windows and blocks of the scene."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resegeo.clip.blending import WindowScores
from resegeo.errors import ResegeoError
from resegeo.files import is_folder
from resegeo.outputs.raster import CACHE_BYTES
from resegeo.run.capacity import cores
from resegeo.run.clusters import local_workers
from resegeo.run.compute import Batch, Machine, reduced, start_machine, worth_computing
from resegeo.run.header import Kept
from resegeo.run.labelling import SCORES_KEPT, Labeller
from resegeo.run.options import RunOptions
from resegeo.run.pipeline import Room
from resegeo.run.plan import Plan
from resegeo.run.standing import Standing
from resegeo.run.threads import one_thread_each
from resegeo.scene.windows import BLOCK, ITEM_SIDE, WorkItem, blocks

PATIENCE = 20.0
"""Seconds that timing one work item may take; where it would take longer, one window is timed instead."""

NEIGHBOURS = 6
"""Items that are timed, where they take little: the first of a row of them pays for superpixels that others share."""

LOOKS = 64
"""Items that are looked at for windows that are worth computing, at most."""

LOOKING = 1.0
"""Seconds after which no further one is."""

POLYGON_BYTES = 24
"""Memory that drawing polygons takes for each pixel of the scene, measured (tests/benchmarks/memory.py)."""

DRAWING = {"raster": 0.04, "polygons": 0.2, "picture": 0.01}
"""Seconds a million pixels of what comes after the labels, measured on one machine; they vary with the map."""

STARTING = {"raster": 0.25, "picture": 0.35}
"""Seconds of a scene beside them, however small it is; measured likewise."""


@dataclass(frozen=True)
class Seen:
    """Which share of a plan there is work in, as far as a look at some of its items tells."""

    items: float = 1.0
    windows: float = 1.0


@dataclass(frozen=True)
class Estimate:
    """Needs of a run: bytes, seconds, counts."""

    items: int
    done: int
    """Items that an interrupted or earlier run has left."""
    windows: int
    features: bool
    """Whether features are kept, so that other words need no new pass."""
    feature_bytes: int
    store_bytes: int
    """What the store takes, at most; parts of the scene that a look at some items finds empty take nothing."""
    output_bytes: int
    """Class raster and its temporary copy, at most; polygons and picture come on top."""
    free_bytes: int | None
    """Free space where the store goes; None: behind a URL."""
    memory_bytes: int
    polygon_bytes: int
    """Memory that drawing polygons takes on top; 0 without polygons."""
    device: str
    device_bytes: int
    """Memory of the GPU: measured on CUDA, else computed from sizes for a GPU that might be used."""
    workers: int
    seconds: Mapping[str, float]
    """By stage."""

    @property
    def total_seconds(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Pace:
    """What was measured on one scene, and holds for others of its kind: seconds and bytes."""

    reading: float
    """Seconds of reading a window in one thread, its segments included."""
    encoding: float
    """Seconds of the model's pass over a window."""
    labelling: float
    """Seconds of labelling a block, as many at once as there are threads."""
    threads: int
    device: str
    device_bytes: int
    memory_bytes: int
    """Of this process at most, without what follows from a scene's size."""

    @property
    def window(self) -> float:
        """Seconds a window: threads read ahead of a GPU, and the slower counts; on the CPU both share the cores."""
        reading = self.reading / self.threads
        return max(reading, self.encoding) if self.device.startswith("cuda") else reading + self.encoding

    def seconds(
        self, plan: Plan, *, items: int | None = None, workers: int = 1, seen: Seen = Seen()
    ) -> dict[str, float]:
        """Seconds of each stage of a plan, of which so many ``items`` are left (None: all)."""
        height, width = plan.scene.height, plan.scene.width
        share = 1.0 if items is None else items / plan.items
        rates = {stage: rate for stage, rate in DRAWING.items() if plan.settings.vector or stage != "polygons"}
        return {
            "windows": plan.grid.count * seen.windows * share * self.window / max(1, workers),
            "labels": self.labelling * seen.windows * len(range(0, height, BLOCK)) * len(range(0, width, BLOCK)),
            **{stage: STARTING.get(stage, 0.0) + rate * height * width / 1e6 for stage, rate in rates.items()},
        }


def pace_of(plan: Plan, kept: Kept, options: RunOptions) -> Pace:
    """Measure how fast a scene is segmented here, by computing a few windows and blocks; writes nothing.

    Raises
    ------
    ResegeoError:
        When model, segments or scene can't be had, as the run itself would.

    """
    machine = start_machine(plan, kept, device=options.device, threads=options.threads)
    threads = options.threads or cores()
    reading, encoding, sample, device_bytes = _time_items(machine)
    labelling = 0.0 if sample is None else _time_blocks(machine, sample, threads)
    return Pace(reading, encoding, labelling, threads, machine.encoder.device, device_bytes, _peak() + CACHE_BYTES)


def estimate_run(
    plan: Plan, url: str, found: Standing | None, options: RunOptions, *, pace: Pace | None = None
) -> Estimate:
    """Estimate a run; computes a few windows and blocks, writes nothing.

    Parameters
    ----------
    plan:
        What would be computed.
    url:
        Path or URL of the store.
    found:
        What is there already; None: nothing that counts.
    options:
        Who would compute and what would be kept.
    pace:
        What was measured on another scene of this one's kind; None: it is measured on this one.

    Raises
    ------
    ResegeoError:
        When model, segments or scene can't be had, as the run itself would.

    """
    workers = 1
    if options.cluster is not None:
        workers = local_workers(options.cluster) or 1
    store, complete = (None, False) if found is None else (found.store, found.complete)
    features = plan.keeps_features(keep=options.keep_features, discard=options.discard_store)
    if store is not None:
        features = store.header.features
    kept = plan.kept(features=features)
    done = plan.items if complete else 0 if store is None else len(store.done())
    pace = pace or pace_of(plan, kept, options)
    drawn = bool(plan.settings.vector)
    seen = Seen() if done == plan.items else _look(plan)
    seconds = pace.seconds(plan, items=plan.items - done, workers=workers, seen=seen)
    if complete:
        seconds = dict.fromkeys(seconds, 0.0)
    pixels = plan.scene.height * plan.scene.width
    itemsize = np.dtype(plan.classes.dtype).itemsize
    whole, of_items = plan.kept_bytes(kept), plan.layout(kept).item_bytes
    room = Room.of(plan, ahead=options.read_ahead, threads=options.threads)
    beside = room.bytes(plan, threads=options.threads) if options.cluster is None else 0
    return Estimate(
        items=plan.items,
        done=done,
        windows=plan.grid.count,
        features=kept.features,
        feature_bytes=plan.feature_bytes(),
        store_bytes=int(seen.items * of_items + seen.windows * (whole - of_items)),
        output_bytes=int(pixels * itemsize * (1 + 4 / 3)),
        free_bytes=None if "://" in url else shutil.disk_usage(_standing(Path(url))).free,
        memory_bytes=pace.memory_bytes + beside + min(SCORES_KEPT, plan.score_bytes()),
        polygon_bytes=POLYGON_BYTES * pixels if drawn else 0,
        device=pace.device,
        device_bytes=pace.device_bytes,
        workers=workers,
        seconds=seconds,
    )


def _look(plan: Plan) -> Seen:
    """Look at items all over a plan for windows that are worth computing."""
    # Steps of the golden ratio fall into no step with the rows of items.
    order = dict.fromkeys(int(number * 0.618034 % 1 * plan.items) for number in range(LOOKS))
    if plan.items <= LOOKS:
        order = dict.fromkeys(range(plan.items))
    items, windows, useful, among = 0, 0, 0, 0
    end = time.perf_counter() + LOOKING
    for index in order:
        item = plan.grid.item(index)
        try:
            count = int(worth_computing(plan, item).sum())
        except ResegeoError:  # the run itself says it of its windows
            count = len(item.windows)
        items, windows, useful, among = items + 1, windows + len(item.windows), useful + count, among + (count > 0)
        if time.perf_counter() > end:
            break
    return Seen(among / items, useful / windows)


def _time_items(machine: Machine) -> tuple[float, float, Mapping[str, NDArray[Any]] | None, int]:
    """Seconds of reading and of encoding a window, what one leaves behind (None: no valid one), GPU bytes."""
    plan = machine.plan
    # Through the scene from its middle: the corners of many are empty.
    order = sorted(range(0, plan.items, max(1, plan.items // 16)), key=lambda index: abs(index - plan.items // 2))
    for index in order:
        item = plan.grid.item(index)
        single = next((part for part in _singles(item) if machine.read(part).windows.any()), None)
        if single is not None:
            break
    else:
        return 0.0, 0.0, None, 0
    reading, encoding, sample = _timed(machine, single)  # the first is slow: it warms up
    if (reading + encoding) * len(item.windows) < PATIENCE:
        reading, encoding = _paced(machine, index)
    return reading, encoding, sample, _device_bytes(machine)


def _paced(machine: Machine, index: int) -> tuple[float, float]:
    """Seconds of reading and of encoding a window, over neighbouring items: they share superpixels as in a run."""
    plan = machine.plan
    windows, reading, encoding = 0, 0.0, 0.0
    for number in range(index, min(index + NEIGHBOURS, plan.items)):
        item = plan.grid.item(number)
        count = int(worth_computing(plan, item).sum())
        if count == 0:
            continue
        read, encoded, _ = _timed(machine, item)
        windows, reading, encoding = windows + count, reading + read, encoding + encoded
        if reading + encoding > PATIENCE / 4:
            break
    return reading / windows, encoding / windows


def _singles(item: WorkItem) -> list[WorkItem]:
    """Cut an item into items of one window."""
    return [WorkItem(item.index, (window,)) for window in item.windows]


def _timed(machine: Machine, item: WorkItem) -> tuple[float, float, Mapping[str, NDArray[Any]]]:
    start = time.perf_counter()
    batch: Batch = machine.read(item)
    middle = time.perf_counter()
    values = machine.encode(batch).values
    return middle - start, time.perf_counter() - middle, values


@dataclass(frozen=True)
class _Repeated:
    """Answers every window with the scores of one that was computed."""

    values: Mapping[str, NDArray[Any]]
    texts: NDArray[np.float32] | None

    def windows(self, item: WorkItem) -> list[WindowScores]:
        values = {name: np.repeat(array[:1], len(item.windows), axis=0) for name, array in self.values.items()}
        segments = values.get("segments")
        if self.texts is not None:
            values = reduced(values, self.texts)
        return [
            WindowScores(
                window, values["reduced"][number], values["cls"][number], None if segments is None else segments[number]
            )
            for number, window in enumerate(item.windows)
        ]


def _time_blocks(machine: Machine, sample: Mapping[str, NDArray[Any]], threads: int) -> float:
    """Seconds of labelling a block, as many at once as there are threads."""
    plan, encoder = machine.plan, machine.encoder
    texts = encoder.encode_texts(plan.classes.prompt_texts) if "features" in sample else None
    label: Callable[[Any], Any] = Labeller.of(plan, _Repeated(sample, texts), encoder.logit_scale)
    cut = list(blocks(plan.scene.height, plan.scene.width))
    chosen = cut[len(cut) // 2 :][:threads]
    start = time.perf_counter()
    with one_thread_each(), ThreadPoolExecutor(max_workers=threads) as pool:
        list(pool.map(label, chosen))
    return (time.perf_counter() - start) / len(chosen)


def _device_bytes(machine: Machine) -> int:
    import torch

    if machine.encoder.device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    visual = machine.encoder.model.visual
    weights = sum(parameter.numel() for parameter in machine.encoder.model.parameters()) * 4
    tokens, batch = machine.plan.geometry.grid**2 + 1, ITEM_SIDE**2
    width = int(visual.transformer.width)
    # One block of the transformer at a time: its input, q, k, v, the result, four times the width in the MLP, twice.
    activations = batch * tokens * width * 4 * 14
    masks = batch * tokens * tokens * 4 * (machine.segments.levels + 1)
    return int(weights + activations + masks)


def _standing(path: Path) -> Path:
    """Return the nearest folder above that exists."""
    return next(folder for folder in [path.absolute(), *path.absolute().parents] if is_folder(folder))


def _peak() -> int:
    """Bytes of memory that this process has held at most."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
