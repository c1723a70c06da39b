"""Change between two maps: against counts worked out by hand and by pandas, and GDAL's own warping."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from rasterio.crs import CRS
from rasterio.transform import from_origin
from test_raster import write

import resegeo
from resegeo.classes.class_file import class_list
from resegeo.errors import InputNotice, ResegeoError, UsageError
from resegeo.scene.source import GeoReference
from resegeo_cli.main import main

CLASSES = class_list(["water", "forest", "road"])
OTHERS = class_list(["road", "water", "=field"])
UTM = CRS.from_epsg(32633)


def place(row=0, col=0, size=10.0, crs=UTM):
    return GeoReference(crs, from_origin(500_000 + 10 * col, 5_200_000 - 10 * row, size, size))


@pytest.fixture
def maps(tmp_path, monkeypatch):
    """Two maps whose classes stand in another order, the second one three rows down and two columns to the right."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(4)
    first, second = (np.kron(random.integers(0, 4, (8, 9)), np.ones((5, 5), int)).astype(np.uint8) for _ in range(2))
    first[0, :3], second[7, 5] = CLASSES.nodata, OTHERS.unprocessed
    write(Path("a.tif"), first, classes=CLASSES, georeference=place())
    write(Path("b.tif"), second, classes=OTHERS, georeference=place(3, 2))
    return first, second


def named(codes, classes):
    return np.vectorize(lambda code: classes.name_of(int(code)))(codes)


def test_the_cross_table_is_pandas_own(maps):
    first, second = (named(codes, classes) for codes, classes in zip(maps, (CLASSES, OTHERS), strict=True))
    one, other = first[3:, 2:].ravel(), second[:-3, :-2].ravel()
    seen = ~np.isin(one, ["nodata", "unprocessed"]) & ~np.isin(other, ["nodata", "unprocessed"])
    wanted = pd.crosstab(one[seen], other[seen]).stack()
    made = resegeo.compare("a.tif", "b.tif", "out")
    found = {(each.before, each.after): each.pixels for each in made.transitions}
    assert found == {pair: count for pair, count in wanted.items() if count}
    assert all(each.ha == pytest.approx(each.pixels / 100) for each in made.transitions)
    assert made.differing == pytest.approx((one != other)[seen].mean())
    with made.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["before"], row["after"]): int(row["pixels"]) for row in rows} == found
    assert json.loads(made.report.read_text())["differing"] == pytest.approx(made.differing, abs=1e-6)


def test_raster_and_polygons_say_from_and_to(maps):
    made = resegeo.compare("a.tif", "b.tif", "out")
    frame = gpd.read_file(made.polygons, layer="change")
    table = {(each.before, each.after): each.pixels for each in made.transitions if each.before != each.after}
    areas = frame.groupby(["before", "after"]).area_m2.sum()
    assert {pair: area / 100 for pair, area in areas.items()} == pytest.approx(table)
    assert shapely.coverage_is_valid(frame.geometry.values)
    with rasterio.open(made.raster) as raster:
        codes, transform = raster.read(1), raster.transform
        assert (raster.shape, raster.crs) == ((37, 43), UTM)
    assert transform == place(3, 2).transform
    assert (codes != 0).sum() - (codes == 255).sum() == sum(table.values())


def test_small_changes_count_as_none_whatever_the_unit(maps):
    whole = resegeo.compare("a.tif", "b.tif", "whole")
    for text in ("12", "12px", "1200m2", "0.12ha"):
        made = resegeo.compare("a.tif", "b.tif", "out", min_area=text, overwrite=True)
        frame = gpd.read_file(made.polygons, layer="change")
        assert frame.area_m2.min() >= 1200
        kept = gpd.read_file(whole.polygons, layer="change").query("area_m2 >= 1200")
        assert frame.area_m2.sum() == kept.area_m2.sum()
        assert made.small == (gpd.read_file(whole.polygons, layer="change").area_m2.sum() - kept.area_m2.sum()) / 100
    assert sum(each.pixels for each in made.transitions) == sum(each.pixels for each in whole.transitions)


def test_another_grid_is_read_by_its_nearest_pixels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = np.kron([[1, 2], [3, 0]], np.ones((10, 10))).astype(np.uint8)
    write(Path("a.tif"), codes, classes=CLASSES, georeference=place())
    write(Path("b.tif"), codes[::2, ::2], classes=CLASSES, georeference=place(size=20.0))
    with pytest.warns(InputNotice, match="lies on another grid"):
        made = resegeo.compare("a.tif", "b.tif", "out")
    assert made.differing == 0
    assert made.at_borders == 0
    assert len(gpd.read_file(made.polygons, layer="change")) == 0


def test_equal_maps_of_runs_differ_nowhere_and_sureness_comes_from_their_stores(
    make_raster, picture, tmp_path, monkeypatch, quick_model
):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 1), ("b", 2)):
        scene = make_raster(f"{name}.tif", picture(64, 64, seed=seed))
        resegeo.segment(scene, ["water", "forest"], name)
    same = resegeo.compare("a", "a/a.json", "same")
    assert same.differing == 0
    made = resegeo.compare("a", "b", "out")
    assert all(0 <= each.sure <= 1 for each in made.transitions)
    certain = resegeo.compare("a", "b", "certain", sure=0.0, only_sure=True)
    assert certain.transitions == tuple(certain.transitions)
    assert certain.unsure == 0
    none = resegeo.compare("a", "b", "none", sure=1.0, only_sure=True)
    assert all(each.before == each.after for each in none.transitions)


def test_mistakes_are_sentences(maps, tmp_path):
    with pytest.raises(UsageError, match=r"only_sure needs the scores"):
        resegeo.compare("a.tif", "b.tif", "out", only_sure=True)
    with pytest.raises(UsageError, match="expected a score from 0 to 1"):
        resegeo.compare("a.tif", "b.tif", "out", sure=2)
    with pytest.raises(ResegeoError, match="no such file or folder"):
        resegeo.compare("a.tif", "c.tif", "out")
    write(Path("far.tif"), maps[1], classes=OTHERS, georeference=place(1000, 1000))
    with pytest.raises(ResegeoError, match="have no area in common"):
        resegeo.compare("a.tif", "far.tif", "out")
    write(Path("bare.tif"), maps[1], classes=OTHERS, georeference=GeoReference(None, None))
    with pytest.raises(ResegeoError, match="cannot be laid over each other"):
        resegeo.compare("a.tif", "bare.tif", "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/change.csv").write_text("mine")
    result = CliRunner().invoke(main, ["compare", "a.tif", "b.tif", "-o", "out"])
    assert result.exit_code == 1
    assert "change.csv exists; pass --overwrite to replace it" in result.stderr
    assert (tmp_path / "out/change.csv").read_text() == "mine"


def test_the_command_prints_a_table_a_caution_and_the_paths(maps):
    result = CliRunner().invoke(main, ["compare", "a.tif", "b.tif", "-o", "out", "--min-area", "5px"])
    assert result.exit_code == 0, result.output
    assert [line.rsplit("/", 1)[-1] for line in result.stdout.split()] == [
        "change.tif",
        "change.gpkg",
        "change.csv",
        "change.json",
    ]
    assert "(the same)" in result.stderr
    assert "at borders of classes" in result.stderr
