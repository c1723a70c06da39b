"""Examples in a vector file correct the words of a scene and of a finished store."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from safetensors.numpy import load_file

import resegeo
from resegeo.errors import ResegeoError, UsageError
from resegeo_cli.main import main

WORDS = ["water", "forest"]
WHERE = {"crs": "EPSG:32633", "transform": Affine(1, 0, 500_000, 0, -1, 5_190_080)}


@pytest.fixture
def scene(make_raster, picture, tmp_path):
    pixels = picture(64, 80)
    pixels[:, :, 40:] //= 4  # two halves that look unlike each other
    return make_raster("scene.tif", pixels, **WHERE)


@pytest.fixture
def store(scene, tmp_path):
    resegeo.segment(scene, WORDS, tmp_path / "out", vector=())
    return tmp_path / "out/scene.store.zarr"


def at(col, row):
    return shapely.Point(500_000 + col + 0.5, 5_190_080 - row - 0.5)


def written(path, shapes, crs="EPSG:32633", **fields):
    frame = gpd.GeoDataFrame(fields, geometry=list(shapes), crs=crs)
    frame.to_file(path)
    return path


@pytest.fixture
def clicks(tmp_path):
    spots = [at(col + step, row) for col in (4, 48) for step in (0, 12, 24) for row in range(2, 62, 6)]
    return written(tmp_path / "clicks.gpkg", spots, **{"class": ["water"] * 30 + ["forest"] * 30})


def codes(result):
    with rasterio.open(result.raster) as raster:
        return raster.read(1)


def test_examples_change_labels_and_the_report_says_what_they_were(store, clicks, tmp_path):
    plain = resegeo.segment(store, WORDS, tmp_path / "a", vector=())
    found = resegeo.segment(store, WORDS, tmp_path / "b", vector=(), examples=clicks)
    assert (codes(plain) != codes(found)).any()
    labels = codes(found)
    assert (labels[:, :36] == 1).mean() > 0.9
    assert (labels[:, 44:] == 2).mean() > 0.8
    report = json.loads(found.report.read_text())
    assert report["examples"]["counts"] == {"water": 30, "forest": 30}
    assert report["examples"]["judged"]["places"] == 60
    assert report["resegeo"]["examples"]["field"] == "class"
    assert found.beside[0] == tmp_path / "b/scene.words.fitted.safetensors"
    assert found.beside[0].name in report["files"]
    assert "examples" not in json.loads(plain.report.read_text())
    assert resegeo.segment(store, WORDS, tmp_path / "b", vector=(), examples=clicks).reused
    clicks.unlink()
    written(clicks, [at(5, 5), at(70, 10)], **{"class": ["forest", "water"]})
    with pytest.raises(ResegeoError, match="different: examples"):
        resegeo.segment(store, WORDS, tmp_path / "b", vector=(), examples=clicks)
    with pytest.raises(ResegeoError, match="different: examples"):
        resegeo.segment(store, WORDS, tmp_path / "b", vector=())
    other = resegeo.segment(store, WORDS, tmp_path / "b", vector=(), overwrite=True)
    assert not (tmp_path / "b/scene.words.fitted.safetensors").exists()
    assert (codes(other) == codes(plain)).all()


@pytest.mark.parametrize("kind", ["bytes", "16 bits", "floats", "stretched bytes"])
def test_a_scene_with_examples_has_the_labels_of_its_store_with_them(kind, clicks, tmp_path, make_raster, picture):
    pixels = picture(64, 80)
    pixels[:, :, 40:] //= 4
    knobs = {"stretch": (0, 60)} if kind == "stretched bytes" else {}
    if kind == "16 bits":
        pixels = pixels.astype(np.uint16) * 12 + 300
    if kind == "floats":
        pixels = pixels.astype(np.float32) / 255
    scene = make_raster("scene.tif", pixels, **WHERE)
    resegeo.segment(scene, WORDS, tmp_path / "out", vector=(), **knobs)
    store = tmp_path / "out/scene.store.zarr"
    one = resegeo.segment(scene, WORDS, tmp_path / "one", vector=(), examples=clicks, **knobs)
    two = resegeo.segment(store, WORDS, tmp_path / "two", vector=(), examples=clicks)
    assert (codes(one) == codes(two)).all()
    assert one.beside[0].name == "scene.fitted.safetensors"
    three = resegeo.segment(store, WORDS, tmp_path / "three", vector=(), examples=one.beside[0])
    assert (codes(one) == codes(three)).all()
    fitted = [load_file(each.beside[0]) for each in (one, two)]
    assert fitted[0].keys() == fitted[1].keys()
    assert all((fitted[0][name] == fitted[1][name]).all() for name in fitted[0])


def test_colours_of_another_stretch_are_those_of_another_scene(clicks, tmp_path, make_raster, picture):
    pixels = picture(64, 80).astype(np.uint16) * 12 + 300
    scene = make_raster("scene.tif", pixels, **WHERE)
    one = resegeo.segment(scene, WORDS, tmp_path / "one", vector=(), examples=clicks, stretch=(0, 12000))
    file = one.beside[0]
    for stretch, wanted in (((0, 12000), True), ((0, 6000), False)):
        plan = resegeo.prepare(scene, WORDS, tmp_path / "two", examples=file, stretch=stretch).plan
        assert plan.correction.coloured is wanted


def test_labels_of_examples_shown_in_another_way_keep_what_was_fitted(scene, clicks, tmp_path):
    """From the codes that lie there; nothing is scored anew."""
    first = resegeo.segment(scene, WORDS, tmp_path / "one", vector=(), examples=clicks)
    store = tmp_path / "one/scene.store.zarr"
    again = resegeo.segment(store, WORDS, tmp_path / "k", vector=(), examples=clicks)
    assert (codes(again) == codes(first)).all()
    shown = [
        resegeo.segment(store, WORDS, tmp_path / "m", vector=(), examples=clicks, only=["water"]),
        resegeo.segment(store, None, tmp_path / "k", vector=(), only=["water"], overwrite=True),
    ]
    fitted = load_file(first.beside[0])
    assert "scene_colours" in fitted
    for each in (again, *shown):
        found = load_file(next(path for path in each.beside if path.suffix == ".safetensors"))
        assert found.keys() == fitted.keys()
        assert all((found[name] == fitted[name]).all() for name in fitted)


def test_fitted_vectors_are_taken_to_a_scene_without_the_points(scene, store, clicks, tmp_path):
    one = resegeo.segment(store, WORDS, tmp_path / "one", vector=(), examples=clicks)
    two = resegeo.segment(scene, WORDS, tmp_path / "two", vector=(), examples=one.beside[0])
    assert (codes(one) == codes(two)).all()
    report = json.loads(two.report.read_text())
    assert report["examples"]["kind"] == "fitted"
    assert [path.suffix for path in two.beside] == [".qgz", ".json"]
    with pytest.raises(ResegeoError, match="words of another class file, with the classes water, forest"):
        resegeo.segment(scene, ["water", "road"], tmp_path / "three", examples=one.beside[0])
    with pytest.raises(ResegeoError, match="--reduction max, not mean"):
        resegeo.segment(scene, WORDS, tmp_path / "three", examples=one.beside[0], reduction="mean")
    with pytest.raises(ResegeoError, match="would replace the examples"):
        resegeo.segment(store, WORDS, tmp_path / "one", examples=one.beside[0], overwrite=True)


def test_a_damaged_file_of_fitted_vectors_is_told(store, clicks, tmp_path):
    from safetensors.numpy import save

    good = resegeo.segment(store, WORDS, tmp_path / "one", vector=(), examples=clicks).beside[0].read_bytes()
    size = int.from_bytes(good[:8], "little")
    metadata = json.loads(good[8 : 8 + size])["__metadata__"]
    width = json.loads(good[8 : 8 + size])["residuals"]["shape"][1]
    sound = {"residuals": np.zeros((2, width), np.float32), "biases": np.zeros(2, np.float32)}
    bad = {
        "cut": good[:-8],
        "empty": b"",
        "zeros": bytes(100),
        "nan": save(sound | {"biases": np.array([0, np.nan], np.float32)}, metadata=metadata),
        "large": save(sound | {"biases": np.array([3e38, -3e38], np.float32)}, metadata=metadata),
        "few": save(sound | {"biases": np.zeros(1, np.float32)}, metadata=metadata),
        "double": save(sound | {"biases": np.zeros(2)}, metadata=metadata),
        "bare": save(sound),
        "no biases for its colours": save(sound | {"scene_colours": np.zeros((2, 3), np.float32)}, metadata=metadata),
        "colours of two": save(
            sound
            | {f"scene_{name}": array for name, array in sound.items()}
            | {"scene_colours": np.zeros((2, 2), np.float32)},
            metadata=metadata,
        ),
        "list": save(sound, metadata={"resegeo_fitted": "[]"}),
    }
    for name, content in bad.items():
        path = tmp_path / f"{name}.fitted.safetensors"
        path.write_bytes(content)
        with pytest.raises(ResegeoError, match="damaged, or no file of fitted vectors"):
            resegeo.segment(store, WORDS, tmp_path / "two", examples=path)
    said = json.loads(metadata["resegeo_fitted"])
    said["model"]["sha256"] = "0" * 64
    path.write_bytes(save(sound, metadata={"resegeo_fitted": json.dumps(said)}))
    with pytest.raises(ResegeoError, match="was fitted with the model"):
        resegeo.segment(store, WORDS, tmp_path / "two", examples=path)


def test_a_name_that_the_class_file_lacks_becomes_a_class_without_words(store, tmp_path):
    spots = [at(col + step, row) for col in (4, 48) for step in (0, 12, 24) for row in range(2, 62, 6)]
    path = written(tmp_path / "clicks.gpkg", spots, **{"class": ["Pool", "pool"] * 15 + ["water"] * 30})
    with pytest.warns(resegeo.errors.InputNotice, match="new classes, which the class file lacks: Pool"):
        found = resegeo.segment(store, WORDS, tmp_path / "b", examples=path)
    assert codes(found)[5, 5] == 3
    report = json.loads(found.report.read_text())
    assert [(each["name"], each["prompts"]) for each in report["resegeo"]["classes"]["classes"]] == [
        ("water", ["water"]),
        ("forest", ["forest"]),
        ("Pool", []),
    ]
    again = resegeo.segment(store, WORDS, tmp_path / "c", vector=(), examples=found.beside[0])
    assert (codes(again) == codes(found)).all()


def places(store, path, field=None, classes=WORDS):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = resegeo.prepare(store, classes, store.parent / "x", examples=path, field=field).plan
    where = plan.correction.places
    return sorted(zip(where.rows.tolist(), where.cols.tolist(), where.label.tolist(), strict=True)), [
        str(one.message) for one in caught
    ]


def test_points_lines_and_polygons_give_the_pixels_that_they_lie_on(store, tmp_path):
    line = shapely.LineString([at(10, 20), at(14, 20)])
    square = shapely.box(500_040, 5_190_080 - 33, 500_043, 5_190_080 - 30)
    tiny = shapely.box(500_050.1, 5_190_080 - 40.3, 500_050.2, 5_190_080 - 40.2)
    frame = {"class_id": [1, 2, 1, 2]}
    expected = sorted(
        [(5, 7, 0), *((20, col, 1) for col in range(10, 15)), (40, 50, 1)]
        + [(row, col, 0) for row in (30, 31, 32) for col in (40, 41, 42)]
    )
    path = written(tmp_path / "a.gpkg", [at(7, 5), line, square, tiny], **frame)
    assert places(store, path)[0] == expected
    degrees = gpd.read_file(path).to_crs(4326)
    degrees.to_file(tmp_path / "b.geojson")
    assert places(store, tmp_path / "b.geojson")[0] == expected


def test_what_is_left_out_is_said_with_counts(store, tmp_path):
    spots = [at(5, 5), at(6, 6), at(7, 7), at(500, 5), at(-1, 5), at(9, 9), at(11, 11)]
    names = ["water", "FOREST", None, "water", "forest", "unprocessed", ""]
    path = written(tmp_path / "a.gpkg", spots, class_name=names)
    found, said = places(store, path)
    assert found == [(5, 5, 0), (6, 6, 1)]
    assert any("2 without a class, 1 called unprocessed, 2 outside the scene" in text for text in said)
    path = written(tmp_path / "b.gpkg", spots[:3], class_id=[1, 2, 9])
    assert any("1 of a code that the class file lacks" in text for text in places(store, path)[1])
    path = written(tmp_path / "c.gpkg", [*spots[:3], at(5, 5)], kind=["water", "forest", "water", "forest"])
    assert any("1 pixels are given to more than one class" in text for text in places(store, path, "kind")[1])


def test_examples_in_nodata_are_left_out(make_raster, picture, tmp_path):
    pixels = picture(64, 80)
    pixels[:, :30] = 0
    scene = make_raster("scene.tif", pixels, nodata=0, **WHERE)
    path = written(tmp_path / "a.gpkg", [at(5, 5), at(5, 50), at(70, 60)], **{"class": ["water", "forest", "water"]})
    with pytest.warns(resegeo.errors.InputNotice, match="left out are 1 in nodata"):
        plan = resegeo.prepare(scene, WORDS, tmp_path / "x", examples=path).plan
    assert plan.correction.counts == {"water": 1, "forest": 1}


def test_every_mistake_with_examples_has_its_sentence(store, scene, clicks, tmp_path):
    one = written(tmp_path / "one.gpkg", [at(5, 5), at(6, 6)], **{"class": ["water", "water"]})
    none = written(tmp_path / "none.gpkg", [at(500, 5), at(600, 6)], **{"class": ["water", "forest"]})
    other = written(tmp_path / "other.gpkg", [at(5, 5)], kind=["water"])
    many = written(tmp_path / "many.gpkg", [at(5, 5)] * 101, **{"class": [f"c{n}" for n in range(101)]})
    (tmp_path / "text.gpkg").write_text("no file")
    cases = [
        (one, {}, ResegeoError, "examples of one class only in this scene \\(water: 2\\)"),
        (none, {}, ResegeoError, "has no example in this scene"),
        (other, {}, UsageError, "has no field class, class_name or class_id; name the one"),
        (other, {"field": "sort"}, UsageError, "has no such field; it has kind"),
        (many, {}, ResegeoError, "holds 101 names that the class file lacks"),
        (tmp_path / "text.gpkg", {}, ResegeoError, "vector file with points, lines or polygons"),
        (tmp_path / "missing.gpkg", {}, ResegeoError, "no such file"),
        (tmp_path / "missing.safetensors", {}, ResegeoError, "no such file"),
        (clicks, {"softmax_over": "prompts"}, UsageError, "leave that out"),
    ]
    for path, options, kind, text in cases:
        with pytest.raises(kind, match=text):
            resegeo.prepare(store, WORDS, tmp_path / "x", examples=path, **options)
    with pytest.raises(UsageError, match="fitted on features"):
        resegeo.prepare(scene, WORDS, tmp_path / "x", examples=clicks, keep_features=False)
    with pytest.raises(UsageError, match="give them by"):
        resegeo.prepare(scene, WORDS, tmp_path / "x", field="class")


def test_a_store_of_scores_takes_no_examples(scene, clicks, tmp_path):
    result = resegeo.segment(scene, WORDS, tmp_path / "out", vector=(), keep_features=False)
    with pytest.raises(ResegeoError, match="holds scores of words and no features"):
        resegeo.prepare(tmp_path / "out/scene.store.zarr", WORDS, examples=clicks)
    with pytest.raises(ResegeoError, match="different: examples"):
        resegeo.segment(scene, WORDS, tmp_path / "out", vector=(), examples=clicks, overwrite=False)
    assert result.raster.exists()


def test_the_order_of_points_and_repeated_points_change_nothing(store, clicks, tmp_path):
    frame = gpd.read_file(clicks)
    gpd.pd.concat([frame.iloc[::-1], frame]).to_file(tmp_path / "turned.gpkg")
    one = resegeo.segment(store, WORDS, tmp_path / "one", vector=(), examples=clicks)
    two = resegeo.segment(store, WORDS, tmp_path / "two", vector=(), examples=tmp_path / "turned.gpkg")
    assert one.raster.read_bytes() == two.raster.read_bytes()


def test_the_command_line_takes_examples_and_prints_how_well_they_are_told_apart(store, clicks, tmp_path):
    (tmp_path / "words.yml").write_text("classes: [water, forest]")
    arguments = ["segment", store, "--prompts", tmp_path / "words.yml", "-o", tmp_path / "b", "--vector", "none"]
    result = CliRunner().invoke(main, [str(one) for one in (*arguments, "--examples", clicks, "--field", "class")])
    assert result.exit_code == 0, result.output
    assert "fitted on 60 places" in result.stderr
    assert "water IoU" in result.stderr
    assert "flatters" in result.stderr
    assert str(tmp_path / "b/scene.words.fitted.safetensors") in result.stdout
    result = CliRunner().invoke(main, [str(one) for one in (*arguments, "--examples", clicks, "--field", "kind")])
    assert result.exit_code == 2
    assert "--field kind" in result.stderr


def test_colours_draw_the_border_where_it_is(tmp_path, make_raster):
    """Two plain halves; patches are 8 pixels wide, and the border lies inside one."""
    pixels = np.full((3, 96, 96), 60, np.uint8)
    pixels[:, :, 45:] = 140
    spots = [at(col, row) for col in (6, 20, 34, 58, 72, 86) for row in range(4, 92, 9)]
    clicks = written(tmp_path / "clicks.gpkg", spots, **{"class": ["dark"] * 30 + ["light"] * 30})
    scene = make_raster("halves.tif", pixels, **WHERE)
    found = resegeo.segment(scene, WORDS, tmp_path / "out", vector=(), examples=clicks)
    assert json.loads(found.report.read_text())["examples"]["colours"] is True
    labels = codes(found)
    assert (labels[:, :45] == labels[0, 0]).all()
    assert (labels[:, 45:] == labels[0, -1]).all()
    assert labels[0, 0] != labels[0, -1]


def test_a_store_without_colours_and_votes_are_corrected_by_features_alone(scene, store, clicks, tmp_path):
    import zarr

    kept = zarr.open_group(store, mode="r")
    with rasterio.open(scene) as raster:
        assert (kept["colours"][...] == raster.read().transpose(1, 2, 0)).all()
    one = resegeo.segment(store, WORDS, tmp_path / "one", vector=(), examples=clicks)
    shutil.rmtree(store / "colours")
    with pytest.warns(resegeo.errors.InputNotice, match="keeps no colours of its scene"):
        two = resegeo.segment(store, WORDS, tmp_path / "two", vector=(), examples=clicks)
    said = [json.loads(each.report.read_text())["examples"]["colours"] for each in (one, two)]
    assert said == [True, False]
    assert (codes(one) != codes(two)).any()
    # What is taken to other scenes are the vectors without colours; here those of a store that knows none.
    three = resegeo.segment(store, WORDS, tmp_path / "three", vector=(), examples=one.beside[0])
    assert (codes(three) == codes(two)).all()
    votes = {"segments": "superpixels", "vote_segments": True, "vector": ()}
    four = resegeo.segment(scene, WORDS, tmp_path / "four", examples=clicks, **votes)
    assert json.loads(four.report.read_text())["examples"]["colours"] is False


def test_vectors_of_nothing_leave_the_labels_of_the_words(store, clicks, tmp_path):
    from safetensors.numpy import save

    plain = resegeo.segment(store, WORDS, tmp_path / "a", vector=())
    path = resegeo.segment(store, WORDS, tmp_path / "b", vector=(), examples=clicks).beside[0]
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    nothing = {name: np.zeros(header[name]["shape"], np.float32) for name in ("residuals", "biases")}
    (tmp_path / "none.safetensors").write_bytes(save(nothing, metadata=header["__metadata__"]))
    found = resegeo.segment(store, WORDS, tmp_path / "c", vector=(), examples=tmp_path / "none.safetensors")
    assert (codes(found) == codes(plain)).all()


@pytest.mark.parametrize("count", [12, 60, 120])
def test_points_that_agree_with_a_good_map_hardly_change_it(count, tmp_path):
    """At uncertain places, each labelled with what the map says there."""
    demo = Path(__file__).parents[1] / "examples/demo"
    plain = resegeo.segment(demo / "sentinel2.tif", demo / "classes.yml", tmp_path / "a", vector=(), keep_features=True)
    store = tmp_path / "a/sentinel2.store.zarr"
    resegeo.suggest(store, demo / "classes.yml", tmp_path / "clicks.gpkg", count=count)
    points = gpd.read_file(tmp_path / "clicks.gpkg", layer=0)
    points["class"] = points["guess"]
    points.to_file(tmp_path / "agree.gpkg")
    found = resegeo.segment(store, demo / "classes.yml", tmp_path / "b", vector=(), examples=tmp_path / "agree.gpkg")
    assert (codes(found) != codes(plain)).mean() < 0.08
