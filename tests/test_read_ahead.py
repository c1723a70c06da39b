"""Threads around the model: what they read comes in order, what they write is kept in order, and memory is bounded."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import resegeo
from resegeo.run import capacity
from resegeo.run.pipeline import BEHIND, WRITERS, Room, item_bytes, settled, tile_bytes
from resegeo.run.store import ItemResult, LostStoreError
from resegeo.scene.windows import Rect, WorkItem
from resegeo.segments.segment_sources import Superpixels, Tiled


@dataclass
class Machine:
    """Stands in for a plan with its model: says what was read, computed and when."""

    read_seconds: float = 0.0
    broken: tuple[int, ...] = ()
    lock: threading.Lock = field(default_factory=threading.Lock)
    reading: int = 0
    most_reading: int = 0
    read_items: list[int] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def read(self, item: WorkItem) -> Any:
        with self.lock:
            self.reading += 1
            self.most_reading = max(self.most_reading, self.reading)
            self.read_items.append(item.index)
        time.sleep(self.read_seconds * (1 + item.index % 3))  # they end in another order than they began in
        with self.lock:
            self.reading -= 1
        if item.index in self.broken:
            raise OSError("the disk is on fire")
        return SimpleNamespace(index=item.index)

    def start(self, batch: Any) -> Any:
        self.started.append(batch.index)
        self.threads.add(threading.current_thread().name)
        return lambda: ItemResult(np.array([False]), {})

    def encode(self, batch: Any) -> ItemResult:
        return self.start(batch)()


class Kept:
    """Stands in for a store: what was put, in order."""

    def __init__(self, seconds: float = 0.0, broken: int | None = None) -> None:
        self.put_items: list[int] = []
        self.failures: dict[int, str] = {}
        self.seconds, self.broken = seconds, broken
        self.threads: set[int] = set()

    def keep(self, index: int, result: ItemResult) -> bytes:
        time.sleep(self.seconds * (1 + index % 3))
        self.threads.add(threading.get_ident())
        return b""

    def mark(self, index: int, sealed: bytes) -> None:
        if index == self.broken:
            raise LostStoreError("replaced by another run")
        self.put_items.append(index)

    def fail(self, index: int, reason: str) -> None:
        self.failures[index] = reason


ITEMS = [WorkItem(index, (Rect(0, 0, 1, 1),)) for index in range(24)]


@pytest.mark.parametrize("ahead", [0, 1, 4, 100])
def test_items_are_computed_and_stored_in_order_however_many_read_and_write_them(ahead):
    machine, store = Machine(read_seconds=0.001), Kept(seconds=0.001)
    done = [item.index for item in settled(machine, store, ITEMS, Room(ahead))]
    assert done == machine.started == store.put_items == list(range(24))
    assert sorted(machine.read_items) == list(range(24))
    assert machine.most_reading <= max(1, ahead)
    assert machine.threads == {threading.current_thread().name}  # the model is no other thread's


def test_several_read_and_write_at_a_time_beside_the_model():
    machine, store = Machine(read_seconds=0.004), Kept(seconds=0.004)
    assert len(list(settled(machine, store, ITEMS, Room(4)))) == 24
    assert machine.most_reading == 4
    assert 1 < len(store.threads) <= WRITERS
    assert threading.get_ident() not in store.threads


@pytest.mark.parametrize("ahead", [1, 5])
def test_no_more_is_read_or_left_unwritten_than_was_said(ahead):
    machine, store = Machine(), Kept(seconds=0.003)
    most = 0
    for item in settled(machine, store, ITEMS, Room(ahead)):
        most = max(most, len(machine.read_items) - item.index - 1)
        assert len(machine.started) - len(store.put_items) <= BEHIND + 1
    assert most <= ahead + BEHIND + 3
    idle, slow = Machine(), Kept(seconds=0.1)
    run = settled(idle, slow, ITEMS[:12], Room(2))
    assert next(run).index == 0
    assert len(idle.started) <= BEHIND + 2
    slow.seconds = 0.0
    assert len(list(run)) == 11


def test_an_error_of_the_writing_thread_ends_the_run_and_nothing_later_is_stored():
    machine, store = Machine(), Kept(seconds=0.001, broken=5)
    run = settled(machine, store, ITEMS, Room(4))
    done = []
    with pytest.raises(LostStoreError, match="replaced by another run"):
        done += [item.index for item in run]
    assert store.put_items == list(range(5))
    assert len(machine.started) <= 5 + BEHIND + 3


def test_what_cannot_be_read_is_tried_three_times_and_spares_its_neighbours():
    machine, store = Machine(broken=(3,)), Kept()
    assert [item.index for item in settled(machine, store, ITEMS, Room(4))] == list(range(24))
    assert store.put_items == [index for index in range(24) if index != 3]
    assert store.failures == {3: "OSError: the disk is on fire"}
    assert machine.read_items.count(3) == 3


def test_an_interruption_leaves_what_was_computed_stored():
    machine, store = Machine(), Kept(seconds=0.002)
    run = settled(machine, store, ITEMS, Room(4))
    for item in run:
        if item.index == 7:
            break
    with pytest.raises(KeyboardInterrupt):
        run.throw(KeyboardInterrupt())
    assert store.put_items == machine.started
    assert machine.reading == 0


def test_how_far_reading_runs_ahead_follows_cores_and_memory(monkeypatch):
    settings = SimpleNamespace(superpixel_area=None, segments="none")
    plan = SimpleNamespace(geometry=SimpleNamespace(image_size=224), settings=settings)
    one = item_bytes(plan)
    assert 25e6 < one < 100e6
    monkeypatch.setattr(capacity, "cores", lambda: 16)
    monkeypatch.setattr(capacity, "memory", lambda: 128 * 2**30)
    assert Room.of(plan) == Room(64)
    assert Room.of(plan, threads=2) == Room(8)
    assert Room.of(plan, ahead=3) == Room(3)
    assert Room.of(plan, ahead=0) == Room(0)
    monkeypatch.setattr(capacity, "memory", lambda: 4 * 2**30)
    assert Room.of(plan).ahead == 4 * 2**30 // 8 // one
    settings.segments = "superpixels"  # of some tiles at a time
    assert Room.of(plan, threads=3).ahead == min(12, (4 * 2**30 // 8 - 3 * tile_bytes(plan)) // one)
    monkeypatch.setattr(capacity, "memory", lambda: 2**20)
    assert Room.of(plan) == Room(1)


def test_a_container_s_limit_of_memory_counts(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(capacity, "LIMITS", (str(limit), str(tmp_path / "none")))
    whole = capacity.memory()
    limit.write_text("max\n")
    assert capacity.memory() == whole
    limit.write_text("1048576\n")
    assert capacity.memory() == 2**20
    assert capacity.cores() >= 1


class _Counting(Tiled):
    """Segments a tile by its place, slowly, and counts how often."""

    def __init__(self, broken: bool = False) -> None:
        canvas = SimpleNamespace(height=64, width=64)
        super().__init__(canvas, tile=16, levels=1, kept=4)
        self.made: list[Rect] = []
        self.broken = broken

    def segment(self, core: Rect) -> np.ndarray:
        self.made.append(core)
        time.sleep(0.002)
        if self.broken:
            self.broken = False
            raise OSError("torn")
        return np.ones((1, core.height, core.width), dtype=np.int32)


def test_threads_that_ask_for_the_same_tiles_segment_each_once():
    source, rect, found = _Counting(), Rect(0, 0, 16, 64), []
    threads = [threading.Thread(target=lambda: found.append(source.ids(rect))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(core.col for core in source.made) == [0, 16, 32, 48]
    assert all(np.array_equal(ids, found[0]) for ids in found)
    assert len(np.unique(found[0])) == 4


def test_superpixels_compute_on_no_more_threads_than_were_said(monkeypatch):
    def read(_row: int, _col: int, height: int, width: int) -> Any:
        return np.zeros((height, width, 3), np.uint8), np.ones((height, width))

    canvas = SimpleNamespace(height=2048, width=2048, read=read)
    source, at, most, lock = Superpixels(canvas, (256,), threads=2), 0, 0, threading.Lock()

    def slowly(rgb: np.ndarray, area: int) -> np.ndarray:
        nonlocal at, most
        with lock:
            at += 1
            most = max(most, at)
        time.sleep(0.003)
        with lock:
            at -= 1
        return np.ones(rgb.shape[:2], dtype=np.int64)

    monkeypatch.setattr(source, "_slic", slowly)
    threads = [threading.Thread(target=source.ids, args=(Rect(0, 512 * n, 8, 512),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_a_tile_that_failed_is_tried_again():
    source = _Counting(broken=True)
    with pytest.raises(OSError, match="torn"):
        source.ids(Rect(0, 0, 16, 16))
    assert source.ids(Rect(0, 0, 16, 16)).all()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_model")
def test_superpixels_of_many_threads_give_the_same_bytes(tmp_path):
    import rasterio
    from rasterio.transform import from_origin

    random = np.random.default_rng(0)
    bands = random.integers(0, 255, (3, 8, 10)).repeat(70, axis=1).repeat(70, axis=2).astype(np.uint8)
    profile = {"count": 3, "height": 560, "width": 700, "dtype": "uint8", "crs": "EPSG:32633"}
    place = from_origin(5e5, 5e6, 10, 10)
    with rasterio.open(tmp_path / "scene.tif", "w", driver="GTiff", transform=place, **profile) as raster:
        raster.write(bands)
    rasters = []
    for number, options in enumerate(({"read_ahead": 0}, {"read_ahead": 6, "threads": 6})):
        result = resegeo.segment(
            tmp_path / "scene.tif",
            ["water", "forest"],
            tmp_path / str(number),
            segments="superpixels",
            vector=(),
            **options,
        )
        rasters.append(result.raster.read_bytes())
    assert rasters[0] == rasters[1]
