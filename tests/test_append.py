"""Polygons of runs and batches in one layer: each scene once, and nothing that was there is lost."""

from __future__ import annotations

import shutil
import sqlite3
import warnings
from pathlib import Path

import numpy as np
import pyogrio
import pytest
from affine import Affine
from click.testing import CliRunner
from fakes import quick
from rasters import write_raster

import resegeo
from resegeo.batches.batch import segment_many
from resegeo.errors import ResegeoError, UsageError
from resegeo.outputs import collecting
from resegeo.run.collected import collect
from resegeo_cli.main import main

WORDS = ["water", "forest", "road"]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with two scenes side by side, one of the same name in another folder and CRS, and results of them."""
    import resegeo.run.compute as compute

    place = tmp_path_factory.mktemp("finished")
    (place / "scenes/north").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, east, crs in (("a", 0, 32633), ("b", 640, 32633), ("north/a", 0, 32632)):
        bands = np.kron(random.integers(20, 250, (3, 8, 8)), np.ones((8, 8))).astype(np.uint8)
        where = Affine(10, 0, 500_000 + east, 0, -10, 5_200_000)
        write_raster(place / f"scenes/{name}.tif", bands, transform=where, crs=f"EPSG:{crs}")
    load = compute.load_encoder
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(compute, "load_encoder", lambda source, **given: quick(load(source, **given)))
        segment_many(place / "scenes", WORDS, place / "out", smooth=True)
    return place


@pytest.fixture
def scenes(finished, tmp_path, quick_model):
    """The scenes, and beside them their results."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path / "scenes"


def run(scenes, name, **options):
    """Segment a scene whose results lie there already."""
    return resegeo.segment(scenes / f"{name}.tif", WORDS, scenes.parent / "out" / name, smooth=True, **options)


def edited(path, text):
    """Change a GeoPackage as another program would."""
    with sqlite3.connect(path) as database:
        for name in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):
            database.create_function(name, 1, lambda _: 0)  # what its triggers ask for, and need not know here
        database.execute(text)


def read(path, layer=None):
    return pyogrio.read_dataframe(path, layer=layer or Path(path).stem)


def equal(one, other):
    columns = [name for name in one.columns if name != "geometry"]
    return one[columns].equals(other[columns]) and (one.geometry.to_wkb() == other.geometry.to_wkb()).all()


def test_runs_collect_their_polygons_once(scenes, tmp_path):
    city = tmp_path / "city.gpkg"
    for name in ("a", "b", "a"):
        assert run(scenes, name, append=city).reused
    found = read(city)
    assert found.scene.unique().tolist() == ["a", "b"]
    for name in ("a", "b"):
        part = found[found.scene == name].reset_index(drop=True)
        assert equal(part, read(tmp_path / f"out/{name}/{name}.gpkg"))
    content = city.read_bytes()
    run(scenes, "b", append=str(city))
    assert city.read_bytes() == content
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_other_polygons_of_the_scene_are_replaced_only_when_asked(scenes, tmp_path):
    city = tmp_path / "city.gpkg"
    made = run(scenes, "a", append=city)
    edited(city, "UPDATE city SET score_mean = 0.5 WHERE fid = 1")
    content = city.read_bytes()
    with pytest.raises(ResegeoError, match=r"holds other polygons of a already; pass overwrite=True"):
        run(scenes, "a", append=city)
    assert city.read_bytes() == content
    collect(made.report, city, overwrite=True)
    assert equal(read(city), read(tmp_path / "out/a/a.gpkg"))


def test_a_batch_collects_all_of_its_scenes(scenes, tmp_path):
    city = tmp_path / "city.gpkg"
    contents = set()
    for _ in range(2):
        made = segment_many(scenes, WORDS, tmp_path / "out", smooth=True, append=city)
        assert dict(made.counts) == {"skipped": 3}
        contents.add(city.read_bytes())
    assert len(contents) == 1
    found = read(city)
    assert found.scene.unique().tolist() == ["a", "b", "north/a"]
    assert found.crs.to_epsg() == 32633
    assert found.score_mean.between(0, 1).all()


def test_a_scene_that_cannot_be_collected_fails_alone(scenes, tmp_path):
    write_raster(scenes / "plain.tif", np.full((3, 64, 64), 90, np.uint8), crs=None, transform=None)
    city = tmp_path / "city.gpkg"
    made = segment_many(scenes, WORDS, tmp_path / "out", smooth=True, append=city)
    states = {result.scene.rpartition("scenes/")[2]: result.state for result in made.scenes}
    assert states == {"a.tif": "skipped", "b.tif": "skipped", "north/a.tif": "skipped", "plain.tif": "failed"}
    (failed,) = [result for result in made.scenes if result.state == "failed"]
    assert "do not both have a CRS" in failed.reason
    assert set(read(city).scene) == {"a", "b", "north/a"}
    assert "do not both have a CRS" in made.table.read_text("utf-8")


def test_what_cannot_be_collected_is_said_before_anything_is_computed(scenes, tmp_path, monkeypatch):
    city, new = tmp_path / "city.gpkg", tmp_path / "new"
    run(scenes, "a", append=city)
    monkeypatch.setattr("resegeo.run.beginning.run_files", lambda *_: pytest.fail("it was computed"))

    def refused(kind, match, append, words=WORDS, scene="b.tif"):
        with pytest.raises(kind, match=match):
            resegeo.segment(scenes / scene, words, new, append=append)

    refused(ResegeoError, "has a class water of the code 1", city, ["lake", "forest"])
    refused(UsageError, r"its suffix is \.gpkg", "city.shp")
    refused(UsageError, "is a file of this run's own results", new / "b.gpkg")
    refused(ResegeoError, r"folder .*nowhere does not exist", tmp_path / "nowhere/city.gpkg")
    write_raster(scenes / "plain.tif", np.full((3, 64, 64), 90, np.uint8), crs=None, transform=None)
    refused(ResegeoError, "do not both have a CRS", city, scene="plain.tif")
    (tmp_path / "city.gpkg-wal").write_text("edits")
    refused(ResegeoError, "is open in another program", city)
    with pytest.raises(UsageError, match=r"its suffix is \.gpkg"):
        segment_many(scenes, WORDS, new, append="city.shp")
    with pytest.raises(UsageError, match="lies among the results of a scene"):
        segment_many(scenes, WORDS, tmp_path / "out", append=tmp_path / "out/a/a.gpkg")
    assert not new.exists()


def test_what_another_program_saved_meanwhile_is_not_lost(scenes, tmp_path, monkeypatch):
    city, write = tmp_path / "city.gpkg", collecting.write_layer
    run(scenes, "a", append=city)
    made = run(scenes, "b")

    def slow(*args, **options):
        write(*args, **options)
        edited(city, "UPDATE city SET prompts = 'mine'")

    monkeypatch.setattr(collecting, "write_layer", slow)
    with pytest.raises(ResegeoError, match="was changed by another program meanwhile"):
        collect(made.report, city)
    found = read(city)
    assert set(found.scene) == {"a"}
    assert set(found.prompts) == {"mine"}


def test_two_runs_at_once_both_stay(scenes, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    made = [run(scenes, name).report for name in "ab"]
    city = tmp_path / "city.gpkg"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda report: collect(report, city), made))
    assert set(read(city).scene) == {"a", "b"}


def test_the_commands_collect(scenes, tmp_path):
    (tmp_path / "classes.yml").write_text("classes: [water, forest, road]\n")
    words = ["--prompts", str(tmp_path / "classes.yml"), "--append", str(tmp_path / "city.gpkg")]
    one = ["segment", str(scenes / "a.tif"), *words, "-o", str(tmp_path / "one"), "--vector", "none"]
    assert CliRunner().invoke(main, one).exit_code == 0
    many = ["batch", str(scenes / "b.tif"), *words, "-o", str(tmp_path / "many"), "--regularize", "road"]
    assert CliRunner().invoke(main, many).exit_code == 0
    found = read(tmp_path / "city.gpkg")
    assert set(found.scene) == {"a", "b"}
    assert found[found.scene == "a"].score_mean.isna().all()  # without polygons of its own it kept no scores
    assert found[found.scene == "b"].score_mean.between(0, 1).all()
    assert set(read(tmp_path / "city.gpkg", "city_regularized").class_name) <= {"road"}
    assert np.isfinite(found.area_m2).all()
