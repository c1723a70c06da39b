"""One rule for every raster that is opened: formats that stay within their file, and others where they are named."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from click.testing import CliRunner
from rasterio.crs import CRS

import resegeo
from resegeo.classes.class_file import class_list
from resegeo.errors import ResegeoError, UsageError
from resegeo.evaluation.evaluate import evaluate
from resegeo.outputs.raster import write_class_raster
from resegeo.scene.reader import open_scene
from resegeo.scene.resampling import Canvas
from resegeo.scene.source import GeoReference
from resegeo.scene.vector_layers import read_layer
from resegeo.scene.windows import Rect
from resegeo.segments.segment_sources import segment_source
from resegeo_cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore")

CODES = np.repeat(np.array([[1, 2], [2, 1]], np.uint8), 20, 0).repeat(20, 1)
PLACE = Affine(10, 0, 500_000, 0, -10, 5_200_000)


@pytest.fixture
def predicted(tmp_path):
    path = tmp_path / "scene.classes.tif"
    where = GeoReference(CRS.from_epsg(32633), PLACE)
    classes = class_list(["water", "forest"])
    write_class_raster(path, [(0, 0, CODES)], height=40, width=40, georeference=where, classes=classes, tags={})
    return path


@pytest.fixture
def elsewhere(tmp_path):
    """Labels that a file elsewhere holds as raw bytes, described by a VRT that calls itself a TIFF."""
    (tmp_path / "raw.bin").write_bytes(CODES.tobytes())
    band = '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="0">'
    band += f"{tmp_path / 'raw.bin'}</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset>"
    band += "<LineOffset>40</LineOffset></VRTRasterBand>"
    place = f"<SRS>EPSG:32633</SRS><GeoTransform>{', '.join(map(str, PLACE.to_gdal()))}</GeoTransform>"
    path = tmp_path / "labels.tif"
    path.write_text(f'<VRTDataset rasterXSize="40" rasterYSize="40">{place}{band}</VRTDataset>')
    return path


def test_a_truth_that_takes_bytes_from_elsewhere_is_read_where_its_format_is_named(predicted, elsewhere, monkeypatch):
    monkeypatch.setenv("GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE", "ALL")  # GDAL's own switch, closed by default
    with pytest.raises(ResegeoError, match=r'takes raw bytes.*pass formats="VRT"'):
        evaluate([(predicted, elsewhere)])
    assert evaluate([(predicted, elsewhere)], formats=["vrt"]).accuracy.overall == 1.0
    said = CliRunner().invoke(main, ["evaluate", str(predicted), str(elsewhere)])
    assert said.exit_code == 1
    assert "pass --formats VRT" in said.output
    said = CliRunner().invoke(main, ["evaluate", str(predicted), str(elsewhere), "--formats", "VRT", "--json"])
    assert '"overall_accuracy": 1.0' in said.output
    with pytest.raises(UsageError, match="is no format that GDAL"):
        evaluate([(predicted, elsewhere)], formats=["word"])


def test_a_label_raster_of_segments_is_read_where_its_format_is_named(elsewhere, make_raster, picture, monkeypatch):
    monkeypatch.setenv("GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE", "ALL")
    scene = make_raster("scene.tif", picture(40, 40), transform=PLACE, crs="EPSG:32633")
    with pytest.raises(ResegeoError, match=r'takes raw bytes.*pass formats="VRT"'):
        segment_source(str(elsewhere), Canvas(open_scene(scene)))
    source = segment_source(str(elsewhere), Canvas(open_scene(scene, formats=["VRT"])))
    assert np.array_equal(source.ids(Rect(0, 0, 40, 40))[0], CODES)


def test_a_map_that_takes_bytes_from_elsewhere_is_no_class_raster(elsewhere, tmp_path):
    for command in (["vectorize", "-o", str(tmp_path / "x.gpkg")], ["sample", "-o", str(tmp_path / "p.gpkg")]):
        said = CliRunner().invoke(main, [command[0], str(elsewhere), *command[1:]])
        assert said.exit_code == 1, said.output
        assert "takes raw bytes" in said.output


OWN = {  # what is opened without the rule: files that the same process has written a moment ago
    "datasets/cutting.py": 1,
    "outputs/raster.py": 3,
    "run/score_rasters.py": 1,
    "scene/formats.py": 0,
}


def test_rasters_are_opened_in_one_place():
    package = Path(resegeo.__file__).parent
    found = {}
    for path in package.rglob("*.py"):
        count = len(re.findall(r"rasterio\.open\(", path.read_text("utf-8")))
        name = path.relative_to(package).as_posix()
        if count and not name.startswith("qgis/"):
            found[name] = count
    assert found == {name: count for name, count in OWN.items() if count}


@pytest.mark.parametrize("suffix", ["fgb", "gpkg", "geojson", "shp", "parquet"])
def test_a_vector_file_that_was_cut_is_read_or_told(tmp_path, suffix):
    import geopandas
    import shapely

    boxes = shapely.box(np.arange(9) * 10, 0, np.arange(9) * 10 + 5, 5)
    frame = geopandas.GeoDataFrame({"name": [f"field {k}" for k in range(9)]}, geometry=boxes, crs="EPSG:32633")
    path = tmp_path / f"fields.{suffix}"
    frame.to_parquet(path) if suffix == "parquet" else frame.to_file(path)
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 13).astype(int):
        path.write_bytes(whole[:length])
        with contextlib.suppress(ResegeoError):
            assert len(read_layer(str(path), "the fields"))
