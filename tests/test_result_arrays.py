"""Results as xarray, rioxarray and geopandas hold them."""

from __future__ import annotations

import subprocess
import sys

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr

import resegeo
import resegeo.xarray_accessor
from resegeo.errors import ResegeoError

WORDS = ["water", "forest", {"name": "tall houses", "prompts": ["building"], "color": "#102030"}]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    bands = np.kron(rng.integers(1, 255, (3, 5, 6)), np.ones((30, 30))).astype(np.uint8)
    path = folder / "scene.tif"
    grid = rasterio.transform.from_origin(500000, 5200000, 10, 10)
    with rasterio.open(
        path, "w", driver="GTiff", height=150, width=180, count=3, dtype="uint8", crs="EPSG:32633", transform=grid
    ) as out:
        out.write(bands)
    return path, resegeo.segment(path, WORDS, folder / "out", vector="gpkg")


def test_the_flags_of_an_array_say_what_its_codes_mean(made):
    codes = made[1].codes()
    assert codes.attrs["flag_meanings"].split() == ["background", "water", "forest", "tall_houses", "unprocessed"]
    assert codes.attrs["flag_values"].tolist() == [0, 1, 2, 3, 254]
    assert codes.attrs["flag_values"].dtype == codes.dtype == np.uint8
    assert codes.attrs["flag_colors"].split()[3] == "#102030"


def test_an_array_in_memory_equals_that_of_the_files_and_can_be_saved(made, tmp_path):
    path, result = made
    found = rioxarray.open_rasterio(path).resegeo.segment(WORDS)
    xr.testing.assert_identical(found, result.codes().compute())
    found.to_dataset().to_zarr(tmp_path / "codes.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "codes.zarr", mask_and_scale=False, consolidated=False).classes
    assert np.array_equal(again, found)
    assert again.attrs["flag_meanings"] == found.attrs["flag_meanings"]
    # The netCDF of the classic kind, all that scipy writes, knows no unsigned bytes.
    classic = found.astype(np.int16).assign_attrs(
        flag_values=found.attrs["flag_values"].astype(np.int16), _FillValue=np.int16(255)
    )
    classic.to_netcdf(tmp_path / "codes.nc", engine="scipy")
    reopened = xr.open_dataset(tmp_path / "codes.nc", engine="scipy").classes
    assert reopened.attrs["flag_colors"] == found.attrs["flag_colors"]


def test_a_raster_that_rioxarray_writes_keeps_codes_nodata_and_place(made, tmp_path):
    codes = made[1].codes()
    codes.rio.to_raster(tmp_path / "codes.tif")
    with rasterio.open(tmp_path / "codes.tif") as new, rasterio.open(made[1].raster) as old:
        assert np.array_equal(new.read(1), old.read(1))
        assert (new.nodata, new.crs, new.transform) == (old.nodata, old.crs, old.transform)


def test_a_folder_is_opened_as_what_its_run_returned(made):
    path, result = made
    found = resegeo.Segmentation.open(result.report.parent)
    assert found.files() == result.files() == resegeo.Segmentation.open(result.report).files()
    with pytest.raises(ResegeoError, match="holds no results of a finished run"):
        resegeo.Segmentation.open(path.parent)


def test_polygons_are_those_of_the_file(made):
    found, written = made[1].polygons(), gpd.read_file(made[1].vectors[0])
    assert found.crs == written.crs
    assert len(found) == len(written)
    assert np.allclose(found.score_mean, written.score_mean)


def test_scores_are_probabilities_whose_mean_a_polygon_tells(made):
    scores = made[1].scores()
    assert scores.dims == ("y", "x")
    assert float(scores.min()) >= 0
    assert float(scores.max()) <= 1
    largest = made[1].polygons().sort_values("area_m2").iloc[-1]
    inside = scores.rio.clip([largest.geometry], drop=False)
    assert float(inside.mean()) == pytest.approx(largest.score_mean, abs=1e-3)


def test_importing_resegeo_loads_no_xarray():
    code = "import sys, resegeo; sys.exit('xarray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
