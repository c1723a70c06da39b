"""Schedulers and workers as they are in life: elsewhere, late, lost, interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import geopandas as gpd
import pytest
import rasterio
import shapely
import yaml

import resegeo
from resegeo.errors import InputNotice, ResegeoError, UsageError
from resegeo.run.clusters import Share, connect, local_workers, shared_out
from resegeo.run.executors import Task
from resegeo.run.pipeline import Room

WORDS = ["water", "forest", "road"]


@contextmanager
def started(*arguments: str, cwd: Path):
    """Run a command of dask until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler of its own process, its address, and a function that starts a worker in a folder."""
    note = tmp_path / "scheduler.json"
    told = ("scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(note))
    with started(*told, cwd=tmp_path) as process:
        until(lambda: note.exists() and note.read_text().endswith("}"))
        address = json.loads(note.read_text())["address"]

        def worker(folder: Path):
            folder.mkdir(exist_ok=True)
            quiet = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
            return started("worker", address, *quiet, cwd=folder)

        yield process, address, worker


def until(true, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path, make_raster, picture, monkeypatch):
    """A folder to stand in, with a scene, polygons, a model and a class file."""
    make_raster("scene.tif", picture(200, 260))
    with rasterio.open(tmp_path / "scene.tif") as raster:
        left, bottom, right, top = raster.bounds
        halves = [
            shapely.box(left, bottom, (left + right) / 2, top),
            shapely.box((left + right) / 2, bottom, right, top),
        ]
        gpd.GeoDataFrame(geometry=halves, crs=raster.crs).to_file(tmp_path / "parcels.gpkg")
    bundled = Path(resegeo.__file__).parent / "bundled/resegeo-small.safetensors"
    (tmp_path / "mine.safetensors").write_bytes(bundled.read_bytes())
    (tmp_path / "classes.yml").write_text(yaml.safe_dump({"classes": WORDS}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_stands_elsewhere_and_comes_late_computes_by_relative_paths(folder, scheduler, monkeypatch):
    given = {"stride": 64, "segments": "parcels.gpkg", "model": "mine.safetensors"}
    whole = resegeo.segment("scene.tif", WORDS, "whole", **given)
    _, address, worker = scheduler
    monkeypatch.setattr("resegeo.run.clusters.PATIENCE", 0.5)
    made, notes = [], []

    def run() -> None:
        import warnings

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InputNotice)
            made.append(resegeo.segment("scene.tif", WORDS, "out", cluster=address, **given))
        notes.extend(str(one.message) for one in caught)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: (folder / "out/scene.store.zarr/zarr.json").exists())
    time.sleep(3)
    with worker(folder / "elsewhere"):
        thread.join(120)
    assert made, "the run has not ended"
    assert any("No worker is connected to" in note and "waiting for one" in note for note in notes)
    assert made[0].raster.read_bytes() == whole.raster.read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_dies_is_a_sentence_and_the_run_can_be_continued(folder, scheduler):
    process, address, worker = scheduler
    marks = folder / "out/scene.store.zarr/marks/done"

    def kill() -> None:
        until(lambda: marks.exists() and any(marks.iterdir()))
        process.kill()

    with worker(folder / "elsewhere"):
        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(ResegeoError, match=r"scheduler of cluster is gone\. What is done is kept"):
            resegeo.segment("scene.tif", WORDS, "out", stride=8, cluster=address)
        killer.join()
    done = len(list(marks.iterdir()))
    assert done > 0
    again = resegeo.segment("scene.tif", WORDS, "out", stride=8)
    assert again.raster.read_bytes() == resegeo.segment("scene.tif", WORDS, "fresh", stride=8).raster.read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX's")
def test_ctrl_c_says_how_to_go_on_and_nothing_else(folder):
    """A terminal sends it to the workers too."""
    command = [sys.executable, "-m", "resegeo_cli", "segment", "scene.tif", "--stride", "6", "--cluster", "2"]
    command += ["--prompts", "classes.yml", "-o", "out"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What a shell runs in the background ignores the signal, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    marks = folder / "out/scene.store.zarr/marks/done"
    until(lambda: (marks.exists() and any(marks.iterdir())) or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    lines = [line for line in errors.splitlines() if not line.startswith("Note: ")]
    assert len(lines) == 1, errors
    assert "work items are done and kept" in lines[0]
    assert "The same command continues" in lines[0]


@pytest.mark.parametrize("said", ["nonsense", "0", "-1", "²", "two workers", "tcp//10.0.0.5:8786", ""])
def test_what_is_neither_a_number_nor_an_address_is_refused(said):
    with pytest.raises(UsageError, match="cluster"):
        local_workers(said)


@pytest.mark.parametrize("said", ["tcp://10.0.0.5:8786", "10.0.0.5:8786", "tls://host:8786/", "inproc://a/b/1"])
def test_an_address_is_taken_as_such(said):
    assert local_workers(said) is None


@pytest.mark.parametrize(
    ("gpus", "cores", "workers", "threads"),
    [(2, 16, 2, 8), (4, 16, 4, 4), (8, 6, 8, 1), (3, 16, 3, 5), (2, 1, 2, 1)],
)
def test_auto_is_one_worker_a_gpu_and_the_cores_are_shared_out(gpus, cores, workers, threads):
    assert shared_out(gpus, cores) == Share(workers, threads)


@pytest.mark.parametrize("gpus", [0, 1])
def test_with_fewer_than_two_gpus_auto_is_this_process(monkeypatch, gpus):
    assert shared_out(gpus, 64) is None
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert local_workers("auto") == 1
    with connect("auto") as client:
        assert client is None


@pytest.mark.parametrize("stretch", [4, 40])
def test_auto_asks_for_workers_of_two_streams_each_and_long_stretches(monkeypatch, stretch):
    import distributed

    asked = []

    @contextmanager
    def faked(**options):
        asked.append(options)
        yield None

    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr(distributed, "LocalCluster", faked)
    monkeypatch.setattr(distributed, "Client", lambda _: nullcontext())
    with connect("auto"):
        pass
    assert (asked[0]["n_workers"], asked[0]["threads_per_worker"]) == (4, 2)
    assert Task(None, "", None, None, None, "", Room(stretch // 2)).stretch == stretch
    assert Task(None, "", None, None, None, "").stretch == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_workers_that_read_ahead_give_the_same_bytes(tmp_path, make_raster, monkeypatch):
    import numpy as np

    bands = np.random.default_rng(0).integers(0, 255, (3, 300, 500)).astype(np.uint8)
    scene = make_raster("scene.tif", bands)
    whole = resegeo.segment(scene, WORDS, tmp_path / "whole", vector=(), stride=32)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)  # here alone: the workers find none, and take the CPU
    shared = resegeo.segment(scene, WORDS, tmp_path / "shared", vector=(), stride=32, cluster="auto")
    assert shared.raster.read_bytes() == whole.raster.read_bytes()
