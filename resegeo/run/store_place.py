"""Where a store lies: its files in a folder on disk, or objects behind a URL; what is written there is whole."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import fsspec

from resegeo.errors import ResegeoError, shown
from resegeo.files import is_file, is_folder, read_limited, sync_below
from resegeo.run.header import HEADER_BYTES

PAUSES = (0.2, 1.0, 3.0)
"""Seconds after which what failed behind a URL is tried again."""

T = TypeVar("T")

MARK_BYTES = 100_000

_TEMPORARY = r"(?:\.[^/]*\.[0-9a-f]{16}\.tmp)"

ARRAY_FILES = r"(?:zarr\.json|c(?:/\d+)+|(?:c/)?(?:\d+/)*[^/]*\.[0-9a-f]{32}\.partial)"

OURS = re.compile(
    rf"(?:{_TEMPORARY}|zarr\.[0-9a-f]{{32}}\.partial"
    rf"|(?:features|cls|factor|reduced|segments|valid|quicklook|colours|scores-[^/]+)/{ARRAY_FILES}"
    rf"|marks/(?:done|failed)/(?:\d+(?:\.\d+\.\d+\.tmp)?|{_TEMPORARY})|tiles/(?:\d+_\d+\.npy|[^/]+\.tmp))"
)
"""Files of a store beside its header, those of earlier versions too."""

_HALF_WRITTEN = re.compile(r"(?:.*/)?[^/]*\.(?:partial|tmp)")


def is_store(path: str) -> bool:
    """Whether a path or URL names a store by its suffix."""
    return path.rstrip("/").endswith(".store.zarr")


def tried(url: str, act: Callable[[], T], *passed: type[Exception]) -> T:
    """Do what may fail behind a URL: several times, then in a sentence; what is not there or forbidden stays so.

    Errors of ``passed`` are an answer too.
    """
    if "://" not in url:
        return act()
    for pause in (*PAUSES, None):
        try:
            return act()
        except Exception as error:  # the libraries behind fsspec share no base of errors
            if isinstance(error, (FileNotFoundError, PermissionError, ResegeoError, *passed)):
                raise
            if pause is None:
                raise ResegeoError(
                    f"The store {url} cannot be reached ({type(error).__name__}: {shown(error)}). What is done is "
                    "kept; the same command continues."
                ) from error
            time.sleep(pause)
    raise AssertionError


def place_of(url: str) -> Place:
    """Find where the files of a store lie; see :class:`ResegeoError`."""
    if "://" not in url:
        return _Folder(Path(url))
    try:
        return _Objects(url)
    except (OSError, ImportError, ValueError) as error:
        raise ResegeoError(f"The store {url} cannot be reached ({error}).") from error


class Place(Protocol):
    """Where the files of a store lie, by their names below its folder or prefix."""

    def is_link(self) -> bool:
        """Whether its folder is a symbolic link."""

    def link(self) -> str | None:
        """Name a symbolic link where a store has folders of its own."""

    def others(self) -> list[str]:
        """Return what lies there beside half-written files of ours."""

    def header(self) -> bytes | None:
        """Return the metadata of the Zarr group; None where there is none."""

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder; none where it is not there."""

    def read(self, path: str, most: int = MARK_BYTES) -> bytes | None:
        """Return a file, of a larger one its beginning or all; None where it is not there."""

    def is_plain(self, path: str, most: int) -> bool:
        """Whether a library may read what lies there: a file of at most so many bytes, or nothing."""

    def read_all(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return those of many small files that are there."""

    def write(self, path: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""

    def write_chunk(self, path: str, *parts: bytes | memoryview) -> None:
        """Write a file that counts by its mark alone, and bring it to the disk."""

    def delete(self, path: str) -> None:
        """Remove a file, if it is there."""

    def sync(self, *paths: str) -> None:
        """Bring files and folders to the disk; those that are not there are passed over."""

    def sync_below(self, folder: str) -> None:
        """Bring a folder with all that it holds to the disk."""

    def sweep(self) -> None:
        """Remove what killed processes left half-written."""

    def remove(self, pattern: re.Pattern[str], below: str = "") -> list[str]:
        """Remove the files below a folder that match, and folders that are empty then; return the names of others."""

    def remove_folder(self) -> None:
        """Remove the folder of the store, if nothing is left in it."""


@contextlib.contextmanager
def _replacing(target: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file beside ``target`` that takes its place in the end; nothing is left of one that fails."""
    beside = target.with_name(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside.open("xb") as stream:
            yield stream
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


class _Folder:
    """A store's files on disk; what is written is synced and renamed into place."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def is_link(self) -> bool:
        return self._root.is_symlink()

    def link(self) -> str | None:
        for folder in (self._root, *(path for path in self._root.iterdir() if path.is_dir())):
            for path in folder.iterdir():
                if path.is_symlink():
                    return str(path.relative_to(self._root))
        return None

    def others(self) -> list[str]:
        if not os.path.lexists(self._root):
            return []
        if not is_folder(self._root):
            return [self._root.name]
        return [path.name for path in self._root.iterdir() if not re.fullmatch(_TEMPORARY, path.name)]

    def header(self) -> bytes | None:
        path = self._root / "zarr.json"
        return read_limited(path, HEADER_BYTES) if is_file(path) else None

    def names(self, folder: str) -> list[str]:
        try:
            return [entry.name for entry in os.scandir(self._root / folder)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, path: str, most: int = MARK_BYTES) -> bytes | None:
        file = self._root / path
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                return b""  # a folder, or a pipe, which would be waited for without end
            with file.open("rb", buffering=0) as stream:
                return stream.read(most)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_plain(self, path: str, most: int) -> bool:
        try:
            found = (self._root / path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # links that go round
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size <= most

    def read_all(self, paths: Sequence[str]) -> dict[str, bytes]:
        found = {path: self.read(path) for path in paths}
        return {path: data for path, data in found.items() if data is not None}

    def write(self, path: str, data: bytes) -> None:
        target = self._root / path
        with _replacing(target, f".{target.name}.{secrets.token_hex(8)}.tmp") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())

    def write_chunk(self, path: str, *parts: bytes | memoryview) -> None:
        target = self._root / path
        with _replacing(target, f"{target.name}.{secrets.token_hex(16)}.partial") as stream:
            for part in parts:
                stream.write(part)
        self.sync(path)  # by its name, which has to be on the disk as well before the mark is

    def delete(self, path: str) -> None:
        with contextlib.suppress(NotADirectoryError):
            (self._root / path).unlink(missing_ok=True)

    def sync(self, *paths: str) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                _sync(self._root.resolve().parent if path == ".." else self._root / path)

    def sync_below(self, folder: str) -> None:
        sync_below(self._root / folder)

    def sweep(self) -> None:
        for path in self._files():
            name = path.relative_to(self._root).as_posix()
            if _HALF_WRITTEN.fullmatch(name) and OURS.fullmatch(name):
                path.unlink(missing_ok=True)

    def remove(self, pattern: re.Pattern[str], below: str = "") -> list[str]:
        left = []
        for path in self._files(below):
            name = path.relative_to(self._root).as_posix()
            if pattern.fullmatch(name):
                path.unlink(missing_ok=True)
            elif name != "zarr.json":
                left.append(name)
        top = self._root / below
        if not top.is_symlink():
            for folder, _, _ in os.walk(top, topdown=False):
                if Path(folder) != self._root:
                    with contextlib.suppress(OSError):  # not empty
                        Path(folder).rmdir()
        return left

    def remove_folder(self) -> None:
        with contextlib.suppress(OSError):  # what is not ours stays
            self._root.rmdir()

    def _files(self, below: str = "") -> Iterator[Path]:
        """Walk over files and symbolic links, following none."""
        if (self._root / below).is_symlink() and below:
            return
        for folder, folders, files in os.walk(self._root / below):
            for name in (*files, *folders):
                path = Path(folder, name)
                if name in files or path.is_symlink():
                    yield path


class _Objects:
    """A store's files behind a URL: one object each."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._system, self._root = fsspec.core.url_to_fs(url)

    def is_link(self) -> bool:
        return False

    def link(self) -> None:
        return None

    def others(self) -> list[str]:
        return self.names("")

    def header(self) -> bytes | None:
        return self._get("zarr.json")

    def names(self, folder: str) -> list[str]:
        def listed() -> list[str]:
            self._system.invalidate_cache()  # other processes write there
            found = self._system.ls(f"{self._root}/{folder}".rstrip("/"), detail=False)
            return [entry.rstrip("/").rsplit("/", 1)[-1] for entry in found]

        try:
            return tried(self._url, listed)
        except FileNotFoundError:
            return []

    def read(self, path: str, most: int = MARK_BYTES) -> bytes | None:
        return self._get(path)

    def is_plain(self, path: str, most: int) -> bool:
        """Objects are nothing else."""
        return True

    def read_all(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Read many at a time, since each takes the way there and back."""
        if not paths:
            return {}
        known = {f"{self._root}/{path}": path for path in paths}

        def together() -> dict[str, bytes]:
            found = self._system.cat(list(known), on_error="return")
            for answer in found.values():
                if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
                    raise answer
            return {known[path]: data for path, data in found.items() if isinstance(data, bytes)}

        return tried(self._url, together)

    def write(self, path: str, data: bytes) -> None:
        tried(self._url, lambda: self._system.pipe_file(f"{self._root}/{path}", data))

    def write_chunk(self, path: str, *parts: bytes | memoryview) -> None:
        self.write(path, b"".join(bytes(part) for part in parts))

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            tried(self._url, lambda: self._system.rm_file(f"{self._root}/{path}"))

    def sync(self, *_paths: str) -> None:
        """Objects are there whole or not at all."""

    def sync_below(self, _folder: str) -> None:
        """Objects are there whole or not at all."""

    def sweep(self) -> None:
        """Objects are never half-written."""

    def remove(self, pattern: re.Pattern[str], below: str = "") -> list[str]:
        def found() -> list[str]:
            self._system.invalidate_cache()
            return [str(path) for path in self._system.find(f"{self._root}/{below}".rstrip("/"))]

        try:
            paths = tried(self._url, found)
        except FileNotFoundError:
            return []
        start = len(self._root.rstrip("/")) + 1
        names = {path: path[start:] for path in paths}
        ours = [path for path, name in names.items() if pattern.fullmatch(name)]
        if ours:
            with contextlib.suppress(FileNotFoundError):
                tried(self._url, lambda: self._system.rm(ours))
        return [name for path, name in names.items() if path not in set(ours) and name != "zarr.json"]

    def remove_folder(self) -> None:
        """Prefixes are gone with their last object."""

    def _get(self, path: str) -> bytes | None:
        try:
            return bytes(tried(self._url, lambda: self._system.cat_file(f"{self._root}/{path}")))
        except FileNotFoundError:
            return None


def _sync(path: Path) -> None:
    """Bring a file or a folder to the disk; Windows opens no folders."""
    folder = is_folder(path)
    if folder and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
