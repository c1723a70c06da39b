"""What is loaded, and when: a run that has nothing to do ends before any library that computes."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

import resegeo
from resegeo import process

pytestmark = pytest.mark.usefixtures("quick_model")

COMPUTES = ("torch", "open_clip", "torchvision", "scipy", "skimage", "zarr", "dask", "distributed")
READS = ("geopandas", "pandas", "pyarrow", "pyogrio", "xarray", "rioxarray")

AGAIN = f"""
import sys
from resegeo_cli.main import main
try:
    main(sys.argv[1:], prog_name="resegeo")
finally:
    print("LOADED", *(name for name in {(*COMPUTES, *READS)} if name in sys.modules))
"""


@pytest.mark.parametrize("store", ["kept", "discarded"])
def test_a_run_that_has_nothing_to_do_loads_nothing_that_computes(store, make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(60, 70))
    (tmp_path / "classes.yml").write_text("classes: [water, forest, {name: road, color: '#123456'}]\n")
    given = {"vector": ("gpkg", "geojson"), "discard_store": store == "discarded"}
    resegeo.segment(scene, tmp_path / "classes.yml", tmp_path / "out", **given)
    flags = ["--vector", "gpkg,geojson", *(["--discard-store"] if given["discard_store"] else [])]
    command = ["segment", str(scene), "--prompts", str(tmp_path / "classes.yml"), "-o", str(tmp_path / "out"), *flags]
    done = subprocess.run([sys.executable, "-c", AGAIN, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nothing was computed" in done.stderr
    (loaded,) = (line.split()[1:] for line in done.stdout.splitlines() if line.startswith("LOADED"))
    assert loaded == []


def test_what_computes_loads_no_library_of_polygons_before_there_are_some():
    code = f"import sys, resegeo.run.execution; print(*(name for name in {READS} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_threads_of_torch_are_put_back_though_it_was_loaded_meanwhile(monkeypatch):
    import torch

    found: list[int] = []

    def run() -> None:
        before = torch.get_num_threads()
        with monkeypatch.context() as hidden:
            hidden.delitem(sys.modules, "torch")
            entered = process.undisturbed()
            entered.__enter__()
        process.remember_threads()
        torch.set_num_threads(before + 3)
        entered.__exit__(None, None, None)
        found.extend([before, torch.get_num_threads()])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found[0] == found[1]
