"""Files that are there whole or not at all, and folders that can be written to."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from resegeo.errors import ResegeoError


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it gets the name at the end, and goes again if anything fails."""
    beside = path.with_name(f".tmp-{path.name}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def writable_folder(folder: Path) -> Iterator[None]:
    """Create a folder for results; made here and left empty, it goes again.

    Raises
    ------
    ResegeoError:
        When nothing can be written there.

    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ResegeoError(
            f"The output folder {folder} cannot be written to ({error.strerror}); name another one by -o."
        ) from error
    try:
        yield
    finally:
        if new:
            with contextlib.suppress(OSError):  # not empty: what is complete stays
                folder.rmdir()


@contextlib.contextmanager
def alone(targets: Mapping[Path, float]) -> Iterator[None]:
    """Keep other runs from writing to some files or folders, each with the seconds that another's end is waited for.

    A lock lies beside its target for as long as it is held; where none can be laid, as in a folder that may only be
    read, there is none.

    Raises
    ------
    ResegeoError:
        When another run holds one of them.

    """
    with contextlib.ExitStack() as stack:
        for target, patience in targets.items():
            if os.access(target.parent, os.W_OK):
                stack.enter_context(_lock(target, patience))
        yield


@contextlib.contextmanager
def _lock(target: Path, patience: float) -> Iterator[None]:
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise ResegeoError(
            f"Another run is writing to {target}. Wait until it has ended, or name another folder by -o."
        ) from error
    except (OSError, NotImplementedError):  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            path.unlink()
        lock.release()
        with contextlib.suppress(OSError):
            path.unlink()
