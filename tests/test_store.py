"""The store: what it gives back, what a killed, failed or changed run leaves, and new words for a finished scene."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from stores import header

import resegeo
from resegeo.errors import InputNotice, ResegeoError, UsageError
from resegeo.files import alone
from resegeo.run.quantisation import quantise, restore
from resegeo.run.store import ItemResult, LostStoreError, Store
from resegeo.run.store_removal import UnusableStoreError, remove
from resegeo.scene.windows import blocks

pytestmark = pytest.mark.usefixtures("quick_model")

WORDS = ["water", "forest", "road"]
OTHER = ["grass", "building", {"name": "wet", "prompts": ["lake", "river"]}, "sand"]


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read(1)


def bytes_of(result: resegeo.Segmentation) -> dict[str, bytes]:
    """Every file of a run but the report, sidecars included; the report without dates, timings and counts of runs.

    Project and STAC item are left out: they name the scene as seen from the results, which may lie anywhere.
    """
    folder = result.raster.parent
    stem = result.report.stem
    places = (".json", ".qgz")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix not in places}
    report = json.loads((folder / f"{stem}.json").read_text("utf-8"))
    for key in ("started", "seconds", "modified", "store"):
        del report[key]
    report["files"] = {name: mark for name, mark in report["files"].items() if not name.endswith(places)}
    return files | {"report": json.dumps(report, sort_keys=True).encode()}


def ones(windows: int) -> dict[str, np.ndarray]:
    """What so many windows of a store of tests/stores.py may leave behind."""
    return {"features": np.ones((windows, 2, 2, 5), np.float16), "cls": np.ones((windows, 5), np.float16)}


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(300, 420))


def test_a_store_gives_back_what_was_put_and_knows_what_is_done(tmp_path):
    url = str(tmp_path / "a.store.zarr")
    numbers = np.random.default_rng(0)
    store = Store.create(url, header(4, prompts=3, segments=True))
    flags = np.array([True, False, True])
    values = {
        "reduced": numbers.normal(size=(2, 7, 2, 2)).astype(np.float32),
        "cls": numbers.normal(size=(2, 3)).astype(np.float32),
        "segments": np.arange(32).reshape(2, 4, 4),
    }
    store.put(1, ItemResult(flags, values, halved=True))
    store.put(2, ItemResult(np.array([False]), {}))
    store.fail(3, "it broke")
    again = Store.open(url)
    assert again is not None
    assert (again.done(), again.failed(), again.items) == ({1, 2}, {3: "it broke"}, 4)
    assert again.counts() == (2, 2, 1)
    assert again.header == store.header
    assert again.get(0) is None
    assert again.get(3) is None
    found = again.get(1)
    assert found is not None
    assert np.array_equal(found.windows, flags)
    assert all(np.array_equal(found.values[name], values[name]) for name in values)
    again.put(3, ItemResult(flags, values))
    assert again.failed() == {}


def test_marks_behind_a_url_are_read_together(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    url = "memory://bucket/a.store.zarr"
    store = Store.create(url, header(5))
    for index, flags in enumerate(([True, False], [False, False], [True, True])):
        store.put(index, ItemResult(np.array(flags), ones(sum(flags))))
    store.fail(3, "it broke")
    asked = []
    cat = MemoryFileSystem.cat
    monkeypatch.setattr(MemoryFileSystem, "cat", lambda self, path, **k: asked.append(path) or cat(self, path, **k))
    assert store.counts() == (3, 3, 0)
    assert store.failed() == {3: "it broke"}
    assert [len(paths) for paths in asked] == [3, 1]
    remove(url)
    assert Store.open(url) is None


@pytest.mark.parametrize("kept", [{"dtype": "float16"}, {"dtype": "int8"}, {"prompts": 2, "segments": True}])
def test_an_item_of_zeros_is_told_from_one_that_was_lost(tmp_path, kept):
    """Zarr answers for a chunk that is not there as if it had been full of one value."""
    url = str(tmp_path / "a.store.zarr")
    store = Store.create(url, header(2, **kept))
    for index in range(2):
        values = {
            name: np.full((1, *spec.shape[2:]), index, spec.dtype)
            for name, spec in store.header.layout.item_arrays().items()
        }
        store.put(index, ItemResult(np.array([True]), values))
    next((tmp_path / "a.store.zarr/cls/c/1").rglob("0")).joinpath("0").unlink()
    again = Store.open(url)
    assert again is not None
    assert again.done() == {0, 1}
    assert (again.get(0).values["cls"] == 0).all()
    with pytest.raises(ResegeoError, match="is damaged: work item 1"):
        again.get(1)
    assert again.done() == {0}


def test_what_a_killed_process_left_half_written_does_not_count_and_is_swept(tmp_path):
    folder = tmp_path / "a.store.zarr"
    Store.create(str(folder), header(2))
    (folder / "marks/done").mkdir(parents=True)
    (folder / "marks/done/.0.0123456789abcdef.tmp").write_text("1")
    (folder / "cls/c/0").mkdir(parents=True)
    (folder / f"cls/c/0/0.{'7' * 32}.partial").write_bytes(b"xx")
    store = Store.open(str(folder), sweep=True)
    assert store is not None
    assert store.done() == set()
    assert not list(folder.rglob("*.tmp")) + list(folder.rglob("*.partial"))
    document = json.loads((folder / "zarr.json").read_text("utf-8"))
    for key in ("facts", "sha256"):  # written last
        del document["attributes"]["resegeo"][key]
    (folder / "zarr.json").write_text(json.dumps(document))
    assert Store.open(str(folder)) is None


def test_int8_features_are_off_by_at_most_half_a_step(tmp_path):
    features = np.random.default_rng(0).normal(size=(3, 4, 4, 32)).astype(np.float32)
    features[0, 0, 0] = 0
    kept = quantise(features, "int8")
    assert kept["features"].nbytes * 4 == features.nbytes
    step = np.abs(features).max(axis=-1, keepdims=True) / 127
    assert (np.abs(restore(kept) - features) <= 0.51 * step + 1e-6).all()
    assert np.array_equal(restore(quantise(features, "float16")), features.astype(np.float16).astype(np.float32))


@pytest.mark.model
def test_int8_features_change_few_labels(tmp_path):
    demo = Path(__file__).parents[1] / "examples/demo/sentinel2.tif"
    words = ["water", "wetland", "forest", "cropland", "bare soil", "building"]
    made = [
        read(resegeo.segment(demo, words, tmp_path / kind, feature_dtype=kind, vector=()).raster)
        for kind in ("float16", "int8")
    ]
    assert 0.99 < (made[0] == made[1]).mean() < 1


def test_new_words_equal_a_fresh_run_and_need_neither_scene_nor_pixels(tmp_path, make_raster, picture):
    bands = np.maximum(picture(300, 420), 1)
    bands[:, 100:150, 200:300] = 0
    scene = make_raster("scene.tif", bands, nodata=0)
    resegeo.segment(scene, WORDS, tmp_path / "out", vote_segments=True)
    (tmp_path / "other.yml").write_text(yaml.safe_dump({"classes": OTHER}))
    fresh = resegeo.segment(scene, tmp_path / "other.yml", tmp_path / "fresh", vote_segments=True)
    scene.rename(tmp_path / "moved.tif")
    again = resegeo.segment(tmp_path / "out/scene.store.zarr", tmp_path / "other.yml")
    assert again.raster == tmp_path / "out/scene.other.classes.tif"
    assert again.raster.read_bytes() == fresh.raster.read_bytes()
    assert again.picture.read_bytes() == fresh.picture.read_bytes()
    names = [path.name for path in again.files()]
    assert names == [
        "scene.other.classes.tif",
        "scene.other.gpkg",
        "scene.other.png",
        "scene.other.qgz",
        "scene.other.stac.json",
        "scene.other.areas.csv",
        "scene.other.json",
    ]
    assert resegeo.segment(tmp_path / "out/scene.store.zarr", tmp_path / "other.yml").reused
    without = resegeo.segment(tmp_path / "out/scene.store.zarr", OTHER, tmp_path / "free", vote_segments=False)
    assert (read(without.raster) != read(again.raster)).any()


def test_a_relabelled_scene_keeps_its_place_whatever_its_georeference(tmp_path):
    from test_situations import SITUATIONS

    for name in ("rotated", "gcps", "nothing", "dateline", "float with nan", "palette"):
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        with pytest.warns() if name in ("nothing", "gcps") else _quiet():
            scene = SITUATIONS[name](folder)
            first = resegeo.segment(scene, WORDS, folder / "out")
            again = resegeo.segment(folder / "out/scene.store.zarr", WORDS)
        assert again.raster.name == "scene.words.classes.tif"
        assert again.raster.read_bytes() == first.raster.read_bytes()


def _quiet():
    import contextlib
    import warnings

    stack = contextlib.ExitStack()
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    return stack


def test_what_is_fixed_in_a_store_cannot_be_asked_of_it(tmp_path, scene):
    store = tmp_path / "out/scene.store.zarr"
    resegeo.segment(scene, WORDS, tmp_path / "out", keep_features=False)
    with pytest.raises(UsageError, match="gsd, stride: fixed in"):
        resegeo.segment(store, WORDS, stride=32, gsd=3.0)
    with pytest.raises(ResegeoError, match="holds scores of other words and no features"):
        resegeo.segment(store, OTHER)
    with pytest.raises(UsageError, match="vote_segments=True needs segments"):
        resegeo.segment(store, WORDS, vote_segments=True)
    with pytest.raises(ResegeoError, match="is no store of resegeo"):
        resegeo.segment(tmp_path / "none.store.zarr", WORDS)
    group = resegeo.segment(store, [{"name": "all", "prompts": ["forest", "water"]}, "road"])
    assert set(np.unique(read(group.raster))) <= {1, 2}


def test_an_unfinished_store_says_how_to_finish_it(tmp_path, scene, monkeypatch):
    _interrupt_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt, match=r"2 of \d work items are done .* The same command continues"):
        resegeo.segment(scene, WORDS, tmp_path / "out", stride=32)
    with pytest.raises(ResegeoError, match=r"is not finished: 2 of .* continues"):
        resegeo.segment(tmp_path / "out/scene.store.zarr", OTHER)


def _interrupt_after(monkeypatch, items: int) -> None:
    """Let a run be interrupted once so many items are stored."""
    mark, done = Store.mark, []

    def interrupting(self, index, sealed):
        if len(done) == items:
            raise KeyboardInterrupt
        mark(self, index, sealed)
        done.append(index)

    monkeypatch.setattr(Store, "mark", interrupting)


def test_an_interrupted_run_goes_on_where_it_stopped_and_ends_with_the_same_bytes(tmp_path, scene, monkeypatch):
    whole = bytes_of(resegeo.segment(scene, WORDS, tmp_path / "whole", stride=32))
    with monkeypatch.context() as patch:
        _interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            resegeo.segment(scene, WORDS, tmp_path / "out", stride=32)
    seen = []
    resumed = resegeo.segment(
        scene, WORDS, tmp_path / "out", stride=32, progress=lambda stage, done, total: seen.append((stage, done))
    )
    assert min(done for stage, done in seen if stage == "windows") == 4
    assert bytes_of(resumed) == whole


@pytest.mark.parametrize(
    ("first", "words", "then"),
    [
        ({"keep_features": False}, ["road", "water", "forest"], {"keep_features": False}),
        ({"keep_features": False}, ["road", "water"], {}),
        ({"vote_segments": True}, WORDS, {}),
    ],
    ids=["reordered", "fewer", "no_votes"],
)
def test_an_interrupted_run_goes_on_with_what_its_store_keeps(tmp_path, scene, monkeypatch, first, words, then):
    """Words in another order, fewer, no voting any more: the store holds the first run's, and goes on getting them."""
    with monkeypatch.context() as patch:
        _interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            resegeo.segment(scene, WORDS, tmp_path / "out", segments="none", **first)
    resumed = resegeo.segment(scene, words, tmp_path / "out", segments="none", **then)
    fresh = resegeo.segment(scene, words, tmp_path / "fresh", segments="none", **then)
    assert bytes_of(resumed) == bytes_of(fresh)


def test_a_changed_scene_model_or_option_is_named_and_never_mixed(tmp_path, make_raster, picture, scene, monkeypatch):
    with monkeypatch.context() as patch:
        _interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            resegeo.segment(scene, WORDS, tmp_path / "out", stride=32)
    with pytest.raises(ResegeoError, match=r"different: .*stride \(32 → 48\)"):
        resegeo.segment(scene, WORDS, tmp_path / "out", stride=48)
    make_raster("scene.tif", picture(300, 420, seed=5))
    with pytest.raises(ResegeoError, match="different: scene"):
        resegeo.segment(scene, WORDS, tmp_path / "out", stride=32)
    result = resegeo.segment(scene, WORDS, tmp_path / "out", stride=32, overwrite=True)
    fresh = resegeo.segment(scene, WORDS, tmp_path / "fresh", stride=32)
    assert bytes_of(result) == bytes_of(fresh)


def _stages(monkeypatch) -> list[str]:
    """Note which costly stages run."""
    import resegeo.outputs.polygons
    import resegeo.run.execution
    from resegeo.run.compute import Machine

    ran: list[str] = []

    def noting(name, function):
        def run(*args, **kwargs):
            ran.append(name)
            return function(*args, **kwargs)

        return run

    monkeypatch.setattr(Machine, "start", noting("image", Machine.start))
    monkeypatch.setattr(resegeo.run.execution, "label_scene", noting("labels", resegeo.run.execution.label_scene))
    monkeypatch.setattr(resegeo.outputs.polygons, "draw", noting("polygons", resegeo.outputs.polygons.draw))
    return ran


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"threshold": 0.5}, {"labels", "polygons"}),
        ({"reduction": "mean"}, {"labels", "polygons"}),
        ({"subtract_cls": 0.5}, {"labels", "polygons"}),
        ({"taper": False}, {"labels", "polygons"}),
        ({"only": ["water"]}, {"labels", "polygons"}),
        ({"classes": [{"name": "water", "color": "#ff0000"}, "forest", "road"]}, {"labels", "polygons"}),
        ({"classes": OTHER}, {"labels", "polygons"}),
        ({"simplify": 1.0}, {"polygons"}),
        ({"vector": ("gpkg", "fgb")}, {"polygons"}),
        ({"stride": 96}, {"image", "labels", "polygons"}),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, dict | set) else str(value),
)
def test_a_change_recomputes_nothing_above_its_stage_and_gives_what_a_fresh_run_gives(
    tmp_path, scene, monkeypatch, change, stages
):
    options = dict(change)
    words = options.pop("classes", WORDS)
    options["segments"] = "none"
    resegeo.segment(scene, WORDS, tmp_path / "out", segments="none")
    with pytest.raises(ResegeoError, match="Pass overwrite"):
        resegeo.segment(scene, words, tmp_path / "out", **options)
    with monkeypatch.context() as patch:
        ran = _stages(patch)
        result = resegeo.segment(scene, words, tmp_path / "out", overwrite=True, **options)
    assert set(ran) == stages
    fresh = resegeo.segment(scene, words, tmp_path / "fresh", **options)
    assert bytes_of(result) == bytes_of(fresh)


def test_failed_items_are_marked_recorded_and_retried_alone(tmp_path, scene, monkeypatch):
    from click.testing import CliRunner

    from resegeo.run.compute import Machine
    from resegeo_cli.main import main

    (tmp_path / "classes.yml").write_text(yaml.safe_dump({"classes": WORDS}))
    command = ["segment", str(scene), "--prompts", str(tmp_path / "classes.yml"), "--stride", "128"]
    read_item, tries = Machine.read, []

    def broken(self, item):
        if item.index == 0:
            tries.append(1)
            raise OSError("the disk is on fire")
        return read_item(self, item)

    wide = ["--overlap", "0"]
    command = command[:-2] + wide
    import resegeo.scene.windows

    monkeypatch.setattr(resegeo.scene.windows, "ITEM_SIDE", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Machine, "read", broken)
        result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "out")])
    assert result.exit_code == 3, result.output
    assert len(tries) == 3
    assert "4 windows or blocks failed" in result.stderr
    codes = read(tmp_path / "out/scene.classes.tif")
    # Item 0 is the upper left 2 x 2 windows; what the clamped windows of other items cover has labels.
    assert (codes[:128, :256] == 254).all()
    assert set(np.unique(codes[256:])) <= {1, 2, 3}
    report = json.loads((tmp_path / "out/scene.json").read_text("utf-8"))
    assert report["windows"]["failed"] == 4
    assert report["failures"][0]["reason"] == "OSError: the disk is on fire"
    assert report["failures"][0]["rows"][0] == 0
    with monkeypatch.context() as patch:
        ran = _stages(patch)
        result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert ran.count("image") == 1
    fresh = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "fresh")])
    assert fresh.exit_code == 0
    assert np.array_equal(read(tmp_path / "out/scene.classes.tif"), read(tmp_path / "fresh/scene.classes.tif"))


def test_a_batch_too_large_for_the_device_is_halved_and_that_is_recorded(tmp_path, scene, monkeypatch):
    from resegeo.clip.encoder import Encoder

    whole = resegeo.segment(scene, WORDS, tmp_path / "whole", vector=())
    start = Encoder.start_windows

    def small(self, rgb, *args, **kwargs):
        if len(rgb) > 5:
            raise torch.OutOfMemoryError("no memory")
        return start(self, rgb, *args, **kwargs)

    monkeypatch.setattr(Encoder, "start_windows", small)
    halved = resegeo.segment(scene, WORDS, tmp_path / "halved", vector=())
    assert json.loads(halved.report.read_text("utf-8"))["batches_halved"] > 0
    assert (read(whole.raster) == read(halved.raster)).mean() > 0.9999


def test_features_too_large_are_not_kept_unless_asked_for(tmp_path, scene, monkeypatch):
    monkeypatch.setattr("resegeo.run.plan.FEATURE_BUDGET", 1000)
    with pytest.warns(InputNotice, match="are not kept: other words will need a new pass"):
        resegeo.segment(scene, WORDS, tmp_path / "small", vector=())
    assert Store.open(str(tmp_path / "small/scene.store.zarr")).header.features is False
    resegeo.segment(scene, WORDS, tmp_path / "kept", vector=(), keep_features=True)
    assert Store.open(str(tmp_path / "kept/scene.store.zarr")).header.features is True
    assert read(tmp_path / "small/scene.classes.tif").tobytes() == read(tmp_path / "kept/scene.classes.tif").tobytes()
    gone = resegeo.segment(scene, WORDS, tmp_path / "gone", vector=(), discard_store=True)
    assert not list(gone.raster.parent.glob("*.store.zarr"))


def test_a_full_disk_is_said_before_the_work(tmp_path, scene, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 10))
    with pytest.raises(ResegeoError, match=r"only 0\.0 GB are free"):
        resegeo.segment(scene, WORDS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.model
def test_the_size_of_a_work_item_changes_next_to_no_label(tmp_path, scene, monkeypatch):
    usual = read(resegeo.segment(scene, WORDS, tmp_path / "usual", vector=(), stride=32).raster)
    monkeypatch.setattr("resegeo.scene.windows.ITEM_SIDE", 3)
    other = read(resegeo.segment(scene, WORDS, tmp_path / "other", vector=(), stride=32).raster)
    assert (usual == other).mean() >= 0.99999


@pytest.mark.parametrize("size", [64, pytest.param(200, marks=pytest.mark.slow), 1024])
def test_the_size_of_an_output_block_changes_no_byte(tmp_path, scene, monkeypatch, size):
    usual = resegeo.segment(scene, WORDS, tmp_path / "usual", stride=32)
    monkeypatch.setattr("resegeo.run.labelling.blocks", lambda height, width: blocks(height, width, size))
    other = resegeo.segment(scene, WORDS, tmp_path / "other", stride=32)
    assert bytes_of(other) == bytes_of(usual)


def test_threads_that_ask_for_the_same_item_read_it_once(tmp_path, scene, monkeypatch):
    """Neighbouring blocks share items; reading and reducing one for each of them would take most of the time."""
    resegeo.segment(scene, WORDS, tmp_path / "out", vector=(), stride=32)
    read = []
    get = Store.get
    monkeypatch.setattr(Store, "get", lambda self, index: read.append(index) or get(self, index))
    monkeypatch.setattr("resegeo.run.labelling.blocks", lambda height, width: blocks(height, width, 64))
    resegeo.segment(tmp_path / "out/scene.store.zarr", OTHER, vector=(), threads=4)
    assert sorted(read) == list(range(max(read) + 1))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(tmp_path, make_raster, picture):
    """In small; tests/kill_test.py does it at twenty moments over two hundred items."""
    scene = make_raster("scene.tif", picture(480, 480))
    (tmp_path / "classes.yml").write_text(yaml.safe_dump({"classes": WORDS}))
    command = [sys.executable, "-m", "resegeo_cli", "segment", str(scene), "--prompts", str(tmp_path / "classes.yml")]
    command += ["--stride", "44", "--segments", "none", "-q"]
    subprocess.run([*command, "-o", str(tmp_path / "whole")], check=True, capture_output=True)
    items = len(list((tmp_path / "whole/scene.store.zarr/marks/done").iterdir()))
    assert items >= 6
    marks = tmp_path / "out/scene.store.zarr/marks/done"
    for wanted, pause in ((items // 2, 0.1), (items, 0.2)):
        process = subprocess.Popen(
            [*command, "-o", str(tmp_path / "out")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and (not marks.exists() or len(list(marks.iterdir())) < wanted):
            time.sleep(0.005)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL  # it was not done before
    subprocess.run([*command, "-o", str(tmp_path / "out")], check=True, capture_output=True)
    results = []
    for folder in ("whole", "out"):
        out = tmp_path / folder
        assert not [path for path in out.iterdir() if path.name.startswith(".tmp")]
        results.append(bytes_of(resegeo.Segmentation.open(out)))
    assert results[0] == results[1]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }


def test_a_store_whose_removal_was_cut_short_counts_as_none(tmp_path, scene, monkeypatch):
    from resegeo.run.store_place import _Folder

    first = resegeo.segment(scene, WORDS, tmp_path).raster.read_bytes()
    url = tmp_path / "scene.store.zarr"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_Folder, "remove", killed)  # before the first chunk
        with pytest.raises(KeyboardInterrupt):
            remove(str(url))
    assert len(list((url / "marks/done").iterdir())) == 2
    assert Store.open(str(url)) is None
    assert resegeo.segment(scene, WORDS, tmp_path, overwrite=True).raster.read_bytes() == first
    assert Store.open(str(url)).is_finished()


def test_a_store_that_cannot_be_reached_or_used_is_never_replaced_unasked(tmp_path, scene, monkeypatch):
    resegeo.segment(scene, WORDS, tmp_path / "out").report.unlink()
    file = tmp_path / "out/scene.store.zarr/zarr.json"
    text = file.read_text("utf-8")

    def stale(*_, **__):
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("resegeo.run.store_place._Folder.header", stale)
        for overwrite in (False, True):
            with pytest.raises(ResegeoError, match=r"cannot be opened .*Stale file handle.* Nothing was changed"):
                resegeo.segment(scene, WORDS, tmp_path / "out", stride=32, overwrite=overwrite)
    for damage, what in (
        (text.replace('"height": 300', '"height": 301'), "is damaged"),
        (text.replace('"format": 3', '"format": 2'), "another version"),
    ):
        assert damage != text
        file.write_text(damage)
        with pytest.raises(UnusableStoreError, match=rf"{what}.* overwrite=True to make it anew"):
            resegeo.segment(scene, WORDS, tmp_path / "out", stride=32)
        assert file.read_text("utf-8") == damage
    resegeo.segment(scene, WORDS, tmp_path / "out", stride=32, overwrite=True)
    assert json.loads(file.read_text("utf-8"))["attributes"]["resegeo"]["format"] == 3


@pytest.mark.parametrize(
    ("part", "lost"),
    [
        ("features/c/0/0/0/0/0", False),
        ("features/c/0/0/0/0/0", True),
        ("cls/c/0/0/0", True),
        ("marks/done/0", False),
        ("marks/done/0", True),
        ("valid/c/0/0", True),
    ],
)
def test_a_damaged_store_is_told_and_what_it_lacks_computed_anew(tmp_path, scene, monkeypatch, part, lost):
    """A copy of a store that was cut off lacks files, or ends within one: never are these zeros."""
    whole = resegeo.segment(scene, WORDS, tmp_path / "out")
    expected = bytes_of(whole)
    fresh = resegeo.segment(tmp_path / "out/scene.store.zarr", OTHER, tmp_path / "fresh").raster.read_bytes()
    damaged = tmp_path / "out/scene.store.zarr" / part
    if lost:
        damaged.unlink()
    else:
        damaged.write_bytes(b"")
    told = (
        "is not finished: 1 of 2" if part.startswith("marks") and lost else "is damaged: .*again with the same options"
    )
    with pytest.raises(ResegeoError, match=told):
        resegeo.segment(tmp_path / "out/scene.store.zarr", OTHER)
    with pytest.raises(ResegeoError, match="is not finished"):
        resegeo.segment(tmp_path / "out/scene.store.zarr", OTHER)
    with monkeypatch.context() as patch:
        ran = _stages(patch)
        again = resegeo.segment(scene, WORDS, tmp_path / "out")
    assert ran.count("image") == (not part.startswith("valid"))
    assert bytes_of(again) == expected
    assert resegeo.segment(scene, WORDS, tmp_path / "out").reused
    assert resegeo.segment(tmp_path / "out/scene.store.zarr", OTHER).raster.read_bytes() == fresh


def test_a_run_whose_store_is_replaced_stops_instead_of_mixing(tmp_path):
    url = str(tmp_path / "a.store.zarr")
    result = ItemResult(np.array([True]), ones(1))
    first = Store.create(url, header(2))
    first.put(0, result)
    second = Store.create(url, header(2))
    for write in (lambda: first.put(1, result), lambda: first.fail(1, "why")):
        with pytest.raises(LostStoreError, match="was replaced or removed by another run"):
            write()
    assert second.done() == set()
    assert second.failed() == {}
    second.put(1, result)
    remove(url)
    with pytest.raises(LostStoreError):
        second.put(0, result)


def test_two_runs_never_write_to_one_folder_at_a_time(tmp_path, scene, monkeypatch):
    import threading

    from resegeo.run.compute import Machine

    whole = bytes_of(resegeo.segment(scene, WORDS, tmp_path / "whole"))
    inside, go = threading.Event(), threading.Event()
    start = Machine.start

    def slowly(self, batch):
        inside.set()
        assert go.wait(60)
        return start(self, batch)

    monkeypatch.setattr(Machine, "start", slowly)
    made = []
    first = threading.Thread(target=lambda: made.append(resegeo.segment(scene, WORDS, tmp_path / "out")))
    first.start()
    assert inside.wait(60)
    for given in ({}, {"stride": 32, "overwrite": True}):
        with pytest.raises(ResegeoError, match=r"Another run is writing to .* Wait until it has ended"):
            resegeo.segment(scene, WORDS, tmp_path / "out", **given)
    with pytest.raises(ResegeoError, match="Another run is writing to"):  # another folder, but the same store
        resegeo.segment(scene, WORDS, tmp_path / "elsewhere", store=str(tmp_path / "out"))
    assert not (tmp_path / "elsewhere").exists()
    go.set()
    first.join()
    assert bytes_of(made[0]) == whole
    assert not list((tmp_path / "out").glob(".*"))


def test_a_lock_makes_its_folder_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "new/folder/scene.store.zarr"
    with alone({target: 0.0}):
        with pytest.raises(ResegeoError, match=r"remove .*\.scene\.store\.zarr\.lock"), alone({target: 0.0}):
            pass
        assert target.parent.is_dir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no file that is open")
def test_who_lets_go_of_a_lock_does_not_remove_the_next_ones(tmp_path, monkeypatch):
    import filelock

    target = tmp_path / "scene.store.zarr"
    following = filelock.FileLock(tmp_path / ".scene.store.zarr.lock")
    release = filelock.FileLock.release

    def released(self, *args, **kwargs):
        release(self, *args, **kwargs)
        if self is not following:
            following.acquire(timeout=0)

    with monkeypatch.context() as patch:
        patch.setattr(filelock.FileLock, "release", released)
        with alone({target: 0.0}):
            pass
    with pytest.raises(ResegeoError, match="Another run"), alone({target: 0.0}):
        pass
    following.release()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("made_by", ["bbox", "aoi", "polygons"])
def test_new_words_need_nothing_that_the_store_was_made_with(tmp_path, make_raster, picture, made_by):
    """Region and segments are the image side's: whoever has the store alone can relabel it."""
    import geopandas as gpd
    import shapely

    scene = make_raster("scene.tif", picture(300, 300))
    with rasterio.open(scene) as raster:
        left, bottom, right, top = raster.bounds
        crs = raster.crs
    middle = (left + 400, bottom + 500, right - 300, top - 200)
    parts = [shapely.box(left, bottom, (left + right) / 2, top), shapely.box((left + right) / 2, bottom, right, top)]
    shapes = [shapely.box(*middle)] if made_by == "aoi" else parts
    gpd.GeoDataFrame(geometry=shapes, crs=crs).to_file(tmp_path / "shapes.gpkg")
    given = {
        "bbox": {"bbox": middle},
        "aoi": {"aoi": tmp_path / "shapes.gpkg"},
        "polygons": {"segments": str(tmp_path / "shapes.gpkg")},
    }[made_by]
    resegeo.segment(scene, WORDS, tmp_path / "out", **given)
    fresh = resegeo.segment(scene, OTHER, tmp_path / "fresh", **given)
    for file in ("scene.tif", "shapes.gpkg"):
        (tmp_path / file).rename(tmp_path / f"gone_{file}")
    store = tmp_path / "out/scene.store.zarr"
    again = resegeo.segment(store, OTHER)
    assert again.raster.read_bytes() == fresh.raster.read_bytes()
    assert again.vectors[0].read_bytes() != b""
    assert resegeo.segment(store, OTHER).reused
    resegeo.segment(store, ["sand", "grass"], overwrite=True)  # other words under the same name; the store stays
    assert resegeo.segment(store, OTHER, overwrite=True).raster.read_bytes() == fresh.raster.read_bytes()


def test_a_configuration_that_was_edited_is_another_model(tmp_path, make_raster, picture):
    """Its weights are the same file still."""
    from clips import arch_file, clip
    from safetensors.torch import save_file

    scene = make_raster("scene.tif", picture(64, 64))
    save_file(clip().state_dict(), tmp_path / "mine.safetensors")
    given = {"model": str(tmp_path / "mine.safetensors"), "arch": str(arch_file(tmp_path)), "activation": "gelu"}
    resegeo.segment(scene, WORDS, tmp_path / "out", segments="none", **given)
    assert resegeo.segment(scene, WORDS, tmp_path / "out", segments="none", **given).reused
    arch_file(tmp_path, vision_cfg={"head_width": 16})
    with pytest.raises(ResegeoError, match="different: model"):
        resegeo.segment(scene, WORDS, tmp_path / "out", segments="none", **given)
    with pytest.raises(ResegeoError, match=r"then .*mine\.safetensors, not with .*Name that file by model"):
        resegeo.segment(tmp_path / "out/scene.store.zarr", OTHER)  # no path in a store is followed
    with pytest.raises(ResegeoError, match="whose config is another now"):
        resegeo.segment(tmp_path / "out/scene.store.zarr", OTHER, **given)
