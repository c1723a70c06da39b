"""Scenes of real life, one a row: the output has the size, place and validity that the scene had."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.shutil
import shapely
import shapely.affinity
from click.testing import CliRunner
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin
from rasters import write_raster

import resegeo
from resegeo.outputs.vector_files import layer_name
from resegeo_cli.main import main

pytestmark = pytest.mark.usefixtures("quick_model")

MARS = (
    'GEOGCS["Mars 2000",DATUM["D_Mars_2000",SPHEROID["Mars_2000_IAU_IAG",3396190,169.894447223612]],'
    'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
)
UTM = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_200_000, 10, 10)}


def pixels(count=3, height=60, width=70, dtype="uint8"):
    random = np.random.default_rng(0)
    return random.integers(1, 250, (count, height, width)).astype(dtype)


def tiff(path: Path, bands: np.ndarray, **profile: object) -> str:
    return str(write_raster(path / "scene.tif", bands, **{"crs": None, "transform": None, **profile}))


GRID = [(r, c) for r in (0, 30, 60) for c in (0, 35, 70)]


def with_gcps(places: list[tuple[float, float]] = GRID, crs: str | None = "EPSG:4326") -> Callable[[Path], str]:
    def make(path: Path) -> str:
        file = tiff(path, pixels())
        with rasterio.open(file, "r+") as raster:
            points = [GroundControlPoint(r, c, 10 + c / 1000, 50 - r / 1000) for r, c in places]
            raster.gcps = (points, CRS() if crs is None else CRS.from_string(crs))
        return file

    return make


def sparse(path: Path) -> str:
    options = {"tiled": True, "blockxsize": 128, "blockysize": 128, "sparse_ok": True, "nodata": 0}
    file = str(path / "scene.tif")
    size = {"count": 3, "height": 700, "width": 700, "dtype": "uint8"}
    with rasterio.open(file, "w", driver="GTiff", **size, **options, **UTM) as raster:
        raster.write(pixels(height=50, width=50), window=rasterio.windows.Window(300, 300, 50, 50))
    return file


def patch(path: Path) -> str:
    """Values that lie between the squares of the fixed sample."""
    bands = np.zeros((3, 2000, 2000), np.uint16)
    bands[:, 200:250, 200:250] = pixels(height=50, width=50, dtype="uint16") * 9
    return tiff(path, bands, nodata=0, compress="deflate", **UTM)


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


def with_rpcs(path: Path) -> str:
    file = tiff(path, pixels())
    scales = {"height_scale": 700, "lat_scale": 0.3, "long_scale": 0.4, "line_scale": 30, "samp_scale": 35}
    offsets = {"height_off": 80, "lat_off": 49.2, "long_off": -123.2, "line_off": 30, "samp_off": 35}
    one = [1.0] + 19 * [0.0]
    with rasterio.open(file, "r+") as raster:
        raster.rpcs = RPC(
            line_num_coeff=[0, 0, -1.0] + 17 * [0.0],
            line_den_coeff=one,
            samp_num_coeff=[0, 1.0] + 18 * [0.0],
            samp_den_coeff=one,
            err_bias=0.5,
            err_rand=0.5,
            **scales,
            **offsets,
        )
    return file


def with_alpha(dtype: str, opaque: float, at: int = 3, count: int = 4, **profile: object) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        bands = pixels(count, dtype=dtype)
        bands[at], bands[at, 20:40] = opaque, 0
        file = tiff(path, bands, **{**UTM, **profile})
        colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue] if count == 4 else [ColorInterp.gray]
        with rasterio.open(file, "r+") as raster:
            raster.colorinterp = [*colours[:at], ColorInterp.alpha, *colours[at:]]
        return file

    return make


def with_mask(*, inside: bool) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
            file = tiff(path, pixels(), **UTM)
            with rasterio.open(file, "r+") as raster:
                raster.write_mask(np.arange(60 * 70).reshape(60, 70) % 3 > 0)
        assert Path(f"{file}.msk").exists() is not inside
        return file

    return make


def with_masks_of_bands(path: Path) -> str:
    file = tiff(path, pixels(), **UTM)
    masks = np.full((3, 60, 70), 255, np.uint8)
    masks[:, :9], masks[1, 30:] = 0, 0
    with rasterio.open(f"{file}.msk", "w", driver="GTiff", count=3, height=60, width=70, dtype="uint8") as raster:
        raster.write(masks)
        raster.update_tags(**{f"INTERNAL_MASK_FLAGS_{band}": "0" for band in (1, 2, 3)})
    return file


def mixed(types: tuple[str, ...], extra: Callable[[int], str] = lambda band: "") -> Callable[[Path], str]:
    """Build a VRT of one source, its bands of different types and with XML of their own."""

    def make(path: Path) -> str:
        bands = pixels()
        bands[:, :10] = np.array([1, 2, 3], np.uint8)[:, None, None]
        bands[0, 30:] = 1
        tiff(path, bands, **UTM)
        listed = "".join(
            f'<VRTRasterBand dataType="{kind}" band="{band}">{extra(band)}<SimpleSource><SourceFilename '
            f'relativeToVRT="1">scene.tif</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>'
            for band, kind in enumerate(types, 1)
        )
        place = "<SRS>EPSG:32633</SRS><GeoTransform>500000, 10, 0, 5200000, 0, -10</GeoTransform>"
        (path / "mixed.vrt").write_text(f'<VRTDataset rasterXSize="70" rasterYSize="60">{place}{listed}</VRTDataset>')
        return str(path / "mixed.vrt")

    return make


def scaled_float(path: Path) -> str:
    bands = pixels(dtype="float32") / np.float32(1000)
    bands[:, :5] = -9999
    file = tiff(path, bands, nodata=-9999, **UTM)
    with rasterio.open(file, "r+") as raster:
        raster.scales, raster.offsets = (100.0,) * 3, (-5.0,) * 3
    return file


def netcdf(path: Path) -> str:
    """One variable of a file with several."""
    file = path / "scene.nc"
    command = ["gdal_translate", "-q", "-of", "netCDF", tiff(path, pixels(), **UTM), str(file)]
    if shutil.which(command[0]) is None:
        pytest.skip("gdal_translate is not installed, and rasterio writes no netCDF")
    subprocess.run(command, check=True)
    return f"netcdf:{file}:Band2"


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


def zipped_by_rasterios_scheme(path: Path) -> str:
    return zipped(path).replace("/vsizip/", "zip://").replace(".zip/", ".zip!")


def named(name: str) -> Callable[[Path], str]:
    """Name the file as no layer of a GeoPackage may be named, or as pyogrio finds none."""

    def make(path: Path) -> str:
        if sys.platform == "win32":
            pytest.skip("Windows allows no such names")
        return str(Path(tiff(path, pixels(), **UTM)).rename(path / name))

    return make


def plain(bands: np.ndarray | None = None, **profile: object) -> Callable[[Path], str]:
    return lambda path: tiff(path, pixels() if bands is None else bands, **{**UTM, **profile})


SITUATIONS: dict[str, Callable[[Path], str]] = {
    "north-up": plain(),
    "south-up": plain(transform=Affine(10, 0, 500_000, 0, 10, 5_100_000)),
    "rotated": plain(transform=Affine(8, 3, 500_000, 3, -8, 5_200_000)),
    "gcps": with_gcps(),
    "gcps without crs": with_gcps(crs=None),
    "gcps in two rows": with_gcps([(r, c) for r in (0, 60) for c in (0, 35, 70)]),
    "two gcps": with_gcps([(0, 0), (60, 70)]),
    "one gcp": with_gcps([(30, 35)]),
    "gcps on a line": with_gcps([(30, c) for c in (0, 35, 70)]),
    "rpcs": with_rpcs,
    "no crs": lambda path: tiff(path, pixels(), transform=from_origin(5, 5, 1, 1)),
    "nothing": lambda path: tiff(path, pixels()),
    "degrees": plain(crs="EPSG:4326", transform=from_origin(10, 50, 1e-4, 1e-4)),
    "dateline": plain(crs="EPSG:4326", transform=from_origin(179.99, 10, 1e-3, 1e-3)),
    "esri": plain(crs="ESRI:102008"),
    "custom": plain(crs="+proj=laea +lat_0=47 +lon_0=9 +x_0=100 +units=m"),
    "mars": plain(crs=MARS, transform=from_origin(10, 5, 0.01, 0.01)),
    "mars in metres": plain(crs="+proj=eqc +R=3396190 +units=m"),
    "local system": plain(crs='LOCAL_CS["building site",UNIT["metre",1]]'),
    "compound": plain(crs="EPSG:7415", transform=from_origin(100_000, 450_000, 10, 10)),
    "feet": plain(crs="EPSG:2263"),
    "longitudes to 360": plain(crs="EPSG:4326", transform=from_origin(250, 50, 1e-2, 1e-2)),
    "one pixel": plain(pixels(3, 1, 1)),
    "prime size": plain(pixels(3, 131, 257)),
    "tall strip": plain(pixels(3, 9000, 11)),
    "wide strip": plain(pixels(3, 7, 9001)),
    "sparse": sparse,
    "a patch in a large frame": patch,
    "one strip": plain(pixels(3, 700, 600), blockysize=700, compress="deflate"),
    "strips of lzw, band by band": plain(pixels(3, 700, 600), compress="lzw", interleave="band"),
    "bigtiff": plain(bigtiff="yes"),
    "pixel interleave": plain(interleave="pixel", compress="jpeg", photometric="ycbcr", tiled=True),
    "one band": plain(pixels(1)),
    "two bands": plain(pixels(2)),
    "four bands": plain(pixels(4)),
    "thirteen bands of uint16": plain(pixels(13, dtype="uint16")),
    "int8": plain(pixels(dtype="uint8").astype("int8")),
    "uint32": plain(pixels(dtype="uint32") * 1000),
    "int64": plain(pixels(dtype="int64") - 100),
    "float64": plain(pixels(dtype="float64") / 7),
    "bands of different types": mixed(("Byte", "UInt16", "Float32")),
    "nodata": plain(np.where(pixels() < 60, 0, pixels()), nodata=0),
    "nodata of each band": mixed(("Byte",) * 3, lambda band: f"<NoDataValue>{band}</NoDataValue>"),
    "nodata that the type cannot hold": mixed(("Byte",) * 3, lambda band: "<NoDataValue>-9999</NoDataValue>"),
    "alpha": with_alpha("uint8", 255),
    "alpha of uint16": with_alpha("uint16", 65535),
    "alpha first": with_alpha("uint8", 255, at=0),
    "gray and alpha": with_alpha("uint8", 255, at=1, count=2),
    "alpha and nodata": with_alpha("uint8", 255, nodata=0),
    "alpha of float": with_alpha("float32", 1.0),
    "mask inside": with_mask(inside=True),
    "mask beside": with_mask(inside=False),
    "masks of bands": with_masks_of_bands,
    "scale and offset": scaled,
    "float with scale and nodata": scaled_float,
    "float with nan": with_nan,
    "constant": plain(np.full((3, 50, 50), 7, np.uint16)),
    "palette": palette,
    "mosaic": mosaic,
    "jpeg with world file": copied("JPEG", ".jpg", ".jgw"),
    "jpeg": copied("JPEG", ".jpg", None),
    "png": copied("PNG", ".png", None),
    "png with world file": copied("PNG", ".png", ".pgw"),
    "jpeg 2000": copied("JP2OpenJPEG", ".jp2", None),
    "jpeg 2000 with world file": copied("JP2OpenJPEG", ".jp2", ".j2w"),
    "inside a zip": zipped,
    "inside a zip, by rasterio's scheme": zipped_by_rasterios_scheme,
    "name with a dash first": named("-dash.tif"),
    "name with a dot first": named(".hidden.tif"),
    "name with brackets": named("(1) [S2] a.tif"),
    "name with an exclamation mark": named("wow!.tif"),
    "name with a semicolon": named("a;b.tif"),
    "variable of a netcdf file": netcdf,
}


OWN_VALIDITY = {"alpha first", "alpha and nodata", "alpha of float"}
"""GDAL looks for alpha last, after nodata, and only among bytes and uint16; a user means it wherever it is."""


PLACELESS = {"rpcs", "RGB.byte.rpc.vrt", "one gcp", "gcps on a line"}
"""Pixels have no place on the map, so that there are no polygons."""


def check(scene: str, result: resegeo.Segmentation, *, like_gdal: bool = True, placeless: bool = False) -> None:
    """Compare what was written with the scene, both read by rasterio and by GDAL's own programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(scene) as one, rasterio.open(result.raster) as two:
            assert (one.height, one.width) == (two.height, two.width)
            assert (one.gcps[1] or one.crs) == (two.gcps[1] or two.crs)
            assert one.transform == two.transform
            assert [(g.row, g.col, g.x, g.y) for g in one.gcps[0]] == [(g.row, g.col, g.x, g.y) for g in two.gcps[0]]
            assert (one.rpcs is None) == (two.rpcs is None)
            if one.rpcs is not None and two.rpcs is not None:  # written with 15 digits
                a, b = (np.array(" ".join(rpcs.to_gdal().values()).split(), float) for rpcs in (one.rpcs, two.rpcs))
                assert np.allclose(a, b, rtol=1e-13, atol=0)
            assert (two.count, two.dtypes, two.nodata) == (1, ("uint8",), 255)
            codes = two.read(1)
            crs, determinant = one.gcps[1] or one.crs, one.transform.determinant
            valid = one.dataset_mask() != 0
        opened = resegeo.open_scene(scene)
        ours = opened.valid(0, 0, opened.height, opened.width)
    assert not like_gdal or np.array_equal(valid, ours)
    assert np.array_equal(codes == 255, ~ours)
    assert (codes[ours] < 3).all()
    check_with_gdals_programs(scene, result.raster)
    if placeless:
        assert result.vectors == ()
        return
    frame = gpd.read_file(result.vectors[0], layer=layer_name(result.vectors[0].stem))
    assert shapely.coverage_is_valid(frame.geometry.values)
    assert shapely.is_valid(frame.geometry.values).all()
    if crs is not None and crs.is_projected:
        metres = abs(determinant) * crs.linear_units_factor[1] ** 2
        rows = (codes > 0) & ours
        shrunk, close = np.ones(len(codes)), 1e-6
        y = opened.georeference.transform.f + opened.georeference.transform.e * (np.arange(len(codes)) + 0.5)
        proj = crs.to_dict().get("proj")
        if proj == "eqc":  # true to scale along the equator alone: on a sphere a cosine
            shrunk = np.cos(y / crs.to_dict()["R"])
        elif proj in ("merc", "webmerc"):
            here = pyproj.CRS.from_wkt(crs.to_wkt())
            x = np.full(len(y), opened.georeference.transform.c)
            places = pyproj.Transformer.from_crs(here, 4326, always_xy=True).transform(x, y)
            shrunk, close = 1 / pyproj.Proj(here).get_factors(*places).areal_scale, 8e-3  # of a sphere
        assert math.isclose(frame.area_m2.sum(), (rows.sum(axis=1) * shrunk).sum() * metres, rel_tol=close)


def gdalinfo(path: str | Path) -> dict[str, Any] | None:
    done = subprocess.run(["gdalinfo", "-json", path], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def check_with_gdals_programs(scene: str, raster: Path) -> None:
    """Read size, nodata and place back by gdalinfo and gdaltransform, where they are installed."""
    if not shutil.which("gdalinfo") or not shutil.which("gdaltransform"):
        return
    one, two = gdalinfo(scene), gdalinfo(raster)
    assert two is not None
    band = two["bands"][0]
    assert (len(two["bands"]), band["type"], band["noDataValue"], band["block"]) == (1, "Byte", 255, [512, 512])
    assert band["colorInterpretation"] == "Palette"
    assert two["metadata"]["IMAGE_STRUCTURE"]["LAYOUT"] == "COG"
    if one is None:  # the installed programs are older than rasterio's GDAL, or lack the driver
        return
    assert one["size"] == two["size"]
    assert ("gcps" in one) == ("gcps" in two)
    assert ("RPC" in one["metadata"]) == ("RPC" in two["metadata"])
    wkt = [(facts.get("gcps") or facts).get("coordinateSystem", {}).get("wkt", "") for facts in (one, two)]
    assert bool(wkt[0]) == bool(wkt[1])
    if wkt[0]:
        assert pyproj.CRS(wkt[0]).equals(pyproj.CRS(wkt[1]), ignore_axis_order=True)
    corners = "".join(f"{col} {row}\n" for col in (0, one["size"][0]) for row in (0, one["size"][1]))
    how = ["-tps"] if "gcps" in one else []  # a VRT may say that it lies at 0, 0 beside its control points
    places = [
        subprocess.run(["gdaltransform", *how, path], input=corners, capture_output=True, text=True, check=False).stdout
        for path in (scene, raster)
    ]
    assert np.allclose(*(np.array(text.split(), float) for text in places), rtol=1e-12, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(SITUATIONS))
def test_the_output_has_what_the_scene_had(tmp_path, name):
    scene = SITUATIONS[name](tmp_path)
    result = resegeo.segment(scene, ["water", "forest"], tmp_path / "out", segments="none", stride=128)
    check(scene, result, like_gdal=name not in OWN_VALIDITY, placeless=name in PLACELESS)


def real_scenes() -> list[str]:
    folder = Path(os.environ.get("RESEGEO_TEST_DATA") or "/nowhere") / "scenes" / "rasterio"
    unusable = {"corrupt.tif", "all-nodata.tif"}
    return sorted(path.name for path in folder.glob("*") if path.name not in unusable) or ["none"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", real_scenes())
def test_rasterios_own_scenes_keep_what_they_have(test_data, tmp_path, name):
    scene = str(test_data / "scenes" / "rasterio" / name)
    result = resegeo.segment(scene, ["water", "forest"], tmp_path / "out", segments="none", stride=128)
    check(scene, result, placeless=name in PLACELESS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("height", "width"), [(300, 100_000), (100_000, 300)], ids=["wide", "tall"])
def test_strips_of_a_hundred_thousand_pixels(tmp_path, height, width):
    file = tmp_path / "scene.tif"
    size = {"count": 3, "height": height, "width": width, "dtype": "uint8"}
    with rasterio.open(file, "w", driver="GTiff", compress="deflate", **size, **UTM) as raster:
        part = pixels(height=100, width=width)
        for row in range(0, height, 100):
            raster.write(part, window=rasterio.windows.Window(0, row, width, 100))
    # Three places of a strip: what costs nothing beside them is tested where regions are.
    along = [shapely.box(at, 100, at + 200, 200) for at in (0, 51_234, 99_800)]
    boxes = along if width > height else [shapely.affinity.affine_transform(b, (0, 1, 1, 0, 0, 0)) for b in along]
    to_map = (10, 0, 0, -10, 500_000, 5_200_000)
    placed = [shapely.affinity.affine_transform(box, to_map) for box in boxes]
    gpd.GeoDataFrame(geometry=placed, crs="EPSG:32633").to_file(tmp_path / "aoi.gpkg")
    expected = np.full((height, width), False)
    for left, bottom, right, top in (np.array(box.bounds, int) for box in boxes):
        expected[bottom:top, left:right] = True
    result = resegeo.segment(
        str(file), ["water", "forest"], tmp_path / "out", segments="none", stride=128, aoi=tmp_path / "aoi.gpkg"
    )
    with rasterio.open(result.raster) as raster:
        assert np.array_equal(raster.read(1) != 255, expected)
    assert json.loads(result.report.read_text("utf-8"))["windows"]["done"] < 40
    check_with_gdals_programs(str(file), result.raster)


def cut(path: Path) -> str:
    file = Path(tiff(path, pixels(height=700, width=700), **UTM))
    file.write_bytes(file.read_bytes()[:700_000])
    return str(file)


def written(name: str, content: bytes) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        (path / name).write_bytes(content)
        return str(path / name)

    return make


def unknown_code(path: Path) -> str:
    file = Path(tiff(path, pixels(), **UTM))
    file.write_bytes(file.read_bytes().replace(*(np.array([3072, 0, 1, n], "<u2").tobytes() for n in (32633, 9))))
    return str(file)


def nonsense_crs(path: Path) -> str:
    file = Path(mosaic(path))
    file.write_text(file.read_text().replace("EPSG:32633", "nonsense"))
    return str(file)


def lost_source(path: Path) -> str:
    file = mosaic(path)
    (path / "right.tif").unlink()
    return file


REFUSED: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing": (lambda path: str(path / "none.tif"), "no such file"),
    "a folder": (str, "is a folder"),
    "empty file": (written("scene.tif", b""), "cannot be opened as a raster"),
    "text named tif": (written("scene.tif", b"hello"), "cannot be opened as a raster"),
    "header alone": (written("scene.tif", b"II*\0\x08\0\0\0"), "cannot be opened as a raster"),
    "truncated tif": (cut, "is damaged: rows"),
    "truncated jpeg 2000": (
        lambda path: written("cut.jp2", Path(copied("JP2OpenJPEG", ".jp2", None)(path)).read_bytes()[:90])(path),
        "cannot be opened as a raster",
    ),
    "mosaic with a missing file": (lost_source, "right.tif: No such file"),
    "unknown epsg code": (unknown_code, "has a CRS that cannot be read (EPSG:9 is unknown to PROJ)"),
    "nonsense as crs": (nonsense_crs, "has a CRS that cannot be read (nonsense is none)"),
    "all nodata": (plain(np.zeros((3, 60, 70), np.uint8), nodata=0), "has no valid pixel"),
    "all nan": (plain(np.full((1, 60, 70), np.nan, np.float32)), "has no valid pixel"),
    "all transparent": (with_alpha("uint8", 0), "has no valid pixel"),
    "complex": (plain(np.ones((3, 60, 70), np.complex64)), "holds complex numbers (complex64)"),
    "cyan, magenta, yellow": (
        mixed(("Byte",) * 3, lambda band: f"<ColorInterp>{('', 'Cyan', 'Magenta', 'Yellow')[band]}</ColorInterp>"),
        "has the colours cyan, magenta, yellow",
    ),
    "several variables": (lambda path: netcdf(path).split(":")[1], "is read where --formats names it"),
    "gone server": (lambda path: "http://127.0.0.1:9/scene.tif", "Check the address and that it can be reached"),
    "missing archive": (lambda path: f"/vsizip/{path}/none.zip/scene.tif", "cannot be opened as a raster"),
}


def refused(scene: str, folder: Path, words: str) -> None:
    (folder / "classes.yml").write_text("classes: [water, forest]\n")
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    done = CliRunner().invoke(main, ["segment", scene, "--prompts", str(folder / "classes.yml"), "-o", f"{folder}/out"])
    sentences = [line for line in done.stderr.splitlines() if not line.startswith("Note: ")]
    assert done.exit_code == 1, done.output
    assert len(sentences) == 1
    assert sentences[0].startswith("Error: ")
    assert words in sentences[0]
    assert done.stdout == ""
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_segmented_is_one_sentence_and_leaves_nothing(tmp_path, name):
    make, words = REFUSED[name]
    refused(make(tmp_path), tmp_path, words)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "words"), [("corrupt.tif", "is damaged: rows"), ("all-nodata.tif", "no valid pixel")])
def test_rasterios_unusable_scenes_are_one_sentence(test_data, tmp_path, name, words):
    refused(str(test_data / "scenes" / "rasterio" / name), tmp_path, words)


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
        tiff(tmp_path, pixels(height=300, width=300), **UTM)  # beyond what GDAL asks for at first
        with pytest.raises(resegeo.ResegeoError, match="Download the file first"):
            resegeo.open_scene(f"{address}/scene.tif?large")
    finally:
        server.kill()
        server.wait()
