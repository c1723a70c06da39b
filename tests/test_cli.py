"""The command line: what a user types and what comes back (mistakes: ``test_mistakes.py``)."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from resegeo_cli.main import main

CLASSES = "classes: [water, forest, road]\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes.yml").write_text(CLASSES)

    def invoke(*args):
        return CliRunner().invoke(main, [str(arg) for arg in args])

    return invoke


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(100, 120))


def test_help_imports_neither_torch_nor_rasterio():
    code = (
        "import sys; from resegeo_cli.main import main\n"
        "try: main(['segment', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'rasterio', 'open_clip', 'geopandas', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_python_m_works():
    done = subprocess.run(
        [sys.executable, "-m", "resegeo_cli", "--version"], capture_output=True, text=True, check=True
    )
    assert version("resegeo") in done.stdout


def test_segment_prints_the_paths_of_what_it_wrote_and_nothing_else(run, scene):
    result = run("segment", scene, "--prompts", "classes.yml", "--vector", "gpkg,geojson")
    assert result.exit_code == 0, result.output
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert [path.name for path in paths] == [
        "scene.classes.tif",
        "scene.gpkg",
        "scene.geojson",
        "scene.png",
        "scene.qgz",
        "scene.stac.json",
        "scene.areas.csv",
        "scene.json",
    ]
    assert all(path.parent.name == "scene_resegeo" and path.exists() for path in paths)
    again = run("segment", scene, "--prompts", "classes.yml", "--vector", "gpkg,geojson")
    assert again.stdout == result.stdout
    assert "complete already" in again.stderr


def test_vectorize_writes_every_format_from_a_class_raster(run, scene):
    run("segment", scene, "--prompts", "classes.yml", "--vector", "none", "-o", "out")
    for suffix in ("gpkg", "shp", "geojson", "fgb", "parquet", "kml"):
        result = run("vectorize", "out/scene.classes.tif", "-o", f"polygons.{suffix}", "--min-area", "20")
        assert result.exit_code == 0, result.output
        assert Path(f"polygons.{suffix}").exists()


def test_info_says_what_segment_would_do(run, scene):
    facts = json.loads(run("info", scene, "--json").stdout)
    assert facts["size"] == "100 rows × 120 columns"
    assert facts["crs"] == "EPSG:32633"
    assert facts["windows"].startswith("1 of 128 × 128")
    assert "EPSG:32633" in run("info", scene).stdout


def test_the_template_is_a_class_file(run, tmp_path):
    (tmp_path / "mine.yml").write_text(run("classes", "template").stdout, encoding="utf-8")
    result = run("classes", "check", "mine.yml")
    assert result.exit_code == 0
    assert "water: water, lake, river" in result.stdout


def test_the_vocabulary_has_the_words_of_the_template(run):
    words = run("classes", "vocabulary").stdout.splitlines()
    assert {"water", "forest", "grass", "road", "building", "shadow"} <= set(words)
    assert len(words) >= 60


def test_verbose_adds_the_traceback_and_quiet_drops_the_notes(run, make_raster, picture):
    assert "Traceback" in run("segment", "missing.tif", "--prompts", "classes.yml", "-v").stderr
    make_raster("bare.tif", picture(40, 40), crs=None)
    loud = run("segment", "bare.tif", "--prompts", "classes.yml", "-o", "one")
    assert "Note: bare.tif has no CRS" in loud.stderr
    assert run("segment", "bare.tif", "--prompts", "classes.yml", "-o", "two", "-q").stderr == ""


def test_a_defect_is_named_as_one_without_a_traceback(run, scene, monkeypatch):
    import resegeo.run.prepare

    def broken(*args, **kwargs):
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(resegeo.run.prepare, "make_plan", broken)
    result = run("segment", scene, "--prompts", "classes.yml")
    assert result.exit_code == 1
    assert "defect of resegeo (ZeroDivisionError: boom)" in result.stderr
    assert "Traceback" not in result.output


def test_interruption_exits_with_130_says_how_to_go_on_and_leaves_no_half_written_file(run, scene, monkeypatch):
    import resegeo.run.execution
    import resegeo.run.results

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resegeo.run.execution, "label_scene", interrupted)
        result = run("segment", scene, "--prompts", "classes.yml", "-o", "out")
    assert result.exit_code == 130
    assert "1 of 1 work items are done and kept in out/scene.store.zarr" in result.stderr
    assert [path.name for path in Path("out").iterdir()] == ["scene.store.zarr"]
    assert run("segment", scene, "--prompts", "classes.yml", "-o", "out").exit_code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
def test_progress_is_shown_on_a_terminal_with_its_stages(run, scene):
    import os
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "resegeo_cli", "segment", str(scene), "--prompts", "classes.yml"]
    with subprocess.Popen(
        [*command, "--segments", "none"], stderr=theirs, stdout=subprocess.PIPE, text=True
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            seen += part
        assert process.stdout is not None
        assert len(process.stdout.read().splitlines()) == 7
    os.close(ours)
    for stage in ("windows", "labels", "polygons", "picture"):
        assert stage in seen.decode()
    assert "100%" in seen.decode()
