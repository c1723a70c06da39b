"""Which scenes a batch finds, and that the places of their results stay inside the folder of the batch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

import pytest
from mutations import mutate

from resegeo.batches.destinations import gather, result_folders
from resegeo.batches.manifest import Row, read_manifest
from resegeo.errors import ResegeoError, UsageError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Make a folder with rasters, what archives of macOS bring along, hidden folders, and links in circles."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "s/a.tif",
        "s/._a.tif",
        "s/.hidden.tif",
        "s/north/b.TIF",
        "s/north/deep/c.tif",
        "s/__MACOSX/north/._b.tif",
        "s/__MACOSX/north/d.tif",
        "s/.cache/e.tif",
        "s/a.store.zarr/features/c/f.tif",
        "s/out/a/g.tif",
        "elsewhere/h.tif",
    ):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("s/again").symlink_to(Path("s").absolute())
    Path("s/north/up").symlink_to("..")
    Path("s/north/deep/root").symlink_to("../../..")
    Path("s/linked").symlink_to("../elsewhere")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("s", ["a.tif", "north/b.TIF", "north/deep/c.tif"]),
        ("s/**/*.tif", ["a.tif", "north/deep/c.tif"]),
        ("s/**/*.[tT][iI][fF]", ["a.tif", "north/b.TIF", "north/deep/c.tif"]),
        ("s/**/deep/**/c.tif", ["north/deep/c.tif"]),
        ("s/*.tif", ["a.tif"]),
        ("s/*/*.tif", ["linked/h.tif"]),
        ("s/*/up/*.tif", ["north/up/a.tif"]),
        ("s/.*/*.tif", [".cache/e.tif"]),
        ("s/?.tif", ["a.tif"]),
        ("s/*.zarr", ["a.store.zarr"]),
    ],
)
def test_hidden_files_rubbish_and_links_upwards_are_no_scenes(tree, source, found):
    rows, _ = gather([source], Path("s/out"))
    assert [Path(row.scene).relative_to("s").as_posix() for row in rows] == found


def test_circles_of_links_have_an_end_in_patterns(tree):
    for number in range(20):
        Path(f"s/circle{number}").symlink_to(".")
    rows, _ = gather(["s/**/**/*.tif"], Path("s/out"))
    assert len(rows) == 2


@pytest.mark.parametrize(
    "scene",
    [
        "...tif",
        "../...tif",
        "../../x/..../..tif",
        "https://host/../../../x/a.tif",
        "https://host/x/...tif",
        "https://../../a.tif",
        "s3://bucket/..",
        "/vsicurl/http://host/../../../../x/a.tif",
        "/vsizip/../../../a.zip/a.tif",
        "NETCDF:../../../../tmp/a.nc:band",
        "https://host/..\\..\\a.tif",
        "https://host/%2e%2e/a.tif",
        "https://host/\x1b[31m/a\n.tif",
    ],
)
def test_results_stay_inside_the_folder_whatever_a_manifest_says(tmp_path, monkeypatch, scene):
    monkeypatch.chdir(tmp_path)
    rows = [Row(scene, {}, "m.csv, line 2"), Row("https://host/y/b.tif", {}, ""), Row("data/c.tif", {}, "")]
    for folder in result_folders(rows, ()) + result_folders(rows, tmp_path.parts):
        assert not folder.is_absolute()
        assert not {".", ".."} & set(folder.parts)
        assert str(folder).isprintable()
        assert os.path.normpath(folder) == str(folder) != "."


def test_an_address_that_is_none_is_one_sentence():
    with pytest.raises(ResegeoError, match=r"^http://\[::1 is no address \(.*\)\. Check it\.$"):
        result_folders([Row("http://[::1", {}, "")])


@pytest.mark.parametrize("key", ["prompts", "settings"])
@pytest.mark.parametrize(
    "value", ["../secret.yml", "/etc/passwd", "link.yml", "below/../../secret.yml", "{root}/secret.yml"]
)
def test_a_manifest_reads_no_text_from_elsewhere(tmp_path, key, value):
    (tmp_path / "m").mkdir()
    (tmp_path / "secret.yml").write_text("root:secret")
    (tmp_path / "m/link.yml").symlink_to("../secret.yml")
    value = value.format(root=tmp_path)
    (tmp_path / "m/a.csv").write_text(f"scene,{key}\na.tif,{value}\n")
    (tmp_path / "m/a.json").write_text(
        json.dumps({"type": "Feature", "properties": {"scene": "a.tif", f"resegeo:{key}": value}})
    )
    for name in ("a.csv", "a.json"):
        with pytest.raises(
            UsageError, match=rf"{key} is '.*(may name only files that lie beside it|ends in \.yml)"
        ) as told:
            read_manifest(tmp_path / "m" / name)
        assert "root:secret" not in str(told.value)


def test_a_manifest_names_texts_beside_and_below_itself(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "a.csv").write_text(f"scene,prompts,settings\na.tif,below/c.yml,{tmp_path}/s.YAML\n")
    (row,) = read_manifest(tmp_path / "a.csv")
    assert row.options == {"prompts": f"{tmp_path}/below/c.yml", "settings": f"{tmp_path}/s.YAML"}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("gsd", "nan"),
        ("gsd", "1e999"),
        ("gsd", "-inf"),
        ("stride", "9" * 5000),
        ("stride", "9" * 400),
        ("bbox", "1,2,3,inf"),
    ],
)
def test_numbers_beyond_all_use_are_one_short_sentence(tmp_path, column, value):
    (tmp_path / "a.csv").write_text(f'scene,{column}\na.tif,"{value}"\n')
    with pytest.raises(UsageError, match=f"line 2: {column} is '.*; expected") as caught:
        read_manifest(tmp_path / "a.csv")
    assert len(str(caught.value)) < len(str(tmp_path)) + 200


def test_ids_and_names_from_a_manifest_are_said_escaped_and_short(tmp_path):
    feature = {"type": "Feature", "id": "\x1b[31m" + "x" * 5000, "properties": {"\x1b[2J": 1}}
    (tmp_path / "a.json").write_text(json.dumps(feature))
    with pytest.raises(ResegeoError) as caught:
        read_manifest(tmp_path / "a.json")
    assert str(caught.value).isprintable()
    assert "\\x1b[31mxxx" in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 400


FEATURE = {"type": "Feature", "id": "x", "properties": {"scene": "a.tif", "gsd": 0.5, "resegeo:bands": [3, 2, 1]}}
ITEM = {
    "type": "Feature",
    "properties": {},
    "assets": {"visual": {"href": "https://host/a/b.tif", "type": "image/tiff"}},
}


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("m.csv", 'scene,bands,gsd,prompts\na.tif,"4,3,2",0.5,\nhttps://host/a/b.tif,,,c.yml\n'),
        ("m.json", json.dumps({"type": "FeatureCollection", "features": [FEATURE, ITEM]})),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_manifests_are_places_inside_or_one_sentence(tmp_path, monkeypatch, name, seed):
    monkeypatch.chdir(tmp_path)
    random, path = Random(11), Path(name)
    for _ in range(200):
        path.write_bytes(mutate(seed.encode(), random))
        try:
            rows = read_manifest(path)
            folders = result_folders(rows, tmp_path.parts)
        except ResegeoError as error:
            said = str(error)
            assert said.isprintable()
            assert len(said) < 1500
            continue
        for folder in folders:
            assert os.path.normpath(Path("/out") / folder).startswith("/out/")
