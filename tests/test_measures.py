"""Lengths and areas with their units, from wherever they are given to the pixels that a plan holds."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from rasterio.crs import CRS
from rasterio.transform import from_origin
from test_raster import write

from resegeo.batches.manifest import read_manifest
from resegeo.errors import UsageError
from resegeo.outputs.polygons import polygonize
from resegeo.run.options import Options
from resegeo.run.results import smallest_worth
from resegeo.scene.resampling import pixel_on_the_ground
from resegeo.scene.source import GeoReference
from resegeo.settings import Settings, resolve_settings
from resegeo_cli.main import main


@pytest.mark.parametrize(
    ("given", "held", "pixels"),
    [("50m2", "50m2", 200), ("0.5 ha", "0.5 ha", 20_000), ("20px", 20, 20), ("20", 20, 20), (20, 20, 20)],
)
def test_an_area_stands_for_pixels_of_the_scene_wherever_it_is_given(tmp_path, given, held, pixels):
    (tmp_path / "s.yml").write_text(f"min_area: {given}\n")
    (tmp_path / "scenes.csv").write_text(f"scene,min_area\na.tif,{given}\n")
    for settings in (
        Settings(min_area=given),
        Settings(**Options.of({"min_area": given}).method.knobs),
        resolve_settings({}, file=tmp_path / "s.yml"),
        Settings(**read_manifest(tmp_path / "scenes.csv")[0].options),
    ):
        assert settings.min_area == held
        assert settings.in_pixels((0.5, 0.5)).min_area == pixels


def test_lengths_are_turned_by_the_mean_side_of_a_pixel():
    settings = Settings(simplify="3m").in_pixels((1.0, 4.0))
    assert settings.simplify == 1.5
    assert Settings(simplify="1.5px").simplify == Settings(simplify=1.5).simplify == 1.5
    assert Settings(simplify="50cm").in_pixels((0.2, 0.2)).simplify == pytest.approx(2.5)


def test_an_area_is_rounded_up_to_whole_pixels():
    assert Settings(min_area="50m2").in_pixels((0.1, 0.1)).min_area == 5000  # 0.1 * 0.1 is a little more than 0.01
    assert Settings(min_area="50m2").in_pixels((10, 10)).min_area == 1
    assert Settings(min_area="150m2").in_pixels((10, 10)).min_area == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_area", "2.5px"), ("min_area", "5m"), ("min_area", -1), ("simplify", "5m2"), ("simplify", "some")],
)
def test_what_is_no_measure_is_told_in_a_sentence(tmp_path, name, value):
    with pytest.raises(UsageError, match=rf"{name} is .*; expected .* such as"):
        Settings(**{name: value})
    words = tmp_path / "c.yml"
    words.write_text("classes: [water]\n")
    flag = f"--{name.replace('_', '-')}={value}"
    for command in (["segment", "a.tif", "--prompts", str(words)], ["vectorize", "a.tif", "-o", "a.gpkg"]):
        shown = CliRunner().invoke(main, [*command, flag])
        assert shown.exit_code == 2
        assert "such as" in shown.output


def test_measures_on_the_ground_need_pixels_that_have_a_size():
    with pytest.raises(UsageError, match=r"min_area=.*50m2.*: the scene has no pixel size on the ground"):
        Settings(min_area="50m2").in_pixels(None)
    assert Settings(min_area="50px").in_pixels(None).min_area == 50


def test_polygons_take_measures_of_their_raster_feet_and_degrees_included(tmp_path):
    codes = np.ones((40, 40), np.uint8)
    codes[5:9, 5:10] = 2
    for where in (
        GeoReference(CRS.from_epsg(32633), from_origin(500_000, 5_200_000, 2, 2)),
        GeoReference(CRS.from_epsg(2263), from_origin(980_000, 200_000, 2 / 0.3048006096, 2 / 0.3048006096)),
        GeoReference(CRS.from_epsg(4326), from_origin(10, 0, 2 / 111_320, 2 / 110_574)),
    ):
        ground = pixel_on_the_ground(where, 40, 40)
        assert ground == pytest.approx((2, 2), rel=1e-3)
        write(tmp_path / "a.tif", codes, where)
        assert len(polygonize(tmp_path / "a.tif", min_area="75m2")) == 2  # it has 80 m²
        assert len(polygonize(tmp_path / "a.tif", min_area="85m2")) == 1


def test_ten_square_metres_are_suggested_where_they_are_some_pixels():
    assert smallest_worth((0.5, 0.5)) == (40, "10m2")
    assert smallest_worth((10, 10)) == smallest_worth(None) == (5, "5px")
