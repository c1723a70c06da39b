"""Polygons of many scenes in one layer: nothing that was there is lost."""

from __future__ import annotations

import sqlite3

import numpy as np
import pyogrio
import pytest
from click.testing import CliRunner
from rasterio.crs import CRS
from rasterio.transform import from_origin
from test_raster import write
from test_vectors import CLASSES

from resegeo.classes.class_file import class_list
from resegeo.errors import ResegeoError, UsageError
from resegeo.outputs import collecting
from resegeo.run.commands import vectorize
from resegeo.scene.source import GeoReference
from resegeo_cli.main import main


@pytest.fixture
def scenes(tmp_path):
    """Class rasters of three scenes: two side by side, one in another CRS."""
    random = np.random.default_rng(0)
    for name, east, classes, crs in (("a", 0, (1, 2), 32633), ("b", 200, (1, 3), 32633), ("c", 0, (2, 3), 32632)):
        codes = random.choice(classes, (20, 20)).astype(np.uint8)
        where = GeoReference(CRS.from_epsg(crs), from_origin(500_000 + east, 5_200_000, 10, 10))
        write(tmp_path / f"{name}.classes.tif", codes, where)
    return tmp_path


def read(path, layer="all"):
    return pyogrio.read_dataframe(path, layer=layer)


def collect(folder, *names, **options):
    for name in names:
        vectorize(folder / f"{name}.classes.tif", folder / "all.gpkg", append=True, **options)
    return read(folder / "all.gpkg")


def test_scenes_lie_in_one_layer_in_its_crs_with_all_that_each_has_alone(scenes):
    frame = collect(scenes, "a", "b", "c")
    assert frame.scene.unique().tolist() == ["a", "b", "c"]
    for name in ("a", "b", "c"):
        vectorize(scenes / f"{name}.classes.tif", scenes / f"{name}.gpkg")
        alone = read(scenes / f"{name}.gpkg", name).to_crs(frame.crs)
        part = frame[frame.scene == name].reset_index(drop=True)
        assert part.drop(columns="geometry").equals(alone.drop(columns="geometry"))
        assert (part.geometry.to_wkb() == alone.geometry.to_wkb()).all()
    with sqlite3.connect(scenes / "all.gpkg") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        ((qml,),) = database.execute("SELECT styleQML FROM layer_styles").fetchall()
        assert database.execute("SELECT count(*) FROM rtree_all_geom").fetchone() == (len(frame),)
    assert all(
        spec.name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in qml for spec in CLASSES.classes
    )
    assert [path.name for path in scenes.iterdir() if path.name.startswith(".tmp")] == []


def test_a_scene_that_is_there_is_replaced_only_when_asked(scenes):
    before = collect(scenes, "a", "b")
    with pytest.raises(ResegeoError, match="holds polygons of a already"):
        collect(scenes, "a")
    assert read(scenes / "all.gpkg").equals(before)
    write(scenes / "a.classes.tif", np.ones((20, 20), np.uint8))
    after = collect(scenes, "a", overwrite=True)
    assert (after.scene == "a").sum() == 1
    assert after[after.scene == "b"].shape == before[before.scene == "b"].shape


def test_what_a_user_added_stays(scenes):
    collect(scenes, "a")
    with sqlite3.connect(scenes / "all.gpkg") as database:
        database.execute("ALTER TABLE 'all' ADD COLUMN seen TEXT DEFAULT 'yes'")
        database.execute("CREATE TABLE notes (text)")
        database.execute("INSERT INTO notes VALUES ('mine')")
        database.execute("UPDATE layer_styles SET styleQML = '<qgis>mine</qgis>'")
    frame = collect(scenes, "b")
    assert (frame[frame.scene == "a"].seen == "yes").all()
    assert set(frame.scene) == {"a", "b"}
    with sqlite3.connect(scenes / "all.gpkg") as database:
        assert database.execute("SELECT text FROM notes").fetchall() == [("mine",)]
        assert database.execute("SELECT styleQML FROM layer_styles").fetchall() == [("<qgis>mine</qgis>",)]


@pytest.mark.parametrize("fault", ["write_layer", "restyle", "move"])
def test_whatever_fails_the_file_is_as_it_was(scenes, monkeypatch, fault):
    collect(scenes, "a")
    before = (scenes / "all.gpkg").read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(collecting, fault, fail)
    with pytest.raises(ResegeoError, match="No space left on device"):
        collect(scenes, "b")
    assert (scenes / "all.gpkg").read_bytes() == before
    assert sorted(path.name for path in scenes.glob("*gpkg*")) == ["all.gpkg"]


def test_what_does_not_fit_is_told_in_a_sentence(scenes):
    collect(scenes, "a")
    write(scenes / "d.classes.tif", np.ones((9, 9), np.uint8), classes=class_list(["lake", "roof"]))
    with pytest.raises(ResegeoError, match=r"has a class water of the code 1, which the class list of this raster has"):
        collect(scenes, "d")
    write(scenes / "e.classes.tif", np.ones((9, 9), np.uint8), GeoReference(None, from_origin(0, 0, 1, 1)))
    with pytest.raises(ResegeoError, match="do not both have a CRS"):
        collect(scenes, "e")
    with pytest.raises(UsageError, match=r"its suffix is \.gpkg"):
        vectorize(scenes / "a.classes.tif", scenes / "all.shp", append=True)
    (scenes / "text.gpkg").write_text("no database at all, but long enough to be looked at as one" * 9)
    with pytest.raises(ResegeoError, match="is no GeoPackage"):
        vectorize(scenes / "a.classes.tif", scenes / "text.gpkg", append=True)
    with sqlite3.connect(scenes / "all.gpkg") as database:
        database.execute("ALTER TABLE 'all' RENAME COLUMN prompts TO words")
    with pytest.raises(ResegeoError, match="has no layer of polygons of resegeo"):
        collect(scenes, "b")


def test_the_command_collects(scenes):
    for name in ("a", "b"):
        arguments = ["vectorize", str(scenes / f"{name}.classes.tif"), "-o", str(scenes / "all.gpkg"), "--append"]
        assert CliRunner().invoke(main, arguments).exit_code == 0
    assert set(read(scenes / "all.gpkg").scene) == {"a", "b"}
