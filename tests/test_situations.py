"""Scenes of real life, one a row: the output has the size, place and validity that the scene had."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, from_origin

import resegeo

MARS = (
    'GEOGCS["Mars 2000",DATUM["D_Mars_2000",SPHEROID["Mars_2000_IAU_IAG",3396190,169.894447223612]],'
    'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
)
UTM = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_200_000, 10, 10)}


def pixels(count=3, height=60, width=70, dtype="uint8"):
    random = np.random.default_rng(0)
    return random.integers(1, 250, (count, height, width)).astype(dtype)


def tiff(path: Path, bands: np.ndarray, **profile: object) -> str:
    file = path / "scene.tif"
    size = {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with rasterio.open(file, "w", driver="GTiff", **size, **profile) as raster:
        raster.write(bands)
    return str(file)


def with_gcps(path: Path) -> str:
    file = tiff(path, pixels())
    with rasterio.open(file, "r+") as raster:
        corners = [(r, c) for r in (0, 30, 60) for c in (0, 35, 70)]
        raster.gcps = (
            [GroundControlPoint(r, c, 10 + c / 1000, 50 - r / 1000) for r, c in corners],
            CRS.from_epsg(4326),
        )
    return file


def sparse(path: Path) -> str:
    options = {"tiled": True, "blockxsize": 128, "blockysize": 128, "sparse_ok": True, "nodata": 0}
    file = str(path / "scene.tif")
    size = {"count": 3, "height": 700, "width": 700, "dtype": "uint8"}
    with rasterio.open(file, "w", driver="GTiff", **size, **options, **UTM) as raster:
        raster.write(pixels(height=50, width=50), window=rasterio.windows.Window(300, 300, 50, 50))
    return file


def palette(path: Path) -> str:
    file = tiff(path, pixels(1) % 3, **UTM)
    with rasterio.open(file, "r+") as raster:
        raster.write_colormap(1, {0: (10, 200, 30, 255), 1: (0, 0, 200, 255), 2: (99, 99, 99, 255)})
        raster.colorinterp = [ColorInterp.palette]
    return file


def scaled(path: Path) -> str:
    file = tiff(path, pixels(dtype="int16") - 40, **UTM)
    with rasterio.open(file, "r+") as raster:
        raster.scales, raster.offsets = (0.1,) * 3, (5.0,) * 3
    return file


def with_nan(path: Path) -> str:
    bands = pixels(dtype="float32")
    bands[:, :20, :20] = np.nan
    return tiff(path, bands, nodata=np.nan, **UTM)


def mosaic(path: Path) -> str:
    tiff(path, pixels(height=40, width=30), **UTM)
    (path / "scene.tif").rename(path / "left.tif")
    right = {**UTM, "transform": from_origin(500_300, 5_200_000, 10, 10)}
    tiff(path, pixels(height=40, width=30), **right)
    (path / "scene.tif").rename(path / "right.tif")
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}.tif</SourceFilename>'
            f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="30" ySize="40"/>'
            f'<DstRect xOff="{at}" yOff="0" xSize="30" ySize="40"/></SimpleSource>'
            for name, at in (("left", 0), ("right", 30))
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    place = "500000, 10, 0, 5200000, 0, -10"
    (path / "scene.vrt").write_text(
        f'<VRTDataset rasterXSize="60" rasterYSize="40"><SRS>EPSG:32633</SRS><GeoTransform>{place}</GeoTransform>'
        f"{bands}</VRTDataset>"
    )
    return str(path / "scene.vrt")


def copied(driver: str, suffix: str, world: str | None, **options: object) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        source = tiff(path, pixels())
        target = path / f"picture{suffix}"
        rasterio.shutil.copy(source, target, driver=driver, **options)
        Path(f"{target}.aux.xml").unlink(missing_ok=True)
        if world:
            (path / f"picture{world}").write_text("10\n0\n0\n-10\n500005\n5199995\n")
        return str(target)

    return make


def zipped(path: Path) -> str:
    file = tiff(path, pixels(), **UTM)
    with zipfile.ZipFile(path / "scenes.zip", "w") as archive:
        archive.write(file, "inside.tif")
    return f"/vsizip/{path / 'scenes.zip'}/inside.tif"


def plain(bands: np.ndarray | None = None, **profile: object) -> Callable[[Path], str]:
    return lambda path: tiff(path, pixels() if bands is None else bands, **{**UTM, **profile})


SITUATIONS: dict[str, Callable[[Path], str]] = {
    "north-up": plain(),
    "south-up": plain(transform=Affine(10, 0, 500_000, 0, 10, 5_100_000)),
    "rotated": plain(transform=Affine(8, 3, 500_000, 3, -8, 5_200_000)),
    "gcps": with_gcps,
    "no crs": lambda path: tiff(path, pixels(), transform=from_origin(5, 5, 1, 1)),
    "nothing": lambda path: tiff(path, pixels()),
    "degrees": plain(crs="EPSG:4326", transform=from_origin(10, 50, 1e-4, 1e-4)),
    "dateline": plain(crs="EPSG:4326", transform=from_origin(179.99, 10, 1e-3, 1e-3)),
    "esri": plain(crs="ESRI:102008"),
    "custom": plain(crs="+proj=laea +lat_0=47 +lon_0=9 +x_0=100 +units=m"),
    "mars": plain(crs=MARS, transform=from_origin(10, 5, 0.01, 0.01)),
    "feet": plain(crs="EPSG:2263"),
    "one pixel": plain(pixels(3, 1, 1)),
    "prime size": plain(pixels(3, 131, 257)),
    "tall strip": plain(pixels(3, 9000, 11)),
    "wide strip": plain(pixels(3, 7, 9001)),
    "sparse": sparse,
    "pixel interleave": plain(interleave="pixel", compress="jpeg", photometric="ycbcr", tiled=True),
    "one band": plain(pixels(1)),
    "two bands": plain(pixels(2)),
    "four bands": plain(pixels(4)),
    "thirteen bands of uint16": plain(pixels(13, dtype="uint16")),
    "scale and offset": scaled,
    "float with nan": with_nan,
    "constant": plain(np.full((3, 50, 50), 7, np.uint16)),
    "palette": palette,
    "mosaic": mosaic,
    "jpeg with world file": copied("JPEG", ".jpg", ".jgw"),
    "png": copied("PNG", ".png", None),
    "png with world file": copied("PNG", ".png", ".pgw"),
    "jpeg 2000": copied("JP2OpenJPEG", ".jp2", None),
    "inside a zip": zipped,
}


def check(scene: str, result: resegeo.Segmentation) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = resegeo.open_scene(scene)
        with rasterio.open(scene) as one, rasterio.open(result.raster) as two:
            assert (one.height, one.width) == (two.height, two.width)
            assert (one.gcps[1] or one.crs) == (two.gcps[1] or two.crs)
            assert one.transform == two.transform
            assert [(g.row, g.col, g.x, g.y) for g in one.gcps[0]] == [(g.row, g.col, g.x, g.y) for g in two.gcps[0]]
            codes = two.read(1)
            crs, determinant = one.crs, one.transform.determinant
        valid = opened.valid(0, 0, opened.height, opened.width)
    assert np.array_equal(codes == 255, ~valid)
    assert (codes[valid] < 3).all()
    frame = gpd.read_file(result.vectors[0], layer=result.vectors[0].stem)
    assert shapely.coverage_is_valid(frame.geometry.values)
    assert shapely.is_valid(frame.geometry.values).all()
    if crs is not None and crs.is_projected:
        metres = abs(determinant) * crs.linear_units_factor[1] ** 2
        assert math.isclose(frame.area_m2.sum(), (codes[valid] > 0).sum() * metres, rel_tol=1e-6)
    if shutil.which("gdalinfo"):
        facts = json.loads(
            subprocess.run(["gdalinfo", "-json", result.raster], capture_output=True, text=True, check=True).stdout
        )
        assert facts["size"] == [codes.shape[1], codes.shape[0]]
        assert facts["bands"][0]["noDataValue"] == 255


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(SITUATIONS))
def test_the_output_has_what_the_scene_had(tmp_path, name):
    scene = SITUATIONS[name](tmp_path)
    result = resegeo.segment(scene, ["water", "forest"], tmp_path / "out", segments="none", stride=128)
    check(scene, result)


@pytest.mark.filterwarnings("ignore")
def test_a_scene_behind_a_url(tmp_path):
    tiff(tmp_path, pixels(), **UTM)
    # A process of its own: GDAL holds the interpreter's lock while it waits for an answer.
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        port = re.search(r"port (\d+)", server.stdout.readline())
        assert port is not None
        address = f"http://127.0.0.1:{port.group(1)}"
        result = resegeo.segment(f"{address}/scene.tif", ["water", "forest"], tmp_path / "out", segments="none")
        check(f"{address}/scene.tif", result)
        assert result.raster.name == "scene.classes.tif"
        with pytest.raises(resegeo.ResegeoError, match="cannot be opened as a raster"):
            resegeo.segment(f"{address}/none.tif", ["water"], tmp_path / "none")
    finally:
        server.kill()
        server.wait()
