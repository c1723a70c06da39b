"""Sentinel-2's true colour is found by what products of it call their bands, or by how many there are."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from resegeo.errors import InputNotice
from resegeo.scene.reader import open_scene

NUMBERS = ("01", "02", "03", "04", "05", "06", "07", "08", "8A", "09", "10", "11", "12")


@pytest.fixture
def scene(make_raster):
    def make(names, dtype="uint16"):
        values = np.random.default_rng(0).integers(1, 200, (len(names), 16, 16)).astype(dtype)
        path = make_raster("a.tif", values, photometric="minisblack")
        with rasterio.open(path, "r+") as raster:
            for band, name in enumerate(names, 1):
                if name:
                    raster.set_band_description(band, name)
        return path

    return make


@pytest.mark.parametrize("form", ["B{}", "Band {}", "B{}_10m", "B{} 60m", "T32UPU_20200801T102031_B{}_20m", "boa_b{}"])
def test_the_names_of_products_tell_the_bands(scene, form):
    with pytest.warns(InputNotice, match="bands 4, 3, 2 serve as red, green, blue"):
        assert open_scene(scene([form.format(number) for number in NUMBERS])).bands == (4, 3, 2)


def test_names_in_another_order_go_before_the_count(scene):
    with pytest.warns(InputNotice, match="bands 10, 11, 12 serve as red, green, blue"):
        assert open_scene(scene([f"B{n}_10m" for n in reversed(NUMBERS)])).bands == (10, 11, 12)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("count", [12, 13])
def test_a_nameless_stack_of_as_many_bands_is_taken_as_sentinel_2_and_says_so(scene, dtype, count):
    with pytest.warns(InputNotice, match=r"as Sentinel-2 has: bands 4, 3, 2 serve .* name three by bands"):
        assert open_scene(scene([None] * count, dtype)).bands == (4, 3, 2)


@pytest.mark.parametrize(("count", "dtype"), [(13, "uint8"), (11, "uint16"), (14, "float32")])
def test_any_other_stack_says_which_bands_are_taken_and_what_to_pass(scene, count, dtype):
    with pytest.warns(InputNotice, match=r"bands 1, 2, 3 are taken\. Name them by bands, such as bands=.?3,2,1"):
        assert open_scene(scene([None] * count, dtype)).bands == (1, 2, 3)


@pytest.mark.parametrize("name", ["B{}_ratio", "B{}-B04", "web{}", "B{}_500m"])
def test_what_only_resembles_a_name_tells_nothing(scene, name):
    with pytest.warns(InputNotice, match="bands 1, 2, 3 are taken"):
        assert open_scene(scene([name.format(number) for number in NUMBERS])).bands == (1, 2, 3)
