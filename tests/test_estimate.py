"""``resegeo plan``: sizes against what a run leaves, and what it says of work done, workers and room."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import resegeo
from resegeo.errors import ResegeoWarning
from resegeo.run.store import Store
from resegeo_cli.main import main

pytestmark = pytest.mark.usefixtures("quick_model")

WORDS = ["water", "forest", "road"]


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(300, 420))


def written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("options", [{}, {"keep_features": False}, {"feature_dtype": "int8"}, {"vote_segments": True}])
def test_counts_and_sizes_are_those_of_the_run(tmp_path, scene, options):
    found = resegeo.estimate(scene, WORDS, tmp_path / "out", vector=(), **options)
    assert not (tmp_path / "out").exists()
    result = resegeo.segment(scene, WORDS, tmp_path / "out", vector=(), **options)
    store = Store.open(str(tmp_path / "out/scene.store.zarr"))
    windows = json.loads(result.report.read_text("utf-8"))["windows"]
    assert (found.items, found.windows, found.done) == (store.items, windows["planned"], 0)
    assert found.features == store.header.features
    folder = tmp_path / "out/scene.store.zarr"
    for name, spec in store.header.layout.item_arrays().items():
        if not spec.compressed:
            assert written(folder / name / "c") == spec.bytes
    assert written(folder) - sum(path.stat().st_size for path in folder.rglob("zarr.json")) <= found.store_bytes
    assert found.store_bytes == store.header.layout.bytes(scores=False)
    assert found.output_bytes >= result.raster.stat().st_size
    assert found.total_seconds > 0
    assert found.memory_bytes > 1e8


def test_work_that_is_done_costs_no_more_and_workers_share(tmp_path, scene):
    resegeo.segment(scene, WORDS, tmp_path / "out")
    done = resegeo.estimate(scene, WORDS, tmp_path / "out")
    assert done.done == done.items
    assert done.total_seconds == 0
    with pytest.warns(ResegeoWarning, match=r"This run would be refused: .* different: stride.* overwrite=True"):
        other = resegeo.estimate(scene, WORDS, tmp_path / "out", stride=128)  # another run: nothing of that is done
    assert other.done == 0
    (tmp_path / "out/scene.png").unlink()
    again = resegeo.estimate(scene, WORDS, tmp_path / "out")
    assert (again.done, again.seconds["windows"]) == (again.items, 0)
    assert again.seconds["picture"] > 0
    assert resegeo.estimate(scene, WORDS, tmp_path / "new", cluster=2).workers == 2
    with pytest.raises(resegeo.UsageError, match="at least one worker"):
        resegeo.estimate(scene, WORDS, tmp_path / "new", cluster=0)
    assert resegeo.estimate(tmp_path / "out/scene.store.zarr", ["grass"]).seconds["windows"] == 0


def test_a_store_that_a_run_would_refuse_is_no_work_done(tmp_path, scene):
    resegeo.segment(scene, WORDS, tmp_path / "out", keep_features=False, segments="none")
    with pytest.warns(ResegeoWarning, match=r"This run would be refused: .* different: classes"):
        same = resegeo.estimate(scene, WORDS[::-1], tmp_path / "out", segments="none")  # its words in another order
    assert (same.done, same.features) == (same.items, False)
    other = resegeo.estimate(scene, ["grass"], tmp_path / "out", segments="none", overwrite=True)
    assert (other.done, other.features) == (0, True)


def test_an_empty_middle_is_passed_over_and_an_empty_scene_takes_nothing(tmp_path, make_raster, picture):
    bands = np.maximum(picture(600, 600), 1)
    bands[:, 150:450, 150:450] = 0
    ring = make_raster("ring.tif", bands, nodata=0)
    assert resegeo.estimate(ring, WORDS, tmp_path).seconds["windows"] > 0
    nothing = make_raster("nothing.tif", np.zeros((3, 200, 200), np.uint8), nodata=0)
    assert resegeo.estimate(nothing, WORDS, tmp_path).seconds["windows"] == 0


def test_the_command_prints_lines_and_json_and_writes_nothing(tmp_path, scene):
    (tmp_path / "classes.yml").write_text(yaml.safe_dump({"classes": WORDS}))
    command = ["plan", str(scene), "--prompts", str(tmp_path / "classes.yml"), "-o", str(tmp_path / "out")]
    lines = CliRunner().invoke(main, command)
    assert lines.exit_code == 0
    assert [line.split("  ")[0] for line in lines.stdout.splitlines()] == [
        "work items",
        "memory",
        "GPU memory",
        "disk",
        "new words",
        "time",
    ]
    facts = json.loads(CliRunner().invoke(main, [*command, "--json", "--no-keep-features"]).stdout)
    assert facts["features"] is False
    assert facts["total_seconds"] == pytest.approx(sum(facts["seconds"].values()))
    assert {path.name for path in tmp_path.iterdir()} == {"classes.yml", "scene.tif"}


def test_too_little_room_is_said(tmp_path, scene, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 10))
    (tmp_path / "classes.yml").write_text(yaml.safe_dump({"classes": WORDS}))
    found = CliRunner().invoke(main, ["plan", str(scene), "--prompts", str(tmp_path / "classes.yml")])
    assert "TOO LITTLE" in found.stdout
