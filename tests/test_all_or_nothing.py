"""Files that belong together get their names together: a disk that gets full at the last of them leaves none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import from_origin
from test_raster import write

import resegeo
from resegeo.classes.class_file import class_list
from resegeo.errors import ResegeoError
from resegeo.scene.source import GeoReference

pytestmark = pytest.mark.filterwarnings("ignore")


def slow(name):
    """A file beside one that the quick suite tries."""
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.fixture
def full(monkeypatch):
    """Let no more be written to files of a name, until it is called again with None."""
    name: list[str | None] = [None]
    for write_it in ("write_text", "write_bytes"):
        real = getattr(Path, write_it)

        def writing(path, *data, real=real, **options):
            if path.name == name[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return real(path, *data, **options)

        monkeypatch.setattr(Path, write_it, writing)
    return lambda which: name.__setitem__(0, which)


@pytest.mark.parametrize("last", ["change.csv", slow("change.json")])
def test_a_comparison_leaves_all_of_its_files_or_none(tmp_path, full, last):
    classes = class_list(["water", "forest"])
    for number, name in enumerate(("a", "b")):
        codes = np.full((20, 20), 1, np.uint8)
        codes[: 5 + 5 * number] = 2
        where = GeoReference(CRS.from_epsg(32633), from_origin(500_000, 5_200_000, 10, 10))
        write(tmp_path / f"{name}.tif", codes, classes=classes, georeference=where)
    maps, out = (tmp_path / "a.tif", tmp_path / "b.tif"), tmp_path / "out"
    out.mkdir()
    full(last)
    with pytest.raises(ResegeoError) as told:
        resegeo.compare(*maps, out)
    assert str(told.value).startswith(f"{out / last} could not be written (No space left on device)")
    assert list(out.iterdir()) == []
    full(None)
    made = resegeo.compare(*maps, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {made.raster.name, made.polygons.name, "change.csv", "change.json"} < set(before)
    full(last)
    with pytest.raises(ResegeoError):
        resegeo.compare(*maps, out, min_area="50px", overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.usefixtures("quick_model")
@pytest.mark.parametrize("last", ["page.html", *(slow(f"page.summary.{kind}") for kind in ("json", "csv"))])
def test_a_page_and_what_lies_beside_it_are_all_there_or_none_is(tmp_path, make_raster, picture, full, last):
    scene = make_raster("scene.tif", picture(40, 40))
    resegeo.segment(scene, ["water", "forest"], tmp_path / "run", vector=())
    out = tmp_path / "out"
    out.mkdir()
    full(last)
    with pytest.raises(ResegeoError, match=r"page\.html could not be written \(No space left on device\)"):
        resegeo.report(tmp_path / "run", output=out / "page.html")
    assert list(out.iterdir()) == []
    full(None)
    for _ in range(2):  # the second time in place of the first
        assert all(path.exists() for path in resegeo.report(tmp_path / "run", output=out / "page.html"))


@pytest.mark.usefixtures("quick_model")
def test_a_calibration_and_its_diagram_are_both_there_or_none_is(tmp_path, make_raster, picture, monkeypatch):
    scene = make_raster("scene.tif", picture(80, 80))
    run = resegeo.segment(scene, ["water", "forest"], tmp_path / "run", vector=(), keep_features=True)
    store, new, diagram = tmp_path / "run/scene.store.zarr", tmp_path / "new.yml", tmp_path / "diagram.png"

    def fails(_parts, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr("resegeo.run.calibration.save_reliability", fails)
        with pytest.raises(ResegeoError, match=r"diagram\.png cannot be written \(No space left on device\)"):
            resegeo.calibrate(store, [run.raster], class_list(["water", "forest"]), new, diagram=diagram)
    assert not new.exists()
    assert not diagram.exists()
    resegeo.calibrate(store, [run.raster], class_list(["water", "forest"]), new, diagram=diagram)
    assert new.exists()
    assert diagram.exists()
