"""Many scenes: what is found and where it goes, options of a scene's own, failures, resume, mosaics."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import yaml
from click.testing import CliRunner
from rasterio.transform import from_origin
from rasters import write_raster
from test_store import bytes_of

import resegeo
import resegeo.batches.batch
import resegeo.batches.spread
import resegeo.run.compute
from resegeo.batches.batch import segment_many
from resegeo.batches.destinations import result_folders
from resegeo.batches.manifest import Row, read_manifest
from resegeo.batches.mosaic import build_mosaic
from resegeo.clip.encoder import Encoder
from resegeo.errors import IgnoredSettingWarning, ResegeoError, UsageError
from resegeo.run.prepare import VocabularyWarning
from resegeo_cli.main import main

pytestmark = pytest.mark.usefixtures("quick_model")

WORDS = ["water", "forest", "road"]


@pytest.fixture
def scenes(tmp_path, make_raster, picture, monkeypatch):
    """A folder of three small scenes in two folders, a class file, and the test's own working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenes/north").mkdir(parents=True)
    for number, name in enumerate(("a.tif", "b.tif", "north/c.tif")):
        make_raster(f"scenes/{name}", picture(70, 90, seed=number))
    (tmp_path / "classes.yml").write_text(yaml.safe_dump({"classes": WORDS}))
    return tmp_path / "scenes"


def run(*arguments):
    return CliRunner().invoke(main, ["batch", *map(str, arguments)])


def table(folder: str = "out") -> dict[str, tuple[str, str]]:
    with Path(folder, "batch.csv").open(newline="", encoding="utf-8") as lines:
        return {line["results"]: (line["state"], line["reason"]) for line in csv.DictReader(lines)}


def test_a_pattern_takes_every_scene_to_a_folder_of_its_own_and_equals_single_runs(scenes):
    result = run("scenes/**/*.tif", "--prompts", "classes.yml", "-o", "out")
    assert result.exit_code == 0, result.output
    assert table() == {"a": ("done", ""), "b": ("done", ""), "north/c": ("done", "")}
    assert result.stdout.splitlines()[-1] == f"3 done, 0 skipped, 0 failed; {Path('out/batch.csv')}"
    for name in ("a", "b", "north/c"):
        alone = resegeo.segment(f"scenes/{name}.tif", "classes.yml", Path("alone") / name)
        together = resegeo.Segmentation.open(Path("out", name))
        assert all(path.exists() for path in together.files())
        assert bytes_of(together) == bytes_of(alone)


# What is asked for, and where it goes


def test_arguments_may_be_files_folders_and_patterns_and_results_are_no_scenes(scenes):
    assert run("scenes/a.tif", "scenes/north", "--prompts", "classes.yml", "-o", "scenes/out").exit_code == 0
    assert set(table("scenes/out")) == {"a", "north/c"}
    assert run("scenes", "--prompts", "classes.yml", "-o", "scenes/out").exit_code == 0
    assert set(table("scenes/out")) == {"a", "b", "north/c"}


def test_a_pattern_that_grows_keeps_the_places_of_what_is_finished(scenes, make_raster, picture):
    run("scenes/*.tif", "--prompts", "classes.yml", "-o", "out")
    make_raster("scenes/z.tif", picture(40, 40))
    result = run("scenes/*.tif", "--prompts", "classes.yml", "-o", "out")
    assert {where: state for where, (state, _) in table().items()} == {"a": "skipped", "b": "skipped", "z": "done"}
    assert "1 done, 2 skipped, 0 failed" in result.stdout


def test_the_places_of_addresses_count_from_what_they_have_in_common():
    rows = [Row(f"https://host.org/tiles/{name}?token=1", {}, "") for name in ("x/TCI.tif", "y/TCI.tif", "B02.tif")]
    assert [folder.as_posix() for folder in result_folders(rows)] == ["x/TCI", "y/TCI", "B02"]


def test_equal_stems_and_scenes_named_twice_are_refused_before_anything_starts(scenes, make_raster, picture):
    make_raster("scenes/a.img", picture(40, 40), driver="HFA")
    result = run("scenes/*", "--prompts", "classes.yml", "-o", "out")
    assert result.exit_code == 1
    first, second = Path("scenes/a.img"), Path("scenes/a.tif")
    assert f"{first} and {second} have the same name up to the suffix" in result.stderr
    result = run("scenes/a.tif", "scenes/*.tif", "--prompts", "classes.yml", "-o", "out")
    assert result.exit_code == 1
    assert f"{second} is named 2 times" in result.stderr
    assert not Path("out").exists()


# Options of a scene's own


def test_a_csv_file_gives_each_scene_options_of_its_own(scenes, make_raster, picture):
    make_raster("scenes/four.tif", np.concatenate([picture(70, 90), picture(70, 90, 9)[:1]]))
    Path("lists").mkdir()
    Path("lists/few.yml").write_text("classes: [water, forest]\n")
    Path("lists/scenes.csv").write_text(
        "scene,bands,stretch,superpixel-area,prompts,taper,overlap\n"
        '../scenes/four.tif,"4,3,2",10:200,"256,1024",few.yml,no,0.25\n'
        "../scenes/a.tif,,,,,,\n\n",
        encoding="utf-8",
    )
    result = run("lists/scenes.csv", "--prompts", "classes.yml", "-o", "out", "--stride", "128", "--vector", "none")
    assert result.exit_code == 0, result.output
    assert set(table()) == {"scenes/four", "scenes/a"}
    own = json.loads(Path("out/scenes/four/four.json").read_text("utf-8"))["resegeo"]
    assert own["bands"] == [4, 3, 2]
    assert own["stretch"] == {"low": [10] * 3, "high": [200] * 3}
    assert [spec["name"] for spec in own["classes"]["classes"]] == ["water", "forest"]
    chosen = {name: own["settings"][name] for name in ("superpixel_area", "taper", "overlap", "stride", "vector")}
    assert chosen == {"superpixel_area": [256, 1024], "taper": False, "overlap": 0.25, "stride": None, "vector": []}
    common = json.loads(Path("out/scenes/a/a.json").read_text("utf-8"))["resegeo"]
    assert common["settings"]["taper"] is True
    assert common["settings"]["stride"] == 128
    assert len(common["classes"]["classes"]) == 3
    alone = resegeo.segment(
        "scenes/four.tif",
        ["water", "forest"],
        "alone",
        bands=(4, 3, 2),
        stretch=(10, 200),
        superpixel_area=(256, 1024),
        taper=False,
        overlap=0.25,
        vector=(),
    )
    assert Path("out/scenes/four/four.classes.tif").read_bytes() == alone.raster.read_bytes()


def feature(**properties):
    return {"type": "Feature", "geometry": None, "properties": properties}


def collection(path, *features):
    Path(path).write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def test_properties_that_are_none_are_a_sentence(scenes):
    write("scenes.geojson", json.dumps({"type": "Feature", "properties": "x", "geometry": None}))
    with pytest.raises(ResegeoError, match="feature 1 has the properties 'x'; expected a mapping"):
        read_manifest("scenes.geojson")


def test_geojson_features_give_options_with_and_without_prefix(scenes):
    properties = {"resegeo:stride": 32, "bands": [3, 2, 1], "keep-background": True, "cloud_cover": 3, "strech": [0, 9]}
    collection("scenes.geojson", feature(location="scenes/a.tif", **properties))
    with pytest.warns(IgnoredSettingWarning, match=r"property strech is no option .* did you mean stretch"):
        (row,) = read_manifest("scenes.geojson")
    assert row.options == {"stride": 32, "bands": (3, 2, 1), "keep_background": True}
    with pytest.warns(IgnoredSettingWarning):
        result = segment_many("scenes.geojson", WORDS, "out")
    assert (result.counts["done"], result.failed, result.table) == (1, 0, Path("out/batch.csv"))
    assert json.loads(Path("out/scenes/a/a.json").read_text("utf-8"))["resegeo"]["bands"] == [3, 2, 1]


def item(name, assets, **properties):
    found = {key: {"href": href, "type": kind} for key, (href, kind) in assets.items()}
    return {"type": "Feature", "stac_version": "1.0.0", "id": name, "properties": properties, "assets": found}


def test_a_stac_item_is_segmented_by_its_visual_or_only_geotiff_asset(scenes):
    tiff, png = "image/tiff; application=geotiff; profile=cloud-optimized", "image/png"
    collection(
        "items.json",
        # gsd is the sensor's in STAC; ours needs its prefix
        item(
            "one", {"B02": ("scenes/a.tif", tiff), "visual": ("scenes/b.tif", tiff)}, gsd=10, **{"resegeo:stride": 64}
        ),
        item("two", {"thumbnail": ("t.png", png), "raster": ("scenes/north/c.tif", tiff)}),
    )
    rows = read_manifest("items.json")
    assert [(Path(row.scene), dict(row.options)) for row in rows] == [
        (Path("scenes/b.tif"), {"stride": 64}),
        (Path("scenes/north/c.tif"), {}),
    ]
    assert [
        row.scene for row in read_manifest(write("one.json", item("1", {"a": ("s3://b/x.tif", "")})), asset="a")
    ] == ["s3://b/x.tif"]
    assert run("items.json", "--prompts", "classes.yml", "-o", "out").exit_code == 0
    assert set(table()) == {"scenes/b", "scenes/north/c"}
    two = write("two.json", item("x", {"B02": ("a.tif", tiff), "B03": ("b.tif", tiff)}))
    with pytest.raises(ResegeoError, match=r"two.json, x has the assets B02, B03; name one of them by asset"):
        read_manifest(two)
    with pytest.raises(ResegeoError, match=r"asset=.?B04.?: two.json, x has the assets B02, B03"):
        read_manifest(two, asset="B04")


def write(name, document):
    Path(name).write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return name


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "", r"a.csv has the columns none; expected one named scene"),
        ("a.csv", "scene\n", r"a.csv names no scene"),
        ("a.csv", "image,gsd\na.tif,1\n", r"has the columns image, gsd; expected one named scene"),
        (
            "a.csv",
            "scene,strech\na.tif,0:9\n",
            r"a.csv: 'strech' is no option that a scene can have; did you mean stretch",
        ),
        ("a.csv", "scene,output\na.tif,x\n", r"'output' is no option that a scene can have; known are prompts, bands"),
        ("a.csv", "scene,bands\na.tif,4,3,2\n", r"a.csv, line 2 has more fields than .* needs quotes"),
        ("a.csv", 'scene,bands\na.tif,"4,3"\n', r"a.csv, line 2: bands is '4,3'; expected 3 numbers such as 4,3,2"),
        ("a.csv", "scene,taper\na.tif,perhaps\n", r"taper is 'perhaps'; expected true or false"),
        ("a.csv", "scene,stride\na.tif,6.5\n", r"stride is '6.5'; expected a whole number"),
        ("a.csv", "scene,gsd\n,1\n", r"a.csv, line 2: the scene's path is missing"),
        ("a.csv", 'scene\n"a.tif\n', r"a.csv is no CSV file from line 2 on .* is a quote missing"),
        ("a.json", "{", r"a.json, line 1: this is not valid JSON"),
        ("a.json", "[]", r"a.json is no FeatureCollection"),
        ("a.json", '{"features": []}', r"a.json names no scene"),
        ("a.json", feature(name="x"), r"a.json, feature 1 has the properties name; expected one named scene"),
        ("a.json", feature(scene="a.tif", bands=[True, 1, 2]), r"feature 1: bands is True; expected a whole number"),
        ("a.json", feature(scene="a.tif", **{"resegeo:gds": 1}), r"'gds' is no option .* did you mean gsd"),
        ("a.json", feature(scene=7), r"a.json, feature 1: the scene's path is missing"),
    ],
)
def test_a_mistake_in_a_manifest_is_one_sentence(tmp_path, monkeypatch, name, text, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResegeoError, match=sentence):
        read_manifest(write(name, text))


def test_semicolons_a_byte_order_mark_and_utf16_are_read(tmp_path):
    text = "path;bands;gsd\r\nα.tif;4,3,2;0.5\r\n"
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a.csv").write_bytes(text.encode(encoding))
        (row,) = read_manifest(tmp_path / "a.csv")
        assert (row.scene, row.options) == (str(tmp_path / "α.tif"), {"bands": (4, 3, 2), "gsd": 0.5})


def test_a_wrong_value_is_told_with_its_line_before_any_scene_is_touched(scenes):
    write("scenes.csv", "scene,overlap,only\nscenes/a.tif,,\nscenes/b.tif,1.5,\n")
    result = run("scenes.csv", "--prompts", "classes.yml", "-o", "out")
    assert result.exit_code == 2
    assert "scenes.csv, line 3: overlap is 1.5; expected a number from 0 to 0.95" in result.stderr
    write("scenes.csv", "scene,only\nscenes/a.tif,lake\n")
    assert "line 2: --only lake: there is no such class" in run("scenes.csv", "--prompts", "classes.yml").stderr
    write("scenes.csv", "scene,prompts\nscenes/a.tif,classes.yml\nscenes/b.tif,\n")
    assert "scenes.csv, line 3 has no class file" in run("scenes.csv").stderr
    assert not Path("out").exists()
    assert not Path("batch_resegeo").exists()


# Failure, resume, interruption


def test_a_damaged_scene_fails_alone_and_is_tried_again(scenes):
    whole = (scenes / "b.tif").read_bytes()
    (scenes / "b.tif").write_bytes(whole[: len(whole) // 2])
    result = run("scenes/*.tif", "scenes/north", "--prompts", "classes.yml", "-o", "out")
    assert result.exit_code == 3
    states = table()
    assert [states[name][0] for name in ("a", "b", "north/c")] == ["done", "failed", "done"]
    assert "b.tif is damaged" in states["b"][1]
    assert "2 done, 0 skipped, 1 failed" in result.stdout
    (scenes / "b.tif").write_bytes(whole)
    again = run("scenes/*.tif", "scenes/north", "--prompts", "classes.yml", "-o", "out")
    assert again.exit_code == 0
    assert "1 done, 2 skipped, 0 failed" in again.stdout


def test_a_defect_at_one_scene_spares_the_others(scenes, monkeypatch):
    import resegeo.batches.spread

    inner = resegeo.batches.spread.segment

    def segment(scene, *args, **kwargs):
        if scene.endswith("a.tif"):
            raise ZeroDivisionError("boom")
        return inner(scene, *args, **kwargs)

    monkeypatch.setattr(resegeo.batches.spread, "segment", segment)
    assert run("scenes/*.tif", "--prompts", "classes.yml", "-o", "out").exit_code == 3
    assert table()["b"] == ("done", "")
    assert "defect of resegeo or of this machine (ZeroDivisionError: boom)" in table()["a"][1]


def test_what_is_finished_is_not_opened_again_until_scene_options_or_results_change(
    scenes, monkeypatch, make_raster, picture
):
    import resegeo.batches.spread

    command = ("scenes/*.tif", "--prompts", "classes.yml", "-o", "out")
    assert run(*command).exit_code == 0
    opened = []
    inner = resegeo.batches.spread.segment
    monkeypatch.setattr(
        resegeo.batches.spread, "segment", lambda scene, *a, **k: opened.append(scene) or inner(scene, *a, **k)
    )
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.name != "batch.csv"}
    assert run(*command).exit_code == 0
    assert opened == []
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.name != "batch.csv"} == before
    Path("out/a/a.png").unlink()
    make_raster("scenes/b.tif", picture(70, 90, seed=7))
    result = run(*command)
    assert [Path(scene).name for scene in opened] == ["a.tif", "b.tif"]
    assert result.exit_code == 3  # another scene's results are not replaced without being told to
    assert "different: scene" in table()["b"][1]
    assert table()["a"][0] == "done"
    opened.clear()
    assert run(*command, "--stride", "32").exit_code == 3
    assert "stride (default → 32)" in table()["a"][1]
    assert run(*command, "--stride", "32", "--overwrite").exit_code == 0


def test_features_asked_for_later_are_kept_and_stores_discarded(scenes):
    command = ("scenes/*.tif", "--prompts", "classes.yml", "-o", "out", "--segments", "none")
    assert run(*command, "--no-keep-features").exit_code == 0
    assert "different: keep_features" in run(*command, "--keep-features").stdout  # as segment has it
    assert "2 done, 0 skipped" in run(*command, "--keep-features", "--overwrite").stdout
    assert "0 done, 2 skipped" in run(*command, "--keep-features").stdout
    assert run("out/**/*.store.zarr", "--prompts", _other_words(), "-o", "out").exit_code == 0
    assert "0 done, 2 skipped" in run(*command, "--discard-store").stdout
    assert not list(Path("out").rglob("*.store.zarr"))


def _other_words() -> Path:
    path = Path("other.yml")
    path.write_text(yaml.safe_dump({"classes": ["grass", "sand"]}))
    return path


def test_another_activation_is_another_run(scenes):
    import resegeo.checkpoints.sources

    model = resegeo.checkpoints.sources.resolve_model()
    given = {"model": str(model.path), "arch": str(model.config) if model.config else model.architecture}
    keys = {
        resegeo.batches.batch.Methods(WORDS, {**given, "activation": name}).of(Row("a.tif", {}, "a.tif"))[2]
        for name in ("gelu", "quickgelu")
    }
    assert len(keys) == 2


def test_without_its_ledger_a_batch_knows_what_is_finished_by_the_reports_and_loads_no_model(scenes, monkeypatch):
    command = ("scenes/*.tif", "--prompts", "classes.yml", "-o", "out")
    assert run(*command).exit_code == 0
    Path("out/.batch.jsonl").unlink()
    monkeypatch.setattr(resegeo.run.compute, "load_encoder", lambda *_, **__: pytest.fail("loaded a model"))
    assert "0 done, 2 skipped, 0 failed" in run(*command).stdout
    lines = Path("out/.batch.jsonl").read_text("utf-8")
    Path("out/.batch.jsonl").write_text(lines[:-20], "utf-8")  # killed while it was written
    assert "0 done, 2 skipped, 0 failed" in run(*command).stdout


def test_model_and_words_are_loaded_once(scenes, monkeypatch):
    loaded, embedded = [], []
    load, embed = resegeo.run.compute.load_encoder, Encoder.encode_texts

    monkeypatch.setattr(resegeo.run.compute, "load_encoder", lambda *a, **k: loaded.append(a) or load(*a, **k))
    monkeypatch.setattr(Encoder, "encode_texts", lambda self, prompts: embedded.append(prompts) or embed(self, prompts))
    assert run("scenes/**/*.tif", "--prompts", "classes.yml", "-o", "out").exit_code == 0
    assert len(loaded) == 1
    assert embedded == [(("water",), ("forest",), ("road",))]


def test_a_model_that_cannot_be_loaded_ends_the_batch_with_its_sentence(scenes):
    result = run("scenes/*.tif", "--prompts", "classes.yml", "--model", "scenes/a.tif", "--arch", "ViT-B-32")
    assert result.exit_code == 1
    assert "cannot be read as a CLIP checkpoint" in result.stderr
    assert not Path("batch_resegeo").exists()


def results(folder):
    """Every file of the results, reports without dates and timings."""
    found = {}
    for report in Path(folder).rglob("*.json"):
        if ".store.zarr" not in str(report) and not report.name.endswith(".stac.json"):
            found[report.relative_to(folder)] = bytes_of(resegeo.Segmentation.open(report))
    return found


def test_an_interrupted_batch_says_how_to_go_on_and_ends_with_the_same_bytes(scenes, monkeypatch):
    import resegeo.run.execution
    import resegeo.run.results

    command = ("scenes/**/*.tif", "--prompts", "classes.yml")
    assert run(*command, "-o", "whole").exit_code == 0
    inner, calls = resegeo.run.execution.label_scene, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return inner(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(resegeo.run.execution, "label_scene", interrupted)
        result = run(*command, "-o", "out")
    assert result.exit_code == 130
    assert "Interrupted: 1 of 3 scenes are finished in out. The same command continues." in result.stderr
    assert [state for state, _ in table().values()] == ["done", "waiting", "waiting"]
    assert "2 done, 1 skipped, 0 failed" in run(*command, "-o", "out").stdout
    assert results("out") == results("whole")
    assert len(results("out")) == 3


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_killed_batch_goes_on_and_ends_with_the_same_bytes(scenes):
    command = [sys.executable, "-m", "resegeo_cli", "batch", "scenes/**/*.tif", "--prompts", "classes.yml", "-q", "-o"]
    assert run("scenes/**/*.tif", "--prompts", "classes.yml", "-o", "whole").exit_code == 0
    process = subprocess.Popen([*command, "out"], stdout=subprocess.DEVNULL)
    while not Path("out/a/a.json").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert subprocess.run([*command, "out"], stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert results("out") == results("whole")
    assert not list(Path("out").rglob(".tmp-*"))


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_is_opened_once_and_gives_the_same_bytes(scenes, monkeypatch):
    import distributed

    assert run("scenes/**/*.tif", "--prompts", "classes.yml", "-o", "whole").exit_code == 0
    opened = []
    inner = distributed.LocalCluster
    monkeypatch.setattr(distributed, "LocalCluster", lambda **options: opened.append(options) or inner(**options))
    result = run("scenes/**/*.tif", "--prompts", "classes.yml", "-o", "out", "--cluster", "2")
    assert result.exit_code == 0, result.output
    assert len(opened) == 1
    assert results("out") == results("whole")


def test_finished_stores_take_new_words_beside_the_old_ones(scenes):
    run("scenes/**/*.tif", "--prompts", "classes.yml", "-o", "out")
    write("other.yml", "classes: [grass, building]\n")
    for folder in ("out", "elsewhere"):
        result = run("out/**/*.store.zarr", "--prompts", "other.yml", "-o", folder)
        assert result.exit_code == 0, result.output
        assert set(table(folder)) == {"a", "b", "north/c"}
        fresh = resegeo.segment("scenes/a.tif", "other.yml", f"fresh_{folder}")
        assert Path(folder, "a/a.other.classes.tif").read_bytes() == fresh.raster.read_bytes()
    assert "0 done, 3 skipped" in run("out/**/*.store.zarr", "--prompts", "other.yml", "-o", "out").stdout
    assert run("out/a/a.store.zarr", "--prompts", "other.yml", "-o", "single").exit_code == 0
    assert Path("single/a.other.classes.tif").exists()


def test_stores_elsewhere_lie_by_scene(scenes, make_raster, picture):
    make_raster("scenes/north/a.tif", picture(40, 50))
    assert run("scenes", "--prompts", "classes.yml", "-o", "out", "--store", "work").exit_code == 0
    assert {path.relative_to("work").as_posix() for path in Path("work").rglob("*.store.zarr")} == {
        "a/a.store.zarr",
        "b/b.store.zarr",
        "north/a/a.store.zarr",
        "north/c/c.store.zarr",
    }


def test_a_note_that_is_true_of_all_scenes_is_said_once(scenes):
    write("strange.yml", "classes: [zeppelin, water]\n")
    said = run("scenes/**/*.tif", "--prompts", "strange.yml", "-o", "out").stderr
    assert said.count("'zeppelin': outside the vocabulary") == 1


# Tiles of one mosaic


def cut(bands, rows=150, cols=200, **profile):
    """Write an array as four tiles and as a whole."""
    Path("tiles").mkdir()
    halves = [(slice(0, rows), slice(rows, None)), (slice(0, cols), slice(cols, None))]
    parts = {f"tiles/{'ns'[r]}{'we'[c]}.tif": (halves[0][r], halves[1][c]) for r in (0, 1) for c in (0, 1)}
    for name, (down, across) in {**parts, "whole.tif": (slice(0, None), slice(0, None))}.items():
        part = bands[:, down, across]
        where = from_origin(500_000 + 10 * across.start, 5_200_000 - 10 * down.start, 10, 10)
        write_raster(name, part, transform=where, **profile)


@pytest.mark.parametrize("kind", ["uint8", "uint16 with nodata"])
def test_a_mosaic_of_tiles_has_the_labels_and_polygons_of_the_whole(tmp_path, monkeypatch, picture, kind):
    monkeypatch.chdir(tmp_path)
    write("classes.yml", "classes: [water, forest, road]\n")
    bands = np.maximum(picture(300, 420), 1)
    if kind == "uint8":
        cut(bands)
    else:
        bands = bands.astype(np.uint16) * 13
        bands[:, 100:170, 180:230] = 0
        cut(bands, nodata=0)
    whole = resegeo.segment("whole.tif", "classes.yml", "alone")
    result = run("tiles/*.tif", "--prompts", "classes.yml", "-o", "out", "--mosaic", "district")
    assert result.exit_code == 0, result.output
    with rasterio.open("out/district/district.vrt") as mosaic, rasterio.open("whole.tif") as raster:
        assert (mosaic.read() == raster.read()).all()
        assert (mosaic.crs, mosaic.transform, mosaic.nodatavals) == (raster.crs, raster.transform, raster.nodatavals)
        assert mosaic.colorinterp == raster.colorinterp
    with rasterio.open("out/district/district.classes.tif") as made, rasterio.open(whole.raster) as expected:
        assert (made.read() == expected.read()).all()
        assert made.transform == expected.transform
    made = gpd.read_file("out/district/district.gpkg", layer="district")
    expected = gpd.read_file(whole.vectors[0], layer="whole")
    assert made.geometry.geom_equals(expected.geometry).all()
    assert (
        "0 done, 1 skipped, 0 failed"
        in run("tiles/*.tif", "--prompts", "classes.yml", "-o", "out", "--mosaic", "district").stdout
    )
    Path("tiles").rename("moved")  # the folders can be moved together, not alone
    with pytest.raises(rasterio.errors.RasterioError), rasterio.open("out/district/district.vrt") as mosaic:
        mosaic.read()


def test_a_refused_mosaic_changes_nothing_and_a_mosaic_is_no_tile_of_itself(tmp_path, monkeypatch, picture):
    monkeypatch.chdir(tmp_path)
    write("classes.yml", "classes: [water, forest, road]\n")
    cut(picture(200, 240), 100, 120)
    usual = ("--prompts", "classes.yml", "-o", "tiles", "--mosaic", "d")  # results among the tiles
    two = ("tiles/nw.tif", "tiles/ne.tif")
    assert run(*two, *usual).exit_code == 0
    files = {path: path.read_bytes() for path in Path("tiles/d").iterdir() if path.is_file()}
    refused = run(*two, "tiles/sw.tif", *usual)
    assert refused.exit_code == 3
    assert "different: " in refused.stdout
    assert {path: path.read_bytes() for path in Path("tiles/d").iterdir() if path.is_file()} == files
    assert "1 skipped" in run(*two, *usual).stdout
    for _ in range(2):
        again = run("tiles", *usual, "--overwrite")
        assert again.exit_code == 0, again.output
    with rasterio.open("tiles/d/d.vrt") as mosaic:
        assert mosaic.shape == (200, 240)
    with pytest.raises(ResegeoError, match="is the mosaic 'd' itself"):
        segment_many(["tiles/nw.tif", "tiles/d/d.vrt"], WORDS, "tiles", mosaic="d")
    alone = segment_many("tiles", WORDS, "out")
    assert [Path(scene.scene).stem for scene in alone.scenes] == ["ne", "nw", "se", "sw"]


def test_what_no_tile_covers_is_nodata_and_a_valid_pixel_covers_an_invalid_one(tmp_path, monkeypatch, picture):
    monkeypatch.chdir(tmp_path)
    bands = np.maximum(picture(200, 240), 1)
    cut(bands, 100, 120)
    tiles = [f"tiles/{name}.tif" for name in ("nw", "ne", "sw")]
    result = segment_many(tiles, WORDS, "out", mosaic="three")
    with rasterio.open(result.scenes[0].folder / "three.classes.tif") as raster:
        codes = raster.read(1)
    assert (codes[100:, 120:] == 255).all()
    assert (codes[:100] != 255).all()
    assert (codes[100:, :120] != 255).all()


def test_overlapping_tiles_with_nodata_or_alpha_or_a_mask_leave_no_holes(tmp_path, make_raster, picture):
    bands = np.maximum(picture(60, 80), 1)
    left, right = bands[:, :, :50].copy(), bands[:, :, 30:].copy()
    left[:, :, 40:], right[:, :, :10] = 0, 0  # each is empty where the other is not
    places = [from_origin(500_000, 5_200_000, 10, 10), from_origin(500_300, 5_200_000, 10, 10)]
    for kind in ("nodata", "alpha", "mask"):
        names = []
        for side, part, place in zip(("left", "right"), (left, right), places, strict=True):
            good = ((part != 0).any(axis=0) * 255).astype(np.uint8)
            values = np.concatenate([part, good[None]]) if kind == "alpha" else part
            options = {"alpha": {"photometric": "RGB", "alpha": "yes"}, "nodata": {"nodata": 0}}.get(kind, {})
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                path = make_raster(f"{kind}_{side}.tif", values, transform=place, **options)
                if kind == "mask":
                    with rasterio.open(path, "r+") as raster:
                        raster.write_mask(good)
            names.append(str(path))
        for order in (names, names[::-1]):
            vrt = build_mosaic(order, tmp_path / "out", f"{kind}{order[0][-8]}")
            rgb, valid = resegeo.open_scene(vrt, formats=("VRT",)).read(0, 0, 60, 80)
            assert valid.all(), (kind, order)
            assert (rgb.transpose(2, 0, 1) == bands).all(), (kind, order)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"crs": "EPSG:32634"}, r"no tiles of one mosaic: the CRS is EPSG:32634 there, EPSG:32633 here"),
        ({"dtype": "uint16"}, "the type is uint16 there, uint8 here"),
        ({"nodata": 7}, "the nodata value is 7.0 there, None here"),
        ({"transform": from_origin(500_000, 5_200_000, 20, 20)}, "the pixel is 20 × -20 there, 10 × -10 here"),
        ({"transform": from_origin(500_003, 5_200_000, 10, 10)}, r"lies 0.30 columns and 0.00 rows from"),
        ({"transform": None}, "has no transform"),
        ({"count": 1}, "the number of bands is 1 there, 3 here"),
        ({"count": 1, "palette": 7}, r"the palette is one with checksum \w+ there, one with checksum \w+ here"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_tiles_that_do_not_fit_are_told_apart_in_one_sentence(tmp_path, make_raster, picture, change, sentence):
    bands = picture(40, 40)
    change = dict(change)
    colour = change.pop("palette", None)
    one = make_raster("one.tif", bands if colour is None else bands[:1])
    two = make_raster("two.tif", bands[: change.pop("count", 3)], **change)
    if colour is not None:
        for path, value in ((one, 8), (two, colour)):
            with rasterio.open(path, "r+") as raster:
                raster.write_colormap(1, {0: (value, 0, 0, 255)})
    with pytest.raises(ResegeoError, match=sentence):
        segment_many([one, two], WORDS, tmp_path / "out", mosaic="m")
    assert not (tmp_path / "out").exists()


def test_options_of_one_tile_cannot_apply_to_a_mosaic(scenes):
    write("tiles.csv", "scene,gsd\nscenes/a.tif,10\nscenes/b.tif,\n")
    with pytest.raises(UsageError, match=r"tiles.csv, line 2: gsd cannot apply to one tile of a mosaic"):
        segment_many("tiles.csv", WORDS, "out", mosaic="m")


@pytest.fixture
def many(scenes, make_raster, picture):
    """Six more small scenes beside the three: enough for two workers to take whole ones."""
    for number in range(6):
        make_raster(f"scenes/more{number}.tif", picture(70, 90, seed=10 + number))
    return scenes


@pytest.fixture(scope="module")
def cluster():
    """Two workers for all tests here: to start them takes most of a test's time."""
    import distributed

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    """A client of the workers."""
    import distributed

    with distributed.Client(cluster) as client:
        yield client


@pytest.mark.model
@pytest.mark.slow
def test_workers_take_whole_scenes_where_these_are_many_and_the_bytes_are_the_same(many, client, monkeypatch):
    (many / "b.tif").write_bytes((many / "b.tif").read_bytes()[:3000])
    write("odd.yml", "classes: [water, forest, volcano]\n")
    with pytest.warns(VocabularyWarning, match="volcano"):
        here = segment_many("scenes/**/*.tif", "odd.yml", "here")
    with pytest.warns(VocabularyWarning, match="volcano"):  # said on the workers
        result = segment_many("scenes/**/*.tif", "odd.yml", "out", cluster=client)
    assert dict(result.counts) == dict(here.counts) == {"done": 8, "failed": 1}
    assert table("out") == table("here")
    assert "b.tif" in table("out")["b"][1]
    assert results("out") == results("here")
    assert len(results("out")) == 8
    monkeypatch.setattr(resegeo.batches.batch, "spread", None)  # one scene is left: too few to be shared out
    again = segment_many("scenes/**/*.tif", "odd.yml", "out", cluster=client)
    assert dict(again.counts) == {"skipped": 8, "failed": 1}


@pytest.mark.model
@pytest.mark.slow
def test_workers_leave_large_scenes_for_all_of_them(many, client, make_raster, picture, monkeypatch):
    make_raster("scenes/large.tif", picture(150, 160))
    segment_many("scenes/**/*.tif", "classes.yml", "here")
    monkeypatch.setattr(resegeo.batches.batch, "LARGEST", 10_000)
    inner, left = resegeo.batches.spread.segmented, []
    monkeypatch.setattr(resegeo.batches.batch, "segmented", lambda order: left.append(order.scene) or inner(order))
    segment_many("scenes/**/*.tif", "classes.yml", "out", cluster=client)
    assert [Path(scene).name for scene in left] == ["large.tif"]
    assert results("out") == results("here")


@pytest.mark.model
@pytest.mark.slow
def test_a_scene_outlives_the_worker_that_had_it_and_the_user_who_interrupts(many, client):
    segment_many("scenes/**/*.tif", "classes.yml", "here")
    events = []

    def disturb(done, total, what):
        if done == 2 and not events:
            events.append("killed")
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGTERM)
        if done == 5 and len(events) == 1:
            events.append("interrupted")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"of 9 scenes are finished in out\. The same command continues"):
        segment_many("scenes/**/*.tif", "classes.yml", "out", cluster=client, progress=disturb)
    result = segment_many("scenes/**/*.tif", "classes.yml", "out", cluster=client)
    assert events == ["killed", "interrupted"]
    assert result.counts["done"] + result.counts["skipped"] == 9
    assert results("out") == results("here")
    assert not list(Path("out").rglob(".tmp-*"))


def test_a_scene_that_another_run_has_in_hand_is_waited_for_on_a_cluster(scenes, monkeypatch):
    """As a worker may have it still whose batch was interrupted."""
    from resegeo.batches.spread import Order, segmented
    from resegeo.files import alone
    from resegeo.run.compute import Models

    held, let_go = threading.Event(), threading.Event()

    def hold():
        with alone({Path("out/a/a.classes.tif"): 0}):
            held.set()
            let_go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    order = Order(0, "scenes/a.tif", "classes.yml", Path("out/a"), {"models": Models()})
    assert "Another run is writing to" in segmented(order).reason
    threading.Timer(0.3, let_go.set).start()
    made = segmented(dataclasses.replace(order, patience=30))
    thread.join()
    assert made.reason == ""
    assert made.result.raster.exists()


def test_a_users_file_by_the_name_of_the_ledger_stays_as_it_is(scenes):
    Path("out").mkdir()
    write("out/.batch.jsonl", "my notes\n")
    assert run("scenes/a.tif", "--prompts", "classes.yml", "-o", "out").exit_code == 0
    assert run("scenes/a.tif", "--prompts", "classes.yml", "-o", "out").exit_code == 0
    assert Path("out/.batch.jsonl").read_text() == "my notes\n"
    assert table() == {"a": ("skipped", "")}
