"""The examples fit the package as it is: each one says what it does; all kinds compete; the words are those taught."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from resegeo.checkpoints.sources import vocabulary

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = {
    "ablation": {"--data", "--model"},
    "compose_fine_tunes": {"--data", "--out"},
    "evaluate_bundled_model": {"--data", "--out", "--model"},
    "few_clicks": {"--data"},
    "reproduce_paper": {"--data"},
    "train_bundled_model": {"--work", "--steps"},
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
