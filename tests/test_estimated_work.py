"""What ``resegeo plan`` makes of scenes that are empty in part: windows that are not worth computing cost nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import resegeo
from resegeo import prepare
from resegeo.run.estimation import LOOKS, Pace, Seen, _look
from resegeo.run.pipeline import Room

pytestmark = pytest.mark.usefixtures("quick_model")

WORDS = ["water", "forest"]
PACE = Pace(0.02, 0.05, 0.3, 1, "cpu", 0, 10**9)


def done(report: Path) -> int:
    return int(json.loads(report.read_text("utf-8"))["windows"]["done"])


@pytest.mark.parametrize("kind", ["full", "nodata", "region"])
def test_windows_that_will_be_computed_are_those_that_are_foreseen(tmp_path, make_raster, picture, kind):
    bands = np.maximum(picture(300, 500), 1)
    if kind == "nodata":
        bands[:, :, 150:] = 0
    scene = make_raster("scene.tif", bands, nodata=0)
    options = {"vector": (), **({"bbox": (5e5, 5.2e6 - 1000, 5e5 + 900, 5.2e6)} if kind == "region" else {})}
    run = prepare(scene, WORDS, tmp_path / "out", **options)
    seen, found = _look(run.plan), run.estimate(PACE)
    result = resegeo.segment(scene, WORDS, tmp_path / "out", **options)
    assert seen.windows * found.windows == pytest.approx(done(result.report))
    assert found.seconds["windows"] == pytest.approx(done(result.report) * 0.07)
    assert (seen == Seen()) == (kind == "full")
    features = tmp_path / "out/scene.store.zarr/features"
    chunks = sum(path.stat().st_size for path in features.rglob("*") if path.is_file())
    foreseen = seen.items * run.plan.layout(run.plan.kept(features=True)).item_bytes
    assert chunks <= foreseen * 1.01
    assert foreseen <= 1.05 * chunks


def test_a_look_at_a_large_scene_is_a_look_at_some_items_all_over_it(tmp_path, make_raster, monkeypatch):
    run = prepare(make_raster("scene.tif", np.ones((3, 2600, 2600), np.uint8), nodata=0), WORDS, tmp_path / "out")
    looked = []

    def half(plan, item):
        looked.append(item.index)
        return np.full(len(item.windows), item.index < plan.items / 2)

    monkeypatch.setattr("resegeo.run.estimation.worth_computing", half)
    found = _look(run.plan)
    assert run.plan.items > LOOKS > len(looked) * 0.9
    assert len(set(looked)) == len(looked)
    assert found.items == pytest.approx(0.5, abs=0.03)
    assert found.windows == pytest.approx(0.5, abs=0.05)


def test_memory_of_reading_ahead_is_foreseen(tmp_path, make_raster, picture):
    run = prepare(make_raster("scene.tif", picture(300, 300)), WORDS, tmp_path / "out", read_ahead=5, threads=2)
    none = prepare(tmp_path / "scene.tif", WORDS, tmp_path / "out", read_ahead=0, threads=2)
    more = run.estimate(PACE).memory_bytes - none.estimate(PACE).memory_bytes
    assert more == Room(5).bytes(run.plan, threads=2) - Room(0).bytes(run.plan, threads=2) > 0
