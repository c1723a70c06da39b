"""What the terminal shows: one sentence for a mistake, notes for warnings, a bar for each stage."""

from __future__ import annotations

import io
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TextIO

import click

from resegeo.errors import ResegeoError, ResegeoWarning

P = ParamSpec("P")


@contextmanager
def console(*, verbose: bool, quiet: bool) -> Iterator[None]:
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
            if not quiet and str(message) not in shown:
                shown.add(str(message))
                click.echo(f"Note: {message}", err=True)
        elif verbose:
            click.echo(f"{category.__name__}: {message}", err=True)

    if not sys.stdout.isatty() and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # redirected on Windows, it would know few letters
    with warnings.catch_warnings():
        warnings.simplefilter("always", ResegeoWarning)
        warnings.showwarning = show
        try:
            yield
        except ResegeoError as error:
            _stop(str(error), error.exit_code, verbose=verbose)
        except KeyboardInterrupt as error:
            click.echo(str(error) or "Interrupted. Nothing half-written was left; the same command goes on.", err=True)
            sys.exit(130)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except OSError as error:
            _stop(f"{error}. Check the path, free space and permissions.", 1, verbose=verbose)
        except MemoryError:
            _stop("Out of memory. A smaller scene or model needs less.", 1, verbose=verbose)
        except Exception as error:
            _stop(
                f"This is a defect of resegeo ({type(error).__name__}: {error}). "
                "Please report it with what the same command prints with -v.",
                1,
                verbose=verbose,
            )


def _stop(sentence: str, code: int, *, verbose: bool) -> NoReturn:
    if verbose:
        traceback.print_exc()
    click.echo(f"Error: {sentence}", err=True)
    sys.exit(code)


def shows(command: Callable[P, None]) -> Callable[P, None]:
    """Add -v and -q to a command and run it under :func:`console`."""

    @click.option("-v", "--verbose", is_flag=True, help="Show library warnings, and tracebacks of errors.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress and no notes.")
    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        verbose, quiet = bool(kwargs.pop("verbose")), bool(kwargs.pop("quiet"))
        click.get_current_context().obj = {"quiet": quiet}
        with console(verbose=verbose, quiet=quiet):
            command(*args, **kwargs)

    return wrapped


class ScenesBar:
    """One bar over the scenes of a batch with what is being done behind it, on stderr, silent as :class:`Bars` is."""

    def __init__(self, *, quiet: bool) -> None:
        """Stay silent if ``quiet``."""
        self._disable = True if quiet else None
        self._bar: Any = None

    def __call__(self, done: int, total: int, what: str) -> None:
        """Move the bar."""
        if self._bar is None:
            from tqdm import tqdm

            size = shutil.get_terminal_size()
            self._bar = tqdm(
                total=total, desc="scenes", disable=self._disable, file=sys.stderr, ncols=size.columns, nrows=size.lines
            )
        if not self._bar.disable:
            self._bar.set_postfix_str(what, refresh=False)
            self._bar.update(done - self._bar.n)  # shows what is done too, if the last time is a while ago

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


class Bars:
    """A progress bar with a time estimate for each stage, on stderr, silent where that is no terminal."""

    def __init__(self, *, quiet: bool) -> None:
        """Stay silent if ``quiet``."""
        self._disable = True if quiet else None  # None: tqdm asks whether stderr is a terminal
        self._bar: Any = None
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the bar of ``stage``; a new stage begins a new bar."""
        from tqdm import tqdm

        if os.environ.get("RESEGEO_PROGRESS") == "lines":  # read by a program, such as the plugin of QGIS
            click.echo(f"resegeo-progress: {stage} {done}/{total}", err=True)
            return
        if stage != self._stage:
            self.close()
            size = shutil.get_terminal_size()  # 80 × 24 where the terminal does not say; tqdm would show nothing
            self._bar = tqdm(
                total=total,
                desc=f"{stage:9}",
                disable=self._disable,
                file=sys.stderr,
                ncols=size.columns,
                nrows=size.lines,
            )
            self._stage = stage
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the bar in hand."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._stage = ""
