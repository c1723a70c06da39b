"""What the terminal shows: one sentence for a mistake, notes for warnings, a bar or a line a minute for each stage."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, TextIO

import click
from click.core import ParameterSource

from resegeo.declare import flag
from resegeo.errors import ResegeoError, ResegeoWarning, escaped, spelled

P = ParamSpec("P")

NEEDED = 6_000_000_000
"""Bytes of address space without which the libraries do not even load: most of it is never touched."""

NO_MEMORY = (
    "There is too little memory: {why}. resegeo needs about 2 GB, and 6 GB of address space (`ulimit -v unlimited` "
    "lifts a limit on it); smaller scenes and models, fewer threads and fewer workers take less."
)
_MEMORY_WORDS = (
    "not enough memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "out of memory",
    "can't start new thread",
    "failed to map segment",
    "Unable to allocate",
    "bad_alloc",
)
_BROKEN_PIPE = 141
"""Exit code of a program that is ended by SIGPIPE."""


_OTHER_NAMES = {"classes": "prompts", "legend": "map"}
"""Parameters that have another name on the command line."""


def in_flags(name: str, value: str | None) -> str:
    """Spell a parameter as the command line does: ``--gsd 10``, ``--overwrite``, ``--no-taper``."""
    name = _OTHER_NAMES.get(name, name)
    if value == "False":
        return f"--no-{flag(name).removeprefix('--')}"
    return flag(name) if value is None or value == "True" else f"{flag(name)} {value}"


def told(error: ResegeoError, given: Collection[str] = ()) -> str:
    """Return the sentence of an error as the command line spells it; ``given`` are the parameters given by a flag."""
    text, name = error.told(in_flags), error.parameter
    if name in given and text.startswith(f"{name} "):
        return flag(str(name)) + text[len(str(name)) :]
    return text


@contextmanager
def console(*, verbose: bool, quiet: bool, given: Collection[str] = ()) -> Iterator[None]:
    """Show resegeo's warnings as notes on stderr, each once, and turn every error into a sentence and an exit code."""
    shown = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, ResegeoWarning):
            raw = message.args[0] if isinstance(message, Warning) and message.args else message
            text = spelled(str(raw), in_flags)
            if not quiet and text not in shown:
                shown.add(text)
                complain(f"Note: {text}")
        elif verbose:
            complain(f"{category.__name__}: {message}")

    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        # Redirected on Windows, it would know few letters. Names that are no text leave as the bytes that they are.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    with warnings.catch_warnings():
        warnings.simplefilter("always", ResegeoWarning)
        warnings.showwarning = show
        try:
            _refuse_little_memory()
            yield
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a reader who has left is noticed
        except ResegeoError as error:
            _stop(told(error, given), error.exit_code, verbose=verbose)
        except KeyboardInterrupt as error:
            complain(str(error) or "Interrupted. Nothing half-written was left; the same command goes on.")
            sys.exit(130)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _while_printing(error.__traceback__):
                _leave_quietly()
            if _lacks_memory(error):
                _stop(NO_MEMORY.format(why=str(error) or "an allocation failed"), 1, verbose=verbose)
            if isinstance(error, OSError):
                _stop(f"{error}. Check the path, free space and permissions.", 1, verbose=verbose)
            _stop(
                f"This is a defect of resegeo ({type(error).__name__}: {error}). "
                "Please report it with what the same command prints with -v.",
                1,
                verbose=verbose,
            )


def complain(line: str) -> None:
    """Print a line on stderr, whose characters are harmless to a terminal whoever wrote them."""
    with contextlib.suppress(OSError, ValueError):  # nobody listens
        click.echo(escaped(line), err=True)


def say(text: object, *, err: bool = False) -> None:
    """Print text; what a terminal would obey instead of showing stands as escapes.

    File names, names of models and ids come from others. For another program the bytes of names that are no text stay.
    """
    lines = str(text).split("\n")
    if err:
        for line in lines:
            complain(line)
        return
    terminal = sys.stdout is not None and sys.stdout.isatty()
    click.echo("\n".join(escaped(line) if terminal else _harmless(line) for line in lines))


def say_path(path: object) -> None:
    """Print a path on a line of its own, whatever is in its name."""
    say(str(path).replace("\n", "\\n"))


def _harmless(line: str) -> str:
    """Escape what a terminal would obey, and keep surrogates, by which Python writes bytes that are no text."""
    return "".join(sign if "\udc80" <= sign <= "\udcff" else escaped(sign) for sign in line)


def _refuse_little_memory() -> None:
    """Refuse a limit under which libraries hang or fail while they are loaded; see :class:`ResegeoError`."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit not in (resource.RLIM_INFINITY, -1) and limit < NEEDED:
        raise ResegeoError(NO_MEMORY.format(why=f"`ulimit -v` allows {limit / 1e9:.1f} GB of address space"))


def _lacks_memory(error: BaseException) -> bool:
    """Whether an error, or what caused it, comes of too little memory."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or getattr(seen, "errno", None) == errno.ENOMEM:
            return True
        if isinstance(seen, RuntimeError | ImportError) and any(word in str(seen) for word in _MEMORY_WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _while_printing(trace: TracebackType | None) -> bool:
    """Whether an error comes from writing to stdout, and not from some connection."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(trace)]
    return frames[-1:] == [__name__] or any(name.partition(".")[0] == "click" for name in frames[-1:])


def _leave_quietly() -> NoReturn:
    """End as a program does whose reader has left."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered goes nowhere
    sys.exit(_BROKEN_PIPE)


def _stop(sentence: str, code: int, *, verbose: bool) -> NoReturn:
    if verbose:
        traceback.print_exc()
    complain(f"Error: {sentence}")
    sys.exit(code)


def shows(command: Callable[P, None]) -> Callable[P, None]:
    """Add -v and -q to a command and run it under :func:`console`."""

    @click.option("-v", "--verbose", is_flag=True, help="Show library warnings, and tracebacks of errors.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress and no notes.")
    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        verbose, quiet = bool(kwargs.pop("verbose")), bool(kwargs.pop("quiet"))
        context = click.get_current_context()
        context.obj = {"quiet": quiet}
        given = {name for name in kwargs if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
        with console(verbose=verbose, quiet=quiet, given=given):
            command(*args, **kwargs)

    return wrapped


class _Lines:
    """A line a minute where stderr is no terminal: nothing within the first."""

    PAUSE = 60.0

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._stage, self._since, self._at = "", self._last, 0

    def __call__(self, stage: str, done: int, total: int, what: str = "") -> None:
        """Say where a stage is, if it is time to."""
        if os.environ.get(_PROGRESS):
            complain(f"resegeo-progress: {stage} {done}/{total}")
            return
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._since, self._at = stage, now, done
        if now - self._last < self.PAUSE:
            return
        self._last = now
        made = done - self._at
        left = f", about {_duration((now - self._since) / made * (total - done))} left" if made else ""
        complain(f"{stage}: {done:,} of {total:,}{left}{what and f' ({what})'}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


_PROGRESS = "RESEGEO_PROGRESS"
"""Environment variable by which a program, such as the plugin of QGIS, asks for every step as a line to be read."""


def _has_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _bar(total: int, stage: str) -> Any:
    from tqdm import tqdm

    size = shutil.get_terminal_size()  # 80 × 24 where the terminal does not say; tqdm would show nothing
    return tqdm(total=total, desc=escaped(stage), file=sys.stderr, ncols=size.columns, nrows=size.lines)


class ScenesBar:
    """One bar over the scenes of a batch with what is being done behind it, on stderr; see :class:`Bars`."""

    def __init__(self, *, quiet: bool) -> None:
        """Stay silent if ``quiet``."""
        self._quiet = quiet
        self._bar: Any = None
        self._lines = None if _has_terminal() and not os.environ.get(_PROGRESS) else _Lines()

    def __call__(self, done: int, total: int, what: str) -> None:
        """Move the bar."""
        if self._quiet:
            return
        if self._lines is not None:
            self._lines("scenes", done, total, what)
            return
        if self._bar is None:
            self._bar = _bar(total, "scenes")
        self._bar.set_postfix_str(escaped(what), refresh=False)
        self._bar.update(done - self._bar.n)  # shows what is done too, if the last time is a while ago

    def say(self, line: str) -> None:
        """Print a line on stderr, above the bar."""
        if self._quiet:
            return
        if self._bar is None:
            complain(line)
        else:
            self._bar.write(escaped(line), file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


class Bars:
    """A progress bar with a time estimate for each stage, on stderr; where that is no terminal, a line a minute."""

    def __init__(self, *, quiet: bool) -> None:
        """Stay silent if ``quiet``."""
        self._quiet = quiet
        self._bar: Any = None
        self._lines = None if _has_terminal() and not os.environ.get(_PROGRESS) else _Lines()
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the bar of ``stage``; a new stage begins a new bar."""
        if self._quiet:
            return
        if self._lines is not None:
            self._lines(stage, done, total)
            return
        if stage != self._stage or self._bar is None:
            self.close()
            self._bar = _bar(total, f"{stage:9}")
            self._stage = stage
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the bar in hand."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._stage = ""


def open_standard_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr the null device for them.

    Else the first file that it opens takes their number, and gets what libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
