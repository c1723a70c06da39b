"""``resegeo plan`` of many scenes: totals against a count by hand, one measurement a kind, what cannot be opened."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import resegeo
from resegeo.batches import planning
from resegeo.batches.destinations import is_batch
from resegeo.run.estimation import DRAWING, STARTING, Pace
from resegeo_cli.main import main

pytestmark = pytest.mark.usefixtures("quick_model")

WORDS = ["water", "forest", "road"]
PACE = Pace(0.02, 0.05, 0.3, 4, "cpu", 0, 10**9)


def origins(size: int, window: int, stride: int) -> int:
    """Windows along an axis, counted by laying one after the other."""
    at, count = 0, 1
    while at + window < size:
        at, count = at + stride, count + 1
    return count


@pytest.fixture
def scenes(make_raster, picture, tmp_path, monkeypatch):
    (tmp_path / "scenes").mkdir()
    sizes = {"a": (300, 420), "b": (128, 130), "c": (640, 513)}
    for name, (height, width) in sizes.items():
        make_raster(f"scenes/{name}.tif", picture(height, width))
    make_raster("scenes/d.tif", picture(200, 200).astype(np.uint16) * 9)
    (tmp_path / "classes.yml").write_text(yaml.safe_dump({"classes": WORDS}))
    monkeypatch.chdir(tmp_path)
    return {**sizes, "d": (200, 200)}


def test_a_batch_s_totals_are_those_of_a_count_by_hand(scenes, monkeypatch):
    asked = []
    monkeypatch.setattr("resegeo.run.prepare.Run.pace", lambda self: asked.append(self.plan.scene.name) or PACE)
    found = planning.estimate_many("scenes", WORDS, "out", stride=64)
    assert asked == ["a", "d"]  # of another type of values: another kind
    assert found.kinds == 2
    windows = [origins(h, 128, 64) * origins(w, 128, 64) for h, w in scenes.values()]
    assert [each.windows for each in found.estimates] == windows
    assert found.windows == sum(windows)
    assert found.items == sum(-(-origins(h, 128, 64) // 4) * -(-origins(w, 128, 64) // 4) for h, w in scenes.values())
    blocks = sum(-(-h // 512) * -(-w // 512) for h, w in scenes.values())
    pixels = sum(h * w for h, w in scenes.values())
    by_hand = sum(windows) * (0.05 + 0.02 / 4) + blocks * 0.3 + pixels / 1e6 * sum(DRAWING.values())
    by_hand += len(scenes) * sum(STARTING.values())
    assert found.total_seconds == pytest.approx(by_hand)
    one = [resegeo.prepare(f"scenes/{name}.tif", WORDS, f"out/{name}", stride=64).estimate(PACE) for name in scenes]
    assert found.store_bytes == sum(each.store_bytes for each in one)
    assert found.output_bytes >= pixels
    assert found.memory_bytes == max(each.memory_bytes + each.polygon_bytes for each in one)
    assert not list(planning.Path().glob("out*"))


def test_a_gpu_waits_for_the_slower_of_reading_and_computing():
    assert Pace(0.04, 0.05, 0, 4, "cuda", 0, 0).window == 0.05
    assert Pace(0.04, 0.005, 0, 4, "cuda:1", 0, 0).window == 0.01
    assert Pace(0.04, 0.05, 0, 4, "cpu", 0, 0).window == pytest.approx(0.06)


def test_what_is_done_costs_nothing_and_what_cannot_be_opened_is_told(scenes, monkeypatch, tmp_path):
    monkeypatch.setattr("resegeo.run.prepare.Run.pace", lambda self: PACE)
    resegeo.segment("scenes/b.tif", WORDS, "out/b", vector=())
    (tmp_path / "scenes/e.tif").write_bytes(b"no image")
    found = planning.estimate_many("scenes/*.tif", WORDS, "out", vector=())
    assert [scene.scene.rpartition("/")[2] for scene in found.failed] == ["e.tif"]
    done = {scene.scene.rpartition("/")[2]: scene.estimate for scene in found.scenes}["b.tif"]
    assert done.done == done.items > 0
    assert done.total_seconds == 0
    assert found.done == done.items


def test_stores_are_looked_for_where_a_batch_puts_them(scenes, monkeypatch):
    monkeypatch.setattr("resegeo.run.prepare.Run.pace", lambda self: PACE)
    resegeo.segment_many("scenes/b.tif", WORDS, "out", store="stores", vector=())
    shutil.rmtree("out")  # the stores alone tell what is done
    found = planning.estimate_many("scenes/b.tif", WORDS, "out", store="stores", vector=())
    assert found.done == found.items > 0


@pytest.mark.parametrize("given", ["scenes/*.tif", "scenes", "list.csv", "several"])
def test_the_command_plans_what_batch_would_take(scenes, monkeypatch, tmp_path, given):
    monkeypatch.setattr("resegeo.run.prepare.Run.pace", lambda self: PACE)
    (tmp_path / "list.csv").write_text("scene\n" + "".join(f"scenes/{name}.tif\n" for name in scenes))
    sources = [f"scenes/{name}.tif" for name in scenes] if given == "several" else [given]
    command = ["plan", *sources, "--prompts", "classes.yml"]
    text = CliRunner().invoke(main, command)
    assert text.exit_code == 0, text.output
    assert text.stdout.startswith("scenes      4\nwork items")
    assert "one scene after another; measured on 2 of them" in text.stdout
    document = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert len(document["scenes"]) == 4
    assert document["windows"] == sum(scene["estimate"]["windows"] for scene in document["scenes"])


def test_a_single_scene_or_store_is_no_batch(scenes, tmp_path):
    assert not is_batch(["scenes/a.tif"])
    assert not is_batch(["https://example.com/[a].tif"])
    (tmp_path / "a.store.zarr").mkdir()
    assert not is_batch(["a.store.zarr"])
    (tmp_path / "[a]*.tif").write_bytes(b"")
    assert not is_batch(["[a]*.tif"])
