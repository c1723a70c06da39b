"""What a store may hold and what may become of it: damage, strangers' headers, and folders of the user's own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasters import write_raster
from stores import header

import resegeo
from resegeo.errors import InputNotice, ResegeoError
from resegeo.run.header import StoreHeader
from resegeo.run.store import DamagedItemError, ItemResult, Store
from resegeo.run.store_removal import ForeignFolderError, LostHeaderError, UnusableStoreError, remove

WORDS = ["water", "forest", "road"]
OTHER = ["grass", "sand"]
QUICK = {"segments": "none", "vector": ()}


def put(store: Store, index: int) -> None:
    values = {
        name: np.full((2, *spec.shape[2:]), index + 1, spec.dtype)
        for name, spec in store.header.layout.item_arrays().items()
    }
    store.put(index, ItemResult(np.array([True, False, True]), values))


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store.create(str(tmp_path / "a.store.zarr"), header(3))
    for index in range(3):
        put(made, index)
    return made


def opened(store: Store) -> Store:
    found = Store.open(store.url)
    assert found is not None
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def reworded(folder: Path, change) -> None:
    """Change the facts of a header, and give it the checksum that goes with them, as a stranger can."""
    from resegeo.run.header import _checksum

    document = json.loads((folder / "zarr.json").read_text("utf-8"))
    ours = document["attributes"]["resegeo"]
    change(ours["facts"])
    ours["sha256"] = _checksum(ours["id"], ours["facts"])
    (folder / "zarr.json").write_text(json.dumps(document))


# What the header says


def _set(path: str, value):
    *parts, last = path.split(".")

    def change(facts):
        for part in parts:
            facts = facts[part]
        facts[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("scene.name", "../victim/secret"),
        ("scene.name", "/etc/passwd"),
        ("scene.name", ".."),
        ("scene.name", ""),
        ("scene.name", "a\x1b[31mb"),
        ("scene.name", "a" * 300),
        ("scene.name", 5),
        ("scene.source", "a\nb"),
        ("scene.height", 2**40),
        ("scene.height", -6),
        ("scene.height", 7),
        ("scene.width", True),
        ("scene.bands", [0, 1, 2]),
        ("scene.bands", [1, 2]),
        ("scene.transform", [1, 0, 0, 0, float("inf"), 0]),
        ("scene.nodata", ["x"]),
        ("scene.stretch", [[0, 0, 0]]),
        ("scene.gcps", [[1]]),
        ("scene.rpcs", {"a": 1}),
        ("scene.crs", 4326),
        ("scene.stamp", "another"),
        ("scene", []),
        ("layout.items", 10**12),
        ("layout.prompts", 3),
        ("layout.dtype", "int8"),
        ("layout.grid", 0),
        ("settings", {"no_such_knob": 1}),
        ("settings", {"feature_dtype": "float16", "vector": ["exe"]}),
        ("prompts", ["word"]),
        ("canvas", [0, 1]),
        ("model.path", "a\x07"),
        ("image.model", {"name": "m"}),
        ("image.settings", {}),
        ("image.more", 1),
        ("finished", 1),
    ],
)
def test_a_header_is_taken_for_nothing_that_it_cannot_be(store, path, value):
    reworded(Path(store.url), _set(path, value))
    with pytest.raises(UnusableStoreError, match=r"header of the store .* is damaged \(.*overwrite"):
        Store.open(store.url)


def test_a_header_is_read_as_it_was_written(store):
    assert opened(store).header == store.header
    assert StoreHeader.read(json.loads(json.dumps(store.header.document()))) == store.header


def test_a_header_that_would_not_be_read_again_is_never_written(tmp_path):
    with pytest.raises(ResegeoError, match=r"cannot describe the scene .* Rename the scene"):
        Store.create(str(tmp_path / "a.store.zarr"), header(name="a\x1bb"))
    assert list(tmp_path.iterdir()) == []


# What was damaged since


def _flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def _swap(one: Path, two: Path) -> None:
    beside = one.with_name("beside")
    one.rename(beside)
    two.rename(one)
    beside.rename(two)


def _chunk(root: Path, index: int, name: str = "features") -> Path:
    return next(path for path in (root / name / "c" / str(index)).rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: _flip(_chunk(root, 1)),
        lambda root: _flip(_chunk(root, 1, "cls"), 1.0),
        lambda root: _chunk(root, 1).write_bytes(bytes(_chunk(root, 1).stat().st_size)),
        lambda root: _chunk(root, 1).write_bytes(_chunk(root, 1).read_bytes()[:-5]),
        lambda root: _chunk(root, 1).write_bytes(b""),
        lambda root: _chunk(root, 1).write_bytes(_chunk(root, 0).read_bytes()),
        lambda root: _swap(_chunk(root, 1), _chunk(root, 0)),
        lambda root: _chunk(root, 1).unlink(),
        lambda root: shutil.rmtree(root / "features/c"),
        lambda root: (root / "marks/done/1").write_bytes((root / "marks/done/0").read_bytes()),
        lambda root: (root / "marks/done/1").write_bytes(b"\xff\xfe"),
        lambda root: (root / "marks/done/1").write_text((root / "marks/done/1").read_text().replace("101", "001")),
        lambda root: (root / "marks/done/1").write_text((root / "marks/done/1").read_text().replace("101", "111")),
    ],
)
def test_an_item_that_is_not_what_was_put_is_told_and_does_not_count(store, damage):
    damage(Path(store.url))
    again = opened(store)
    with pytest.raises(DamagedItemError, match=r"is damaged: work item 1 .*same options"):
        again.get(1)
    assert 1 not in again.done()
    later = opened(store)
    assert not later.header.finished
    later.sift()  # all that is damaged is found at once
    assert not opened(store).header.suspect
    for index in later.done():
        assert (later.get(index).values["features"] == index + 1).all()
    for index in {0, 1, 2} - later.done():
        put(later, index)
    assert later.counts() == (6, 3, 0)


def test_every_bit_of_a_mark_counts(store):
    path = Path(store.url) / "marks/done/2"
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(DamagedItemError):
            store.get(2)


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda root: (root / "zarr.json").write_text((root / "zarr.json").read_text()[:200]), LostHeaderError),
        (lambda root: (root / "zarr.json").write_text(""), LostHeaderError),
        (lambda root: (root / "zarr.json").write_bytes(b"\x00" * 400), LostHeaderError),
        (lambda root: (root / "zarr.json").unlink(), LostHeaderError),
        (lambda root: (root / "zarr.json").write_text("[" * 100_000), LostHeaderError),
        (lambda root: _swap(root / "zarr.json", root / "cls/zarr.json"), LostHeaderError),
        (lambda root: reworded(root, _set("layout.side", 2**20)), UnusableStoreError),
        (lambda root: (root / "features/zarr.json").unlink(), UnusableStoreError),
        (lambda root: (root / "features/zarr.json").write_text(""), UnusableStoreError),
        (lambda root: (root / "cls/zarr.json").write_text("{}"), UnusableStoreError),
        (lambda root: shutil.rmtree(root / "cls"), UnusableStoreError),
        (lambda root: _dtype(root, "float32"), UnusableStoreError),
    ],
)
def test_a_store_that_cannot_be_gone_on_with_is_told_with_a_remedy_that_works(store, damage, kind):
    root = Path(store.url)
    damage(root)
    (root / "notes.txt").write_text("mine")
    with pytest.raises(kind, match="overwrite"):
        Store.open(store.url)
    with pytest.warns(InputNotice, match=r"notes\.txt.* that stays"):
        Store.create(store.url, header(3))
    assert (root / "notes.txt").read_text() == "mine"
    (root / "notes.txt").unlink()
    made = Store.create(store.url, header(3))
    assert made.done() == set()
    assert opened(made).header == made.header


def test_marks_tell_a_store_without_a_header_only_where_they_are_ours(tmp_path):
    store = Store.create(str(tmp_path / "a.store.zarr"), header(2))
    put(store, 0)
    root = tmp_path / "a.store.zarr"
    marks = root / "marks/done"
    (root / "zarr.json").unlink()
    mark = (marks / "0").read_bytes()
    (marks / "0").write_text("done")
    with pytest.raises(ForeignFolderError, match="Move or remove it yourself"):
        Store.create(store.url, header(2))
    (marks / "1").write_bytes(mark)
    with pytest.raises(LostHeaderError):
        Store.open(store.url)
    (root / "marks").rename(tmp_path / "elsewhere")
    (root / "marks").symlink_to(tmp_path / "elsewhere")  # those of another folder tell nothing of this one
    with pytest.raises(ForeignFolderError):
        Store.create(store.url, header(2))
    assert (tmp_path / "elsewhere/done/1").read_bytes() == mark


def _dtype(root: Path, dtype: str) -> None:
    path = root / "cls/zarr.json"
    path.write_text(path.read_text().replace("float16", dtype))


def test_one_value_of_the_header_that_was_changed_is_told(store):
    path = Path(store.url) / "zarr.json"
    path.write_text(path.read_text().replace("500000.0", "500010.0"))
    with pytest.raises(UnusableStoreError, match="its checksum does not fit"):
        Store.open(store.url)


def test_kept_arrays_are_what_was_sealed_or_none(tmp_path):
    store = Store.create(str(tmp_path / "a.store.zarr"), header(1, height=1200))
    array = store.keep_array("valid")
    array[...] = np.arange(1200)[:, None] % 7
    assert store.array("valid") is None  # not sealed yet
    store.seal("valid", owner="me")
    assert (store.array("valid", owner="me")[:, 0] == np.arange(1200) % 7).all()
    assert store.array("valid", owner="you") is None
    root = tmp_path / "a.store.zarr/valid/c"
    _swap(root / "0/0", root / "1/0")
    assert store.array("valid") is None
    with pytest.raises(ResegeoError, match="'valid' is not there whole"):
        store.require("valid")
    _swap(root / "0/0", root / "1/0")
    assert store.array("valid") is not None
    (root / "2/0").unlink()
    assert store.array("valid") is None


# What is removed


def test_a_store_goes_file_by_file_and_what_is_not_of_it_stays(store):
    root = Path(store.url)
    store.keep_array("scores-a.classes")[...] = 1
    (root / "tiles").mkdir()
    (root / "tiles/0_1.npy").write_bytes(b"x")
    (root / "marks/done/.7.0123456789abcdef.tmp").write_bytes(b"x")
    (root / "notes.txt").write_text("mine")
    (root / "features/c/mine").mkdir()
    (root / "features/c/mine/0").write_text("mine")
    with pytest.warns(InputNotice, match=r"notes\.txt.* that stays"):
        remove(store.url)
    assert files(root) == {"notes.txt": b"mine", "features/c/mine/0": b"mine"}


def test_a_store_leaves_nothing_of_its_own(store):
    remove(store.url)
    assert not Path(store.url).exists()
    remove(store.url)
    assert Store.open(store.url) is None


@pytest.mark.parametrize("content", [{"data.csv": "1"}, {"zarr.json": '{"zarr_format": 3, "node_type": "group"}'}])
def test_a_folder_of_the_users_is_never_touched(tmp_path, content):
    folder = tmp_path / "a.store.zarr"
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_text(text)
    before = files(folder)
    for act in (remove, Store.open, lambda url: Store.create(url, header())):
        with pytest.raises(ForeignFolderError, match="is left as it is"):
            act(str(folder))
    assert files(folder) == before


def test_nothing_is_removed_through_a_symbolic_link(store, tmp_path):
    real = tmp_path / "elsewhere"
    Path(store.url).rename(real)
    Path(store.url).symlink_to(real)
    before = files(real)
    assert opened(store).get(1) is not None  # it can be read
    for act in (remove, lambda url: Store.create(url, header())):
        with pytest.raises(ForeignFolderError, match="is a symbolic link"):
            act(store.url)
    assert files(real) == before


def test_links_in_a_store_are_followed_nowhere(store, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "0").write_text("precious")
    root = Path(store.url)
    (root / "tiles").symlink_to(victim)
    with pytest.raises(ForeignFolderError, match="symbolic link tiles"):
        Store.open(store.url)
    with pytest.warns(InputNotice, match="tiles"):
        remove(store.url)
    assert files(victim) == {"0": b"precious"}
    assert (root / "tiles").is_symlink()


def test_objects_are_removed_one_by_one_too():
    url = "memory://trust/a.store.zarr"
    store = Store.create(url, header(2))
    put(store, 0)
    system = fsspec.filesystem("memory")
    system.pipe_file("/trust/a.store.zarr/notes.txt", b"mine")
    with pytest.warns(InputNotice, match=r"notes\.txt"):
        remove(url)
    assert system.find("/trust") == ["/trust/a.store.zarr/notes.txt"]
    with pytest.raises(ForeignFolderError):
        Store.create(url, header(2))
    assert system.cat_file("/trust/a.store.zarr/notes.txt") == b"mine"


# Behind a URL


class _Moody:
    """Lets every so-maniest request of fsspec's memory fail as an overloaded server does."""

    def __init__(self, monkeypatch, every: int) -> None:
        from fsspec.implementations.memory import MemoryFileSystem

        self.asked = 0
        for name in ("cat_file", "pipe_file", "ls", "rm_file"):
            inner = getattr(MemoryFileSystem, name)

            def moody(system, *args, _inner=inner, **kwargs):
                self.asked += 1
                if self.asked % every == 0:
                    raise OSError("503 Slow Down")
                return _inner(system, *args, **kwargs)

            monkeypatch.setattr(MemoryFileSystem, name, moody)


def test_a_server_that_is_busy_now_and_then_changes_nothing(monkeypatch):
    monkeypatch.setattr("resegeo.run.store_place.PAUSES", (0.0, 0.0, 0.0))
    url = "memory://busy/a.store.zarr"
    remove(url)
    moody = _Moody(monkeypatch, 5)
    store = Store.create(url, header(3))
    for index in range(3):
        put(store, index)
    again = opened(store)
    assert moody.asked > 20
    assert again.counts() == (6, 3, 0)
    assert all((again.get(index).values["cls"] == index + 1).all() for index in range(3))


def test_a_server_that_stays_away_is_a_sentence_and_nothing_is_taken_for_lost(monkeypatch):
    monkeypatch.setattr("resegeo.run.store_place.PAUSES", (0.0,))
    store = Store.create("memory://away/a.store.zarr", header(3))
    put(store, 0)
    with monkeypatch.context() as patch:
        _Moody(patch, 1)
        for act in (store.done, lambda: store.get(0), lambda: put(store, 1), store.counts):
            with pytest.raises(ResegeoError, match=r"cannot be reached .*503 Slow Down.*the same command continues"):
                act()
        with pytest.raises(ResegeoError, match="503"):
            Store.open(store.url)
    assert store.done() == {0}
    assert store.get(0) is not None


# On the disk


@pytest.mark.skipif(os.name == "nt", reason="Windows syncs no folders")
def test_all_that_a_finished_store_needs_is_synced(tmp_path, synced):
    store = Store.create(str(tmp_path / "a.store.zarr"), header(2))
    put(store, 0)
    store.keep_array("valid")[...] = 1
    store.seal("valid")
    store.finish()
    root = tmp_path / "a.store.zarr"
    wanted = [*root.rglob("zarr.json"), root / "marks/done/0", root / "marks/done", root / "marks", root, tmp_path]
    wanted += [_chunk(root, 0), root / "features", root / "features/c", root / "valid"]
    assert [path for path in wanted if path.stat().st_ino not in synced] == []


# Whole runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A scene, a finished run of it, and what other words come to."""
    folder = tmp_path_factory.mktemp("whole")
    bands = np.random.default_rng(0).integers(0, 255, (3, 4, 4)).repeat(40, 1).repeat(40, 2).astype(np.uint8)
    profile = {"count": 3, "height": 160, "width": 160, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", transform=from_origin(5e5, 5e6, 10, 10), **profile
    ) as raster:
        raster.write(bands)
    result = resegeo.segment(folder / "scene.tif", WORDS, folder / "out", **QUICK)
    other = resegeo.segment(folder / "out/scene.store.zarr", OTHER, folder / "other", vector=())
    return folder, result.raster.read_bytes(), other.raster.read_bytes()


def copied(whole, tmp_path: Path) -> Path:
    shutil.copytree(whole[0] / "out", tmp_path / "out")
    shutil.copy2(whole[0] / "scene.tif", tmp_path / "scene.tif")
    return tmp_path / "out/scene.store.zarr"


@pytest.mark.parametrize(
    ("damage", "remedy"),
    [
        (lambda root: _flip(_chunk(root, 0)), {}),
        (lambda root: shutil.rmtree(root / "features/c"), {}),
        (lambda root: shutil.rmtree(root / "marks"), {}),
        (lambda root: (root / "valid/zarr.json").write_text(""), {}),
        (lambda root: shutil.rmtree(root / "valid"), {}),
        (lambda root: (root / "features/zarr.json").write_text(""), {"overwrite": True}),
        (lambda root: _format(root, 2), {"overwrite": True}),
        (lambda root: (root / "zarr.json").write_text(""), {"overwrite": True}),
        (lambda root: _swap(root / "zarr.json", root / "valid/zarr.json"), {"overwrite": True}),
        (
            lambda root: shutil.rmtree(root / "marks") or (root / "zarr.json").unlink(),
            {"overwrite": True, "move": True},
        ),
    ],
)
def test_the_remedy_that_is_said_ends_in_the_right_bytes(whole, tmp_path, damage, remedy):
    store = copied(whole, tmp_path)
    damage(store)
    with pytest.raises(ResegeoError, match=r"[Rr]un `resegeo segment") as told:
        resegeo.segment(store, OTHER, tmp_path / "other", vector=())
    assert ("overwrite=True" in str(told.value)) == bool(remedy)
    if remedy.pop("move", False):
        with pytest.raises(ForeignFolderError):
            resegeo.segment(tmp_path / "scene.tif", WORDS, tmp_path / "out", overwrite=True, **QUICK)
        shutil.move(store, tmp_path / "aside")
    made = resegeo.segment(tmp_path / "scene.tif", WORDS, tmp_path / "out", **QUICK, **remedy)
    assert made.raster.read_bytes() == whole[1]
    again = resegeo.segment(store, OTHER, tmp_path / "other", vector=())
    assert again.raster.read_bytes() == whole[2]


def _format(root: Path, number: int) -> None:
    path = root / "zarr.json"
    path.write_text(path.read_text().replace('"format": 3', f'"format": {number}'))


def test_damage_that_is_met_in_a_run_is_computed_anew_by_the_next(whole, tmp_path):
    store = copied(whole, tmp_path)
    _flip(_chunk(store, 0))
    with pytest.raises(ResegeoError, match="work item 0 cannot be read"):
        resegeo.segment(tmp_path / "scene.tif", WORDS, tmp_path / "out", overwrite=True, threshold=0.1, **QUICK)
    made = resegeo.segment(tmp_path / "scene.tif", WORDS, tmp_path / "out", overwrite=True, **QUICK)
    assert made.raster.read_bytes() == whole[1]


def test_a_store_of_a_strangers_writes_nowhere_else_and_names_no_model(whole, tmp_path):
    store = copied(whole, tmp_path)
    (tmp_path / "victim").mkdir()
    reworded(store, _set("scene.name", "../victim/secret"))
    with pytest.raises(UnusableStoreError, match="scene name"):
        resegeo.segment(store, OTHER, tmp_path / "new")
    reworded(store, _set("scene.name", "scene"))
    (tmp_path / "evil.pt").write_bytes(b"never opened")
    reworded(store, _set("model.path", str(tmp_path / "evil.pt")))
    assert resegeo.segment(store, OTHER, tmp_path / "new", vector=()).raster.read_bytes() == whole[2]
    reworded(store, _set("image.model.sha256", "f" * 64))
    with pytest.raises(ResegeoError, match=r"evil\.pt, not with .*resegeo-small.* Name that file by model"):
        resegeo.segment(store, OTHER, tmp_path / "newer", vector=())
    assert list((tmp_path / "victim").iterdir()) == []


def test_sizes_that_are_not_the_models_are_told_before_anything_is_read(whole, tmp_path):
    store = copied(whole, tmp_path)
    text = (store / "zarr.json").read_text()
    reworded(store, _set("layout.dimension", 5))
    with pytest.raises(UnusableStoreError, match="is damaged: its array"):
        resegeo.segment(store, OTHER, tmp_path / "new")
    (store / "zarr.json").write_text(text)
    reworded(store, _set("layout.side", 4096))
    with pytest.raises(UnusableStoreError, match="does not agree with itself"):
        resegeo.segment(store, OTHER, tmp_path / "new")


def test_a_folder_of_the_users_stops_a_run_before_it_begins(whole, tmp_path):
    shutil.copy2(whole[0] / "scene.tif", tmp_path / "scene.tif")
    for place in ({}, {"store": str(tmp_path / "stores")}):
        folder = Path(place.get("store", tmp_path / "out")) / "scene.store.zarr"
        folder.mkdir(parents=True)
        (folder / "precious.csv").write_text("1")
        for overwrite in (False, True):
            with pytest.raises(ForeignFolderError, match="is no store of resegeo"):
                resegeo.segment(tmp_path / "scene.tif", WORDS, tmp_path / "out", overwrite=overwrite, **place, **QUICK)
        assert files(folder) == {"precious.csv": b"1"}
        shutil.rmtree(folder)
    assert not list((tmp_path / "out").glob("*.tif"))


# Identity of a run


def _rewritten(scene: Path) -> None:
    with rasterio.open(scene, "r+") as raster:
        raster.write(255 - raster.read())
    os.utime(scene, ns=(1, 10**18))


@pytest.mark.parametrize("when", ["windows", "labels"])
def test_a_scene_that_changes_while_it_is_read_is_told_and_its_items_do_not_count(whole, tmp_path, monkeypatch, when):
    from resegeo.run.compute import Machine
    from resegeo.scene.reader import Scene

    shutil.copy2(whole[0] / "scene.tif", tmp_path / "scene.tif")
    kind, name = (Machine, "read") if when == "windows" else (Scene, "read")
    inner, done, began = getattr(kind, name), [], [when == "windows"]
    label = resegeo.run.execution.label_scene

    def rewriting(self, *args, **kwargs):
        found = inner(self, *args, **kwargs)
        if began[0] and not done:
            done.append(1)
            _rewritten(tmp_path / "scene.tif")
        return found

    def labelling(*args, **kwargs):
        began[0] = True
        return label(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(kind, name, rewriting)
        patch.setattr(resegeo.run.execution, "label_scene", labelling)
        with pytest.raises(ResegeoError, match=r"scene\.tif changed while this run read it"):
            resegeo.segment(tmp_path / "scene.tif", WORDS, tmp_path / "out", **QUICK)
    assert done
    assert not list((tmp_path / "out").glob("*.classes.tif"))
    store = Store.open(str(tmp_path / "out/scene.store.zarr"))
    assert store is not None
    assert not store.header.finished
    assert (store.done() == set()) == (when == "windows")
    with pytest.raises(ResegeoError, match="different: scene"):
        resegeo.segment(tmp_path / "scene.tif", WORDS, tmp_path / "out", **QUICK)
    made = resegeo.segment(tmp_path / "scene.tif", WORDS, tmp_path / "out", overwrite=True, **QUICK)
    fresh = resegeo.segment(tmp_path / "scene.tif", WORDS, tmp_path / "fresh", **QUICK)
    assert made.raster.read_bytes() == fresh.raster.read_bytes() != whole[1]


def test_a_scene_that_changes_while_workers_read_it_is_told(whole, tmp_path, monkeypatch):
    shutil.copy2(whole[0] / "scene.tif", tmp_path / "scene.tif")

    def rewriting(client, task, pending, progress):
        store = opened_at(Path(task.store))
        for index in pending:
            store.put(index, ItemResult(np.array([False] * 9), {}))
        _rewritten(tmp_path / "scene.tif")

    monkeypatch.setattr("resegeo.run.execution.connect", lambda cluster: contextlib.nullcontext(cluster))
    monkeypatch.setattr("resegeo.run.execution.run_on_cluster", rewriting)
    with pytest.raises(ResegeoError, match=r"scene\.tif changed while this run read it"):
        resegeo.segment(tmp_path / "scene.tif", WORDS, tmp_path / "out", cluster=1, **QUICK)
    assert opened_at(tmp_path / "out/scene.store.zarr").done() == set()


def opened_at(path: Path) -> Store:
    found = Store.open(str(path))
    assert found is not None
    return found


def test_the_identity_of_a_run_is_settled_in_its_plan(whole, tmp_path):
    """Files that change later change neither store nor report; that they did is told."""
    from resegeo.run.options import Options
    from resegeo.run.prepare import settle

    shutil.copy2(whole[0] / "scene.tif", tmp_path / "scene.tif")
    with rasterio.open(tmp_path / "scene.tif") as scene:
        profile = scene.profile | {"count": 1, "dtype": "uint16"}
    write_raster(tmp_path / "parts.tif", np.ones((1, 160, 160), np.uint16), **profile)
    given = {"segments": str(tmp_path / "parts.tif"), "vector": ()}
    plan = settle(tmp_path / "scene.tif", WORDS, tmp_path / "out", Options.of(given)).plan
    before = plan.options()
    plan.refuse_changes()
    os.utime(tmp_path / "parts.tif", ns=(1, 10**18))
    assert plan.options() == before
    with pytest.raises(ResegeoError, match=r"parts\.tif changed while"):
        plan.refuse_changes()


def test_bytes_of_a_plan_are_those_of_the_layout(whole):
    from resegeo.run.options import Options
    from resegeo.run.prepare import settle

    for given in ({}, {"feature_dtype": "int8"}, {"vote_segments": True}):
        plan = settle(whole[0] / "scene.tif", WORDS, None, Options.of(given | QUICK)).plan
        for features in (True, False):
            kept = plan.kept(features=features)
            specs = plan.layout(kept).item_arrays()
            exact = sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in specs.values())
            plain = exact + 4 * plan.items * len(specs)
            assert plain <= plan.layout(kept).item_bytes <= plain * (1.01 if "segments" in specs else 1)
            assert plan.kept_bytes(kept) > exact
    assert replace(plan.layout(kept), dtype="int8").item_arrays().keys() == specs.keys()
