from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rasterio
from limits import largest_file, posix_only
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin

from resegeo.classes.class_file import class_list
from resegeo.errors import ResegeoError
from resegeo.outputs.raster import CLASSES_TAG, read_class_raster_info, write_class_raster
from resegeo.outputs.styles import qml_raster, qml_vector, sld_vector
from resegeo.scene.source import GeoReference

UTM = GeoReference(CRS.from_epsg(32633), from_origin(500_000, 5_200_000, 10, 10))
CLASSES = class_list(["water", {"name": "roof & <wall>", "color": "#c81e1e"}, "Wälder"])


def write(path, codes, georeference=UTM, classes=CLASSES, **tags):
    height, width = codes.shape
    blocks = (
        (row, col, codes[row : row + 512, col : col + 512])
        for row in range(0, height, 512)
        for col in range(0, width, 512)
    )
    return write_class_raster(
        path, blocks, height=height, width=width, georeference=georeference, classes=classes, tags=tags
    )


def random_codes(height=700, width=900, seed=0):
    codes = np.random.default_rng(seed).integers(0, 4, (height, width)).astype(np.uint8)
    codes[:50] = 255
    return codes


def test_what_was_written_is_read_back(tmp_path):
    codes = random_codes()
    counts = write(tmp_path / "a.classes.tif", codes, SOME="thing")
    values, times = np.unique(codes, return_counts=True)
    assert counts == dict(zip(values.tolist(), times.tolist(), strict=True))
    with rasterio.open(tmp_path / "a.classes.tif") as raster:
        assert np.array_equal(raster.read(1), codes)
        assert (raster.nodata, raster.dtypes, raster.descriptions) == (255, ("uint8",), ("class",))
        assert raster.colormap(1)[2] == (200, 30, 30, 255)
        assert raster.colormap(1)[255][3] == 0
        assert raster.tags()["SOME"] == "thing"
        assert raster.block_shapes == [(512, 512)]
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        overview = raster.read(1, out_shape=(350, 450))
    assert set(np.unique(overview)) <= {0, 1, 2, 3, 255}
    classes, where = read_class_raster_info(tmp_path / "a.classes.tif")
    assert classes.to_json() == CLASSES.to_json()
    assert where == UTM


def test_overviews_are_modes_and_invent_no_class(tmp_path):
    codes = np.where(np.indices((1024, 1024)).sum(axis=0) % 3 == 0, 1, 3).astype(np.uint8)
    write(tmp_path / "a.tif", codes)
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as raster:
        assert set(np.unique(raster.read(1))) <= {1, 3}


def test_the_attribute_table_lists_codes_names_counts_and_colours(tmp_path):
    codes = random_codes()
    write(tmp_path / "a.tif", codes)
    table = ET.parse(tmp_path / "a.tif.aux.xml").getroot().find("PAMRasterBand/GDALRasterAttributeTable")
    assert table is not None
    assert table.get("tableType") == "thematic"
    assert [field.findtext("Usage") for field in table.findall("FieldDefn")] == ["5", "1", "2", "6", "7", "8", "9"]
    rows = [[cell.text for cell in row] for row in table.findall("Row")]
    assert [row[2] for row in rows] == ["background", "water", "roof & <wall>", "Wälder"]
    assert [int(row[1] or 0) for row in rows] == [int((codes == code).sum()) for code in range(4)]
    assert rows[2][3:] == ["200", "30", "30", "255"]


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo (gdal-bin) is not installed")
def test_gdalinfo_reads_the_palette_the_table_and_the_names(tmp_path):
    write(tmp_path / "a.tif", random_codes())
    text = subprocess.run(["gdalinfo", tmp_path / "a.tif"], capture_output=True, text=True, check=True).stdout
    assert "ERROR" not in text
    assert "LAYOUT=COG" in text
    assert "GDALRasterAttributeTable" in text
    assert "roof &amp; &lt;wall&gt;" in text or "roof & <wall>" in text
    assert "NoData Value=255" in text


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    "where",
    [
        UTM,
        GeoReference(CRS.from_epsg(4326), Affine(0.1, 0.02, 10, -0.03, -0.1, 50)),
        GeoReference(CRS.from_epsg(32633), Affine(10, 0, 0, 0, 10, 0)),
        GeoReference(None, None),
        GeoReference(None, from_origin(3, 4, 1, 1)),
        GeoReference(
            None,
            None,
            tuple(GroundControlPoint(r, c, 10 + c / 100, 50 - r / 100, 0) for r in (0, 30) for c in (0, 40)),
            CRS.from_epsg(4326),
        ),
        GeoReference(
            CRS.from_wkt(
                'GEOGCS["Mars 2000",DATUM["D_Mars_2000",SPHEROID["Mars_2000_IAU_IAG",3396190,169.894447223612]],'
                'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
            ),
            from_origin(10, 5, 0.1, 0.1),
        ),
    ],
    ids=["utm", "rotated", "south-up", "none", "no-crs", "gcps", "mars"],
)
def test_the_output_lies_where_the_scene_lies(tmp_path, make_raster, where):
    if where.crs is not None:  # a CRS as a scene would bring it, once through a GeoTIFF
        with rasterio.open(make_raster("scene.tif", np.ones((1, 5, 5), np.uint8), crs=where.crs)) as scene:
            where = replace(where, crs=scene.crs)
    write(tmp_path / "a.tif", random_codes(30, 40), where)
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert raster.crs == where.crs
        assert raster.transform == (where.transform or Affine.identity())
        assert [(g.row, g.col, g.x, g.y) for g in raster.gcps[0]] == [(g.row, g.col, g.x, g.y) for g in where.gcps]
        assert raster.gcps[1] == where.gcps_crs


def test_equal_input_gives_equal_bytes_and_no_other_files(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.classes.tif", random_codes())
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [
            "a.classes.qml",
            "a.classes.tif",
            "a.classes.tif.aux.xml",
        ]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_an_error_in_the_middle_leaves_nothing(tmp_path):
    def blocks():
        yield 0, 0, np.ones((10, 10), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_class_raster(
            tmp_path / "a.tif", blocks(), height=20, width=20, georeference=UTM, classes=CLASSES, tags={}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_stale_sidecar_is_replaced(tmp_path):
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset><Metadata/></PAMDataset>")
    write(tmp_path / "a.tif", random_codes(20, 20))
    assert "thematic" in (tmp_path / "a.tif.aux.xml").read_text("utf-8")


def test_sixteen_bits_where_there_are_many_classes(tmp_path):
    classes = class_list([f"class {n}" for n in range(300)])
    codes = np.arange(400, dtype=np.uint16).reshape(20, 20) % 301
    write(tmp_path / "a.tif", codes, classes=classes)
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert (raster.dtypes[0], raster.nodata) == ("uint16", 65535)
        assert np.array_equal(raster.read(1), codes)


def test_a_foreign_raster_is_refused(tmp_path, make_raster):
    with pytest.raises(ResegeoError, match="no class raster of resegeo"):
        read_class_raster_info(make_raster("x.tif", np.ones((1, 5, 5), np.uint8)))


def test_styles_are_complete_xml_with_every_name():
    for text in (qml_raster(CLASSES), qml_vector(CLASSES), sld_vector(CLASSES, "layer")):
        root = ET.fromstring(text.split("\n", 1)[1] if text.startswith("<!DOCTYPE") else text)
        everything = " ".join([*root.itertext(), *(v for node in root.iter() for v in node.attrib.values())])
        for spec in CLASSES.drawn:
            assert spec.name in everything


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rpcs_are_taken_over_number_by_number(tmp_path):
    numbers = [0.25 * n for n in range(20)]
    offsets = {
        f"{axis}_{kind}": 10.0 for axis in ("height", "lat", "line", "long", "samp") for kind in ("off", "scale")
    }
    coefficients = dict.fromkeys(("line_den_coeff", "line_num_coeff", "samp_den_coeff", "samp_num_coeff"), numbers)
    rpcs = RPC(**offsets, **coefficients)
    write(tmp_path / "a.tif", random_codes(30, 40), GeoReference(None, None, rpcs=rpcs))
    _, where = read_class_raster_info(tmp_path / "a.tif")
    assert where.kind == "rpcs"
    for name, value in {**offsets, **coefficients}.items():
        assert getattr(where.rpcs, name) == value


@pytest.mark.parametrize("shape", [(1, 1), (1, 600), (600, 1), (513, 511)])
def test_any_size_is_written_as_a_cog(tmp_path, shape):
    codes = np.arange(shape[0] * shape[1]).reshape(shape).astype(np.uint8) % 4
    write(tmp_path / "a.tif", codes)
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert np.array_equal(raster.read(1), codes)
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_the_class_list_of_the_raster_goes_before_a_tag_of_that_name(tmp_path):
    write(tmp_path / "a.tif", random_codes(20, 20), **{CLASSES_TAG: "mine"})
    assert read_class_raster_info(tmp_path / "a.tif")[0].to_json() == CLASSES.to_json()


@pytest.mark.parametrize("tag", ["no json", "[]", "{}"])
def test_a_class_list_that_cannot_be_read_is_named(tmp_path, make_raster, tag):
    path = make_raster("x.tif", np.ones((1, 5, 5), np.uint8))
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(**{CLASSES_TAG: tag})
    with pytest.raises(ResegeoError, match=f"tag {CLASSES_TAG} cannot be read"):
        read_class_raster_info(path)


def test_a_folder_that_is_absent_is_answered_by_a_sentence(tmp_path):
    with pytest.raises(ResegeoError, match="could not be written"):
        write(tmp_path / "absent" / "a.tif", random_codes(20, 20))


@posix_only
def test_a_disk_that_fills_at_any_moment_leaves_the_old_raster_as_it_was(tmp_path):
    path = tmp_path / "x.classes.tif"
    codes = np.random.default_rng(0).integers(0, 3, (4, 512, 512), dtype=np.uint8)
    blocks = [(row, col, codes[n]) for n, (row, col) in enumerate([(0, 0), (0, 512), (512, 0), (512, 512)])]
    where = GeoReference(None, Affine(10, 0, 0, 0, -10, 0))
    classes = class_list(["a", "b"])

    def save() -> None:
        write_class_raster(path, blocks, height=1024, width=1024, georeference=where, classes=classes, tags={})

    save()
    good, size = path.read_bytes(), path.stat().st_size
    names = sorted(other.name for other in tmp_path.iterdir())
    for limit in (1_000, size // 2, 2 * size // 3, size - 30_000, size - 5_000):
        with pytest.raises(ResegeoError, match=r"x\.classes\.tif could not be written"), largest_file(limit):
            save()
        assert path.read_bytes() == good
        assert sorted(other.name for other in tmp_path.iterdir()) == names
