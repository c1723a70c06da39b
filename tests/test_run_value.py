"""A run is one value: what it is, what it would take, and its results."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import rioxarray
import xarray as xr

import resegeo
from resegeo.errors import ResegeoError, UsageError

pytestmark = pytest.mark.usefixtures("quick_model")

WORDS = ["water", "forest"]


def test_a_run_is_prepared_estimated_and_executed(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(64, 80))
    run = resegeo.prepare(scene, WORDS, tmp_path / "out", vector=())
    assert isinstance(run, resegeo.Run)
    assert not (tmp_path / "out").exists()
    assert run.outputs.raster == tmp_path / "out/scene.classes.tif"
    estimate = run.estimate()
    assert (estimate.items, estimate.done) == (1, 0)
    assert not (tmp_path / "out").exists()
    result = run.execute()
    assert result.raster == run.outputs.raster
    assert run.estimate().done == 1
    assert run.execute().reused
    again = resegeo.prepare(result.report.with_name("scene.store.zarr"), ["road"])
    assert again.execute().raster.name == "scene.words.classes.tif"


def test_a_run_over_an_array_returns_an_array(make_raster, picture, tmp_path):
    array = rioxarray.open_rasterio(make_raster("scene.tif", picture(64, 80)))
    run = resegeo.prepare(array, WORDS)
    found = run.execute()
    assert isinstance(found, xr.DataArray)
    assert np.array_equal(found, resegeo.segment(array, WORDS))
    with pytest.raises(UsageError, match="cluster needs a scene that other processes can open"):
        resegeo.prepare(array, WORDS, cluster=2)


def test_a_run_shows_in_a_few_lines_what_it_is_and_nothing_that_a_browser_would_run(make_raster, picture, tmp_path):
    scene = make_raster("a<b>&'.tif", picture(64, 80))
    classes = [{"name": "<script>alert(1)</script>", "prompts": ["water"]}, "forest"]
    run = resegeo.prepare(scene, classes, tmp_path / 'o"<i>', vector=())
    assert len(repr(run).splitlines()) <= 9
    assert "64 × 80 pixels" in repr(run)
    page = run._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;, forest" in page
    assert "a&lt;b&gt;&amp;&#x27;.tif" in page
    assert not [tag for tag in ("<script", "<b>", "<i>") if tag in page]


def test_what_is_wrong_is_told_when_a_run_is_prepared(make_raster, picture, tmp_path):
    with pytest.raises(ResegeoError, match="no such file"):
        resegeo.prepare("missing.tif", WORDS)
    scene = make_raster("scene.tif", picture(8, 8))
    with pytest.raises(UsageError, match="did you mean stride"):
        resegeo.prepare(scene, WORDS, tmp_path / "out", strid=64)


def test_the_package_loads_alone_and_knows_its_version():
    code = (
        "import resegeo, sys; heavy = {'torch', 'numpy', 'rasterio', 'osgeo', 'click'} & set(sys.modules)\n"
        "print(sorted(heavy), resegeo.__version__)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == f"[] {version('resegeo')}\n"


def test_every_name_that_is_exported_is_there():
    for name in resegeo.__all__:
        assert getattr(resegeo, name) is not None
