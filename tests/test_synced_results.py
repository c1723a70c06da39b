"""Before a run says that it is done, all that it left is on the disk: power that is lost then takes nothing back."""

from __future__ import annotations

import os

import pytest

import resegeo
from resegeo.batches.batch import segment_many

pytestmark = [
    pytest.mark.usefixtures("quick_model"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(os.name == "nt", reason="Windows syncs no folders"),
]


def test_results_of_every_kind_and_their_folders_are_synced(tmp_path, make_raster, picture, synced):
    scene = make_raster("scene.tif", picture(40, 40))
    out = tmp_path / "deep/out"
    made = resegeo.segment(scene, ["water", "forest"], out, vector=("gpkg", "shp", "geojson", "fgb"))
    files = [path for path in out.rglob("*") if ".zarr" not in str(path)]
    assert {made.raster, made.report, made.picture, *made.vectors} <= set(files)
    assert [path.name for path in (*files, out, out.parent, tmp_path) if path.stat().st_ino not in synced] == []


def test_the_table_of_a_batch_is_synced_with_what_it_speaks_of(tmp_path, make_raster, picture, synced):
    scene = make_raster("scene.tif", picture(40, 40))
    made = segment_many(scene, ["water", "forest"], tmp_path / "out", vector=())
    files = [path for path in (tmp_path / "out").rglob("*") if ".zarr" not in str(path) and path != made.table]
    wanted = [path for path in (*files, made.table, tmp_path / "out") if path.name != ".batch.jsonl"]  # a convenience
    assert [path.name for path in wanted if path.stat().st_ino not in synced] == []
