"""Points worth labelling next."""

from __future__ import annotations

import sqlite3

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from click.testing import CliRunner

import resegeo
from resegeo.clip.blending import class_ranks
from resegeo.errors import ResegeoError, UsageError
from resegeo.run.suggestions import suggest
from resegeo_cli.main import main

pytestmark = pytest.mark.usefixtures("quick_model")

WHERE = {"crs": "EPSG:32633", "transform": Affine(1, 0, 500_000, 0, -1, 5_190_080)}


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "classes.yml"
    path.write_text("classes: [water, forest, road]")
    return path


@pytest.fixture
def store(make_raster, picture, tmp_path, prompts):
    pixels = picture(64, 80)
    pixels[:, :, 40:] //= 4
    resegeo.segment(make_raster("scene.tif", pixels, **WHERE), prompts, tmp_path / "out", vector=())
    return tmp_path / "out/scene.store.zarr"


def test_the_margin_is_what_lies_between_the_two_best_classes():
    by_class = np.array([[[0.2, 0.5, np.nan]], [[0.7, 0.5, np.nan]], [[0.1, 0.0, np.nan]]], dtype=np.float32)
    best, second, margin = class_ranks(by_class)
    assert best[0, :2].tolist() == [1, 0]
    assert second[0, :2].tolist() == [0, 1]
    assert np.allclose(margin[0, :2], [0.5, 0])
    assert np.isnan(margin[0, 2])


def test_suggested_points_are_apart_uncertain_and_the_same_each_time(store, prompts, tmp_path):
    found = gpd.read_file(suggest(store, prompts, tmp_path / "a.gpkg", 8))
    assert len(found) == 8
    assert found["class"].isna().all()
    assert set(found["guess"]) <= {"water", "forest", "road"}
    assert (found["guess"] != found["second"]).all()
    near = [found.geometry.drop(index).distance(point).min() for index, point in found.geometry.items()]
    assert min(near) >= 3
    again = gpd.read_file(suggest(store, prompts, tmp_path / "b.gpkg", 8))
    assert found.equals(again)
    with sqlite3.connect(tmp_path / "a.gpkg") as database:
        style = database.execute("SELECT styleQML FROM layer_styles").fetchone()[0]
    assert "ValueMap" in style
    assert 'value="forest"' in style


def test_rounds_add_up(store, prompts, tmp_path):
    first = gpd.read_file(suggest(store, prompts, tmp_path / "a.gpkg", 6))
    first["class"] = ["water", "forest"] * 3
    first.to_file(tmp_path / "filled.gpkg")
    arguments = ["suggest", str(store), "--prompts", str(prompts), "-n", "6", "-o", str(tmp_path / "b.gpkg")]
    result = CliRunner().invoke(main, [*arguments, "--examples", str(tmp_path / "filled.gpkg")])
    assert result.exit_code == 0, result.output
    second = gpd.read_file(tmp_path / "b.gpkg")
    assert min(first.geometry.distance(point).min() for point in second.geometry) >= 3


def test_mistakes_of_suggest_have_their_sentence(store, prompts, tmp_path):
    with pytest.raises(UsageError, match="points go into a GeoPackage"):
        suggest(store, prompts, tmp_path / "a.shp")
    with pytest.raises(UsageError, match="is no store"):
        suggest(tmp_path / "scene.tif", prompts, tmp_path / "a.gpkg")
    (tmp_path / "a.gpkg").touch()
    with pytest.raises(ResegeoError, match="exists"):
        suggest(store, prompts, tmp_path / "a.gpkg")
    with pytest.raises(ResegeoError, match="leaves nothing in doubt"):
        suggest(store, resegeo.class_list(["water"]), tmp_path / "b.gpkg")
