"""What a run does to the process that it runs in, undone at its end: loggers, filters of warnings, torch's threads."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class _Found:
    """What the first of several runs at a time found."""

    rest: contextlib.ExitStack
    """Puts filters of warnings and environment variables back."""
    off: int
    levels: dict[str, tuple[int, bool]]
    threads: int | None
    """Of torch; None where nothing has loaded it."""


_LOCK = threading.Lock()
_RUNS = 0
_FOUND: _Found | None = None


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the process as it was found, once no run is left in any thread of it.

    Libraries change the filters of warnings for a moment, which is not safe in threads: of two that overlap, one may
    put back what the other has set. So the first run in keeps what is there, and the last out puts it back. Torch has
    its number of threads for each thread, so every run puts that back. A run that needs no torch does not load it.
    """
    global _RUNS, _FOUND
    with _LOCK:
        if _FOUND is None:
            rest = contextlib.ExitStack()
            rest.enter_context(restored())
            rest.enter_context(warnings.catch_warnings())
            _FOUND = _Found(rest, logging.root.manager.disable, _levels(), _threads())
        _RUNS += 1
        found = _FOUND
    try:
        yield
    finally:
        with _LOCK:
            if found.threads is not None and _threads() != found.threads:
                sys.modules["torch"].set_num_threads(found.threads)
            _RUNS -= 1
            if _RUNS == 0:
                _FOUND = None
                logging.disable(found.off)
                for name, (level, disabled) in found.levels.items():
                    logger = logging.getLogger(name)
                    if logger.level != level:  # setting it empties the caches of all loggers
                        logger.setLevel(level)
                    logger.disabled = disabled
                found.rest.close()


def remember_threads() -> None:
    """Keep torch's number of threads before a run changes it for the first time."""
    with _LOCK:
        if _FOUND is not None and _FOUND.threads is None:
            _FOUND.threads = _threads()


def _threads() -> int | None:
    """Torch's number of threads here; None where it is not loaded."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


@contextlib.contextmanager
def hushed(family: str) -> Iterator[None]:
    """Keep the loggers of a package silent but for what is critical."""
    logging.getLogger(family)
    names = [name for name in _levels() if name.partition(".")[0] == family]
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Put back the environment variables that libraries set for themselves or for workers, and no other."""
    before = _variables()
    try:
        yield
    finally:
        for name in _variables().keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.endswith(_SET_BY_LIBRARIES)}


_SET_BY_LIBRARIES = (
    "_NUM_THREADS",
    "MALLOC_TRIM_THRESHOLD_",
    "PYTHONHASHSEED",
    "__DASK_PARENT_PID",
    "KMP_DUPLICATE_LIB_OK",
    "TOKENIZERS_PARALLELISM",
    "TORCHINDUCTOR_CACHE_DIR",
)
"""Ends of the names: what dask sets for its workers, torch and tokenizers for themselves."""

UNGUARDED = (
    "Local workers run this script anew when they start, and so would start workers themselves: put the call under "
    '`if __name__ == "__main__":`.'
)


def _levels() -> dict[str, tuple[int, bool]]:
    loggers: dict[str, Any] = logging.root.manager.loggerDict
    return {
        name: (logger.level, logger.disabled)
        for name, logger in list(loggers.items())
        if isinstance(logger, logging.Logger)
    } | {"": (logging.root.level, logging.root.disabled)}


def unguarded() -> bool:
    """Whether the script that runs here lacks the guard that processes started anew need.

    Told by its text: the guard's words stand in every script that has one.
    """
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None or getattr(main, "__spec__", None) is not None:  # interactive, or `python -m`
        return False
    try:
        return "__main__" not in Path(file).read_text("utf-8", "replace")
    except (OSError, ValueError):
        return False
