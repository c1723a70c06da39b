"""What results are called where the scene's file has another name."""

from __future__ import annotations

import pytest

import resegeo
from resegeo.errors import UsageError
from resegeo.run.options import Options
from resegeo.scene.reader import open_scene

pytestmark = pytest.mark.usefixtures("quick_model")


def test_results_and_store_are_called_as_asked(tmp_path, make_raster, picture):
    path = make_raster("R_G_B_IR.tif", picture(60, 60))
    made = resegeo.segment(path, ["water", "forest"], tmp_path / "out", name="tile_7", vector=())
    assert made.raster.name == "tile_7.classes.tif"
    names = {each.name for each in (tmp_path / "out").iterdir()}
    assert all(name.startswith("tile_7.") for name in names)
    assert open_scene(path, name="tile_7").fingerprint == open_scene(path).fingerprint


@pytest.mark.parametrize("name", ["", "a/b", "..", "a:b", "a\n", "."])
def test_a_name_is_no_path(make_raster, picture, name):
    path = make_raster("a.tif", picture(30, 30))
    with pytest.raises(UsageError, match="cannot be part of a file's name"):
        open_scene(path, name=name)


def test_another_name_is_another_batch():
    assert Options.of({"name": "a"}).facts() != Options.of({}).facts()
