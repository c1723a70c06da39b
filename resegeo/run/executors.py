"""The image side of a plan, item by item into a store, by whatever executor.

An item is the unit of work, of failure and of the encoder's batch, so that its numbers do not depend on who computes
it. Other processes get a job by reference (paths), lay the plan themselves, and write straight to the store.
"""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from resegeo.errors import ResegeoError
from resegeo.run.clusters import finished, workers_of
from resegeo.run.compute import Machine, Models, start_machine
from resegeo.run.pipeline import Room, settle, settled
from resegeo.run.plan import Job, Plan, plan_job
from resegeo.run.store import LostStoreError, Store

STRETCH = 4
"""Items that a worker is given at a time, where there are enough: each order costs the scheduler some milliseconds."""


def run_here(machine: Machine, store: Store, pending: Sequence[int], progress: Callable[[], None], room: Room) -> None:
    """Compute items in this process; ``progress`` is called for each that is stored, or recorded as failed."""
    items = [machine.plan.grid.item(index) for index in pending]
    for _ in settled(machine, store, items, room):
        progress()


@dataclass(frozen=True)
class Task:
    """What every worker of a cluster is told."""

    job: Job
    store: str
    device: str | None
    threads: int | None
    tiles: Path | None
    identity: str
    """Checksum of scene, options and store: a worker that lives on would take a replaced one for what it has open."""
    room: Room | None = None
    """How far a worker with a device of its own reads ahead; None: it reads and computes by turns."""

    @property
    def stretch(self) -> int:
        """Items that a worker is given at a time, at most."""
        return STRETCH if self.room is None else max(STRETCH, 2 * self.room.ahead)


def run_on_cluster(client: Any, task: Task, pending: Sequence[int], progress: Callable[[], None]) -> None:
    """Compute items on the workers of a ``distributed.Client``; a dead worker costs its items alone, for a while.

    An item that takes several workers with it, or fails on two of them by itself, is recorded as failed: so a worker
    that fails whatever it is given costs no item.
    """
    order = pickle.dumps(task)
    shares = _Shares(pending)
    again: deque[int] = deque()
    blamed: defaultdict[int, set[str]] = defaultdict(set)
    alone: Counter[int] = Counter()
    alive: dict[Any, tuple[list[int], str]] = {}
    room = _Room(client)

    def more() -> None:
        # A few stretches a worker in flight: the scheduler's memory does not grow with the scene. Who is to compute one
        # is a wish; without any worker yet, some wait for the first.
        threads = room.threads() or {"": 3}
        busy = Counter(worker for _, worker in alive.values())
        most = max(1, min(task.stretch, len(pending) // (8 * len(threads))))
        for worker in threads:
            wish = {"workers": [worker], "allow_other_workers": True} if worker else {}
            while busy[worker] <= threads[worker]:
                # What failed goes to a worker that has not failed at it, where there is one.
                spared = (index for index in again if worker not in blamed[index] or blamed[index] >= threads.keys())
                retried = next(spared, None)
                if retried is not None:
                    again.remove(retried)
                part = shares.take(worker, threads, most) if retried is None else [retried]
                if not part:
                    break
                future = client.submit(_on_worker, order, part, pure=False, retries=0, **wish)
                alive[future] = part, worker
                busy[worker] += 1

    more()
    store = Store.open(task.store)
    for future in finished(client, alive):
        part, worker = alive.pop(future)
        error = future.exception()
        if isinstance(error, LostStoreError) or (isinstance(error, ResegeoError) and error.exit_code == 2):
            raise error
        killed = type(error).__name__ == "KilledWorker"  # the scheduler has tried it on several already
        if error is not None and not killed:
            for index in part:
                blamed[index].add(worker)
        if len(part) == 1:
            alone.update(part)
        if error is not None and (len(part) > 1 or (not killed and alone[part[0]] < min(2, len(room.threads()) or 1))):
            again.extend(part)  # one by one, so that the item that is to blame is told from its neighbours
        else:
            if error is not None and store is not None:
                store.fail(part[0], f"{type(error).__name__}: {error}")
            for _ in part:
                progress()
        more()


class _Room:
    """Threads of each worker, asked for now and then: every question keeps this process and the scheduler busy."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._asked = -math.inf
        self._threads: dict[str, int] = {}

    def threads(self) -> dict[str, int]:
        """Return the number of threads by worker."""
        if time.monotonic() - self._asked > 1.0:
            self._threads = {name: facts["nthreads"] for name, facts in workers_of(self._client).items()}
            self._asked = time.monotonic()
        return self._threads


class _Shares:
    """Which items go to which worker: stretches of neighbours, so that no two workers segment one tile at a time."""

    def __init__(self, pending: Sequence[int]) -> None:
        self._left = {"": list(pending)}

    def take(self, worker: str, workers: Collection[str], most: int = 1) -> list[int]:
        """Return the next items of ``worker``'s share, ``most`` of them; none where nothing is left.

        A worker without any takes over what a worker that is gone has left, else the second half of the longest share.
        """
        if not self._left.get(worker):
            gone = [name for name, left in self._left.items() if left and name not in workers]
            giver = gone[0] if gone else max(self._left, key=lambda name: len(self._left[name]))
            left = self._left[giver]
            cut = 0 if gone else len(left) // 2
            self._left[giver], self._left[worker] = left[:cut], left[cut:]
        own = self._left[worker]
        taken, self._left[worker] = own[:most], own[most:]
        return taken


def _on_worker(order: bytes, part: Sequence[int]) -> None:
    with _LOADING:  # by one of the threads of this process
        machine, store, room = _worker_machine(order)
    # Some may be done by another worker, which was lost before it could say so.
    items = [machine.plan.grid.item(index) for index in part if not store.is_done(index)]
    if room is not None:
        deque(settled(machine, store, items, room), maxlen=0)
        return
    for item in items:
        settle(machine, store, item)


_LOADING = threading.Lock()


@lru_cache(maxsize=1)
def worker_models() -> Models:
    """Models that this process keeps from scene to scene."""
    return Models()


def worker_device(device: str | None) -> str | None:
    """Give each of several workers a GPU of its own: local ones are numbered by name."""
    from distributed import get_worker

    if device not in (None, "cuda") or torch.cuda.device_count() < 2:
        return device
    name = str(get_worker().name)
    return f"cuda:{int(name) % torch.cuda.device_count()}" if name.isdigit() else device


def _sees(plan: Plan) -> dict[str, Any]:
    """What identifies the files that a plan reads, wherever it is laid."""
    options = plan.image_options()
    return {key: options[key] for key in ("scene", "scene_files", "segment_files", "region")}


@lru_cache(maxsize=1)
def _worker_machine(order: bytes) -> tuple[Machine, Store, Room | None]:
    """Load the model once a process, and keep it."""
    import warnings

    task: Task = pickle.loads(order)
    store = Store.open(task.store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user has had these notes already
        plan = plan_job(task.job)
        if store is None or _sees(plan) != {key: store.header.image[key] for key in _sees(plan)}:
            raise ResegeoError(
                f"A worker does not see the scene {task.job.scene} or the store {task.store} as the rest do."
            )
        machine = start_machine(
            plan,
            store.header.kept,
            device=worker_device(task.device),
            threads=task.threads,
            tiles=task.tiles,
            models=worker_models(),
        )
    return machine, store, task.room
