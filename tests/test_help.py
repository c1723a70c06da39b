"""What ``--help`` shows, and that what Python exports matches the commands."""

from __future__ import annotations

import re

import click
from click.testing import CliRunner

import resegeo
from resegeo.declare import flag
from resegeo.run.options import OPTIONS
from resegeo.settings import PRESETS
from resegeo_cli.main import main
from resegeo_cli.options import COMMON

CALLS = {"segment": "segment", "batch": "batch", "plan": "plan", "info": "info", "vectorize": "vectorize"}
CALLS["evaluate"] = "evaluate"


def shown(*command: str) -> str:
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0
    return result.output


def options_of(text: str) -> set[str]:
    return set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE))


def test_no_summary_of_a_command_is_cut() -> None:
    context = click.Context(main)
    for group in (main, *(each for each in main.commands.values() if isinstance(each, click.Group))):
        text = group.get_help(context)
        assert "…" not in text
        assert "..." not in text.partition("Commands:")[2]


def test_help_shows_the_options_that_people_use_and_help_all_every_one() -> None:
    common = {flag(name) if name != "output" else "--output" for name in COMMON}
    assert len(common) == 12
    assert options_of(shown("segment", "--help")) == {*common, "--help", "--help-all"}
    every = {what.flag for what in OPTIONS.values() if what.about.help}
    assert every <= options_of(shown("segment", "--help-all"))


def test_every_option_is_told_in_a_sentence_and_every_preset_described() -> None:
    for name, what in OPTIONS.items():
        said = what.about.help.partition("  [")[0]
        assert not said or (said.endswith(".") and len(said.split()) >= 4), name
    assert all(f"{name}: " in OPTIONS["preset"].about.help for name in PRESETS)


def test_python_exports_what_the_commands_do() -> None:
    for command, function in CALLS.items():
        assert command in main.commands
        assert callable(getattr(resegeo, function))
        assert function in resegeo.__all__
    assert all(getattr(resegeo, name) is not None for name in resegeo.__all__)
    assert re.match(r"\d+\.\d+", resegeo.__version__)
