"""The judge of tests/attack.py: what it lets pass and what it does not."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

if sys.platform == "win32":
    pytest.skip("forks are not known here", allow_module_level=True)

from attack import damage, not_whole, reference, unlike
from guarded import GIGABYTE, Answer, Dead, Verdict, apart, command, each, fault_of, tried


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Seconds are seconds here, however busy the machine is."""
    monkeypatch.setattr("guarded.patience", lambda: 1.0)


@pytest.mark.parametrize(
    ("code", "said", "fault"),
    [
        (0, "Note: a note\n", None),
        (1, "Note: a note\nError: classes.yml, line 2: found nothing; expected a name.\n", None),
        (2, "Usage: resegeo [OPTIONS]\nTry 'resegeo -h' for help.\n\nError: No such option.\n", None),
        (3, "Warning: scenes failed.\n", None),
        (1, "", "without one sentence"),
        (1, "Error: one.\nError: two.\n", "without one sentence"),
        (1, "libtiff says something\nError: it is damaged.\n", "more than one sentence"),
        (1, "Traceback (most recent call last):\nError: no.\n", "Traceback"),
        (1, "Error: This is a defect of resegeo (KeyError: 1).\n", "defect"),
        (1, "Error: \x1b[31m is no class.\n", "control characters"),
        (1, f"Error: {'x' * 5000}.\n", "characters are said"),
        (1, "_tiffSeekProc: Invalid argument.\nError: it is damaged.\n", None),
        (-signal.SIGSEGV, "", "ended with -11"),
    ],
)
def test_an_end_is_right_or_one_sentence(code, said, fault):
    found = fault_of(Answer(code, "", said, 1.0))
    assert (found is None) if fault is None else (fault in found)


def test_a_call_that_dies_is_told_and_the_rest_follows():
    def call(data: bytes) -> str | None:
        if data == b"die":
            os._exit(5)
        if data == b"raise":
            raise KeyError("key")
        if data == b"sleep":
            time.sleep(30)
        if data == b"eat":
            bytearray(GIGABYTE)
        return "a sentence" if data == b"told" else None

    inputs = [b"", b"die", b"told", b"raise", b"sleep", b"eat", b""]
    found = list(each(inputs, call, seconds=0.3, memory=GIGABYTE // 2))
    assert [number for number, _, _ in found] == list(range(7))
    assert [kind for _, kind, _ in found] == ["right", "fault", "told", "fault", "fault", "fault", "right"]
    assert "KeyError" in found[3][2]
    assert "it took over" in found[4][2]
    assert "MemoryError" in found[5][2]


def test_a_call_apart_gives_its_value_or_is_dead():
    assert apart(lambda: {"a": 1}) == {"a": 1}
    with pytest.raises(Dead, match="died"):
        apart(lambda: os._exit(3))
    with pytest.raises(Dead, match="too long"):
        apart(lambda: time.sleep(30), seconds=0.2)


def test_trials_are_summed_and_a_trial_that_dies_is_a_fault_by_its_name():
    cases = [("one", lambda: Verdict(right=2)), ("two", lambda: os._exit(1)), ("three", lambda: Verdict(told=1))]
    total = tried(cases, 2, time.monotonic() + 60)
    assert (total.right, total.told, total.cases) == (2, 1, 4)
    assert total.faults[0].startswith("two:")
    assert tried(cases, 2, time.monotonic() - 1).left_out == 3


def test_a_command_runs_in_a_fork_with_its_exit_code(tmp_path):
    answer = command("classes", "check", "none.yml", cwd=tmp_path)
    assert (answer.code, fault_of(answer)) == (1, None)
    assert "none.yml: no such file" in answer.err


def test_results_that_are_cut_or_differ_are_noticed(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    assert not_whole(tmp_path / "one") is None
    assert unlike(tmp_path / "one", tmp_path / "two") is None
    (tmp_path / "one/a.geojson").write_text('{"type": "FeatureCollection", "fea')
    assert "NOT WHOLE" in (not_whole(tmp_path / "one") or "")
    assert "a.geojson" in (unlike(tmp_path / "one", tmp_path / "two") or "")


def test_a_reference_is_made_where_a_kind_is_set_out_and_in_no_trial(tmp_path, monkeypatch):
    class Kind:
        owner = os.getpid()

        @reference
        def made(self):
            return tmp_path

    assert Kind().made == tmp_path
    monkeypatch.setattr(Kind, "owner", os.getpid() + 1)
    with pytest.raises(RuntimeError, match="made was not made before the trials"):
        _ = Kind().made


def test_damage_changes_a_store(tmp_path):
    import random

    for number in range(20):
        store = tmp_path / str(number)
        (store / "features/c/0").mkdir(parents=True)
        (store / "marks/done").mkdir(parents=True)
        for name in ("zarr.json", "features/c/0/0", "features/c/0/1", "marks/done/0"):
            (store / name).write_bytes(name.encode() * 30)
        assert damage(store, random.Random(number))
