"""What may be opened as a raster: formats that stay in their files, ordinary files, sizes that can be planned."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner

from resegeo import ResegeoError, open_scene
from resegeo.errors import InputNotice, UsageError
from resegeo.scene.formats import MOST_PIXELS, open_raster
from resegeo_cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore")

SERVICE = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/${z}</ServerUrl></Service><DataWindow/></GDAL_WMS>'
)


@pytest.fixture
def tile(tmp_path):
    def write(name: str, count: int = 3) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.arange(count * 20 * 30, dtype=np.uint8).reshape(count, 20, 30)
        shape = {"count": count, "height": 20, "width": 30}
        with rasterio.open(
            path, "w", driver="GTiff", dtype="uint8", crs="EPSG:32633", transform=Affine(1, 0, 0, 0, -1, 9), **shape
        ) as raster:
            raster.write(values)
        return path

    return write


def vrt(source: str, *, relative: int = 1, size: tuple[int, int] = (20, 30), dataset: str = "", band: str = "") -> str:
    height, width = size
    inner = f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{source}</SourceFilename></SimpleSource>'
    bands = "".join(f'<VRTRasterBand dataType="Byte" band="{k}" {band}>{inner}</VRTRasterBand>' for k in (1, 2, 3))
    return f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}" {dataset}>{bands}</VRTDataset>'


def test_a_vrt_of_files_beside_or_below_it_is_read(tile, tmp_path):
    tile("a.tif")
    tile("deep/er/b.tif")
    for source in ("a.tif", "deep/er/b.tif"):
        (tmp_path / "m.tif").write_text(vrt(source))  # whatever its name
        assert open_scene(tmp_path / "m.tif").read(0, 0, 1, 3)[0][0, 1, 0] == 1
    (tmp_path / "m.vrt").write_text(vrt(str(tmp_path / "a.tif"), relative=0))
    assert open_scene(tmp_path / "m.vrt").count == 3
    (tmp_path / "n.vrt").write_text(vrt("m.vrt"))
    assert open_scene(tmp_path / "n.vrt").count == 3


def test_a_vrt_that_reaches_elsewhere_is_refused_unless_it_is_trusted(tile, tmp_path):
    tile("a.tif")
    (tmp_path / "inner").mkdir()
    path = tmp_path / "inner" / "m.tif"
    for source, relative in (("../a.tif", 1), (str(tmp_path / "a.tif"), 0)):
        path.write_text(vrt(source, relative=relative))
        with pytest.raises(ResegeoError, match=r"neither beside nor below it. Where you trust .*--formats VRT"):
            open_scene(path)
        assert open_scene(path, formats=("vrt",)).count == 3
    for source in ("/vsicurl/http://127.0.0.1:9/a.tif", "http://127.0.0.1:9/a.tif", "WMS:http://127.0.0.1:9"):
        path.write_text(vrt(source, relative=0))
        with pytest.raises(ResegeoError, match="which is no file"):
            open_scene(path)


def test_raw_bytes_and_code_in_a_vrt_are_refused(tile, tmp_path):
    tile("a.tif")
    (tmp_path / "secret").write_bytes(b"secret" * 500)
    path = tmp_path / "m.tif"
    for text in (
        vrt("secret", band='subClass="VRTRawRasterBand"'),
        vrt("a.tif", band='subClass="VRTDerivedRasterBand"'),
        vrt("a.tif", dataset='subClass="VRTProcessedDataset"'),
        vrt("a.tif").replace("<SimpleSource>", "<PixelFunctionCode>1</PixelFunctionCode><SimpleSource>"),
    ):
        path.write_text(text)
        with pytest.raises(ResegeoError, match="computes pixels or takes raw bytes"):
            open_scene(path)
    path.write_text("<!DOCTYPE a [<!ENTITY b 'c'>]>" + vrt("a.tif"))
    with pytest.raises(ResegeoError, match="DOCTYPE"):
        open_scene(path)


def test_a_service_is_no_scene_whatever_its_name_nor_behind_a_vrt_or_as_a_mask(tile, tmp_path):
    (tmp_path / "s.tif").write_text(SERVICE)
    with pytest.raises(ResegeoError, match="is read where --formats names it"):
        open_scene(tmp_path / "s.tif")
    (tmp_path / "m.vrt").write_text(vrt("s.tif"))
    with pytest.raises(ResegeoError, match=r"is made of .*s.tif, which cannot be opened"):
        open_scene(tmp_path / "m.vrt")
    scene = tile("a.tif")
    Path(f"{scene}.msk").write_text(SERVICE)
    with pytest.raises(ResegeoError, match=r"a.tif.msk is no TIFF"):
        open_scene(scene)


def test_a_format_that_is_trusted_is_named_as_gdal_names_it(tile):
    path = tile("a.tif")
    with pytest.raises(UsageError, match="--formats nonsense is no format that GDAL"):
        open_scene(path, formats=["nonsense"])


def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.tif")
    for path in (tmp_path / "a.tif", Path("/dev/zero")):
        with pytest.raises(ResegeoError, match="a pipe, a socket or a device"):
            open_scene(path)


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (400_000, 400_000), (200_000_000, 10)])
def test_a_header_of_too_many_pixels_is_refused_at_once(tile, tmp_path, size):
    tile("a.tif")
    (tmp_path / "m.tif").write_text(vrt("a.tif", size=size))
    with pytest.raises(ResegeoError, match=f"at most {MOST_PIXELS:,}, and 100,000,000 in a row or column"):
        open_scene(tmp_path / "m.tif")


def test_the_largest_scene_is_described_without_a_look_at_all_of_it(tile, tmp_path):
    tile("a.tif")
    text = vrt("a.tif", size=(300_000, 300_000)).replace(
        "</SourceFilename>", '</SourceFilename><DstRect xOff="0" yOff="0" xSize="300000" ySize="300000"/>'
    )
    (tmp_path / "m.vrt").write_text(text)
    result = CliRunner().invoke(main, ["info", str(tmp_path / "m.vrt")])
    assert result.exit_code == 0
    assert "300000 rows × 300000 columns" in result.output


def test_too_many_bands_are_refused(tile, tmp_path):
    tile("a.tif", 1)
    bands = "".join(f'<VRTRasterBand dataType="Byte" band="{k}"/>' for k in range(1, 10_002))
    (tmp_path / "m.vrt").write_text(f'<VRTDataset rasterXSize="3" rasterYSize="3">{bands}</VRTDataset>')
    with pytest.raises(ResegeoError, match="10,001 bands; at most 10,000"):
        open_scene(tmp_path / "m.vrt")


def test_rasterio_is_no_way_around_for_truths_and_segments(tmp_path):
    (tmp_path / "s.tif").write_text(SERVICE)
    with pytest.raises(rasterio.errors.RasterioError), open_raster(str(tmp_path / "s.tif")):
        pass


def test_the_notice_of_a_trusted_mosaic_is_none(tile, tmp_path):
    from resegeo.batches.mosaic import build_mosaic

    tile("tiles/a.tif")
    path = build_mosaic([str(tmp_path / "tiles" / "a.tif")], tmp_path / "out", "m")
    with pytest.raises(ResegeoError, match="--formats VRT"):
        open_scene(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputNotice)
        assert open_scene(path, formats=["VRT"]).count == 3
