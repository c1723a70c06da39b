"""Files that are there whole or not at all, and folders that can be written to."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from resegeo.errors import BusyError, ResegeoError, UsageError, shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What reading a damaged ZIP archive raises; RuntimeError: a member has a password, or is packed in an unknown way."""

LONGEST_NAME = 255
"""Bytes that a file's name may have on the usual file systems."""

_LONGEST = 4095
"""Bytes of a path that Linux takes; others take fewer or more, and say so."""

LONGEST_PATH = 1000
"""Characters of a path that a sentence shows at most."""

Note = Callable[[Mapping[Path, Path]], None]
"""Called with finished files and the names that they are about to get."""

_PREFIX = ".tmp-resegeo-"
_WORKSHOP = re.compile(re.escape(_PREFIX) + "[a-z0-9_]{8}")
_DAY = 86_400.0


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
def whole(path: Path, note: Note | None = None) -> Iterator[Path]:
    """Yield a path to write to; what lies there at the end gets the name ``path``, or goes again if anything fails.

    See :func:`move` for ``note``.
    """
    with workshop(path.parent) as place:
        beside = place / path.name
        yield beside
        move({beside: path}, note=note)


@contextlib.contextmanager
def saving(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Say in one sentence that ``path`` could not be written, where that fails: by an OSError, or one of ``errors``.

    Raises
    ------
    ResegeoError:
        When the disk is full or the folder can't be written to.

    """
    failures: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except failures as error:
        why = getattr(error, "strerror", None) or shown(error, LONGEST_PATH)
        raise ResegeoError(
            f"{shown(path, LONGEST_PATH)} could not be written ({why}). Check free space and permissions."
        ) from error


@contextlib.contextmanager
def whole_named(path: Path, parameter: str) -> Iterator[Path]:
    """Yield a path to write to, as :func:`whole` does, for a file that the user named by ``parameter``.

    Raises
    ------
    ResegeoError:
        When it can't be written.

    """
    try:
        with whole(path) as beside:
            yield beside
    except OSError as error:
        why = error.strerror or shown(error, LONGEST_PATH)
        raise ResegeoError(
            f"{shown(path, LONGEST_PATH)} cannot be written ({why}); name another file by [[{parameter}]]."
        ) from error


@contextlib.contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """Make a folder inside ``folder`` for files that are not whole yet; it goes again with all that is left in it.

    Its name cannot be guessed and nobody else may write to it, so that nothing can be planted under the names in it.
    """
    place, hold = _held_folder(folder)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if hold is not None:
            os.close(hold)


def move(files: Mapping[Path, Path], gone: Iterable[Path] = (), note: Note | None = None) -> None:
    """Give finished files of one :func:`workshop` their names, all of them or none.

    Parameters
    ----------
    files:
        Files and the names that they get; what has such a name is replaced.
    gone:
        Files that must not lie beside them.
    note:
        Called when all are on the disk and none has its name yet.

    Raises
    ------
    OSError:
        When the disk is full, or a name is that of a folder; all is as it was then.

    """
    for file in files:
        sync(file)
    names, old = list(files.values()), [path for path in gone if os.path.lexists(path)]
    for path in (*names, *old):
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, "a folder has this name", str(path))
    if note is not None:
        note(files)
    aside: dict[Path, Path] = {}
    made: list[Path] = []
    try:
        if len(names) > 1 or old:  # a single file takes the other's place at once
            for number, path in enumerate([*names, *old]):
                if os.path.lexists(path):
                    aside[path] = next(iter(files)).with_name(f"old-{number}")
                    path.replace(aside[path])
        for file, path in files.items():
            file.replace(path)
            made.append(path)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        for path, kept in aside.items():
            if kept.exists():
                kept.replace(path)
        raise
    for folder in {path.parent for path in names}:
        sync(folder)


def sync(path: Path) -> None:
    """Bring a file or the names in a folder to the disk, so that a loss of power does not take them back."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return
    try:
        handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not folder and error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that know no such thing
            raise


def sync_below(folder: Path) -> None:
    """Bring a folder to the disk with all that is in it; see :func:`sync`."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)


def checksum(path: Path) -> str:
    """Sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sweep(folder: Path) -> None:
    """Remove what killed runs have left in ``folder`` under temporary names; what another run works on stays."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        left = [entry for entry in entries if _WORKSHOP.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)]
        for entry in left:
            with contextlib.suppress(OSError):
                hold = _hold(Path(entry.path))
                if hold is not None or time.time() - entry.stat(follow_symlinks=False).st_mtime > _DAY:
                    shutil.rmtree(entry.path, ignore_errors=True)
                if hold is not None:
                    os.close(hold)


def _held_folder(folder: Path) -> tuple[Path, int | None]:
    """Make a folder and hold a lock on it for as long as this process lives, so that no other one sweeps it away."""
    while True:
        place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
        hold = _hold(place)
        if place.is_dir():  # else it was swept before it was held
            return place, hold
        if hold is not None:
            os.close(hold)


def _hold(place: Path) -> int | None:
    """Lock a folder; None where another process holds it, or where there are no such locks."""
    if fcntl is None:
        return None
    handle = None
    try:
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if handle is not None:
            os.close(handle)
        return None
    return handle


def is_there(path: str | Path) -> bool:
    """Whether a file or folder has a name; a name that none can have, as one that is too long, is nobody's."""
    return os.path.exists(path)  # noqa: PTH110 (Path.exists raises for such a name)


def is_file(path: str | Path) -> bool:
    """Whether an ordinary file has a name; see :func:`is_there`."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: str | Path) -> bool:
    """Whether a folder has a name; see :func:`is_there`."""
    return os.path.isdir(path)  # noqa: PTH112


def name_problem(path: Path) -> str | None:
    """Say why no file can have a name, as a sentence without a remedy; None where one can.

    GDAL, SQLite and the report write names as UTF-8.
    """
    try:
        name = max(path.parts, key=lambda part: len(part.encode()), default="")
        size = len(name.encode())
    except UnicodeEncodeError:
        return f"The name {shown(path, LONGEST_PATH)} is not UTF-8, as the formats of the results need it."
    if "\0" in str(path):
        return f"The name {shown(path, LONGEST_PATH)} holds a NUL, which ends a name."
    whole = len(str(path).encode())
    if whole > _LONGEST:
        return f"The path {shown(path)} would have {whole:,} bytes, where {_LONGEST:,} are possible."
    if size > LONGEST_NAME:
        return f"The name {shown(name)} would have {size} bytes, where {LONGEST_NAME} are possible."
    return None


def output_folder(given: str | Path) -> Path:
    """Take the name of a folder for results, which need not be there yet.

    Raises
    ------
    UsageError:
        When the name is empty.
    ResegeoError:
        When it is a file's, or below one, or can be no folder's.

    """
    if not str(given).strip():
        raise UsageError("The output folder's name is empty; name one by [[output]], or leave [[output]] out.")
    folder = Path(given)
    why = name_problem(folder)
    if why is not None:
        raise ResegeoError(f"{why} Name another folder by [[output]].")
    standing = next((path for path in (folder, *folder.parents) if os.path.exists(path)), None)  # noqa: PTH110
    if standing is not None and not is_folder(standing):
        raise ResegeoError(
            f"The output folder {shown(folder, LONGEST_PATH)} cannot be: {shown(standing, LONGEST_PATH)} is a file. "
            "Name another one by [[output]]."
        )
    return folder


def refuse_links(root: Path, folder: Path) -> None:
    """See that no link leads out of a folder for results, such as one planted under the name of a scene.

    Raises
    ------
    ResegeoError:
        When ``folder``, or one between it and ``root``, is a symbolic link; ``root`` itself may be one.

    """
    parts = folder.relative_to(root).parts
    for count in range(len(parts)):
        place = root.joinpath(*parts[: count + 1])
        if os.path.islink(place):  # noqa: PTH114 (Path.is_symlink raises for a name that none can have)
            raise ResegeoError(
                f"{shown(place, LONGEST_PATH)} is a symbolic link, through which no results are written. Remove it, or "
                "name another folder by [[output]]."
            )


@contextlib.contextmanager
def writable_folder(folder: Path) -> Iterator[None]:
    """Create a folder for results and sweep out what killed runs left there; made here and left empty, it goes again.

    Raises
    ------
    ResegeoError:
        When nothing can be written there.

    """
    try:
        new = [path for path in (folder, *folder.parents) if not is_there(path)]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ResegeoError(
            f"The output folder {shown(folder, LONGEST_PATH)} cannot be written to ({error.strerror}); name another "
            "one by [[output]]."
        ) from error
    for path in new:
        sync(path.parent)
    sweep(folder)
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
    be laid, as in a folder that may only be read or on a file system without locks, there is none.

    Raises
    ------
    BusyError:
        When another run holds one of them.
    ResegeoError:
        When something else has the lock's name.

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
    new = [path for path in (folder, *folder.parents) if not is_there(path)]
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
    left = {target: 0.0 for target in targets if os.path.lexists(_lock_path(target))}
    with contextlib.suppress(ResegeoError), alone(left):
        pass


def _lock_path(target: Path) -> Path:
    name = f".{target.name}.lock"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}.lock"
    return target.with_name(name)


_NO_LOCKS = {getattr(errno, name, None) for name in ("ENOSYS", "ENOLCK", "ENOTSUP", "EOPNOTSUPP", "EROFS", "EACCES")}


@contextlib.contextmanager
def _lock(target: Path, patience: float) -> Iterator[None]:
    path = _lock_path(target)
    _expect_lock(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise BusyError(
            f"Another run is writing to {shown(target, LONGEST_PATH)}. Wait until it has ended, or name another folder "
            f"by -o; if there is none, as after a crash on a file system that keeps no locks, remove "
            f"{shown(path, LONGEST_PATH)}."
        ) from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            _expect_lock(path)
            raise ResegeoError(
                f"The lock {shown(path, LONGEST_PATH)} cannot be laid ({error.strerror or error}). Check free space "
                "and permissions."
            ) from error
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


def _expect_lock(path: Path) -> None:
    """See that nothing but an empty file has a lock's name: opened, a file behind a link would be emptied."""
    try:
        found = path.lstat()
    except OSError:
        return
    if not stat.S_ISREG(found.st_mode) or found.st_size:
        kind = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link"}.get(stat.S_IFMT(found.st_mode), "another file")
        raise ResegeoError(
            f"No lock can be laid: {shown(path, LONGEST_PATH)} is {kind}. Remove it or give it another name."
        )
