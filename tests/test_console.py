"""What the command line prints, wherever it prints to, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from resegeo.errors import InputNotice, ResegeoError, UsageError
from resegeo_cli import console as shown
from resegeo_cli.console import NO_MEMORY, _Lines, console, in_flags, told

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="shells and limits of POSIX")
RUN = f"{sys.executable} -m resegeo_cli"


def shell(command, **env):
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1", **env}, timeout=60
    )


def ended(error, capsys, **options):
    """Exit code and stderr of a command that ends with an error."""
    with pytest.raises(SystemExit) as raised, console(verbose=False, quiet=False, **options):
        raise error
    return raised.value.code, capsys.readouterr().err


def test_python_reads_keywords_and_the_command_line_flags():
    error = ResegeoError("Pass [[gsd=0.5]] or [[segments=sam]], [[overwrite=True]], [[taper=False]], see [[min_area]].")
    assert str(error) == 'Pass gsd=0.5 or segments="sam", overwrite=True, taper=False, see min_area.'
    assert told(error) == "Pass --gsd 0.5 or --segments sam, --overwrite, --no-taper, see --min-area."
    assert (in_flags("output", None), in_flags("classes", "a.yml")) == ("-o", "--prompts a.yml")


def test_a_value_is_named_by_its_flag_where_it_came_by_one(capsys):
    error = UsageError("min_area is -1; expected a whole number.", parameter="min_area", value=-1)
    assert ended(error, capsys, given={"min_area"}) == (2, "Error: --min-area is -1; expected a whole number.\n")
    assert ended(error, capsys) == (2, "Error: min_area is -1; expected a whole number.\n")  # by a settings file


def test_a_note_is_spelled_in_flags_and_shown_once(capsys):
    with console(verbose=False, quiet=False):
        for _ in range(2):
            warnings.warn("Pass [[gsd=5]].", InputNotice, stacklevel=1)
    assert capsys.readouterr().err == "Note: Pass --gsd 5.\n"


def test_control_characters_do_not_reach_the_terminal_raw(capsys):
    code, said = ended(ResegeoError("a\x1b[31mb\nc\u202e"), capsys)
    assert (code, said) == (1, "Error: a\\x1b[31mb\\nc\\u202e\n")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_too_little_memory_is_told_in_one_sentence_whatever_it_is_called(capsys, error):
    code, said = ended(error, capsys)
    assert code == 1
    assert said.startswith("Error: There is too little memory: ")
    assert said.count("\n") == 1
    assert NO_MEMORY.split(". ", 1)[1].split(";")[0] in said


@POSIX
@pytest.mark.parametrize("kilobytes", [500_000, 1_000_000, 5_000_000])
def test_a_limit_on_memory_is_told_at_once(kilobytes):
    done = shell(f"ulimit -v {kilobytes}; {RUN} info missing.tif")
    assert done.returncode == 1
    assert done.stderr.decode().startswith("Error: There is too little memory: `ulimit -v` allows")
    assert done.stderr.count(b"\n") == 1


@POSIX
def test_a_reader_who_leaves_is_no_error():
    done = shell(f"set -o pipefail; {RUN} classes vocabulary | head -1")
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1
    assert done.returncode in (0, 141)


@POSIX
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_error(closed):
    done = shell(f"{RUN} classes template {closed}")
    assert (done.returncode, done.stderr) == (0, b"")


@POSIX
@pytest.mark.parametrize("locale", ["POSIX", "C", "C.UTF-8"])
def test_a_path_beyond_ascii_is_said_in_any_locale(tmp_path, locale):
    (tmp_path / "Bäume.yml").write_text("classes: [water]\n")
    done = shell(f"cd {tmp_path}; {RUN} classes check Bäume.yml; {RUN} classes check Wälder.yml", LC_ALL=locale)
    assert b"water" in done.stdout
    assert "lder.yml" in done.stderr.decode()
    assert b"defect" not in done.stderr
    assert b"Traceback" not in done.stderr


@POSIX
def test_a_path_that_is_no_text_is_said(tmp_path):
    done = shell(f"cd {tmp_path}; {RUN} classes check $'B\\xe4ume.yml'")
    assert done.returncode == 1
    assert b"B\\udce4ume.yml" in done.stderr
    assert b"defect" not in done.stderr


def test_without_a_terminal_there_is_a_line_a_minute_and_none_within_the_first(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    lines = _Lines()
    for done in range(1, 101):
        now[0] += 3
        lines("windows", done, 100)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "windows: 20 of 100, about 4 min left"
    assert len(said) == 5


@POSIX
def test_a_second_interruption_ends_without_a_traceback(tmp_path):
    """The program is told to stop, waits for a thread, and is told again."""
    code = (
        "import os, signal, threading, time\n"
        "from resegeo_cli import main as cli\n"
        "import resegeo.classes.class_file\n"
        "def slow(*a):\n"
        "    threading.Thread(target=time.sleep, args=(30,)).start()\n"
        "    threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "    raise KeyboardInterrupt\n"
        "resegeo.classes.class_file.load_class_list = slow\n"
        "import sys; sys.argv = ['resegeo', 'classes', 'check', 'a']\n"
        "cli.program()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=25)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
