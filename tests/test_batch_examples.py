"""Examples in a batch: points are fitted scene by scene, a fitted file serves all; the same bytes whoever computes."""

from __future__ import annotations

import json

import geopandas as gpd
import pytest
import rasterio
import shapely
from affine import Affine

import resegeo
from resegeo.run.compute import Models

WORDS = ["water", "forest"]
EAST = {"one": 500_000, "two": 500_200, "three": 500_400}


@pytest.fixture
def scenes(tmp_path, picture):
    """Three scenes side by side, and points in the first two of them."""
    (tmp_path / "in").mkdir()
    for name, east in EAST.items():
        pixels = picture(64, 80, seed=len(name))
        pixels[:, :, 40:] //= 4
        profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": 64, "width": 80, "crs": "EPSG:32633"}
        with rasterio.open(
            tmp_path / f"in/{name}.tif", "w", transform=Affine(1, 0, east, 0, -1, 5_190_080), **profile
        ) as raster:
            raster.write(pixels)
    spots = [(east + col + 0.5, 5_190_050.5) for east in (EAST["one"], EAST["two"]) for col in (4, 14, 60, 70)]
    frame = gpd.GeoDataFrame({"class": WORDS[:1] * 2 + WORDS[1:] * 2 + WORDS[:1] * 2 + WORDS[1:] * 2})
    frame.set_geometry([shapely.Point(spot) for spot in spots], crs="EPSG:32633").to_file(tmp_path / "clicks.gpkg")
    (tmp_path / "classes.yml").write_text(json.dumps({"classes": WORDS}))
    return tmp_path


def content(folder, name):
    return {
        path.name: path.read_bytes()
        for path in (folder / name).iterdir()
        if path.is_file() and path.suffix in (".tif", ".safetensors", ".png", ".csv", ".qml")
    }


@pytest.mark.usefixtures("quick_model")
def test_points_are_fitted_scene_by_scene_and_one_without_says_so(scenes):
    made = resegeo.batch(
        scenes / "in", scenes / "classes.yml", scenes / "out", examples=scenes / "clicks.gpkg", vector=()
    )
    assert {result.folder.name: result.state for result in made.scenes} == {
        "one": "done",
        "two": "done",
        "three": "failed",
    }
    reason = next(result.reason for result in made.scenes if result.state == "failed")
    assert "has no example in this scene" in reason
    for name in ("one", "two"):
        alone = resegeo.segment(
            scenes / f"in/{name}.tif", WORDS, scenes / "alone" / name, examples=scenes / "clicks.gpkg", vector=()
        )
        assert json.loads(alone.report.read_text())["examples"]["counts"] == {"water": 2, "forest": 2}
        assert content(scenes / "out", name) == content(scenes / "alone", name)


@pytest.mark.usefixtures("quick_model")
def test_a_fitted_file_serves_all_scenes_and_a_manifest_gives_one_its_own(scenes):
    fitted = resegeo.segment(
        scenes / "in/one.tif", WORDS, scenes / "fit", examples=scenes / "clicks.gpkg", vector=()
    ).beside[0]
    made = resegeo.batch(scenes / "in", scenes / "classes.yml", scenes / "out", examples=fitted, vector=())
    assert made.counts["done"] == 3
    assert resegeo.batch(scenes / "in", scenes / "classes.yml", scenes / "out", examples=fitted, vector=()).counts[
        "skipped"
    ] == len(EAST)
    (scenes / "list.csv").write_text("scene,examples,field\nin/two.tif,clicks.gpkg,class\nin/three.tif,,\n")
    listed = resegeo.batch(scenes / "list.csv", scenes / "classes.yml", scenes / "listed", vector=())
    kinds = [
        json.loads((result.folder / f"{result.folder.name}.json").read_text()).get("examples", {}).get("kind")
        for result in listed.scenes
    ]
    assert kinds == ["places", None]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["threads", pytest.param("workers", marks=pytest.mark.slow)])
def test_examples_give_the_same_bytes_whoever_computes(scenes, how, monkeypatch):
    monkeypatch.chdir(scenes)
    given = {"examples": "clicks.gpkg", "vector": (), "stride": 32}
    models = Models()
    one = resegeo.segment("in/one.tif", WORDS, "a", **given, models=models)
    other = {"threads": 2, "read_ahead": 3} if how == "threads" else {"cluster": 2}
    two = resegeo.segment("in/one.tif", WORDS, "b", **given, **other)
    assert content(scenes, "a") == content(scenes, "b")
    assert one.beside[0].name == two.beside[0].name == "one.fitted.safetensors"
    if how == "workers":
        made = resegeo.batch("in", "classes.yml", "c", **given, cluster=1)
        assert made.counts["done"] == 2
        assert content(scenes / "c", "one") == content(scenes, "a")
