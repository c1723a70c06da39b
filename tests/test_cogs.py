"""Class and score rasters by the validator of rio-cogeo, in strict mode: valid, and no word of advice."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from test_raster import random_codes, write

import resegeo
from resegeo.classes.class_file import class_list
from resegeo.scene.source import GeoReference

cogeo = pytest.importorskip("rio_cogeo.cogeo")

UTM = CRS.from_epsg(32633)
GCPS = tuple(GroundControlPoint(r, c, 5e5 + 9 * c, 5.2e6 - 9 * r) for r, c in ((0, 0), (0, 900), (700, 0), (700, 900)))

pytestmark = pytest.mark.filterwarnings("ignore")


def check(path):
    valid, errors, advice = cogeo.cog_validate(path, strict=True)
    assert (valid, errors, advice) == (True, [], [])


@pytest.mark.parametrize(
    "where",
    [
        GeoReference(UTM, Affine(10, 0, 5e5, 0, -10, 5.2e6)),
        pytest.param(GeoReference(UTM, Affine(8, 6, 5e5, 6, -8, 5.2e6)), marks=pytest.mark.slow),
        pytest.param(GeoReference(None, None, gcps=GCPS, gcps_crs=UTM), marks=pytest.mark.slow),
        pytest.param(GeoReference(None, None), marks=pytest.mark.slow),
    ],
    ids=["plain", "rotated", "gcps", "nowhere"],
)
def test_a_class_raster_is_a_cog(tmp_path, where):
    write(tmp_path / "a.classes.tif", random_codes(1100, 1300), where)
    check(tmp_path / "a.classes.tif")


def test_one_of_many_classes_is_a_cog(tmp_path):
    classes = class_list([f"class {number}" for number in range(300)])
    codes = np.random.default_rng(0).integers(1, 301, (600, 700)).astype(np.uint16)
    write(tmp_path / "a.classes.tif", codes, classes=classes)
    check(tmp_path / "a.classes.tif")


@pytest.mark.usefixtures("quick_model")
def test_all_rasters_of_a_run_are_cogs(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(520, 530))
    made = resegeo.segment(scene, ["water", "forest"], tmp_path / "out", scores=True, vector=(), segments="none")
    rasters = [path for path in made.files() if path.suffix == ".tif"]
    assert len(rasters) == 3
    for path in rasters:
        check(path)
