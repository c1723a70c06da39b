"""A device whose memory another program holds: batches shrink, items wait for room, and what is said is a sentence."""

from __future__ import annotations

import json

import pytest
import torch

import resegeo
from resegeo.clip import encoder as encoders
from resegeo.clip.device_memory import FullDeviceError, memory_for
from resegeo.clip.encoder import Encoder, pick_device
from resegeo.errors import ResegeoError, UsageError
from resegeo.run import pipeline

pytestmark = pytest.mark.usefixtures("quick_model")

WORDS = ["water", "forest"]


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(128, 200))


@pytest.fixture
def held(monkeypatch):
    """Holds all memory of the device for so many of the calls to come."""
    left = {"calls": 0}
    start = Encoder.start_windows

    def full(self, *given, **named):
        if left["calls"] > 0:
            left["calls"] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 MiB")
        return start(self, *given, **named)

    monkeypatch.setattr(Encoder, "start_windows", full)
    monkeypatch.setattr(pipeline, "PAUSES", (0.0, 0.0))
    return left


def test_an_item_waits_for_another_program_to_let_go(tmp_path, scene, held, monkeypatch):
    whole = resegeo.segment(scene, WORDS, tmp_path / "whole", vector=())
    slept = []
    monkeypatch.setattr(pipeline.time, "sleep", slept.append)
    monkeypatch.setattr(pipeline, "PAUSES", (1.0, 5.0))
    held["calls"] = 5  # the first try, halved down to one window; the second one then
    made = resegeo.segment(scene, WORDS, tmp_path / "out", vector=())
    assert made.raster.read_bytes() == whole.raster.read_bytes()
    assert 1.0 in slept
    assert json.loads(made.report.read_text("utf-8"))["failures"] == []


def test_an_item_that_finds_no_room_is_recorded_with_a_sentence_and_tried_again_by_the_same_command(
    tmp_path, scene, held
):
    held["calls"] = 10**6
    with pytest.raises(ResegeoError) as told:
        resegeo.segment(scene, WORDS, tmp_path / "out", vector=())
    assert "has no memory left for a single window; another program may hold it" in str(told.value)
    assert "\n" not in str(told.value)
    held["calls"] = 0
    again = resegeo.segment(scene, WORDS, tmp_path / "out", vector=())
    whole = resegeo.segment(scene, WORDS, tmp_path / "whole", vector=())
    assert again.raster.read_bytes() == whole.raster.read_bytes()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory\nCompile with")]
)
def test_it_is_said_what_there_is_no_room_for_and_how_much_is_free(monkeypatch, error):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 8 * 10**9))
    with (
        pytest.raises(FullDeviceError, match=r"cuda:1 has no memory left for SAM \(1.0 of 8.0 GB are free\); another"),
        memory_for("SAM", "cuda:1"),
    ):
        raise error
    with pytest.raises(RuntimeError, match="shape mismatch"), memory_for("SAM", "cpu"):
        raise RuntimeError("shape mismatch")


def test_a_device_that_is_full_is_not_called_absent(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def empty(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(encoders.torch, "empty", empty)
    with pytest.raises(FullDeviceError, match="no memory left for anything"):
        pick_device("cuda")
    monkeypatch.setattr(encoders.torch, "empty", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no such device")))
    with pytest.raises(UsageError, match="is not available on this machine"):
        pick_device("cuda:7")
