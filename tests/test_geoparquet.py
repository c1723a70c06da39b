"""GeoParquet with the box of every row, by which a part is read without the rest."""

from __future__ import annotations

import json
import shutil
import subprocess

import geopandas as gpd
import numpy as np
import pytest
from pyarrow import parquet
from test_polygon_borders import patches
from test_raster import CLASSES, write

from resegeo.outputs import polygons as module
from resegeo.outputs.polygons import draw, polygonize
from resegeo.outputs.vectors import write_polygons


@pytest.mark.parametrize("vertices", [10**6, 60])
def test_a_part_is_read_by_its_box(tmp_path, monkeypatch, vertices):
    monkeypatch.setattr(module, "_VERTICES", vertices)
    write(tmp_path / "a.tif", patches(0, 60, 2.0).clip(0, 3))
    write_polygons(draw(tmp_path / "a.tif"), tmp_path / "b.parquet", CLASSES)
    file = parquet.ParquetFile(tmp_path / "b.parquet")
    assert (file.num_row_groups > 3) == (vertices == 60)
    about = json.loads(file.schema_arrow.metadata[b"geo"])
    assert about["version"] == "1.1.0"
    assert about["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    whole = gpd.read_parquet(tmp_path / "b.parquet")
    assert about["columns"]["geometry"]["bbox"] == pytest.approx(list(whole.total_bounds))
    write_polygons(polygonize(tmp_path / "a.tif"), tmp_path / "one.parquet", CLASSES)
    assert whole.equals(gpd.read_parquet(tmp_path / "one.parquet"))
    assert (whole.dtypes == gpd.read_parquet(tmp_path / "one.parquet").dtypes).all()
    boxes = file.read(["bbox"]).column("bbox").combine_chunks()
    told = np.stack([boxes.field(name).to_numpy() for name in ("xmin", "ymin", "xmax", "ymax")], axis=1)
    assert (told == whole.bounds.to_numpy()).all()
    west, south, east, north = whole.total_bounds
    box = (west, south, west + (east - west) / 4, south + (north - south) / 4)
    part = gpd.read_parquet(tmp_path / "b.parquet", bbox=box)
    bounds = whole.bounds
    wanted = whole[(bounds.minx <= box[2]) & (bounds.miny <= box[3])]
    assert 0 < len(part) < len(whole)
    assert part.geometry.to_wkb().tolist() == wanted.geometry.to_wkb().tolist()
    assert "bbox" not in part.columns


def test_gdal_reads_it_where_its_driver_is_there(tmp_path):
    write(tmp_path / "a.tif", patches(0, 60, 2.0).clip(0, 3))
    drawing = draw(tmp_path / "a.tif")
    write_polygons(drawing, tmp_path / "b.parquet", CLASSES)
    formats = (
        shutil.which("ogrinfo") and subprocess.run(["ogrinfo", "--formats"], capture_output=True, text=True).stdout
    )
    if not formats or "Parquet" not in formats:
        pytest.skip("no GDAL with a driver for Parquet")
    told = subprocess.run(["ogrinfo", "-so", "-al", tmp_path / "b.parquet"], capture_output=True, text=True, check=True)
    assert f"Feature Count: {len(drawing)}" in told.stdout
