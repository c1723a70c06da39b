"""Work items through one process: threads read ahead, the model computes, threads of their own write behind it.

The model alone is busy with one item after the other, in order; all that surrounds it runs beside. Items are read by
several threads, whose results are put back in order; what the model leaves behind is rounded and stored by others, each
of which sets its mark after that of the item before. Memory is bounded: at most :attr:`Room.ahead` items are read, or
wait for the model, and :data:`BEHIND` are computed and not yet stored.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from resegeo.clip.device_memory import FullDeviceError
from resegeo.errors import ResegeoError
from resegeo.run import capacity
from resegeo.run.compute import Batch, Computed, Machine
from resegeo.run.plan import Plan
from resegeo.run.store import ItemResult, Store
from resegeo.scene.windows import ITEM_SIDE, WorkItem
from resegeo.segments.segment_sources import HALO, TILE, tiles_kept, turns

WRITERS = 4
"""Threads that store: each waits for the disk for most of its time, which confirms every file."""

BEHIND = WRITERS + 2
"""Items that are computed and not yet stored, at most; a device then always has the next one queued."""

ITEMS_A_CORE = 4
"""Items read ahead for each core: neighbours share superpixels, so that most threads wait for what another computes."""

SHARE = 8
"""Items read ahead take at most one in so many parts of the machine's memory."""

PIXEL_BYTES = 10
"""Memory that reading takes for each pixel of an item's windows: colours and validity, twice."""

LEVEL_BYTES = 32
"""And for each level of their segments: ids of 64 bits, of which those of patches are chosen; with :data:`PIXEL_BYTES`
measured for 8 and 16 bits, native and resampled (tests/test_reading_memory.py)."""

SUPERPIXEL_BYTES = 160
"""Memory that SLIC takes for each pixel of a tile, measured."""

RESULT_BYTES = 8
"""Memory that a number takes between model and store: as it was computed, and as it is kept."""

ATTEMPTS = 3
"""How often an item is tried before it is given up."""

PAUSES = (1.0, 5.0)
"""Seconds after which an item is tried again that a device had no memory left for: another program may hold it."""

FAILURES = (ResegeoError, OSError, RuntimeError, MemoryError)
"""What may befall one item and spare the next: damaged blocks, a lost network, no memory left."""


@dataclass(frozen=True)
class Room:
    """How far reading may run ahead of the model."""

    ahead: int
    """Items that are read, each by a thread of its own, while the model is busy with another; 0: it waits for each."""

    @classmethod
    def of(cls, plan: Plan, *, ahead: int | None = None, threads: int | None = None, among: int = 1) -> Room:
        """Settle it by the cores and the memory that there are.

        Parameters
        ----------
        plan:
            Whose items are read.
        ahead:
            How many items, as the user wants it; None: :data:`ITEMS_A_CORE` in an eighth of the memory.
        threads:
            How many CPU threads may compute; None: one a core.
        among:
            How many such rooms share the machine's memory.

        """
        if ahead is None:
            room = capacity.memory() // (SHARE * among) - turns(threads) * tile_bytes(plan)
            ahead = max(1, min(ITEMS_A_CORE * (threads or capacity.cores()), room // item_bytes(plan)))
        return cls(ahead)

    def bytes(self, plan: Plan, *, threads: int | None = None) -> int:
        """Bytes of memory that reading ahead and storing behind take at most."""
        reading = max(1, self.ahead)
        values = ITEM_SIDE**2 * plan.geometry.grid**2 * plan.geometry.dimension
        return (
            reading * item_bytes(plan)
            + min(reading, turns(threads)) * tile_bytes(plan)
            + _kept_bytes(plan)
            + (BEHIND + 1) * values * RESULT_BYTES
        )


def item_bytes(plan: Plan) -> int:
    """Bytes of memory that an item takes while it is read, at most, beside :func:`tile_bytes`."""
    levels = len(plan.settings.superpixel_area or (0,))
    return ITEM_SIDE**2 * plan.geometry.image_size**2 * (PIXEL_BYTES + LEVEL_BYTES * levels)


def tile_bytes(plan: Plan) -> int:
    """Bytes of memory that the superpixels of a tile take while they are computed."""
    return SUPERPIXEL_BYTES * (TILE + 2 * HALO) ** 2 if plan.settings.segments == "superpixels" else 0


def _kept_bytes(plan: Plan) -> int:
    """Bytes of memory of the superpixels that neighbours share."""
    if plan.settings.segments != "superpixels":
        return 0
    return tiles_kept(plan.canvas) * TILE**2 * 4 * len(plan.settings.superpixel_area or (0,))


def settled(machine: Machine, store: Store, items: Sequence[WorkItem], room: Room) -> Iterator[WorkItem]:
    """Compute items into a store and yield each once it is there, or is recorded as failed; in order.

    Raises
    ------
    ResegeoError, OSError:
        When the store cannot be written to. Items whose turn would come later are not stored then.

    """
    with ThreadPoolExecutor(max(1, room.ahead)) as readers, ThreadPoolExecutor(WRITERS) as writers:
        coming: deque[Future[Batch]] = deque()
        going: deque[Future[WorkItem]] = deque()
        last: Future[WorkItem] | None = None
        try:
            for number, item in enumerate(items):
                while room.ahead and len(coming) <= room.ahead and number + len(coming) < len(items):
                    coming.append(readers.submit(machine.read, items[number + len(coming)]))
                computed = _started(machine, item, coming.popleft() if coming else None)
                last = writers.submit(_store, machine, store, item, computed, last)
                going.append(last)
                while len(going) > BEHIND or (going and going[0].done()):
                    yield going.popleft().result()
            while going:
                yield going.popleft().result()
        finally:
            for future in coming:
                future.cancel()


def _started(machine: Machine, item: WorkItem, ready: Future[Batch] | None) -> Computed:
    """Give an item to the model; what fails is told when its result is asked for."""
    try:
        return machine.start(machine.read(item) if ready is None else ready.result())
    except FAILURES as error:
        failure = error

    def tell() -> ItemResult:
        raise failure

    return tell


def _store(
    machine: Machine, store: Store, item: WorkItem, computed: Computed, before: Future[WorkItem] | None = None
) -> WorkItem:
    """Store what was computed of an item, or record why it could not be, once the one ``before`` it is stored."""
    for attempt in range(ATTEMPTS):
        try:
            result = computed() if attempt == 0 else machine.encode(machine.read(item))
            break
        except FAILURES as error:
            if attempt == ATTEMPTS - 1:
                reason = f"{error}" if isinstance(error, ResegeoError) else f"{type(error).__name__}: {error}"
                _await(before)
                store.fail(item.index, reason)
                return item
            if isinstance(error, FullDeviceError):
                time.sleep(PAUSES[attempt])
    sealed = store.keep(item.index, result)
    _await(before)
    store.mark(item.index, sealed)
    return item


def _await(before: Future[WorkItem] | None) -> None:
    if before is not None:
        before.result()  # if that one could not be stored, what comes after it is not either


def settle(machine: Machine, store: Store, item: WorkItem) -> None:
    """Compute one item into the store, or record why not, in the thread that asks."""
    _store(machine, store, item, lambda: machine.encode(machine.read(item)))
