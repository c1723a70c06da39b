"""What a run takes for its own among the files that lie where its results go, and what it leaves alone."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from test_raster import CLASSES, write

import resegeo
import resegeo.run.commands
import resegeo.run.execution
from resegeo.errors import ResegeoError
from resegeo.files import alone, move, name_problem, sweep, whole, workshop
from resegeo.outputs.polygons import polygonize
from resegeo.outputs.vectors import write_polygons
from resegeo.run.report import Journal, marks_of
from resegeo.run.standing import stands

pytestmark = pytest.mark.usefixtures("quick_model")

WORDS = ["water", "forest", "road"]


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(64, 64))


@pytest.fixture
def frame(tmp_path):
    write(tmp_path / "a.tif", np.random.default_rng(1).integers(0, 4, (40, 50)).astype(np.uint8))
    return polygonize(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["scene.classes.qml", "scene.classes.tif.aux.xml", "scene.dbf", "scene.prj"])
def test_a_first_run_leaves_the_users_sidecars_alone(scene, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(ResegeoError, match=f"{name} exists and is not known .*overwrite"):
        resegeo.segment(scene, WORDS, out, vector=("shp",), segments="none")
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "mine"


def test_cut_results_are_made_anew_and_edited_ones_are_kept(scene, tmp_path):
    out = tmp_path / "out"
    made = resegeo.segment(scene, WORDS, out, segments="none")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != "scene.json"}
    listed = json.loads(made.report.read_text("utf-8"))["files"]
    assert listed.keys() == before.keys()
    assert stands(made.report)
    for name in ("scene.gpkg", "scene.png"):
        for damaged in (b"", before[name][: len(before[name]) // 2]):
            (out / name).write_bytes(damaged)
            assert not stands(made.report)
            assert not resegeo.segment(scene, WORDS, out, segments="none").reused
            assert (out / name).read_bytes() == before[name]
    frame = gpd.read_file(out / "scene.gpkg", layer="scene")
    frame.iloc[:1].to_file(out / "scene.gpkg", layer="scene")
    edited = (out / "scene.gpkg").read_bytes()
    with pytest.raises(ResegeoError, match=r"scene\.gpkg was changed since this program wrote it"):
        resegeo.segment(scene, WORDS, out, segments="none")
    assert (out / "scene.gpkg").read_bytes() == edited
    with pytest.raises(ResegeoError, match="replace_edited=True"):
        resegeo.segment(scene, WORDS, out, segments="none", overwrite=True)
    assert (out / "scene.gpkg").read_bytes() == edited
    resegeo.segment(scene, WORDS, out, segments="none", overwrite=True, replace_edited=True)
    assert (out / "scene.gpkg").read_bytes() == before["scene.gpkg"]


def test_files_of_another_time_but_the_same_content_are_complete(scene, tmp_path):
    made = resegeo.segment(scene, WORDS, tmp_path / "out", segments="none")
    for path in made.files()[:-1]:
        os.utime(path, (1, 1))
    assert resegeo.segment(scene, WORDS, tmp_path / "out", segments="none").reused


def test_a_file_of_the_users_that_took_an_interrupted_runs_place_is_not_replaced(scene, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(resegeo.run.execution, "write_overlay", stop)
        with pytest.raises(KeyboardInterrupt):
            resegeo.segment(scene, WORDS, out, segments="none")
    (out / "scene.classes.qml").write_text("<qgis>mine</qgis>")
    with pytest.raises(ResegeoError, match=r"scene\.classes\.qml was changed since"):
        resegeo.segment(scene, WORDS, out, segments="none")
    assert (out / "scene.classes.qml").read_text() == "<qgis>mine</qgis>"
    (out / "scene.classes.qml").unlink()
    assert not resegeo.segment(scene, WORDS, out, segments="none").reused
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_a_geopackage_that_is_open_elsewhere_is_not_replaced(tmp_path, frame, end):
    path = tmp_path / "b.gpkg"
    write_polygons(frame, path, CLASSES)
    before = path.read_bytes()
    path.with_name(path.name + end).write_bytes(b"edits")
    with pytest.raises(ResegeoError, match=rf"b\.gpkg is open in another program.*b\.gpkg{end} lies beside it"):
        resegeo.run.commands.vectorize(tmp_path / "a.tif", path, overwrite=True)
    with pytest.raises(ResegeoError, match="is open in another program"):
        write_polygons(frame, path, CLASSES)
    assert path.read_bytes() == before


def test_saved_edits_of_an_open_geopackage_survive(tmp_path, frame):
    path = tmp_path / "b.gpkg"
    write_polygons(frame, path, CLASSES)
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE mine (note TEXT)")
    database.commit()
    with pytest.raises(ResegeoError, match="is open in another program"):
        write_polygons(frame, path, CLASSES)
    database.close()
    with sqlite3.connect(path) as again:
        assert again.execute("SELECT count(*) FROM mine").fetchone() == (0,)


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "fgb", "parquet", "kml"])
def test_a_vector_file_that_reads_back_otherwise_gets_no_name(tmp_path, frame, suffix, monkeypatch):
    import resegeo.outputs.vectors

    path, verify = tmp_path / f"b.{suffix}", resegeo.outputs.vectors._verify

    def cut(given, file, layer):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) * 2 // 3])
        verify(given, file, layer)

    monkeypatch.setattr(resegeo.outputs.vectors, "_verify", cut)
    with pytest.raises(ResegeoError, match="could not be written"):
        write_polygons(frame, path, CLASSES)
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(("b.", ".tmp"))] == []


def test_parts_of_a_set_are_moved_all_or_none(tmp_path):
    for name in ("b.shp", "b.dbf"):
        (tmp_path / name).write_text("old")
    (tmp_path / "b.shx").mkdir()
    with workshop(tmp_path) as place:
        for end in ("dbf", "shx", "shp"):
            (place / f"new.{end}").write_text("new")
        with pytest.raises(IsADirectoryError):
            move({place / f"new.{end}": tmp_path / f"b.{end}" for end in ("dbf", "shx", "shp")})
    assert {path.name for path in tmp_path.iterdir()} == {"b.shp", "b.dbf", "b.shx"}
    assert (tmp_path / "b.shp").read_text() == (tmp_path / "b.dbf").read_text() == "old"


def test_links_under_temporary_and_lock_names_are_not_followed(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / ".tmp-x.json").symlink_to(mine)
    with whole(tmp_path / "x.json") as beside:
        beside.write_text("ours")
    (tmp_path / ".x.json.lock").symlink_to(mine)
    with pytest.raises(ResegeoError, match="is a link"), alone({tmp_path / "x.json": 0.0}):
        pass
    (tmp_path / ".y.json.lock").mkdir()
    with pytest.raises(ResegeoError, match="is a folder"), alone({tmp_path / "y.json": 0.0}):
        pass
    assert mine.read_text() == "mine"


def test_what_a_killed_run_left_is_swept_and_nothing_else(tmp_path):
    left, user, link = tmp_path / ".tmp-resegeo-abcdefgh", tmp_path / ".tmp-mine", tmp_path / ".tmp-resegeo-linklink"
    left.mkdir()
    user.mkdir()
    (user / "note").write_text("mine")
    link.symlink_to(user)
    with workshop(tmp_path) as busy:
        sweep(tmp_path)
        assert busy.is_dir()
    assert not left.exists()
    assert (link / "note").read_text() == "mine"


def test_names_of_any_length_and_kind_end_in_a_result_or_a_sentence(tmp_path, frame):
    path = tmp_path / ("n" * 250 + ".gpkg")
    write_polygons(frame, path, CLASSES)
    assert len(gpd.read_file(path, layer=path.stem)) == len(frame)
    assert "256 bytes" in (name_problem(Path("n" * 256)) or "")
    assert "not UTF-8" in (name_problem(Path(os.fsdecode(b"\xff.gpkg"))) or "")
    with pytest.raises(ResegeoError, match="not UTF-8"):
        resegeo.run.commands.vectorize(tmp_path / "a.tif", tmp_path / os.fsdecode(b"\xff.gpkg"))


def test_a_vrt_of_the_users_is_not_replaced_by_a_mosaic(scene, tmp_path):
    from resegeo.batches.mosaic import build_mosaic

    mine = tmp_path / "out/all/all.vrt"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine \xff")
    with pytest.raises(ResegeoError, match="is no mosaic of this program"):
        build_mosaic([str(scene)], tmp_path / "out", "all")
    assert mine.read_bytes() == b"mine \xff"


def test_a_run_killed_between_report_and_journal_leaves_no_journal_once_it_is_repeated(scene, tmp_path):
    made = resegeo.segment(scene, ["water"], tmp_path / "out", vector=())
    whole_run = {path.name: path.read_bytes() for path in made.report.parent.iterdir() if path.is_file()}
    Journal(made.report).keep(marks_of(json.loads(made.report.read_text("utf-8"))))
    assert made.report.with_name(f".{made.report.name}.part").exists()
    assert resegeo.segment(scene, ["water"], tmp_path / "out", vector=()).reused
    assert {path.name: path.read_bytes() for path in made.report.parent.iterdir() if path.is_file()} == whole_run
