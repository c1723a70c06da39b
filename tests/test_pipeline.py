from __future__ import annotations

import json
import warnings

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rioxarray
import shapely
from rasterio.errors import NotGeoreferencedWarning

import resegeo
from resegeo.errors import GeoreferenceWarning, IgnoredSettingWarning, ResegeoError, UsageError
from resegeo.run.prepare import VocabularyWarning

WORDS = ["water", "forest", "road", {"name": "houses", "prompts": ["building", "roof"]}]


def codes_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as raster:
            return raster.read(1)


def same_place(scene, raster):
    """Size, CRS, transform, GCPs and RPCs of two files, read by rasterio."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(scene) as one, rasterio.open(raster) as two:
            assert (one.height, one.width) == (two.height, two.width)
            # A GeoTIFF with GCPs keeps one CRS, that of the GCPs; a VRT may name another beside it.
            assert (one.gcps[1] or one.crs) == (two.gcps[1] or two.crs)
            assert one.transform == two.transform
            assert [g.asdict() | {"id": ""} for g in one.gcps[0]] == [g.asdict() | {"id": ""} for g in two.gcps[0]]
            assert (one.rpcs is None) == (two.rpcs is None)


@pytest.mark.parametrize(
    "name",
    [
        "naip/m_4709963_se_14_1_20160816.tif",
        "sentinel2/s2_l1c_13band_scene2.tif",
        "rasterio/RGB.byte.tif",
        pytest.param("rasterio/RGB.byte.gcp.vrt", marks=pytest.mark.slow),
        "rasterio/rotated.tif",
        "rasterio/world.rgb.tif",
    ],
)
@pytest.mark.filterwarnings("ignore::resegeo.ResegeoWarning")
def test_output_lies_where_a_real_scene_lies(test_data, tmp_path, name, quick_model):
    scene = test_data / "scenes" / name
    result = resegeo.segment(scene, WORDS, tmp_path / "out")
    same_place(scene, result.raster)
    codes = codes_of(result.raster)
    opened = resegeo.open_scene(scene)
    assert np.array_equal(codes == 255, ~opened.valid(0, 0, opened.height, opened.width))
    assert set(np.unique(codes)) <= {0, 1, 2, 3, 4, 255}
    polygons = gpd.read_file(result.vectors[0], layer=result.vectors[0].stem)
    assert shapely.coverage_is_valid(polygons.geometry.values)
    if polygons.crs is not None and "gcp" not in name:
        with rasterio.open(scene) as raster:
            pixel = abs(raster.transform.determinant)
        drawn = int(((codes > 0) & (codes < 254)).sum())
        assert shapely.area(polygons.geometry.values).sum() == pytest.approx(drawn * pixel, rel=1e-9)


@pytest.mark.filterwarnings("ignore::resegeo.ResegeoWarning")
def test_a_scene_with_rpcs_alone_keeps_them_and_has_no_polygons(test_data, tmp_path, quick_model):
    scene = test_data / "scenes/rasterio/RGB.byte.rpc.vrt"
    with pytest.warns(GeoreferenceWarning, match="without an elevation model"):
        result = resegeo.segment(scene, WORDS, tmp_path / "out")
    assert result.vectors == ()
    again = resegeo.segment(scene, WORDS, tmp_path / "out")
    assert (again.vectors, again.reused) == ((), True)
    same_place(scene, result.raster)


def test_outputs_are_complete_and_the_report_says_what_was_done(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(300, 280))
    result = resegeo.segment(scene, WORDS, tmp_path / "out", stride=64)
    assert sorted(path.name for path in result.raster.parent.iterdir()) == [
        "scene.areas.csv",
        "scene.classes.qml",
        "scene.classes.tif",
        "scene.classes.tif.aux.xml",
        "scene.gpkg",
        "scene.json",
        "scene.png",
        "scene.qgz",
        "scene.stac.json",
        "scene.store.zarr",
    ]
    report = json.loads(result.report.read_text("utf-8"))
    assert report["windows"] == {"planned": 16, "done": 16, "skipped": 0, "failed": 0}
    assert report["resegeo"]["settings"]["stride"] == 64
    assert len(report["resegeo"]["model"]["sha256"]) == 64
    assert sum(report["pixels"].values()) == 300 * 280
    assert set(report["seconds"]) == {"model", "windows", "labels", "polygons", "picture", "areas", "companions"}


def test_equal_runs_give_equal_bytes_whatever_the_threads(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(200, 333))
    one = resegeo.segment(scene, WORDS, tmp_path / "one", threads=1, vector=("gpkg", "fgb"))
    two = resegeo.segment(scene, WORDS, tmp_path / "two", threads=2, vector=("gpkg", "fgb"))
    for first, second in zip(one.files()[:-1], two.files()[:-1], strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
    sidecars = [path.raster.with_name(path.raster.name + ".aux.xml").read_bytes() for path in (one, two)]
    assert sidecars[0] == sidecars[1]


def test_labels_do_not_depend_on_the_files_blocks(make_raster, picture, tmp_path):
    bands = picture(600, 300)
    striped = make_raster("striped.tif", bands)
    tiled = make_raster("tiled.tif", bands, tiled=True, blockxsize=16, blockysize=128, compress="deflate")
    one = resegeo.segment(striped, WORDS, tmp_path / "one", vector=())
    two = resegeo.segment(tiled, WORDS, tmp_path / "two", vector=())
    assert np.array_equal(codes_of(one.raster), codes_of(two.raster))


def test_a_dataarray_gets_a_dataarray_back_with_the_labels_of_the_file(make_raster, picture, tmp_path):
    path = make_raster("scene.tif", picture(150, 170))
    from_file = codes_of(resegeo.segment(path, WORDS, tmp_path / "out", vector=()).raster)
    array = rioxarray.open_rasterio(path)
    result = resegeo.segment(array, WORDS)
    assert result.dims == ("y", "x")
    assert np.array_equal(result.values, from_file)
    assert result.rio.crs == array.rio.crs
    assert result.rio.transform() == array.rio.transform()
    assert result.rio.nodata == 255
    assert np.array_equal(result.x, array.x)
    assert result.attrs["flag_meanings"] == "background water forest road houses unprocessed"


def test_invalid_pixels_are_nodata_and_do_not_touch_the_others(make_raster, picture, tmp_path):
    bands = picture(256, 256)
    bands[bands == 0] = 1
    bands[:, :, :100] = 0
    scene = make_raster("scene.tif", bands, nodata=0)
    codes = codes_of(resegeo.segment(scene, WORDS, tmp_path / "out", vector=()).raster)
    assert (codes[:, :100] == 255).all()
    assert (codes[:, 100:] < 254).all()


def test_windows_without_a_valid_pixel_are_skipped(make_raster, picture, tmp_path):
    bands = np.maximum(picture(640, 128), 1)
    bands[:, 128:] = 0
    result = resegeo.segment(make_raster("scene.tif", bands, nodata=0), WORDS, tmp_path / "out", stride=128)
    assert json.loads(result.report.read_text("utf-8"))["windows"] == {
        "planned": 5,
        "done": 1,
        "skipped": 4,
        "failed": 0,
    }


def test_a_scene_without_a_valid_pixel_is_refused_and_nothing_is_written(make_raster, tmp_path):
    scene = make_raster("scene.tif", np.zeros((3, 50, 50), np.uint8), nodata=0)
    with pytest.raises(ResegeoError, match="has no valid pixel"):
        resegeo.segment(scene, WORDS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mistake_takes_nothing_from_an_earlier_run(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(60, 60))
    resegeo.segment(scene, WORDS, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for mistake in ({"segments": "missing.tif"}, {"device": "tpu"}, {"threads": 0}):
        with pytest.raises(ResegeoError):
            resegeo.segment(scene, WORDS, tmp_path / "out", overwrite=True, **mistake)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_changed_file_of_segments_is_another_run(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(60, 60))
    segments = make_raster("ids.tif", np.ones((1, 60, 60), np.int32))
    resegeo.segment(scene, WORDS, tmp_path / "out", segments=str(segments))
    make_raster("ids.tif", np.arange(3600, dtype=np.int32).reshape(1, 60, 60))
    with pytest.raises(ResegeoError, match="different: segment_files"):
        resegeo.segment(scene, WORDS, tmp_path / "out", segments=str(segments))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (127, 129), (128, 128), (131, 7)])
def test_any_size_is_covered(make_raster, picture, tmp_path, height, width):
    result = resegeo.segment(make_raster("scene.tif", picture(height, width)), WORDS, tmp_path / "out")
    codes = codes_of(result.raster)
    assert codes.shape == (height, width)
    assert (codes < 254).all()


def test_a_finished_run_is_recognised_another_is_refused_and_overwrite_replaces(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(100, 100))
    first = resegeo.segment(scene, WORDS, tmp_path / "out")
    before = first.raster.stat().st_mtime_ns
    assert resegeo.segment(scene, WORDS, tmp_path / "out").reused
    assert first.raster.stat().st_mtime_ns == before
    with pytest.raises(ResegeoError, match=r"different: stride \(default → 32\)"):
        resegeo.segment(scene, WORDS, tmp_path / "out", stride=32)
    with pytest.raises(ResegeoError, match="different: classes"):
        resegeo.segment(scene, [*WORDS, "grass"], tmp_path / "out")
    assert not resegeo.segment(scene, WORDS, tmp_path / "out", stride=32, overwrite=True).reused


def test_a_run_that_lost_a_file_is_computed_again(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(100, 100))
    first = resegeo.segment(scene, WORDS, tmp_path / "out")
    first.raster.unlink()
    assert not resegeo.segment(scene, WORDS, tmp_path / "out").reused
    assert first.raster.exists()


def test_a_threshold_of_one_leaves_background_and_a_class_threshold_goes_before(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(128, 128))
    codes = codes_of(resegeo.segment(scene, WORDS, tmp_path / "all", threshold=1.0, vector=()).raster)
    assert (codes == 0).all()
    free = [{"name": word, "threshold": 0} for word in ("water", "forest")]
    codes = codes_of(resegeo.segment(scene, free, tmp_path / "free", threshold=1.0, vector=()).raster)
    assert (codes > 0).all()


def test_a_background_class_competes_and_is_written_as_0(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(128, 256))
    plain = codes_of(resegeo.segment(scene, ["water", "road"], tmp_path / "one", vector=()).raster)
    marked = [{"name": "water", "background": True}, "road"]
    codes = codes_of(resegeo.segment(scene, marked, tmp_path / "two", vector=()).raster)
    assert np.array_equal(codes, np.where(plain == 1, 0, 1))


def test_segments_change_labels_and_come_from_a_label_raster_too(make_raster, picture, tmp_path):
    bands = picture(256, 256)
    scene = make_raster("scene.tif", bands)
    ids = (np.arange(256)[:, None] // 40 * 7 + np.arange(256)[None] // 40 + 1).astype(np.int32)
    segments = make_raster("ids.tif", ids[None])
    found = {
        name: codes_of(resegeo.segment(scene, WORDS, tmp_path / key, segments=name, vector=()).raster)
        for key, name in (("a", "none"), ("b", str(segments)), ("c", "superpixels"))
    }
    a, b, _ = found.values()
    assert not np.array_equal(a, b)


def test_the_references_own_layer_counts_give_way_to_a_model_of_another_depth(make_raster, picture, tmp_path):
    config = tmp_path / "config.yml"
    config.write_text(
        'text_queries: ["water", "a lake", "forest"]\n'
        'class_mapping: {"0": "Water", "1": "Water", "2": "Trees"}\n'
        "category_to_index: {Trees: 0, Water: 4}\n"
        "attention: {num_initial_layers: 18, num_neighbor_attention_layers: 2, num_sam_attention_layers: 4}\n"
        "model: {img_size: 224}\n"
    )
    scene = make_raster("scene.tif", picture(60, 60))
    with pytest.warns(IgnoredSettingWarning, match="describe a model of 24 layers"):
        codes = codes_of(resegeo.segment(scene, config, tmp_path / "out").raster)
    assert set(np.unique(codes)) <= {1, 5}


def test_a_word_outside_the_bundled_vocabulary_is_named(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(40, 40))
    with pytest.warns(VocabularyWarning, match="'volcano': outside the vocabulary"):
        resegeo.segment(scene, ["volcano", "water"], tmp_path / "out", vector=())


def test_no_crs_is_warned_of_and_the_output_has_none(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(60, 60), crs=None, transform=None)
    with pytest.warns(GeoreferenceWarning, match="has no CRS. Pass assign_crs"):
        result = resegeo.segment(scene, WORDS, tmp_path / "out")
    same_place(scene, result.raster)
    bounds = gpd.read_file(result.vectors[0], layer=result.vectors[0].stem).total_bounds
    assert bounds.tolist() == [0, -60, 60, 0]


@pytest.mark.filterwarnings("ignore::resegeo.ResegeoWarning")
def test_geojson_without_crs_is_refused_before_anything_runs(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(60, 60), crs=None)
    with pytest.raises(ResegeoError, match="has no CRS, and GeoJSON"):
        resegeo.segment(scene, WORDS, tmp_path / "out", vector=("geojson",))
    assert not (tmp_path / "out").exists()


def test_the_paper_preset_asks_for_segments(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(60, 60))
    with pytest.raises(UsageError, match=r"segments=.?superpixels"):
        resegeo.segment(scene, WORDS, tmp_path / "out", preset="paper")
    result = resegeo.segment(scene, WORDS, tmp_path / "out", preset="paper", segments="none")
    settings = json.loads(result.report.read_text("utf-8"))["resegeo"]["settings"]
    assert (settings["logit_scale"], settings["edge"], settings["fill"], settings["taper"]) == (
        1.0,
        "overhang",
        "black",
        False,
    )


def test_the_output_never_replaces_the_scene(make_raster, picture, tmp_path):
    scene = make_raster("a.classes.tif", picture(30, 30))
    result = resegeo.segment(scene, WORDS, tmp_path)
    assert result.raster.name == "a.classes.classes.tif"
    assert codes_of(scene).shape == (30, 30)
