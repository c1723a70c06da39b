"""The command line: what a user types, what comes back, and the sentence for each mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
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
    assert "0.1.0" in done.stdout


def test_segment_prints_the_paths_of_what_it_wrote_and_nothing_else(run, scene):
    result = run("segment", scene, "--prompts", "classes.yml", "--vector", "gpkg,geojson")
    assert result.exit_code == 0, result.output
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert [path.name for path in paths] == [
        "scene.classes.tif",
        "scene.gpkg",
        "scene.geojson",
        "scene.png",
        "scene.json",
    ]
    assert all(path.parent.name == "scene_resegeo" and path.exists() for path in paths)
    again = run("segment", scene, "--prompts", "classes.yml", "--vector", "gpkg,geojson")
    assert again.stdout == result.stdout
    assert "complete already" in again.stderr


def test_vectorize_writes_every_format_from_a_class_raster(run, scene):
    run("segment", scene, "--prompts", "classes.yml", "--vector", "none", "-o", "out")
    for suffix in ("gpkg", "shp", "geojson", "fgb", "parquet"):
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


MISTAKES = [
    # arguments, exit code, what the sentence must say
    (["segment", "scene.tif"], 2, "Missing option '--prompts'"),
    (["segment", "missing.tif", "--prompts", "classes.yml"], 1, "missing.tif: no such file"),
    (["segment", ".", "--prompts", "classes.yml"], 1, "is a folder"),
    (["segment", "classes.yml", "--prompts", "classes.yml"], 1, "cannot be opened as a raster"),
    (["segment", "empty.tif", "--prompts", "classes.yml"], 1, "cannot be opened as a raster"),
    (["segment", "cut.tif", "--prompts", "classes.yml"], 1, "is damaged: rows"),
    (["segment", "complex.tif", "--prompts", "classes.yml"], 1, "holds complex numbers"),
    (["segment", "scene.tif", "--prompts", "missing.yml"], 1, "resegeo classes template > missing.yml"),
    (["segment", "scene.tif", "--prompts", "scene.tif"], 1, "is not UTF-8 text"),
    (["segment", "scene.tif", "--prompts", "typo.yml"], 1, "typo.yml, line 3: found the unknown key 'promts'"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--bands", "1,2,9"], 2, "which has 3 band(s)"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--bands", "1,2"], 2, "3 numbers such as 4,3,2"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--stretch", "9:3"], 2, "must be larger than the first"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--stride", "500"], 2, "from 1 to 128"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--stride", "0"], 2, "stride is 0; expected a whole number"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--vector", "kml"], 2, "'kml' is no polygon format"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--preset", "best"], 2, "'best' is not one of"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--preset", "paper"], 2, "name the file by --sam-checkpoint"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--segments", "slic"], 1, "--segments slic: no such file"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--segments", "other.tif"], 1, "has 20 × 20 pixels"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--segments", "classes.yml"], 1, "cannot be opened"),
    (
        ["segment", "scene.tif", "--prompts", "classes.yml", "--settings", "no.yml"],
        2,
        "--settings no.yml: no such file",
    ),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--settings", "bad.yml"], 2, "did you mean stride?"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--model", "clip.pt"], 1, "--model clip.pt: no such file"),
    (
        ["segment", "scene.tif", "--prompts", "classes.yml", "--model", "scene.tif"],
        2,
        "name its open_clip architecture",
    ),
    (
        ["segment", "scene.tif", "--prompts", "classes.yml", "--model", "scene.tif", "--arch", "ViT-L14"],
        2,
        "did you mean",
    ),
    (
        ["segment", "scene.tif", "--prompts", "classes.yml", "--model", "scene.tif", "--arch", "ViT-B-32"],
        1,
        "cannot be read as a CLIP checkpoint",
    ),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--model", "nonsense"], 1, "neither an existing file nor"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--arch", "ViT-B-32"], 2, "needs a checkpoint"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--device", "tpu"], 2, "--device tpu is not available"),
    (
        ["segment", "scene.tif", "--prompts", "classes.yml", "--assign-crs", "EPSG:1"],
        2,
        "--assign-crs EPSG:1 is no CRS",
    ),
    (["segment", "scene.tif", "--prompts", "classes.yml", "-o", "classes.yml"], 1, "is an existing file"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--threads", "0"], 2, "0 is not in the range"),
    (["segment", "scene.tif", "--prompts", "classes.yml", "--simplify", "-1"], 2, "simplify is -1.0"),
    (["segmnt"], 2, "No such command 'segmnt'"),
    (["info", "missing.tif"], 1, "no such file"),
    (["vectorize", "scene.tif", "-o", "a.gpkg"], 1, "is no class raster of resegeo"),
    (["vectorize", "missing.tif", "-o", "a.gpkg"], 1, "cannot be opened as a raster"),
    (["vectorize", "scene.tif", "-o", "a.kml"], 2, "the suffix must be"),
    (["vectorize", "scene.tif", "-o", "scene.tif"], 2, "the suffix must be"),
    (["vectorize", "scene.tif", "-o", "nowhere/a.gpkg"], 1, "The folder nowhere does not exist"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES, ids=[" ".join(m[0])[:70] for m in MISTAKES])
def test_a_mistake_is_answered_by_one_sentence_and_leaves_nothing(
    run, scene, make_raster, tmp_path, arguments, code, words
):
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "typo.yml").write_text("classes:\n  - name: water\n    promts: [lake]\n")
    (tmp_path / "bad.yml").write_text("strid: 64\n")
    make_raster("other.tif", np.ones((1, 20, 20), np.uint8))
    make_raster("complex.tif", np.ones((1, 20, 20), np.complex64))
    whole = make_raster("whole.tif", np.random.default_rng(0).integers(0, 255, (3, 300, 300)).astype(np.uint8))
    (tmp_path / "cut.tif").write_bytes(whole.read_bytes()[:100_000])
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_verbose_adds_the_traceback_and_quiet_drops_the_notes(run, make_raster, picture):
    assert "Traceback" in run("segment", "missing.tif", "--prompts", "classes.yml", "-v").stderr
    make_raster("bare.tif", picture(40, 40), crs=None)
    loud = run("segment", "bare.tif", "--prompts", "classes.yml", "-o", "one")
    assert "Note: bare.tif has no CRS" in loud.stderr
    assert run("segment", "bare.tif", "--prompts", "classes.yml", "-o", "two", "-q").stderr == ""


def test_a_defect_is_named_as_one_without_a_traceback(run, scene, monkeypatch):
    import resegeo.pipeline

    def broken(*args, **kwargs):
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(resegeo.pipeline, "make_plan", broken)
    result = run("segment", scene, "--prompts", "classes.yml")
    assert result.exit_code == 1
    assert "defect of resegeo (ZeroDivisionError: boom)" in result.stderr
    assert "Traceback" not in result.output


def test_interruption_exits_with_130_says_how_to_go_on_and_leaves_no_half_written_file(run, scene, monkeypatch):
    import resegeo.run

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resegeo.run, "label_scene", interrupted)
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
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, text=True) as process:
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
        assert len(process.stdout.read().splitlines()) == 4
    os.close(ours)
    for stage in ("windows", "labels", "polygons", "picture"):
        assert stage in seen.decode()
    assert "100%" in seen.decode()
