"""The examples fit the package as it is: each one says what it does; all kinds compete; the words are those taught."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from resegeo.checkpoints.sources import vocabulary

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = {
    "bundled_model_teacher": {"--data", "--imagenet", "--out"},
    "ablation": {"--data", "--model"},
    "compose_fine_tunes": {"--data", "--out"},
    "evaluate_bundled_model": {"--data", "--out", "--model"},
    "few_clicks": {"--data"},
    "reproduce_paper": {"--data"},
    "train_bundled_model": {"--work", "--steps", "--teacher"},
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_loads_and_shows_its_options(name, monkeypatch, capsys):
    script = EXAMPLES / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(re.search(rf"^  {option} ", said, re.MULTILINE) for option in SCRIPTS[name]), said


def test_every_kind_competes_once_and_parts_stand_with_their_whole(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from bundled_model_data import CLASSES
    from measuring import groups

    for vegetation in (False, True):
        made = groups(vegetation=vegetation)
        assert sorted(kind for prompts in made.values() for kind in prompts) == sorted(CLASSES)
        assert set(made["water"]) == {"water", "river", "sea"}
    assert "tree" in made["vegetation"]


def test_the_vocabulary_file_is_what_the_training_taught(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from bundled_model_data import PHRASES, WIDE_PHRASES

    taught = [word for words in (*PHRASES.values(), *WIDE_PHRASES.values()) for word in words]
    assert len(taught) == len(set(taught))
    assert vocabulary() == set(taught)


def ramps(height: int, width: int, cell: int) -> np.ndarray:
    """Column and row of each cell's centre, in pixels: (h, w, 2)."""
    rows, columns = np.mgrid[0 : height // cell, 0 : width // cell]
    return np.stack([(columns + 0.5) * cell - 0.5, (rows + 0.5) * cell - 0.5], axis=2).astype(np.float16)


def test_what_a_teacher_said_follows_its_pixels_through_every_warp(monkeypatch):
    """What it "says" here is where a cell lies in the picture, so every warp can be read off."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from bundled_model_taught import Taught

    size, angle = 64, 0.4
    matrix = np.array([[np.cos(angle), -np.sin(angle), 60.0], [np.sin(angle), np.cos(angle), 40.0]])
    taught = Taught(ramps(160, 192, 4), ramps(160, 192, 8)).warped(matrix, size)
    for grid, cell in ((taught.words, 4), (taught.hidden, 8)):
        own = ramps(size, size, cell).astype(float)
        wanted = own @ matrix[:, :2].T + matrix[:, 2]
        inside = ~np.isnan(grid).any(-1)
        # float16 near 150 has steps of an eighth; half a cell at the picture's border has no neighbour.
        assert np.abs(grid[inside].astype(float) - wanted[inside]).max() < cell / 2 + 0.2
        assert np.median(np.abs(grid[inside].astype(float) - wanted[inside])) < 0.1
        beyond = (wanted < -0.5 - cell / 2).any(-1) | (wanted > np.array([191.5, 159.5]) + cell / 2).any(-1)
        assert not (inside & beyond).any()
        assert inside.mean() > 0.9


def test_what_a_teacher_said_of_a_chip_turns_with_it(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from bundled_model_taught import Taught

    chip = Taught(ramps(64, 64, 4), ramps(64, 64, 8))
    window = chip.empty(128)
    assert np.isnan(window.words).all()
    window.put(chip.turned(flip=True, turns=1), 64, 0)
    np.testing.assert_array_equal(window.words[16:, :16], np.rot90(chip.words[:, ::-1], 1))
    np.testing.assert_array_equal(window.hidden[8:, :8], np.rot90(chip.hidden[:, ::-1], 1))
    assert np.isnan(window.words[:16]).all()
    assert np.isnan(window.words[:, 16:]).all()
    np.testing.assert_array_equal(chip.larger(2).words[::2, 1::2], chip.words)


def test_a_teacher_never_pulls_towards_what_the_label_forbids(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import torch
    from bundled_model_losses import taught_loss

    likely = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.5]])  # code 1 excludes the first word
    codes = torch.ones(1, 1, 2, dtype=torch.int64)
    said = torch.tensor([[[[2.0, 1.0, 0.0], [float("nan")] * 3]]])
    logits = torch.zeros(1, 1, 2, 3, requires_grad=True)
    loss = taught_loss(logits, said, codes, likely)
    loss.backward()
    # By hand: the two possible words in the teacher's ratio, e to 1; no word of the teacher, no pull.
    target = torch.tensor([0.0, np.e / (1 + np.e), 1 / (1 + np.e)])
    torch.testing.assert_close(loss.detach(), torch.tensor(3.0).log())
    torch.testing.assert_close(logits.grad[0, 0, 0], 1 / 3 - target)
    assert not logits.grad[0, 0, 1].any()


def test_snapshots_are_averaged_and_whole_numbers_stay(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import torch
    from train_bundled_model import averaged

    states = [{"a": torch.tensor([v], dtype=torch.float16), "n": torch.tensor([7])} for v in (1.0, 2.0, 6.0)]
    mean = averaged(states)
    assert mean["a"].item() == 3.0
    assert mean["n"].item() == 7
