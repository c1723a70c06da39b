"""Polygons that are large by themselves: drawn and written in parts, to the same bytes as any other."""

from __future__ import annotations

import sqlite3

import geopandas as gpd
import numpy as np
import pytest
import shapely
from test_polygon_borders import CLASSES, drawn, patches
from test_raster import write

from resegeo.outputs import polygons, vectors
from resegeo.outputs.borders import Borders
from resegeo.outputs.polygons import draw
from resegeo.outputs.strips import Areas, Codes
from resegeo.outputs.vectors import wkb_of, write_polygons


def rows(path):
    with sqlite3.connect(path) as database:
        return database.execute("SELECT * FROM a ORDER BY fid").fetchall()


@pytest.mark.parametrize("smooth", [False, True])
def test_a_polygon_larger_than_a_batch_is_written_as_one_that_is_not(tmp_path, monkeypatch, smooth):
    codes = patches(4, 50, 2.0)
    codes[5:45, 5:45] = 1 + (np.indices((40, 40)) % 2).all(axis=0)  # an area with many holes
    write(tmp_path / "a.tif", codes, classes=CLASSES)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        write_polygons(draw(tmp_path / "a.tif", smooth=smooth), tmp_path / name / "a.gpkg", CLASSES)
        monkeypatch.setattr(polygons, "_VERTICES", 240)
        monkeypatch.setattr(vectors, "_LARGE", 30)
    assert rows(tmp_path / "parts" / "a.gpkg") == rows(tmp_path / "whole" / "a.gpkg")
    shapes = gpd.read_file(tmp_path / "parts" / "a.gpkg").geometry.values
    assert shapely.get_num_coordinates(shapes).max() > 200
    assert shapely.get_num_interior_rings(shapes).max() > 10


def test_rings_of_a_large_area_come_in_batches_of_their_own():
    codes = np.ones((30, 30), dtype=np.uint8)
    codes[1:29:2, 1:29:2] = 2  # 196 holes of one pixel
    borders = Borders.trace(Areas.find(Codes.of(codes), drawn, 7))
    found = [(batch.begins, batch.ends, len(batch.points), set(batch.area_of)) for batch in borders.batches(100)]
    assert [part[:2] for part in found[:8]] == [(True, False), *[(False, False)] * 6, (False, True)]
    assert all(part[3] == {1} for part in found[:8])
    assert all(part[:2] == (True, True) and 1 not in part[3] for part in found[8:])
    assert max(part[2] for part in found) <= 104
    assert sum(part[2] for part in found) == borders.vertices


@pytest.mark.parametrize("seed", range(3))
def test_well_known_binary_is_that_of_shapely(seed):
    random = np.random.default_rng(seed)
    holes = [shapely.Point(xy).buffer(random.uniform(0.01, 0.4)) for xy in np.argwhere(random.random((5, 5)) < 0.5)]
    polygon = shapely.difference(shapely.box(-3, -3, 9, 9.1), shapely.union_all(holes))
    assert wkb_of(polygon).tobytes() == shapely.to_wkb(polygon, byte_order=1)
