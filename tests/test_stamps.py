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
from resegeo.scene import open_scene
from resegeo.stamps import stamp

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
