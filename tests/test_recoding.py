"""Labels that lie there already, shown in another way: merged, recoloured, inside a region, cropped."""

from __future__ import annotations

import json
import shutil

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner

import resegeo
from resegeo.classes.class_file import class_list, parse_class_list
from resegeo.classes.merging import merged, parse_merges, recolored
from resegeo.errors import ClassFileError, ResegeoError, UsageError
from resegeo.outputs.raster import read_class_raster_info
from resegeo_cli.main import main

pytestmark = pytest.mark.usefixtures("quick_model")

WHERE = {"crs": "EPSG:32633", "transform": Affine(1, 0, 500_000, 0, -1, 5_190_080)}
FILE = 'classes:\n- {name: water, color: "#0000ff"}\n- {name: grass, color: "#00ff00"}\n- forest\n- {name: road}\n'


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run in a folder of its own: out/scene.store.zarr, and its class file."""
    from fakes import quick

    import resegeo.run.compute

    folder = tmp_path_factory.mktemp("finished")
    random = np.random.default_rng(1)
    coarse = random.integers(0, 255, (3, 3, 3)).repeat(40, axis=1).repeat(40, axis=2)
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", dtype="uint8", count=3, height=120, width=120, **WHERE
    ) as raster:
        raster.write(coarse.astype(np.uint8))
    (folder / "classes.yml").write_text(FILE)
    load = resegeo.run.compute.load_encoder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resegeo.run.compute, "load_encoder", lambda source, **options: quick(load(source, **options)))
        resegeo.segment(folder / "scene.tif", folder / "classes.yml", folder / "out")
    return folder


@pytest.fixture
def out(finished, tmp_path):
    """A copy of that run, to be changed."""
    shutil.copytree(finished / "out", tmp_path / "out")
    shutil.copy(finished / "classes.yml", tmp_path)
    return tmp_path / "out"


@pytest.fixture
def no_model(monkeypatch):
    """Let every load of a model fail: where only codes change, none is needed."""

    def fail(*_arguments, **_options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("resegeo.run.compute.Models.encoder", fail)


def codes(result):
    with rasterio.open(result.raster) as raster:
        return raster.read(1)


def files(result):
    return {path.name: path.read_bytes() for path in result.files() if path.suffix not in (".json", ".gpkg")}


@pytest.fixture
def field(tmp_path):
    shape = shapely.Polygon([(500_010, 5_190_070), (500_075, 5_190_070), (500_040, 5_190_000.4)])
    gpd.GeoDataFrame(geometry=[shape], crs="EPSG:32633").to_file(tmp_path / "field.gpkg")
    return tmp_path / "field.gpkg"


def test_a_merge_changes_codes_and_nothing_else(out, no_model):
    before = json.loads((out / "scene.json").read_text())["pixels"]
    with rasterio.open(out / "scene.classes.tif") as raster:
        old = raster.read(1)
    found = resegeo.segment(out / "scene.store.zarr", merge="grass,forest=green", vector="gpkg")
    new = codes(found)
    assert found.raster == out / "scene.classes.tif"
    assert (new == np.where(old == 3, 2, old)).all()
    classes, _ = read_class_raster_info(found.raster)
    assert [(spec.name, spec.code) for spec in classes.classes] == [("water", 1), ("green", 2), ("road", 4)]
    after = json.loads(found.report.read_text())["pixels"]
    assert after.get("green", 0) == before.get("grass", 0) + before.get("forest", 0)
    assert set(gpd.read_file(found.vectors[0], layer="scene")["class_name"]) <= {"water", "green", "road"}


@pytest.mark.parametrize(
    "options",
    [
        {"merge": ("grass,forest=green", "road=water")},
        {"only": ("road",)},
        {"colors": True},
        {"aoi": True},
        {"aoi": True, "crop": True},
        {"bbox": (500_030, 5_189_990, 500_090, 5_190_060), "crop": True, "merge": ("road=grass",)},
        {"merge": ("grass,forest=green",), "min_area": 9},
    ],
)
def test_codes_of_labels_that_lie_there_give_the_bytes_of_labelling_anew(out, field, tmp_path, options, monkeypatch):
    given = dict(options)
    if "aoi" in given:
        given["aoi"] = field
    if "colors" in given:
        (tmp_path / "colors.yml").write_text('classes: [{name: Road, color: "#123456"}]')
        given["colors"] = tmp_path / "colors.yml"
    from resegeo.run import execution

    with monkeypatch.context() as patch:
        patch.setattr("resegeo.run.compute.Models.encoder", None)
        quick = resegeo.segment(out / "scene.store.zarr", tmp_path / "classes.yml", tmp_path / "quick", **given)
    monkeypatch.setattr(execution, "labelled_already", lambda *_, **__: None)
    slow = resegeo.segment(out / "scene.store.zarr", tmp_path / "classes.yml", tmp_path / "slow", **given)
    assert files(quick) == files(slow)
    assert (
        gpd.read_file(quick.vectors[0], layer=quick.vectors[0].stem)
        .drop(columns="score_mean")
        .equals(gpd.read_file(slow.vectors[0], layer=slow.vectors[0].stem).drop(columns="score_mean"))
    )


def test_a_crop_lies_where_its_pixels_lay(out, field, tmp_path):
    with rasterio.open(out / "scene.classes.tif") as raster:
        old, there = raster.read(1), raster.transform
    whole = resegeo.segment(out / "scene.store.zarr", tmp_path / "classes.yml", tmp_path / "a", aoi=field)
    cut = resegeo.segment(out / "scene.store.zarr", tmp_path / "classes.yml", tmp_path / "b", aoi=field, crop=True)
    with rasterio.open(cut.raster) as raster:
        new, where = raster.read(1), raster.transform
    assert where == there @ Affine.translation(10, 10)
    assert new.shape == (70, 65)
    inside = codes(whole)
    assert (new == inside[10:80, 10:75]).all()
    assert (np.delete(np.delete(inside, np.s_[10:80], 0), np.s_[10:75], 1) == 255).all()
    assert (new == old[10:80, 10:75])[new != 255].all()
    assert 0 < (new == 255).sum() < new.size
    one, two = (gpd.read_file(each.vectors[0], layer=each.vectors[0].stem) for each in (whole, cut))
    assert one.drop(columns="score_mean").equals(two.drop(columns="score_mean"))
    assert np.allclose(one["score_mean"], two["score_mean"])
    assert resegeo.Segmentation.open(tmp_path / "b").scores().shape == (70, 65)


def test_a_scene_is_cropped_as_its_store_is(finished, out, field, tmp_path):
    one = resegeo.segment(finished / "scene.tif", finished / "classes.yml", tmp_path / "one", aoi=field, crop=True)
    two = resegeo.segment(out / "scene.store.zarr", tmp_path / "classes.yml", tmp_path / "two", aoi=field, crop=True)
    assert (codes(one) == codes(two)).all()
    again = resegeo.segment(tmp_path / "one/scene.store.zarr", finished / "classes.yml", tmp_path / "three")
    assert (codes(again)[10:80, 10:75] == codes(one)).all()  # its store holds what lay inside
    import rioxarray

    array = resegeo.segment(
        rioxarray.open_rasterio(finished / "scene.tif"), finished / "classes.yml", aoi=field, crop=True
    )
    assert (array.values == codes(one)).all()
    assert array.rio.transform() == Affine(1, 0, 500_010, 0, -1, 5_190_070)


def test_colours_alone_change_palette_styles_picture_and_tables(out, no_model, tmp_path):
    labels, before = None, {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with rasterio.open(out / "scene.classes.tif") as raster:
        labels = raster.read(1)
    (tmp_path / "colors.yml").write_text('classes: [{name: GRASS, color: "#abcdef"}, {name: water, color: "#fedcba"}]')
    arguments = ["segment", str(out / "scene.store.zarr"), "--colors", str(tmp_path / "colors.yml")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    with rasterio.open(out / "scene.classes.tif") as raster:
        assert (raster.read(1) == labels).all()
        assert raster.colormap(1)[2][:3] == (0xAB, 0xCD, 0xEF)
    assert "#abcdef" in (out / "scene.classes.qml").read_text()
    assert (out / "scene.png").read_bytes() != before["scene.png"]
    assert {path.name for path in out.iterdir() if path.is_file()} == set(before)
    assert "nothing was computed" in CliRunner().invoke(main, arguments).output


def test_colours_alone_leave_merge_region_and_crop_as_they_are(out, no_model, field, tmp_path):
    store = out / "scene.store.zarr"
    first = resegeo.segment(store, merge="grass,forest=green", aoi=field, crop=True)
    labels, pixels = codes(first), json.loads(first.report.read_text())["pixels"]
    (tmp_path / "colors.yml").write_text('classes: [{name: green, color: "#abcdef"}]')
    second = resegeo.segment(store, colors=tmp_path / "colors.yml")
    assert (codes(second) == labels).all()
    assert json.loads(second.report.read_text())["pixels"] == pixels
    classes, _ = read_class_raster_info(second.raster)
    assert {spec.name: spec.color for spec in classes.classes}["green"] == (0xAB, 0xCD, 0xEF)


def test_a_map_that_was_merged_in_its_place_is_whole_again_from_its_store(out):
    store = out / "scene.store.zarr"
    with rasterio.open(out / "scene.classes.tif") as raster:
        old = raster.read(1)
    resegeo.segment(store, merge="grass,forest=green")
    assert (codes(resegeo.segment(store, merge="none")) == old).all()


def test_scores_stay_where_colours_alone_change(finished, tmp_path, no_model, monkeypatch):
    shutil.copytree(finished / "out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.undo()
    (tmp_path / "colors.yml").write_text('classes: [{name: water, color: "#abcdef"}]')
    resegeo.segment(tmp_path / "out/scene.store.zarr", colors=tmp_path / "colors.yml")
    assert resegeo.Segmentation.open(tmp_path / "out").scores().notnull().all()


@pytest.mark.parametrize("name", ["scene.gpkg", "scene.classes.qml", "scene.png", "scene.areas.csv"])
def test_what_the_user_changed_is_replaced_only_where_that_is_said(out, tmp_path, name):
    path = out / name
    if name.endswith(".gpkg"):
        frame = gpd.read_file(path, layer="scene")
        frame.iloc[:1].to_file(path, layer="scene")
    elif name.endswith(".png"):
        from PIL import Image

        Image.new("RGB", (9, 9)).save(path)
    else:
        path.write_text(path.read_text().replace("water", "lake"))
    mine = path.read_bytes()
    for options in ({}, {"overwrite": True}):
        with pytest.raises(ResegeoError, match="was changed since this program wrote it"):
            resegeo.segment(out / "scene.store.zarr", merge="grass,forest=green", **options)
        assert path.read_bytes() == mine
    resegeo.segment(out / "scene.store.zarr", merge="grass,forest=green", overwrite=True, replace_edited=True)
    assert path.read_bytes() != mine


def test_statistics_that_gdal_keeps_are_no_edit(out):
    table = out / "scene.classes.tif.aux.xml"
    table.write_text(table.read_text() + "\n")
    resegeo.segment(out / "scene.store.zarr", merge="grass,forest=green", overwrite=True)


def test_mistakes_of_showing_in_another_way_have_their_sentence(out, field, tmp_path):
    store = out / "scene.store.zarr"
    with pytest.raises(UsageError, match="there is no class gras; the class file has water, grass, forest, road"):
        resegeo.segment(store, merge="gras,road=green")
    with pytest.raises(UsageError, match="cuts results to a region"):
        resegeo.segment(store, crop=True)
    with pytest.raises(UsageError, match="Classes are missing"):
        resegeo.segment(tmp_path / "scene.tif")
    (tmp_path / "colors.yml").write_text("classes: [lava]")
    with pytest.raises(ResegeoError, match="has no class of this map; it has lava"):
        resegeo.segment(store, colors=tmp_path / "colors.yml")
    with pytest.raises(ResegeoError, match="lies beside the scene"):
        resegeo.segment(store, bbox=(0, 0, 1, 1))
    with pytest.raises(ResegeoError, match="centre of no pixel"):
        resegeo.segment(store, bbox=(500_010.1, 5_190_000.1, 500_010.2, 5_190_000.2), crop=True)
    (out / "scene.json").unlink()
    with pytest.raises(UsageError, match="lies beside no report of the run that made it"):
        resegeo.segment(store, merge="grass,forest=green")


def test_merges_are_read_from_text_and_from_a_class_file():
    assert parse_merges(["a, b=c", "d=e"]) == {"c": ("a", "b"), "e": ("d",)}
    for wrong in ("a,b", "=c", "a=", "a,,b=c"):
        with pytest.raises(UsageError, match="such as grass,trees=green"):
            parse_merges([wrong])
    with pytest.raises(UsageError, match="twice"):
        parse_merges(["a=c", "b=c"])
    found = parse_class_list("merge: {green: [grass, forest]}\nclasses: [water, grass, forest]\n")
    assert found.merge == {"green": ("grass", "forest")}
    for wrong, sentence in (
        ("{green: [gras]}", "line 1: there is no class gras"),
        ("[grass]", "found a list; expected a mapping"),
        ("{green: []}", "an empty list"),
        ("{green: [grass], red: [grass]}", "is to become both"),
    ):
        with pytest.raises(ClassFileError, match=sentence):
            parse_class_list(f"merge: {wrong}\nclasses: [water, grass, forest]\n")


def test_a_merged_class_has_the_code_of_its_first_part_and_the_score_of_its_best():
    classes = class_list(["water", "grass", {"name": "shadow", "background": True}, "forest"])
    found = merged(classes, {"plants": ["forest", "Grass"]})
    assert [(spec.name, spec.code, spec.prompts) for spec in found.classes.classes] == [
        ("water", 1, ("water",)), ("plants", 2, ("grass", "forest")), ("shadow", 0, ("shadow",)),
    ]  # fmt: skip
    assert found.codes(np.array([0, 1, 2, 3, 254, 255], np.uint8)).tolist() == [0, 1, 2, 2, 254, 255]
    by_class = np.array([0.1, 0.2, 0.3, 0.4], np.float32)[:, None, None]
    assert np.allclose(found.scores(by_class)[:, 0, 0], [0.1, 0.4, 0.3])
    assert np.isnan(found.scores(by_class * np.nan)).all()
    assert merged(classes, {}) is None
    same = merged(classes, {"grass": ["forest"]}).classes
    assert [spec.name for spec in same.classes] == ["water", "grass", "shadow"]
    assert same.classes[1].color == classes.classes[1].color
    gone = merged(classes, {"shadow": ["water"]})
    assert gone.codes(np.array([1, 2], np.uint8)).tolist() == [0, 1 + 1]
    with pytest.raises(UsageError, match="shadow is background"):
        merged(classes, {"dark": ["shadow", "water"]})
    with pytest.raises(UsageError, match="no class but background"):
        merged(classes, {"shadow": ["water", "grass", "forest"]})
    assert merged(classes, {"water": ["grass", "forest"]}).classes.classes[0].code == 1


def test_many_classes_merged_into_few_need_one_byte():
    many = class_list([f"c{number}" for number in range(300)])
    found = merged(many, {"c0": [f"c{number}" for number in range(1, 300)]})
    assert found.classes.dtype == "uint8"
    assert found.codes(np.array([1, 300, 65534, 65535], np.uint16)).tolist() == [1, 1, 254, 255]
    assert found.codes(np.array([7], np.uint16)).dtype == np.uint8


def test_colours_go_by_name_in_any_case():
    classes = recolored(class_list(["Water", "road"]), class_list([{"name": "water", "color": "#010203"}]))
    assert classes.classes[0].color == (1, 2, 3)


def test_suggest_never_replaces_points_that_somebody_labelled(out, tmp_path):
    from resegeo.run.suggestions import suggest

    path = suggest(out / "scene.store.zarr", tmp_path / "classes.yml", tmp_path / "clicks.gpkg", 4)
    frame = gpd.read_file(path, layer="clicks")
    suggest(out / "scene.store.zarr", tmp_path / "classes.yml", path, 4, overwrite=True)
    frame.loc[0, "class"] = "water"
    frame.to_file(path, layer="clicks")
    with pytest.raises(ResegeoError, match="labelled already"):
        suggest(out / "scene.store.zarr", tmp_path / "classes.yml", path, 4, overwrite=True)
    assert gpd.read_file(path, layer="clicks")["class"].notna().sum() == 1
