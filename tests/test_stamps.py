"""What tells that a scene's files were replaced: size and time, ETags, the sources of a VRT."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

import resegeo
from resegeo.errors import ResegeoError
from resegeo.scene.fingerprint import stamp
from resegeo.scene.reader import open_scene

pytestmark = pytest.mark.usefixtures("quick_model")

VRT = """<VRTDataset rasterXSize="{size}" rasterYSize="{size}">{bands}</VRTDataset>"""
BAND = """<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>
<SourceFilename relativeToVRT="1">{file}</SourceFilename>
<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"""


@pytest.fixture
def server():
    """Answers HEAD with the headers of ``server.heads``, or refuses it where there are none."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200 if self.server.heads is not None else 405)
            for name, value in (self.server.heads or {}).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_):
            pass

    serving = HTTPServer(("127.0.0.1", 0), Handler)
    serving.heads = {}
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield serving
    serving.shutdown()
    serving.server_close()


def test_a_server_is_asked_for_the_etag_else_for_date_and_length(server):
    url = f"http://127.0.0.1:{server.server_port}/a.tif"

    def stamped(**heads: str) -> str | None:
        server.heads = {name.replace("_", "-"): value for name, value in heads.items()}
        assert stamp([url]) == stamp([f"/vsicurl/{url}"])
        return stamp([url])

    date = {"Last_Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}
    assert stamped(ETag='"one"') == stamped(ETag='"one"', **date) != stamped(ETag='"two"')
    assert stamped(**date, Content_Length="7") != stamped(**date, Content_Length="8")
    assert stamped() is None
    server.heads = None
    assert stamp([url]) is None
    server.server_close()
    assert stamp([url]) is None


def test_a_file_changed_where_no_sample_looks_is_another_scene(tmp_path, make_raster, picture):
    scene = make_raster("scene.tif", picture(64, 96))
    resegeo.segment(scene, ["water", "forest"], tmp_path / "out", vector=())
    assert resegeo.segment(scene, ["water", "forest"], tmp_path / "out", vector=()).reused
    before = open_scene(scene)
    os.utime(scene, ns=(0, scene.stat().st_mtime_ns + 10**9))
    after = open_scene(scene)
    assert (before.fingerprint, before.stamp != after.stamp) == (after.fingerprint, True)
    with pytest.raises(ResegeoError, match=r"different: scene_files\. "):
        resegeo.segment(scene, ["water", "forest"], tmp_path / "out", vector=())


def test_a_mosaic_knows_the_files_that_it_is_made_of(tmp_path, make_raster, picture):
    part = make_raster("part.tif", picture(64, 64))
    mosaic = tmp_path / "mosaic.vrt"
    mosaic.write_text(VRT.format(size=64, bands="".join(BAND.format(band=b, file=part.name) for b in (1, 2, 3))))
    before = open_scene(mosaic).stamp
    assert open_scene(mosaic).stamp == before
    os.utime(part, ns=(0, part.stat().st_mtime_ns + 10**9))
    assert open_scene(mosaic).stamp != before


def test_a_vrt_is_known_by_its_text_alone(tmp_path, make_raster, picture):
    part = make_raster("part.tif", picture(64, 64))
    mosaic = tmp_path / "mosaic.vrt"
    text = VRT.format(size=64, bands="".join(BAND.format(band=b, file=part.name) for b in (1, 2, 3)))
    mosaic.write_text(text)
    before = open_scene(mosaic).stamp
    mosaic.unlink()
    mosaic.write_text(text)
    os.utime(mosaic, ns=(0, 10**9))
    assert open_scene(mosaic).stamp == before
    mosaic.write_text(text + "\n")
    assert open_scene(mosaic).stamp != before


def _pixels(seed: int) -> np.ndarray:
    """Pictures of whose pixels the fingerprint sees the same ones."""
    bands = np.random.default_rng(0).integers(1, 255, (3, 60, 1200)).astype(np.uint8)
    bands[:, :, 70:75] = np.random.default_rng(seed).integers(1, 255, (3, 60, 5))
    return bands


@pytest.mark.parametrize("kind", ["zip", "tar", "gzip", "rasterio's zip", "mask", "envi", "geopackage"])
def test_a_scene_that_changed_inside_another_file_is_another_scene(tmp_path, make_raster, monkeypatch, kind):
    import gzip
    import tarfile
    import zipfile

    import rasterio

    monkeypatch.chdir(tmp_path)
    paths = {
        "zip": "/vsizip/a.zip/x.tif",
        "tar": "/vsitar/a.tar/x.tif",
        "gzip": "/vsigzip/x.tif.gz",
        "rasterio's zip": f"zip://{tmp_path}/a.zip!x.tif",
        "mask": "x.tif",
        "envi": "x.img",
        "geopackage": "GPKG:x.gpkg:one",
    }

    def write(seed: int) -> None:
        if kind == "mask":  # the scene stays, its mask beside it does not
            with rasterio.open(tmp_path / "x.tif", "r+") as raster:
                raster.write_mask(_pixels(seed)[0] > 100)
            return
        if kind == "envi":
            make_raster("x.img", _pixels(seed), driver="ENVI")
            return
        if kind == "geopackage":
            (tmp_path / "x.gpkg").unlink(missing_ok=True)
            make_raster("x.gpkg", _pixels(seed), driver="GPKG", RASTER_TABLE="one", TILE_FORMAT="PNG")
            return
        file = make_raster("x.tif", _pixels(seed))
        if kind == "tar":
            with tarfile.open("a.tar", "w") as archive:
                archive.add("x.tif")
        elif kind == "gzip":
            with gzip.open("x.tif.gz", "wb") as archive:
                archive.write(file.read_bytes())
        else:
            with zipfile.ZipFile("a.zip", "w") as archive:
                archive.write("x.tif")
        file.unlink()

    if kind == "mask":
        make_raster("x.tif", _pixels(0))
    write(1)
    one = open_scene(paths[kind])
    assert open_scene(paths[kind]).stamp == one.stamp is not None
    write(2)
    two = open_scene(paths[kind])
    assert one.fingerprint == two.fingerprint
    assert one.stamp != two.stamp


def test_two_rasters_of_one_file_are_two_scenes(tmp_path, make_raster, monkeypatch):
    import zipfile

    monkeypatch.chdir(tmp_path)
    options = {"driver": "GPKG", "TILE_FORMAT": "PNG"}
    make_raster("x.gpkg", _pixels(1), RASTER_TABLE="one", **options)
    make_raster("x.gpkg", _pixels(2), RASTER_TABLE="two", APPEND_SUBDATASET="YES", **options)
    with zipfile.ZipFile("a.zip", "w") as archive:
        for folder in "ab":
            archive.write(make_raster("x.tif", _pixels(1)), f"{folder}/x.tif")
    for one, two in (("GPKG:x.gpkg:one", "GPKG:x.gpkg:two"), ("/vsizip/a.zip/a/x.tif", "/vsizip/a.zip/b/x.tif")):
        assert open_scene(one).stamp != open_scene(two).stamp
    assert open_scene("GPKG:x.gpkg:one").stamp == open_scene(f"GPKG:{tmp_path}/x.gpkg:one").stamp
    assert open_scene("/vsizip/a.zip/a/x.tif").stamp == open_scene(f"/vsizip/{tmp_path}/a.zip/a/x.tif").stamp


def test_overviews_and_statistics_that_come_later_make_no_other_scene(tmp_path, make_raster, picture):
    import rasterio

    scene = make_raster("scene.tif", picture(300, 300))
    before = open_scene(scene).stamp
    (tmp_path / "scene.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    stood = scene.stat()
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(scene, "r+") as raster:
        raster.build_overviews([2])
    assert (tmp_path / "scene.tif.ovr").exists()
    os.utime(scene, ns=(0, stood.st_mtime_ns))
    assert open_scene(scene).stamp == before


def test_a_file_in_an_archive_behind_a_url_has_the_archives_stamp(server):
    url = f"http://127.0.0.1:{server.server_port}/a.zip"
    server.heads = {"ETag": '"one"'}
    one = stamp([f"/vsizip//vsicurl/{url}/x.tif"])
    assert one == stamp([f"/vsizip/{{/vsicurl/{url}}}/x.tif"]) != stamp([f"/vsizip//vsicurl/{url}/y.tif"])
    server.heads = {"ETag": '"two"'}
    assert stamp([f"/vsizip//vsicurl/{url}/x.tif"]) != one


def test_an_array_and_a_missing_file_have_none():
    assert stamp(["/nowhere/a.tif"]) is None
    assert stamp(["nowhere://a.tif"]) is None
    import xarray as xr

    assert open_scene(xr.DataArray(np.ones((3, 8, 8), np.uint8), dims=("band", "y", "x"))).stamp is None


def test_a_stamp_follows_size_and_time(tmp_path):
    file = Path(tmp_path / "a")
    file.write_bytes(b"1")
    one = stamp([str(file)])
    stood = file.stat().st_mtime_ns
    file.write_bytes(b"22")
    os.utime(file, ns=(0, stood))
    assert stamp([str(file)]) != one
    file.write_bytes(b"3")
    os.utime(file, ns=(0, stood))
    assert stamp([str(file)]) == one
