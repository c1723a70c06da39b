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


def test_of_a_blend_of_two_crops_no_label_is_known(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import torch
    from train_bundled_model import Batch, blended

    images = torch.arange(9.0)[:, None, None, None].expand(9, 3, 8, 8)
    batch = Batch(images, torch.ones(9, 1, 1, 1), torch.full((9, 8, 8), 5), [f"source {i}" for i in range(9)])
    made = blended(batch, 1.0, np.random.default_rng(0))
    # The seventh of eight is cut into superpixels: it stays. Each other one is nearer to itself than to the next.
    assert torch.equal(made.images[7], images[7])
    assert torch.equal(made.codes[7], batch.codes[7])
    for i in (*range(7), 8):
        part = (made.images[i] - images[i]).unique() / ((i + 1) % 9 - i)
        assert part.numel() == 1
        assert 0.05 <= part.item() <= 0.5
        assert not made.codes[i].any()
    assert made.sources == ["blend"] * 7 + ["source 7", "blend"]
    assert batch.sources[0] == "source 0"
    same = blended(batch, 0.0, np.random.default_rng(0))
    assert torch.equal(same.images, images)


def test_a_teacher_tells_of_the_crop_itself_and_nothing_of_what_is_beside_a_chip(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import torch
    from bundled_model_teacher import Lesson, standard
    from torch.nn import functional
    from train_bundled_model import Batch, taught

    class Plain:
        """A "teacher" whose features are the pixels' own colours, every 4 pixels."""

        def hidden(self, images):
            return functional.avg_pool2d(images, 4)

        def vectors(self, hidden):
            return functional.normalize(hidden, dim=1)

        def logits(self, vectors, texts):
            return torch.einsum("bdhw,bcd->bhwc", vectors, texts)

    drawn = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 32, 32, generator=drawn)
    lesson = Lesson(Plain(), torch.eye(3), images)
    codes = torch.zeros(2, 32, 32, dtype=torch.int64)
    codes[0, :16, :16] = 3
    words, hidden = taught(lesson, Batch(images, torch.ones(2, 1, 4, 4), codes, ["eurosat", "road"]))
    cells = functional.avg_pool2d(standard(images), 4)
    wanted = functional.normalize(cells, dim=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(words[1], wanted[1], atol=1e-2, rtol=0)
    torch.testing.assert_close(words[0, :4, :4], wanted[0, :4, :4], atol=1e-2, rtol=0)
    assert words[0, 4:].isnan().all()
    assert words[0, :, 4:].isnan().all()
    assert hidden.shape == (2, 4, 4, 3)
    assert hidden[0, 2:].isnan().all()
    # Over the crops that it was standardised by, each feature has mean 0 and spread 1.
    _, plain = lesson.said(images)
    torch.testing.assert_close(plain.mean((0, 1, 2)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(plain.std((0, 1, 2)), torch.ones(3), atol=0.05, rtol=0)


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
