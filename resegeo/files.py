"""Files that are there whole or not at all, and folders that can be written to."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from resegeo.errors import ResegeoError, UsageError, shown

DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What reading a damaged ZIP archive raises; RuntimeError: a member has a password, or is packed in an unknown way."""


def read_limited(path: Path, most: int) -> bytes:
    """Read a file whose content is trusted in nothing: a regular one, of ``most`` bytes at most.

    Raises
    ------
    ResegeoError:
        When it is a folder, a pipe or a device, larger than that, or cannot be read.

    """
    try:
        # A pipe without a writer would keep an ordinary open waiting for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as stream:  # noqa: PTH123
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ResegeoError(f"{shown(path)} is no ordinary file; name one.")
            content = stream.read(most + 1)
    except IsADirectoryError as error:
        raise ResegeoError(f"{shown(path)} is a folder; name a file.") from error
    except (OSError, ValueError) as error:
        raise ResegeoError(f"{shown(path)} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if len(content) > most:
        raise ResegeoError(f"{shown(path)} is larger than {most:,} bytes, the most that is read of such a file.")
    return content


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it gets the name at the end, and goes again if anything fails."""
    beside = path.with_name(f".tmp-{path.name}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def output_folder(given: str | Path) -> Path:
    """Take the name of a folder for results, which need not be there yet.

    Raises
    ------
    UsageError:
        When the name is empty.
    ResegeoError:
        When it is a file's, or below one.

    """
    if not str(given).strip():
        raise UsageError("The output folder's name is empty; name one by -o, or leave -o out.")
    folder = Path(given)
    standing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if standing is not None and not standing.is_dir():
        raise ResegeoError(f"The output folder {folder} cannot be: {standing} is a file. Name another one by -o.")
    return folder


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

    A lock lies beside its target for as long as it is held, in a folder that is made for it if need be; where none can
    be laid, as in a folder that may only be read, there is none.

    Raises
    ------
    ResegeoError:
        When another run holds one of them.

    """
    with contextlib.ExitStack() as stack:
        for target, patience in targets.items():
            stack.enter_context(_made(target.parent))
            if os.access(target.parent, os.W_OK):
                stack.enter_context(_lock(target, patience))
        yield


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Create a folder where that can be done; left empty, it goes again, and so do those above that were made."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # not empty, or never made
            for path in new:
                path.rmdir()


def sweep_locks(targets: Iterable[Path]) -> None:
    """Remove locks that a killed run left beside what it had finished; those that are held stay."""
    left = {target: 0.0 for target in targets if _lock_path(target).exists()}
    with contextlib.suppress(ResegeoError), alone(left):
        pass


def _lock_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


@contextlib.contextmanager
def _lock(target: Path, patience: float) -> Iterator[None]:
    path = _lock_path(target)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise ResegeoError(
            f"Another run is writing to {target}. Wait until it has ended, or name another folder by -o; if there is "
            f"none, as after a crash on a file system that keeps no locks, remove {path}."
        ) from error
    except (OSError, NotImplementedError):  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        # Once it is released, a file of this name may be the lock of another run; but Windows removes no open file.
        if os.name != "nt":
            with contextlib.suppress(OSError):
                path.unlink()
        lock.release()
        if os.name == "nt":
            with contextlib.suppress(OSError):
                path.unlink()
