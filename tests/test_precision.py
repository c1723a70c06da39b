"""``precision auto``: what a machine and a scene come to, said, recorded, and obeyed by all who compute for a store."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import replace

import pytest
import rasterio
import torch
from fakes import colour_features
from stores import header

import resegeo
import resegeo.run.compute
from resegeo.clip.encoder import quick_at_bfloat16
from resegeo.errors import Interrupted, ResegeoError
from resegeo.run import arithmetic, executors
from resegeo.run.header import Arithmetic, StoreHeader
from resegeo.run.prepare import settle
from resegeo.run.store import Store

WORDS = ["water", "forest", "road"]


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(200, 330))


class Model:
    """A stand-in for the vision transformer that notes what it computed in, and may see otherwise in bfloat16."""

    def __init__(self):
        self.used, self.wrong, self.stops_after = [], False, None

    def __call__(self, visual, images, masks, *, last=None):
        half = torch.is_autocast_enabled("cpu")
        if self.stops_after is not None and len(self.used) >= self.stops_after:
            raise KeyboardInterrupt
        self.used.append("bfloat16" if half else "float32")
        with torch.autocast("cpu", enabled=False):
            return colour_features(visual, 1 - images if half and self.wrong else images, masks)


@pytest.fixture
def model(monkeypatch):
    found, load = Model(), resegeo.run.compute.load_encoder
    monkeypatch.setattr(
        "resegeo.run.compute.load_encoder", lambda *given, **named: replace(load(*given, **named), forward=found)
    )
    return found


@pytest.fixture
def processor(monkeypatch):
    """Say whether the processor is quick at bfloat16."""

    def is_quick(answer):
        for where in ("resegeo.run.arithmetic", "resegeo.run.compute"):
            monkeypatch.setattr(f"{where}.quick_at_bfloat16", lambda device: answer)

    return is_quick


def run(scene, out, **options):
    """Segment; the result, what was said of precision, the report and the store's header."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        made = resegeo.segment(scene, WORDS, out, **{"vector": (), "segments": "none", "precision": "auto", **options})
    said = [str(each.message) for each in given if "precision" in str(each.message)]
    return made, said, json.loads(made.report.read_text("utf-8")), Store.open(str(out / "scene.store.zarr")).header


def labels(made):
    with rasterio.open(made.raster) as raster:
        return raster.read(1)


def test_a_processor_that_is_quick_and_labels_that_stay_come_to_bfloat16(scene, model, processor, tmp_path):
    processor(True)
    _, said, report, header = run(scene, tmp_path / "out")
    assert len(said) == 1
    assert 'precision="auto" comes to bfloat16' in said[0]
    assert "100.00 %" in said[0]
    assert header.arithmetic == Arithmetic("bfloat16", 1.0)
    assert header.image["settings"]["precision"] == "auto"
    assert report["model"]["precision"] == "bfloat16"
    assert report["model"]["agreement_with_float32"] == 1
    windows = model.used.count("float32")
    assert 2 <= windows <= arithmetic.WINDOWS
    assert model.used[2 * windows :] == ["bfloat16"] * (len(model.used) - 2 * windows)


def test_labels_that_differ_come_to_float32(scene, model, processor, tmp_path):
    processor(True)
    model.wrong = True
    made, said, report, header = run(scene, tmp_path / "out")
    assert len(said) == 1
    assert "comes to float32" in said[0]
    assert "99.8 % are wanted" in said[0]
    assert header.arithmetic.precision == report["model"]["precision"] == "float32"
    assert header.arithmetic.agreement < arithmetic.AGREEMENT
    assert report["model"]["agreement_with_float32"] == round(header.arithmetic.agreement, 6)
    assert (labels(made) == labels(run(scene, tmp_path / "exact", precision="float32")[0])).all()


def test_a_model_that_runs_out_of_numbers_in_bfloat16_comes_to_float32(scene, model, processor, tmp_path, monkeypatch):
    processor(True)
    see = Model.__call__

    def out_of_range(self, visual, images, masks, *, last=None):
        return see(self, visual, images, masks) * (float("nan") if torch.is_autocast_enabled("cpu") else 1)

    monkeypatch.setattr(Model, "__call__", out_of_range)
    assert run(scene, tmp_path / "out")[3].arithmetic == Arithmetic("float32", 0.0)


def test_a_processor_that_is_not_quick_comes_to_float32_without_a_comparison(scene, model, processor, tmp_path):
    processor(False)
    _, said, report, header = run(scene, tmp_path / "out")
    assert len(said) == 1
    assert "no instructions for bfloat16" in said[0]
    assert header.arithmetic == Arithmetic("float32")
    assert "agreement_with_float32" not in report["model"]
    assert set(model.used) == {"float32"}


def test_nothing_is_said_or_compared_where_nothing_is_left_open(scene, model, processor, tmp_path):
    processor(True)
    for precision in ("float32", "bfloat16"):
        model.used.clear()
        _, said, report, header = run(scene, tmp_path / precision, precision=precision)
        assert said == []
        assert header.arithmetic == Arithmetic(precision)
        assert report["model"]["precision"] == precision
        assert set(model.used) == {precision}


def test_a_run_that_goes_on_takes_what_the_store_says(scene, model, processor, tmp_path):
    processor(True)
    expected = run(scene, tmp_path / "whole")[0]
    model.used.clear()
    model.stops_after = 2 * arithmetic.WINDOWS + 1
    with pytest.raises(Interrupted):
        run(scene, tmp_path / "out")
    model.used.clear()
    model.stops_after = None
    processor(False)
    made, said, report, _ = run(scene, tmp_path / "out")
    assert said == []
    assert report["model"]["precision"] == "bfloat16"
    assert set(model.used) == {"bfloat16"}
    assert (labels(made) == labels(expected)).all()


def test_a_store_is_never_of_two_precisions(scene, model, processor, tmp_path):
    processor(True)
    run(scene, tmp_path / "out")
    for precision in ("float32", "bfloat16"):
        with pytest.raises(ResegeoError, match=rf"precision \(auto → {precision}\)"):
            run(scene, tmp_path / "out", precision=precision)
    again = resegeo.segment(scene, WORDS, tmp_path / "out", vector=(), segments="none", precision="auto")
    assert again.reused


def test_new_words_for_a_store_need_no_choice(scene, model, processor, tmp_path):
    processor(True)
    run(scene, tmp_path / "out", keep_features=True)
    model.used.clear()
    processor(False)
    made = resegeo.segment(tmp_path / "out/scene.store.zarr", ["grass", "road"], tmp_path / "new", vector=())
    assert json.loads(made.report.read_text("utf-8"))["model"]["precision"] == "bfloat16"
    assert model.used == []


@pytest.mark.parametrize("chosen", ["bfloat16", "float32"])
def test_a_worker_obeys_the_store_whatever_its_processor(scene, model, processor, tmp_path, chosen):
    processor(chosen == "bfloat16")
    run(scene, tmp_path / "out")
    settled = settle(scene, WORDS, tmp_path / "out", resegeo.run.options.Options.of({"precision": "auto"}))
    task = executors.Task(settled.job, settled.url, "cpu", None, None, "same")
    processor(chosen != "bfloat16")
    machine, _, _ = executors._worker_machine.__wrapped__(pickle.dumps(task))
    assert machine.encoder.precision == machine.kept.arithmetic.precision == chosen


def test_each_scene_of_a_batch_is_settled(make_raster, picture, model, processor, tmp_path):
    processor(True)
    for name in ("a", "b"):
        make_raster(f"{name}.tif", picture(140, 150, seed=ord(name)))
    given = {"vector": (), "segments": "none", "precision": "auto"}
    resegeo.batch([tmp_path / "a.tif", tmp_path / "b.tif"], WORDS, tmp_path / "out", **given)
    reports = [json.loads(path.read_text("utf-8")) for path in sorted((tmp_path / "out").rglob("[ab].json"))]
    assert [report["model"]["precision"] for report in reports] == ["bfloat16"] * 2


def test_an_array_and_an_estimate_are_settled_too(scene, model, processor, tmp_path):
    processor(True)
    settled = settle(scene, WORDS, None, resegeo.run.options.Options.of({"precision": "auto", "segments": "none"}))
    assert settled.estimate().items
    with resegeo.open_scene(scene).array as array:
        found = resegeo.segment(array[:3], WORDS, precision="auto", segments="none")
    assert found.shape == (200, 330)
    assert {"float32", "bfloat16"} == set(model.used)


def test_the_sample_is_spread_and_the_same_wherever_it_is_drawn(make_raster, picture):
    plans = [
        settle(make_raster("scene.tif", picture(900, 1100)), WORDS, None, resegeo.run.options.Options.of({})).plan
        for _ in range(2)
    ]
    first, second = (arithmetic.sample(plan) for plan in plans)
    assert list(first) == list(second)
    assert len(set(first)) == len(first) == arithmetic.CANDIDATES
    assert {(window.row > 450, window.col > 550) for window in first[: arithmetic.WINDOWS]} == {
        (down, right) for down in (False, True) for right in (False, True)
    }


def test_what_torch_tells_of_a_processor_decides(monkeypatch):
    for answers, expected in (((True, False), True), ((False, True), True), ((False, False), False)):
        for name, answer in zip(("_is_avx512_bf16_supported", "_is_amx_tile_supported"), answers, strict=True):
            monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer)
        assert quick_at_bfloat16("cpu") is expected
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):  # names of torch's own, which may go
        monkeypatch.delattr(torch.cpu, name)
    assert quick_at_bfloat16("cpu") is False
    assert quick_at_bfloat16("mps") is False
    for major, expected in ((7, False), (8, True), (9, True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, major=major: (major, 0))
        assert quick_at_bfloat16("cuda:1") is expected


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ("auto", {"precision": "auto", "agreement": None}),
        ("auto", {"precision": "float8", "agreement": None}),
        ("float32", {"precision": "bfloat16", "agreement": None}),
        ("auto", {"precision": "bfloat16", "agreement": 1.5}),
        ("auto", {"precision": "bfloat16", "agreement": "all"}),
        ("auto", None),
    ],
)
def test_a_header_that_does_not_agree_with_itself_is_refused(settings, found):
    good = replace(header(), settings={"feature_dtype": "float16", "precision": settings}, id="0" * 32)
    good = replace(good, arithmetic=Arithmetic("bfloat16" if settings == "auto" else settings, None))
    assert StoreHeader.read(good.document()) == good
    facts = good.document()["facts"]
    facts["arithmetic"] = found
    if found is None:
        del facts["arithmetic"]
    from resegeo.run.header import _checksum

    with pytest.raises(ValueError, match="arithmetic"):
        StoreHeader.read({"id": good.id, "facts": facts, "sha256": _checksum(good.id, facts)})


def test_a_store_from_before_the_question_computed_in_what_its_settings_say():
    from resegeo.run.header import _checksum

    old = replace(header(), settings={"feature_dtype": "float16", "precision": "bfloat16"}, id="0" * 32)
    facts = old.document()["facts"]
    del facts["arithmetic"]
    read = StoreHeader.read({"id": old.id, "facts": facts, "sha256": _checksum(old.id, facts)})
    assert read.kept.arithmetic == Arithmetic("bfloat16")
