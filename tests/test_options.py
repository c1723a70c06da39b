"""An option is declared once: Python, command line, settings file, manifest and batch take it from there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import resegeo
from resegeo.batches.manifest import read_manifest
from resegeo.declare import taken
from resegeo.errors import UsageError
from resegeo.run.options import OPTIONS, SCENE_OPTIONS, Keywords, Options
from resegeo.settings import LABEL_KNOBS, POLYGON_KNOBS, Settings, resolve_settings
from resegeo_cli.main import main

CALLS = """
import resegeo

resegeo.segment("a.tif", ["water"], stride=64, edge="overhang")
resegeo.segment("a.tif", ["water"], strid=64)
resegeo.segment("a.tif", ["water"], device=7)
resegeo.prepare("a.tif", ["water"], edge="crop")
resegeo.estimate("a.tif", ["water"], reduction=1)
resegeo.segment_many("s", ["water"], stride=64, mosaic="m", progress=lambda done, total, what: print(done + total))
resegeo.batch("s", ["water"], strid=64)
"""


@pytest.mark.slow
def test_a_type_checker_sees_misspelled_names_and_wrong_types(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "calls.py").write_text(CALLS)
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(tmp_path / "calls.py")]
    config = ["--config-file", str(root / "pyproject.toml")]
    # mypy does not follow the finder of an editable installation.
    place = os.environ | {"MYPYPATH": str(root)}
    done = subprocess.run([*command, *config], capture_output=True, text=True, cwd=tmp_path, env=place)
    lines = {line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line and "calls.py" in line}
    assert lines == {"5", "6", "7", "8", "10"}, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("bands", "4,3,2", (4, 3, 2)),
        ("bands", np.array([4, 3, 2]), (4, 3, 2)),
        ("bands", [np.int64(4), 3, 2], (4, 3, 2)),
        ("stretch", "0:255", (0.0, 255.0)),
        ("stretch", np.array([0, 255], np.uint16), (0.0, 255.0)),
        ("bbox", "1,2.5,3,-4", (1.0, 2.5, 3.0, -4.0)),
        ("formats", "GTiff,VRT", ("GTiff", "VRT")),
        ("formats", ["GTiff"], ("GTiff",)),
    ],
)
def test_a_view_is_taken_as_the_command_line_takes_it(name, given, value):
    assert getattr(Options.of({name: given}).view, name) == value


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("vector", "gpkg", ("gpkg",)),
        ("vector", "GPKG, fgb", ("gpkg", "fgb")),
        ("vector", ["gpkg", "gpkg"], ("gpkg",)),
        ("vector", "none", ()),
        ("vector", (), ()),
        ("superpixel_area", 256, (256,)),
        ("superpixel_area", "256,1024", (256, 1024)),
        ("superpixel_area", np.int64(256), (256,)),
        ("stride", np.int64(64), 64),
        ("gsd", np.float32(0.5), 0.5),
        ("gsd", 10, 10.0),
        ("taper", np.bool_(False), False),
        ("segments", Path("ids.tif"), "ids.tif"),
    ],
)
def test_a_knob_is_taken_as_the_command_line_takes_it(name, given, value):
    knobs = Options.of({name: given}).method.knobs
    found = getattr(resolve_settings(knobs), name)
    assert found == value
    assert type(found) is type(value)


def test_one_class_may_be_named_alone():
    assert Options.of({"only": "water"}).only == ("water",)
    assert Options.of({"only": ["water", "forest"]}).only == ("water", "forest")
    assert Options.of({"only": "water, forest"}).only == ("water", "forest")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"strid": 64}, "There is no option 'strid'; did you mean stride?"),
        ({"assign-crs": "x"}, "There is no option 'assign-crs'; did you mean assign_crs?"),
        ({"device": 7}, "device is 7; expected cpu, cuda or mps."),
        ({"stride": 0}, "stride is 0; expected a whole number of 1 or more."),
        ({"stride": "64"}, "stride is '64'; expected a whole number of 1 or more."),
        ({"stride": True}, "stride is True; expected a whole number of 1 or more."),
        ({"threads": 0}, "threads is 0; expected a whole number of 1 or more."),
        ({"gsd": float("inf")}, "gsd is inf; expected a number above 0."),
        ({"gsd": 10**400}, "gsd is 1"),
        ({"stretch": "0-255"}, "stretch is '0-255'; expected 2 numbers such as 200:3000."),
        ({"bands": (1, 2)}, "bands is (1, 2); expected 3 numbers such as 4,3,2."),
        ({"bands": (1, 2, "x")}, "bands is 'x'; expected a whole number."),
        ({"vector": "dxf"}, "vector is 'dxf'; expected gpkg, shp, geojson, fgb, parquet, kml or none."),
        ({"edge": ["clamp"]}, "edge is ['clamp']; expected clamp or overhang."),
        ({"overwrite": "yes"}, "overwrite is 'yes'; expected true or false."),
        ({"superpixel_area": ()}, "superpixel_area is empty; expected numbers such as 256,1024."),
        ({"segments": {"a": 1}}, "segments is {'a': 1}; expected superpixels, sam, none, or a file."),
        ({"preset": "best"}, "preset is 'best'; expected default, paper, plain, maskclip, sclip, clearclip or"),
        ({"segments": 10**5000}, "segments is a number of thousands of digits; expected superpixels, sam, none, or"),
    ],
)
def test_what_is_no_value_of_an_option_is_named_with_what_is_expected(given, sentence):
    with pytest.raises(UsageError) as raised:
        Options.of(given)
    assert str(raised.value).startswith(sentence)
    assert raised.value.parameter == next(iter(given))


def test_a_value_is_said_shortened_and_escaped():
    with pytest.raises(UsageError) as raised:
        Options.of({"edge": "\x1b[31m" + "a" * 1000})
    assert "\x1b" not in str(raised.value)
    assert len(str(raised.value)) < 200
    deep: list[object] = []
    for _ in range(60):
        deep = [deep, deep]  # a thousand million million items, were all written
    with pytest.raises(UsageError, match="edge is"):
        Options.of({"edge": deep})


def test_none_counts_as_not_given():
    assert Options.of(dict.fromkeys(OPTIONS)) == Options.of({})


def test_every_option_has_a_flag_a_place_in_the_signature_and_in_the_docstring():
    import inspect

    flags = {parameter.name for parameter in main.commands["segment"].params}
    signature = inspect.signature(resegeo.segment).parameters
    for name, what in OPTIONS.items():
        assert (name in flags) == bool(what.about.help)
        assert signature[name].default == what.default
        assert not what.about.help or f"    {name}:\n" in (resegeo.segment.__doc__ or "")
    assert Keywords() == Keywords()


def test_what_an_option_changes_is_declared_with_it():
    assert {
        "average",
        "interpolate",
        "templates",
        "taper",
        "logit_scale",
        "softmax_over",
        "subtract_cls",
        "vote_segments",
        "reduction",
        "threshold",
        "use_thresholds",
        "min_area",
    } == LABEL_KNOBS
    assert {"smooth", "simplify", "regularize", "keep_background", "vector"} == POLYGON_KNOBS
    assert set(SCENE_OPTIONS) >= {"prompts", "activation", "alpha", "only", *Settings().as_dict()}
    assert not set(SCENE_OPTIONS) & {"device", "threads", "overwrite", "cluster", "store"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bands", "3,2,1"),
        ("stretch", "0:9"),
        ("assign_crs", "EPSG:32633"),
        ("bbox", "1,2,3,4"),
        ("only", "water"),
        ("alpha", "ignore"),
        ("keep_features", True),
        ("discard_store", True),
    ],
)
def test_a_batch_looks_again_where_such_an_option_changed(name, value):
    assert Options.of({name: value}).facts() != Options.of({}).facts()


def test_a_batch_does_not_look_again_for_another_machine_and_does_for_another_file(tmp_path):
    assert Options.of({"threads": 2, "device": "cpu", "read_ahead": 3}).facts() == Options.of({}).facts()
    area = tmp_path / "area.gpkg"
    area.write_bytes(b"one")
    before = Options.of({"aoi": area}).facts()
    area.write_bytes(b"three")
    assert Options.of({"aoi": area}).facts() != before


def test_python_and_the_command_line_ask_for_the_same_run(make_raster, picture, tmp_path, monkeypatch):
    """The same values, so that what one made is complete for the other."""
    from click.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    make_raster("scene.tif", picture(64, 64))
    Path("classes.yml").write_text("classes: [water, forest]\n")
    first = resegeo.segment("scene.tif", "classes.yml", "out", gsd=10, simplify=1, vector="gpkg", stretch=(0, 255))
    assert not first.reused
    flags = "--gsd 10 --simplify 1 --vector gpkg --stretch 0:255 -o out"
    done = CliRunner().invoke(main, ["segment", "scene.tif", "--prompts", "classes.yml", *flags.split()])
    assert done.exit_code == 0, done.output
    assert "complete already" in done.stderr


def test_a_manifest_takes_every_option_of_a_scene_by_its_declaration(tmp_path):
    """A new knob is a column at once, read as the command line reads it."""
    given = {
        name: what.choices[-1] if what.choices else what.about.example
        for name, what in OPTIONS.items()
        if name in SCENE_OPTIONS and (what.choices or what.about.example)
    }
    cells = ",".join(f'"{value}"' for value in given.values())
    (tmp_path / "a.csv").write_text(f"scene,{','.join(given)}\na.tif,{cells}\n")
    (row,) = read_manifest(tmp_path / "a.csv")
    assert row.options == {name: taken(OPTIONS[name], value) for name, value in given.items()}
    assert {"activation", "alpha", "preset", "edge"} < given.keys()
    (tmp_path / "a.csv").write_text("scene,formats\na.tif,VRT\n")
    with pytest.raises(UsageError, match="'formats' is no option that a scene can have"):
        read_manifest(tmp_path / "a.csv")
