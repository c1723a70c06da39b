"""One plan, several executors, the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from stores import header
from test_store import bytes_of

import resegeo
from resegeo.errors import ResegeoError, UsageError
from resegeo.run.executors import Task, _Shares, run_on_cluster
from resegeo.run.store import ItemResult, Store

WORDS = ["water", "forest", "road"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A scene of some items, its class file, and the files of a run in this process alone."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    folder = tmp_path_factory.mktemp("whole")
    random = np.random.default_rng(0)
    bands = random.integers(0, 255, (3, 8, 10)).repeat(40, axis=1).repeat(40, axis=2).astype(np.uint8)
    profile = {"count": 3, "height": 320, "width": 400, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", transform=from_origin(5e5, 5e6, 10, 10), **profile
    ) as raster:
        raster.write(bands)
    (folder / "classes.yml").write_text(yaml.safe_dump({"classes": WORDS}))
    result = resegeo.segment(folder / "scene.tif", WORDS, folder / "out", stride=32, read_ahead=0)
    return folder, bytes_of(result)


@pytest.mark.parametrize(
    "options",
    [
        {"read_ahead": 3},
        pytest.param({"read_ahead": 1}, marks=pytest.mark.slow),
        pytest.param({"threads": 1}, marks=pytest.mark.slow),
        {"keep_features": False},
    ],
)
def test_threads_that_read_ahead_give_the_same_bytes(tmp_path, whole, options):
    folder, expected = whole
    assert bytes_of(resegeo.segment(folder / "scene.tif", WORDS, tmp_path / "out", stride=32, **options)) == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_local_workers_give_the_same_bytes(tmp_path, whole, workers):
    folder, expected = whole
    result = resegeo.segment(folder / "scene.tif", WORDS, tmp_path / "out", stride=32, cluster=workers)
    assert bytes_of(result) == expected


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("workers", [["a"], ["a", "b"], ["a", "b", "c"], [""]])
def test_every_item_is_handed_out_once_and_neighbours_stay_together(workers, most):
    items = list(range(0, 80, 2))
    shares, taken = _Shares(items), {worker: [] for worker in workers}
    for turn in range(1000):
        worker = workers[turn % len(workers)]
        if not (part := shares.take(worker, workers, most)):
            break
        assert len(part) <= most
        taken[worker] += part
    assert sorted(item for own in taken.values() for item in own) == items
    # A worker jumps where it takes over from another, and goes from neighbour to neighbour otherwise.
    jumps = sum(after - before != 2 for own in taken.values() for before, after in pairwise(own))
    assert jumps <= 4 * (len(workers) - 1)
    assert not any(shares.take(worker, workers) for worker in workers)


def test_a_worker_that_is_gone_or_late_leaves_no_item_behind():
    shares = _Shares(range(20))
    first = [shares.take("", [])[0] for _ in range(4)]  # before any worker is there
    second = [shares.take(name, ["a", "b"])[0] for name in ("a", "b") for _ in range(3)]
    rest = []
    while part := shares.take("c", ["a", "c"], 2):  # b is gone, a is slow
        rest += part
    assert first == [0, 1, 2, 3]
    assert sorted([*first, *second, *rest]) == list(range(20))


class _Dying:
    """Stands in for a client whose workers die at one item, whatever it comes with."""

    def __init__(self, store, poison):
        self.store, self.poison, self.orders = store, poison, []

    def scheduler_info(self, n_workers):
        return {"workers": {"a": {"nthreads": 1}, "b": {"nthreads": 1}}}

    def submit(self, function, order, part, **_):
        from concurrent.futures import Future

        self.orders.append(part)
        future = Future()
        before = part[: part.index(self.poison)] if self.poison in part else part
        for index in before:
            self.store.put(index, ItemResult(np.array([False]), {}))
        if self.poison in part:
            future.set_exception(RuntimeError("killed"))
        else:
            future.set_result(None)
        return future


def test_an_item_that_kills_workers_is_told_from_its_neighbours(tmp_path, monkeypatch):
    import resegeo.run.executors

    url = str(tmp_path / "a.store.zarr")
    store = Store.create(url, header(64))
    client = _Dying(store, 13)
    monkeypatch.setattr(resegeo.run.executors, "finished", lambda _, alive: iter(lambda: next(iter(alive), None), None))
    ticks = []
    task = Task(None, url, None, None, None, "")
    run_on_cluster(client, task, range(64), lambda: ticks.append(1))
    assert store.failed() == {13: "RuntimeError: killed"}
    assert store.done() == set(range(64)) - {13}
    assert len(ticks) == 64
    assert max(map(len, client.orders)) == 4


@pytest.mark.parametrize("workers", [["a"], ["a", "b"], ["a", "b", "c", "d"]])
def test_a_worker_that_fails_at_all_it_is_given_costs_no_item_where_there_is_another(tmp_path, monkeypatch, workers):
    import resegeo.run.executors

    store = Store.create(str(tmp_path / "a.store.zarr"), header(64))
    done: list[int] = []

    class Client:
        def scheduler_info(self, n_workers):
            return {"workers": {name: {"nthreads": 1} for name in workers}}

        def submit(self, function, order, part, *, workers, **_):
            from concurrent.futures import Future

            future = Future()
            if workers == ["a"]:
                future.set_exception(RuntimeError("this device is broken"))
            else:
                done.extend(part)
                future.set_result(None)
            return future

    monkeypatch.setattr(resegeo.run.executors, "finished", lambda _, alive: iter(lambda: next(iter(alive), None), None))
    ticks = []
    task = Task(None, store.url, None, None, None, "")
    run_on_cluster(Client(), task, range(64), lambda: ticks.append(1))
    assert len(ticks) == 64
    assert sorted(done) == ([] if workers == ["a"] else list(range(64)))
    assert len(store.failed()) == (64 if workers == ["a"] else 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_costs_its_items_only(tmp_path, whole):
    folder, expected = whole
    command = [sys.executable, "-m", "resegeo_cli", "segment", str(folder / "scene.tif"), "--stride", "32"]
    command += ["--prompts", str(folder / "classes.yml"), "-o", str(tmp_path / "out"), "--cluster", "2", "-q"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    marks = tmp_path / "out/scene.store.zarr/marks/done"
    killed = []

    def kill() -> None:
        while process.poll() is None and not killed:
            if marks.exists() and list(marks.iterdir()):
                for line in Path("/proc").glob("[0-9]*/status"):
                    try:
                        text = line.read_text()
                        words = (line.parent / "cmdline").read_bytes()
                    except OSError:
                        continue
                    if b"spawn_main" in words and f"PPid:\t{process.pid}\n" in text:
                        os.kill(int(line.parent.name), signal.SIGKILL)
                        killed.append(line.parent.name)
                        return
            time.sleep(0.01)

    if not Path("/proc").exists():
        pytest.skip("finds the workers by /proc")
    killer = threading.Thread(target=kill)
    killer.start()
    _, errors = process.communicate(timeout=300)
    killer.join()
    assert killed
    assert process.returncode == 0, errors
    assert bytes_of(resegeo.Segmentation.open(tmp_path / "out")) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_existing_scheduler_computes_with_one_worker(tmp_path, whole):
    from distributed import LocalCluster

    folder, expected = whole
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        result = resegeo.segment(
            folder / "scene.tif", WORDS, tmp_path / "out", stride=32, cluster=cluster.scheduler_address
        )
    assert bytes_of(result) == expected


def test_a_scheduler_that_is_not_there_is_a_sentence(tmp_path, whole, monkeypatch):
    import resegeo.run.clusters

    monkeypatch.setattr(resegeo.run.clusters, "CONNECT", "1s")
    with pytest.raises(ResegeoError, match="no scheduler answers there"):
        resegeo.segment(whole[0] / "scene.tif", WORDS, tmp_path / "out", cluster="tcp://127.0.0.1:9")


def test_an_array_cannot_go_to_other_processes(whole):
    import rioxarray

    with pytest.raises(UsageError, match="give a path instead of an array"):
        resegeo.segment(rioxarray.open_rasterio(whole[0] / "scene.tif"), WORDS, cluster=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_store_behind_an_object_storage_url_gives_the_same_bytes_and_new_words(tmp_path, whole, monkeypatch):
    """An S3 server of the test's own, on the loopback address; local workers write straight to it."""
    server_module = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    folder, expected = whole
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem(endpoint_url=address).mkdir("bucket")
        result = resegeo.segment(
            folder / "scene.tif", WORDS, tmp_path / "out", stride=32, store="s3://bucket/stores", cluster=2
        )
        assert bytes_of(result) == expected
        assert json.loads(result.report.read_text("utf-8"))["store"] == "s3://bucket/stores/scene.store.zarr"
        again = resegeo.segment("s3://bucket/stores/scene.store.zarr", WORDS, tmp_path / "again")
        assert again.raster.read_bytes() == result.raster.read_bytes()
        with pytest.raises(UsageError, match="name a folder for the results by output"):
            resegeo.segment("s3://bucket/stores/scene.store.zarr", WORDS)
    finally:
        server.stop()


def test_a_store_that_cannot_be_reached_is_a_sentence(tmp_path, whole, monkeypatch):
    monkeypatch.setattr("resegeo.run.store_place.PAUSES", (0.0, 0.0, 0.0))
    with pytest.raises(UsageError, match="there is no protocol 'nosuchprotocol'"):
        resegeo.segment(whole[0] / "scene.tif", WORDS, tmp_path / "out", store="nosuchprotocol://bucket")
    with pytest.raises(ResegeoError, match="cannot be"):
        resegeo.segment(whole[0] / "scene.tif", WORDS, tmp_path / "out", store="http://127.0.0.1:9/bucket")


@pytest.mark.slow
def test_workers_that_live_on_see_a_replaced_scene_and_a_replaced_store(tmp_path, make_raster, picture):
    from distributed import Client, LocalCluster

    words = ["water", "forest", "road"]
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        for seed in (1, 2):
            scene = make_raster("scene.tif", picture(200, 200, seed=seed))
            found = resegeo.segment(scene, words, tmp_path / "out", cluster=client, overwrite=True)
            fresh = resegeo.segment(scene, words, tmp_path / f"fresh{seed}")
            assert found.raster.read_bytes() == fresh.raster.read_bytes()
        shutil.rmtree(tmp_path / "out")  # the store alone is another one now
        found = resegeo.segment(scene, words, tmp_path / "out", cluster=client)
        assert found.raster.read_bytes() == fresh.raster.read_bytes()
