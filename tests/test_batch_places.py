"""Where a batch writes: never through a link below the folder of the results; and which formats its tiles may have."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasters import write_raster

from resegeo.batches.batch import segment_many
from resegeo.batches.mosaic import build_mosaic
from resegeo.batches.spread import _pixels
from resegeo.errors import ResegeoError

pytestmark = [
    pytest.mark.usefixtures("quick_model"),
    pytest.mark.filterwarnings("ignore"),
]

WORDS = ["water", "forest"]


@pytest.fixture
def scenes(tmp_path, picture, make_raster):
    for name in ("a", "north/b"):
        (tmp_path / "scenes" / name).parent.mkdir(parents=True, exist_ok=True)
        make_raster(f"scenes/{name}.tif", picture(40, 40))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    return tmp_path / "scenes"


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("planted", ["a", "north", "north/b"])
@pytest.mark.parametrize("below", ["out", "stores"])
def test_a_scene_whose_folder_is_a_link_fails_and_the_others_are_done(scenes, tmp_path, planted, below):
    link = tmp_path / below / planted
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "mine", target_is_directory=True)
    made = segment_many(scenes, WORDS, tmp_path / "out", store=str(tmp_path / "stores"), vector=())
    states = {scene.folder.name: (scene.state, scene.reason) for scene in made.scenes}
    failed, done = ("a", "b") if planted == "a" else ("b", "a")
    assert states[failed][0] == "failed"
    assert f"{link} is a symbolic link" in states[failed][1]
    assert states[done] == ("done", "")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_the_folder_of_the_results_may_be_a_link_itself(scenes, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out", target_is_directory=True)
    made = segment_many(scenes / "a.tif", WORDS, tmp_path / "link", vector=())
    assert [scene.state for scene in made.scenes] == ["done"]
    assert (tmp_path / "out/a/a.classes.tif").exists()


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("planted", ["all", "all/all.vrt"])
def test_a_mosaic_is_not_written_through_a_link(scenes, tmp_path, planted):
    link = tmp_path / "out" / planted
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "mine")
    with pytest.raises(ResegeoError, match="is a symbolic link"):
        segment_many(scenes / "a.tif", WORDS, tmp_path / "out", mosaic="all")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_tiles_of_a_mosaic_may_have_the_formats_that_are_named(tmp_path):
    for name in ("far", "near"):
        (tmp_path / name).mkdir()
    write_raster(tmp_path / "far/pixels.tif", np.full((3, 20, 30), 7, np.uint8))
    tile = tmp_path / "near/tile.vrt"
    rasterio.shutil.copy(tmp_path / "far/pixels.tif", tile, driver="VRT")
    with pytest.raises(ResegeoError, match="lies neither beside nor below"):
        build_mosaic([str(tile)], tmp_path / "out", "m")
    assert _pixels(str(tile)) == 0
    assert _pixels(str(tile), "vrt") == _pixels(str(tile), ["VRT"]) == 600
    made = segment_many(tile, WORDS, tmp_path / "out", mosaic="m", formats="vrt", vector=())
    assert [scene.state for scene in made.scenes] == ["done"]
    with rasterio.open(Path(made.scenes[0].scene)) as raster:
        assert (raster.read() == 7).all()
