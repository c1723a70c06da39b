"""A hundred workers at one scheduler: what an item costs it, in time and memory, and who gets how much.

    python tests/benchmarks/scheduler.py [--workers 100] [--items 4000] [--seconds 0.5]

The workers are threads of this process that sleep ``--seconds`` an item, as a worker's device would compute; scheduler,
client and the order in which items are handed out are those of a run. Printed are processor seconds an item (of
scheduler, client and all workers' ends of the wire together, so more than the scheduler's own), the share of time that
workers sleep, memory, and the most and fewest items that a worker did. Then the same with one worker that fails at
every item and one that is closed halfway: every item has to be done nonetheless. Last, as many writers put items into
one store, each with the store open for itself: on a disk, and in object storage (in memory, so without a network's
time).
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from stores import header

from resegeo.run import executors
from resegeo.run.store import ItemResult, Store

SECONDS = 0.5


class Done:
    """What the workers have done, and how they shall fail."""

    def __init__(self, seconds: float, failing: str | None = None) -> None:
        self.seconds, self.failing = seconds, failing
        self.by: Counter[str] = Counter()
        self.items: set[int] = set()
        self.lock = threading.Lock()

    def __call__(self, order: bytes, part: Any) -> None:
        from distributed import get_worker

        name = str(get_worker().name)
        for index in part:
            if index in self.items:  # as a store knows
                continue
            if name == self.failing:
                raise RuntimeError("this worker's device is broken")
            time.sleep(self.seconds)
            with self.lock:
                self.by[name] += 1
                self.items.add(index)


NOW: Done


def work(order: bytes, part: Any) -> None:
    NOW(order, part)


def run(workers: int, items: int, seconds: float, folder: Path, *, failing: bool = False) -> None:
    global NOW
    import dask
    from distributed import Client, LocalCluster

    from resegeo.run.clusters import _FRUGAL

    NOW = Done(seconds, "0" if failing else None)
    url = str(folder / f"{failing}.store.zarr")
    store = Store.create(url, header(items))
    executors._on_worker = work
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        dask.config.set(dict(_FRUGAL)),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs=50,
            memory_limit=None,
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        client.wait_for_workers(workers)
        if failing:
            threading.Timer(items * seconds / workers / 2, lambda: cluster.scale(workers - 1)).start()
        ticks: list[float] = []
        start, cpu = time.perf_counter(), time.process_time()
        executors.run_on_cluster(
            client, executors.Task(None, url, None, None, None, ""), range(items),  # type: ignore[arg-type]
            lambda: ticks.append(time.perf_counter()),
        )  # fmt: skip
        wall, spent = time.perf_counter() - start, time.process_time() - cpu
    failed = store.failed()
    lost = items - len(NOW.items | set(failed))
    if lost or len(ticks) != items:
        sys.exit(f"{lost} items are neither done nor recorded as failed, {len(ticks)} of {items} were told")
    share = items * seconds / workers / wall
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{workers} workers, {items} items of {seconds:g} s{', one fails always, one goes' if failing else ''}: "
        f"{wall:.1f} s, workers busy {share:.0%}; {1000 * spent / items:.2f} ms of processor an item, "
        f"{memory:.0f} MB more; a worker did {min(NOW.by.values())} to {max(NOW.by.values())} items; "
        f"{len(failed)} given up",
        flush=True,
    )


def write(url: str, writers: int, items: int) -> None:
    """Put items into one store by many writers at a time, and print what one costs."""
    layout = header(items).layout
    values = {name: np.ones((2, *spec.shape[2:]), spec.dtype) for name, spec in layout.item_arrays().items()}
    result = ItemResult(np.array([True, False, True]), values)
    Store.create(url, header(items))

    def own(writer: int) -> None:
        store = Store.open(url)
        assert store is not None
        for index in range(writer, items, writers):
            store.put(index, result)

    start, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(own, range(writers)))
    wall, spent = time.perf_counter() - start, time.process_time() - cpu
    found = Store.open(url)
    if found is None or len(found.done()) != items:
        sys.exit(f"{url} does not hold all of its {items} items")
    print(
        f"{writers} writers, {items} items into {url.partition('://')[0] if '://' in url else 'a folder'}: "
        f"{1000 * spent / items:.2f} ms of processor an item, {wall:.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--items", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    logging.disable()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        for workers in (10, given.workers):
            run(workers, given.items * workers // given.workers, given.seconds, Path(name) / str(workers))
        run(given.workers, given.items, given.seconds, Path(name), failing=True)
        for place in (f"{name}/many.store.zarr", "memory://many/many.store.zarr"):
            for writers in (1, given.workers):
                write(place.replace("many.", f"{writers}."), writers, given.items // 4)


if __name__ == "__main__":
    import scheduler  # by its name, so that what workers are sent is this module's

    scheduler.main()
