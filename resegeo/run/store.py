"""The store between the image side and the words: checkpoint, unit of distribution, source for new words.

A Zarr v3 group with one chunk a work item, on disk or behind any URL that fsspec knows; :mod:`resegeo.run.header` says
what it holds and how that is laid out. What the windows of an item left behind is written first, its mark after it: an
item counts as done only by its mark, since a killed process may leave some of an item's arrays. Every chunk has a
checksum, and the mark one of the item's values and of itself: what was flipped, lost or swapped since is never taken
for a result. The store knows no words.

A folder is ours by its header alone, which is the first file that is written to it and the last one that goes. Nothing
else is ever removed from it than the files that a store consists of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec
import google_crc32c
import numpy as np
from numpy.typing import NDArray

from resegeo.errors import ResegeoError, notice, shown
from resegeo.files import read_limited
from resegeo.run.header import FORMAT, HEADER_BYTES, ArraySpec, StoreHeader

if TYPE_CHECKING:
    import zarr

PAUSES = (0.2, 1.0, 3.0)
"""Seconds after which what failed behind a URL is tried again."""

T = TypeVar("T")


class UnusableStoreError(ResegeoError):
    """A store that can only be replaced: damaged, or of another version's layout."""


class ForeignFolderError(UnusableStoreError):
    """Something at the place of a store that no header tells to be one of ours: it is never touched."""


class DamagedItemError(ResegeoError):
    """A work item whose stored values are not those that were put; it does not count as done any more."""


class LostStoreError(ResegeoError):
    """A store that another run replaced or removed while this one was writing to it."""


@dataclass(frozen=True)
class ItemResult:
    """What the windows of one work item left behind."""

    windows: NDArray[np.bool_]
    """A flag for each window of the item; False where it has no valid pixel."""
    values: Mapping[str, NDArray[Any]]
    """Arrays by name, one row for each window flagged True."""
    halved: bool = False
    """Whether the batch had to be halved for lack of the device's memory."""


class Store:
    """Results of the work items of one scene. Open it with :meth:`create` or :meth:`open`."""

    def __init__(self, url: str, header: StoreHeader, group: zarr.Group, arrays: Mapping[str, Any]) -> None:
        """Take an open group; see :meth:`create` and :meth:`open`."""
        self.url = url
        self.header = header
        self._group = group
        self._arrays = dict(arrays)
        self._place = _place(url)
        self._lock = threading.Lock()

    @classmethod
    def create(cls, url: str, header: StoreHeader) -> Store:
        """Lay out a new store, in place of one of ours that is there.

        Parameters
        ----------
        url:
            Path or fsspec URL.
        header:
            What the store holds; it gets an id of its own, which tells it from one that replaces it.

        Raises
        ------
        ResegeoError:
            When nothing can be written there, when something else than a store lies there, or when the header would
            not be read again.

        """
        header = replace(header, id=uuid.uuid4().hex)
        try:
            header = header.checked()
        except (ValueError, OverflowError) as error:
            raise ResegeoError(
                f"The store {url} cannot describe the scene {shown(header.scene.source)} ({shown(error)} is out of "
                "bounds, or holds control characters). Rename the scene, or correct its metadata."
            ) from error
        place = _place(url)
        try:
            _clear(url, place)
            # First: from now on what lies there is known as ours. Without the rest it does not count.
            place.write("zarr.json", _group_document({"format": FORMAT, "id": header.id}))
            group = _group(url)
            arrays = {name: _laid_out(url, group, name, spec) for name, spec in header.layout.item_arrays().items()}
            for name in arrays:
                place.sync(f"{name}/zarr.json", name)
            place.write("zarr.json", _group_document(header.document()))
            place.sync("", "..")
        except (OSError, ImportError, ValueError) as error:
            raise ResegeoError(f"The store {url} cannot be written ({error}).") from error
        return cls(url, header, group, arrays)

    @classmethod
    def open(cls, url: str, *, sweep: bool = False) -> Store | None:
        """Open a store; None where there is none, or one whose making was interrupted.

        ``sweep`` removes what killed processes left half-written; no other process may be writing then.

        Raises
        ------
        ForeignFolderError:
            When what lies there is no store of ours, or cannot be told to be one.
        UnusableStoreError:
            When it is damaged, or of another version's layout.
        ResegeoError:
            When it cannot be reached.

        """
        header = header_at(url)
        if header is None:
            return None
        place = _place(url)
        link = place.link()
        if link is not None:
            raise ForeignFolderError(
                f"The store {url} holds the symbolic link {shown(link)}, which no store of resegeo does; remove it."
            )
        group = _group(url)
        arrays = {}
        for name, spec in header.layout.item_arrays().items():
            arrays[name] = _opened(url, group, name, spec)
            if arrays[name] is None:
                raise UnusableStoreError(
                    f"The store {url} is damaged: its array {name} is not there as it was laid out. {_ANEW}"
                )
        if sweep:
            place.sweep()
        return cls(url, header, group, arrays)

    @property
    def local(self) -> Path | None:
        """The folder of a store on disk, else None."""
        return None if "://" in self.url else Path(self.url)

    @property
    def items(self) -> int:
        """Number of work items."""
        return self.header.layout.items

    def done(self) -> set[int]:
        """Items that are complete."""
        return {index for index in self._marks("done") if index < self.items}

    def is_finished(self) -> bool:
        """Whether a run has ended with it and all items are there still."""
        if self.header.finished and len(self.done()) < self.items:  # marks were lost, as in a copy that was cut short
            self._unfinish()
        return self.header.finished

    def is_done(self, index: int) -> bool:
        """Whether an item is complete."""
        return self._read_mark("done", index) is not None

    def failed(self) -> dict[int, str]:
        """Items that were given up, with the sentence why."""
        found = self._read_marks("failed")
        return {index: text.decode("utf-8", "replace") for index, text in found.items() if index < self.items}

    def channels(self, prompts: Sequence[Sequence[str]]) -> tuple[int, ...] | None:
        """Return which of the stored scores belong to prompts, each the texts of one; None where one is not there."""
        known = {texts: number for number, texts in enumerate(self.header.prompts)}
        found = [known.get(tuple(texts)) for texts in prompts]
        return None if None in found else tuple(number for number in found if number is not None)

    def claim(self, names: Iterable[str]) -> None:
        """Remember the names of files that a run with this store writes, so that they are known as its own."""
        fresh = tuple(sorted({*self.header.outputs, *names}))
        if fresh != self.header.outputs:
            self._note(outputs=fresh)

    def put(self, index: int, result: ItemResult) -> None:
        """Store one item, whole or not at all: first its values, then its mark.

        Raises
        ------
        LostStoreError:
            When another run replaced the store.
        ResegeoError:
            When a store behind a URL cannot be reached.

        """
        kept = {}
        if result.windows.any():
            for name, array in self._arrays.items():
                padded = np.zeros(array.shape[1:], dtype=array.dtype)
                padded[np.flatnonzero(result.windows)] = result.values[name]
                kept[name] = np.ascontiguousarray(padded[np.flatnonzero(result.windows)])
                self._put_chunk(name, array, index, padded)
        flags = "".join("1" if flag else "0" for flag in result.windows) + ("h" if result.halved else "")
        self._check_id()
        self._write_mark("done", index, self._sealed(index, f"{flags} {self._sum(index, flags, kept):08x}").encode())
        self._delete_mark("failed", index)

    def fail(self, index: int, reason: str) -> None:
        """Record that an item was given up."""
        self._check_id()
        self._write_mark("failed", index, reason.encode("utf-8", "replace"))

    def undo(self, indices: Iterable[int]) -> None:
        """Count items as not done."""
        for index in indices:
            self._delete_mark("done", index)

    def settle(self) -> None:
        """Bring to the disk where the marks lie, so that a run can say that it is done."""
        self._place.sync("marks/done", "marks/failed", "marks", *(f"{name}/c" for name in self._arrays), *self._arrays)

    def get(self, index: int) -> ItemResult | None:
        """Return one item; None where it is not done.

        Raises
        ------
        DamagedItemError:
            When it is not what was put. It does not count as done from then on.
        ResegeoError:
            When it cannot be reached.

        """
        mark = self._read_mark("done", index)
        if mark is None:
            return None
        flags, checksum = self._parsed(index, mark)
        windows = np.asarray([flag == "1" for flag in flags.rstrip("h")])
        used = np.flatnonzero(windows)
        try:
            if used.size and len(windows) > self.header.layout.windows:
                raise ValueError("more windows than an item has")
            values = {} if not used.size else {name: self._chunk(name, index)[used] for name in self._arrays}
        except OSError as error:
            raise ResegeoError(f"The store {self.url} cannot be read ({error}). Run the same command again.") from error
        except _DECODING as error:
            raise self._damaged(index) from error
        if self._sum(index, flags, values) != checksum:
            raise self._damaged(index)
        return ItemResult(windows, values)

    def counts(self) -> tuple[int, int, int]:
        """Windows done, windows without a valid pixel, and items whose batch was halved."""
        marks = self._read_marks("done").items()
        flags = [self._parsed(index, mark)[0] for index, mark in marks if index < self.items]
        return tuple(sum(mark.count(sign) for mark in flags) for sign in "10h")  # type: ignore[return-value]

    def sift(self) -> int:
        """Look at all items if damage was met before, so that none of it is left to count as done; return how much."""
        if not self.header.suspect:
            return 0
        found = 0
        for index in sorted(self.done()):
            try:
                self.get(index)
            except DamagedItemError:
                found += 1
        self._note(suspect=False, finished=False)
        return found

    def keep_array(self, name: str) -> Any:
        """Lay out a further array beside those of the items, in place of an earlier one: a Zarr array.

        It counts once :meth:`seal` was told that it is complete.
        """
        self.drop_array(name)
        return self._patient(_laid_out(self.url, self._group, name, self.header.layout.kept_array(name)))

    def seal(self, name: str, **facts: str) -> None:
        """Note that an array of :meth:`keep_array` is complete, and plain facts with it."""
        array = _tried(self.url, lambda: self._group[name])
        sums = {"sum": self._array_sum(name, array), **facts}
        _tried(self.url, lambda: array.attrs.update(sums))
        self._place.sync(f"{name}/zarr.json", name)

    def array(self, name: str, **facts: str) -> Any | None:
        """Return an array that is as it was sealed with such facts; None where it is not."""
        array = _opened(self.url, self._group, name, self.header.layout.kept_array(name))
        if array is None or any(array.attrs.get(key) != value for key, value in facts.items()):
            return None
        try:
            return self._patient(array) if array.attrs.get("sum") == self._array_sum(name, array) else None
        except _DECODING:
            return None

    def require(self, name: str) -> Any:
        """Return an array that a finished run has sealed.

        Raises
        ------
        ResegeoError:
            When it is not there whole. The store does not count as finished from then on.

        """
        array = self.array(name)
        if array is None:
            self._unfinish()
            raise ResegeoError(f"The store {self.url} is damaged: {name!r} is not there whole. {_ANEW}")
        return array

    def drop_array(self, name: str) -> None:
        """Remove an array that :meth:`keep_array` laid out, if there is one."""
        self._place.remove(re.compile(rf"{re.escape(name)}/{_ARRAY}"), name)

    def finish(self) -> None:
        """Note that a run has ended with it."""
        self.settle()
        self._note(finished=True)
        self._place.sync("", "..")

    def _note(self, **facts: Any) -> None:
        """Write facts to the header."""
        with self._lock:
            self.header = replace(self.header, **facts)
            self._place.write("zarr.json", _group_document(self.header.document()))

    def _unfinish(self) -> None:
        """Take back that a run has ended with it, where it can be written to; the next run looks at all of it."""
        self.header = replace(self.header, finished=False, suspect=True)
        with contextlib.suppress(OSError):
            self._note()

    def _sum(self, index: int, flags: str, values: Mapping[str, NDArray[Any]]) -> int:
        """Checksum of an item's values that holds for this item of this store alone."""
        return _crc(f"{self.header.id} {index} {flags}", (values[name] for name in sorted(values)))

    def _array_sum(self, name: str, array: Any) -> str:
        """Checksum of a kept array, chunk by chunk."""
        return f"{_crc(f'{self.header.id} {name}', (self._part(array, cut) for cut in _cuts(array))):08x}"

    def _patient(self, array: Any) -> Any:
        return array if self.local is not None else _PatientArray(self.url, array)

    def _part(self, array: Any, cut: tuple[slice, ...]) -> NDArray[Any]:
        return np.ascontiguousarray(_tried(self.url, lambda: array[cut], *_DECODING))

    def _chunk(self, name: str, index: int) -> NDArray[Any]:
        return np.asarray(_tried(self.url, lambda: self._arrays[name][index], *_DECODING))

    def _put_chunk(self, name: str, array: Any, index: int, values: NDArray[Any]) -> None:
        """Bring a chunk to the disk, before its mark."""

        def write() -> None:
            array[index] = values

        _tried(self.url, write)
        self._place.sync(f"{name}/{array.metadata.encode_chunk_key((index, *[0] * (array.ndim - 1)))}")

    def _sealed(self, index: int, text: str) -> str:
        digest = hashlib.sha256(f"{self.header.id} {index} {text}".encode()).hexdigest()
        return f"{text} {digest[:16]}"

    def _parsed(self, index: int, mark: bytes) -> tuple[str, int]:
        """Read a mark: for each window 1, or 0 where there was nothing to do, h behind it if halved; and a checksum."""
        found = _MARK.fullmatch(mark)
        if found is None or self._sealed(index, found[1].decode()).encode() != mark:
            raise self._damaged(index)
        return found[2].decode(), int(found[3], 16)

    def _damaged(self, index: int) -> DamagedItemError:
        """Count an item as not done, since what is stored of it is damaged; return the sentence that says so."""
        with contextlib.suppress(OSError):
            self._delete_mark("done", index)
            self._note(finished=False, suspect=True)
        return DamagedItemError(f"The store {self.url} is damaged: work item {index} cannot be read. {_ANEW}")

    def _check_id(self) -> None:
        """See that the store there is still this one; see :class:`LostStoreError`."""
        text = self._place.header()
        try:
            there = None if text is None else json.loads(text)["attributes"]["resegeo"]["id"]
        except (ValueError, KeyError, TypeError):
            there = None
        if there != self.header.id:
            raise LostStoreError(
                f"The store {self.url} was replaced or removed by another run while this one was writing to it. Let "
                "one end before the other begins, or name another folder by [[output]]."
            )

    def _marks(self, kind: str) -> set[int]:
        return {int(name) for name in self._place.names(f"marks/{kind}") if _NUMBER.fullmatch(name)}

    def _read_mark(self, kind: str, index: int) -> bytes | None:
        return self._place.read(f"marks/{kind}/{index}")

    def _read_marks(self, kind: str) -> dict[int, bytes]:
        paths = {f"marks/{kind}/{index}": index for index in self._marks(kind)}
        return {paths[path]: data for path, data in self._place.read_all(list(paths)).items()}

    def _write_mark(self, kind: str, index: int, text: bytes) -> None:
        self._place.write(f"marks/{kind}/{index}", text)

    def _delete_mark(self, kind: str, index: int) -> None:
        self._place.delete(f"marks/{kind}/{index}")


def remove(url: str) -> None:
    """Remove a store of ours, file by file; the header last, so that what a kill leaves of it is known as ours.

    Anything else that lies there stays, and is said.

    Raises
    ------
    ForeignFolderError:
        When what lies there is no store of ours; nothing is touched then.
    ResegeoError:
        When it cannot be reached.

    """
    place = _place(url)
    try:
        if _clear(url, place):
            place.delete("zarr.json")
            place.remove_folder()
    except OSError as error:
        raise ResegeoError(f"The store {url} cannot be removed ({error}).") from error


def _clear(url: str, place: _Folder | _Objects) -> bool:
    """Remove all of a store but its header, which does not count from then on; False where there is none."""
    document = _document(url)
    if document is None:
        return False
    if place.is_link():
        raise ForeignFolderError(
            f"{url} is a symbolic link: no store is removed through one. Remove the link and what it leads to "
            "yourself, or name another place by [[store]]."
        )
    place.write("zarr.json", _group_document({"format": FORMAT, "id": document["id"]}))
    left = place.remove(_OURS)
    if left:
        notice(
            f"{url} holds {shown(', '.join(left[:3]))}{' and more' if len(left) > 3 else ''}, which no store of "
            "resegeo consists of: that stays.",
        )
    return True


def _document(url: str) -> dict[str, Any] | None:
    """Return what the header at a place says, with at least format and id of ours; None where nothing lies there.

    Raises
    ------
    ForeignFolderError:
        When something lies there that no header tells to be a store of ours.
    ResegeoError:
        When the place cannot be reached.

    """
    place = _place(url)
    try:
        text = place.header()
        others = [] if text is not None else place.others()
    except Exception as error:  # the libraries behind fsspec share no base of errors
        raise ResegeoError(
            f"The store {url} cannot be opened ({error}). Nothing was changed; see that it can be reached, and run "
            "the same command again."
        ) from error
    if text is None and not others:
        return None
    why = "it has no zarr.json"
    if text is not None:
        try:
            found = json.loads(text)
            document = found["attributes"]["resegeo"]
            if found["zarr_format"] == 3 and type(document["format"]) is int and _ID.fullmatch(document["id"]):
                return dict(document)
            why = "its zarr.json has no header of ours"
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            why = f"its zarr.json has no header of ours, or a damaged one: {type(error).__name__}"
    raise ForeignFolderError(
        f"{url} is no store of resegeo that can be told as such ({why}), and is left as it is. Move or remove it "
        "yourself and run `resegeo segment` on the scene with [[overwrite=True]], or name another place by [[store]]."
    )


_ANEW = "Run `resegeo segment` on the scene with [[overwrite=True]] to make it anew."


def header_at(url: str) -> StoreHeader | None:
    """Read what a store says of itself, without its arrays; None where there is none, or one not made to its end.

    Raises
    ------
    ForeignFolderError:
        When what lies there is no store of ours, or cannot be told to be one.
    UnusableStoreError:
        When it is damaged, or of another version's layout.
    ResegeoError:
        When it cannot be reached.

    """
    document = _document(url)
    if document is None:
        return None
    if document["format"] != FORMAT:
        raise UnusableStoreError(
            f"The store {url} has layout {document['format']}, that of another version of resegeo; this one knows "
            f"{FORMAT}. {_ANEW}"
        )
    if document.keys() == {"format", "id"}:
        return None
    try:
        return StoreHeader.read(document)
    except (ValueError, OverflowError, RecursionError) as error:
        raise UnusableStoreError(f"The header of the store {url} is damaged ({shown(error)}). {_ANEW}") from error


def _group_document(header: Mapping[str, Any]) -> bytes:
    """Metadata of the Zarr group, with our header among its attributes."""
    document = {"attributes": {"resegeo": header}, "zarr_format": 3, "node_type": "group"}
    return json.dumps(document, indent=1).encode()


def _group(url: str) -> zarr.Group:
    import zarr

    return _tried(url, lambda: zarr.open_group(store=url, mode="r+", use_consolidated=False))


def _laid_out(url: str, group: zarr.Group, name: str, spec: ArraySpec) -> Any:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    checked = [ZstdCodec(level=0), Crc32cCodec()] if spec.compressed else [Crc32cCodec()]
    return _tried(
        url,
        lambda: group.create_array(
            name,
            shape=spec.shape,
            chunks=spec.chunks,
            dtype=spec.dtype,
            fill_value=spec.fill,
            compressors=checked,
            overwrite="://" in url,  # a request that was answered by an error may have been carried out
        ),
    )


class _PatientArray:
    """A Zarr array behind a URL, whose parts are read and written as :func:`_tried` does."""

    def __init__(self, url: str, array: Any) -> None:
        self._url, self._array = url, array

    def __getattr__(self, name: str) -> Any:
        return getattr(self._array, name)

    def __getitem__(self, key: Any) -> Any:
        return _tried(self._url, lambda: self._array[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        _tried(self._url, lambda: self._array.__setitem__(key, value))


def _opened(url: str, group: zarr.Group, name: str, spec: ArraySpec) -> Any | None:
    """Open an array; None where it is not there as :func:`_laid_out` laid it out."""
    import zarr

    try:
        array: Any = _tried(url, lambda: group[name], KeyError, *_DECODING)
        if not isinstance(array, zarr.Array):
            return None
        codecs = [codec.to_dict()["name"] for codec in array.metadata.codecs]  # type: ignore[union-attr]
        same = (array.shape, array.chunks, array.dtype) == (spec.shape, spec.chunks, np.dtype(spec.dtype))
    except (KeyError, FileNotFoundError, *_DECODING):
        return None
    wanted = ["bytes", *(["zstd"] if spec.compressed else []), "crc32c"]
    return array if same and codecs == wanted and array.fill_value == spec.fill else None


def _cuts(array: Any) -> Iterator[tuple[slice, ...]]:
    """Cut an array into its chunks."""
    counts = [-(-size // chunk) for size, chunk in zip(array.shape, array.chunks, strict=True)]
    for place in np.ndindex(*counts):
        yield tuple(slice(n * chunk, (n + 1) * chunk) for n, chunk in zip(place, array.chunks, strict=True))


def _crc(seed: str, arrays: Iterable[NDArray[Any]]) -> int:
    found = google_crc32c.value(seed.encode())
    for array in arrays:
        found = google_crc32c.extend(found, array.tobytes())
    return int(found)


def _tried(url: str, act: Callable[[], T], *passed: type[Exception]) -> T:
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


_ANEW = "Run `resegeo segment` on the scene again with the same options; it computes what is missing anew."

_DECODING = (ValueError, TypeError, RuntimeError, IndexError)
"""What decoders of damaged metadata and chunks raise."""

_NUMBER = re.compile(r"0|[1-9][0-9]{0,11}")
_ID = re.compile(r"[0-9a-f]{32}")
_MARK = re.compile(rb"(([01]+h?) ([0-9a-f]{8})) [0-9a-f]{16}")
_TEMPORARY = r"(?:\.[^/]*\.[0-9a-f]{16}\.tmp)"
_ARRAY = r"(?:zarr\.json|c(?:/\d+)+|(?:c/)?(?:\d+/)*[^/]*\.[0-9a-f]{32}\.partial)"
_OURS = re.compile(
    rf"(?:{_TEMPORARY}|zarr\.[0-9a-f]{{32}}\.partial"
    rf"|(?:features|cls|factor|reduced|segments|valid|quicklook|scores-[^/]+)/{_ARRAY}"
    rf"|marks/(?:done|failed)/(?:\d+(?:\.\d+\.\d+\.tmp)?|{_TEMPORARY})|tiles/(?:\d+_\d+\.npy|[^/]+\.tmp))"
)
"""Files of a store beside its header, those of earlier versions too."""
_HALF_WRITTEN = re.compile(r"(?:.*/)?[^/]*\.(?:partial|tmp)")


class _Folder:
    """A store's files on disk; what is written is synced and renamed into place."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def is_link(self) -> bool:
        return self._root.is_symlink()

    def link(self) -> str | None:
        """Name a symbolic link where a store has folders of its own."""
        for folder in (self._root, *(path for path in self._root.iterdir() if path.is_dir())):
            for path in folder.iterdir():
                if path.is_symlink():
                    return str(path.relative_to(self._root))
        return None

    def others(self) -> list[str]:
        """Return what lies there beside half-written files of ours."""
        if not os.path.lexists(self._root):
            return []
        if not self._root.is_dir():
            return [self._root.name]
        return [path.name for path in self._root.iterdir() if not re.fullmatch(_TEMPORARY, path.name)]

    def header(self) -> bytes | None:
        path = self._root / "zarr.json"
        return read_limited(path, HEADER_BYTES) if path.is_file() else None

    def names(self, folder: str) -> list[str]:
        try:
            return [entry.name for entry in os.scandir(self._root / folder)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, path: str) -> bytes | None:
        try:
            with (self._root / path).open("rb") as stream:
                return stream.read(_MARK_LIMIT)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except IsADirectoryError:
            return b""

    def read_all(self, paths: Sequence[str]) -> dict[str, bytes]:
        found = {path: self.read(path) for path in paths}
        return {path: data for path, data in found.items() if data is not None}

    def write(self, path: str, data: bytes) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        try:
            with beside.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    def delete(self, path: str) -> None:
        with contextlib.suppress(NotADirectoryError):
            (self._root / path).unlink(missing_ok=True)

    def sync(self, *paths: str) -> None:
        """Bring files and folders to the disk; those that are not there are passed over."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                _sync(self._root.resolve().parent if path == ".." else self._root / path)

    def sweep(self) -> None:
        for path in self._files():
            name = path.relative_to(self._root).as_posix()
            if _HALF_WRITTEN.fullmatch(name) and _OURS.fullmatch(name):
                path.unlink(missing_ok=True)

    def remove(self, pattern: re.Pattern[str], below: str = "") -> list[str]:
        """Remove the files below a folder that match, and folders that are empty then; return the names of others."""
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
            return _tried(self._url, listed)
        except FileNotFoundError:
            return []

    def read(self, path: str) -> bytes | None:
        return self._get(path)

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

        return _tried(self._url, together)

    def write(self, path: str, data: bytes) -> None:
        _tried(self._url, lambda: self._system.pipe_file(f"{self._root}/{path}", data))

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            _tried(self._url, lambda: self._system.rm_file(f"{self._root}/{path}"))

    def sync(self, *_paths: str) -> None:
        """Objects are there whole or not at all."""

    def sweep(self) -> None:
        """Objects are never half-written."""

    def remove(self, pattern: re.Pattern[str], below: str = "") -> list[str]:
        """Remove the objects below a prefix that match; return the names of others."""

        def found() -> list[str]:
            self._system.invalidate_cache()
            return [str(path) for path in self._system.find(f"{self._root}/{below}".rstrip("/"))]

        try:
            paths = _tried(self._url, found)
        except FileNotFoundError:
            return []
        start = len(self._root.rstrip("/")) + 1
        names = {path: path[start:] for path in paths}
        ours = [path for path, name in names.items() if pattern.fullmatch(name)]
        if ours:
            with contextlib.suppress(FileNotFoundError):
                _tried(self._url, lambda: self._system.rm(ours))
        return [name for path, name in names.items() if path not in set(ours) and name != "zarr.json"]

    def remove_folder(self) -> None:
        """Prefixes are gone with their last object."""

    def _get(self, path: str) -> bytes | None:
        try:
            return bytes(_tried(self._url, lambda: self._system.cat_file(f"{self._root}/{path}")))
        except FileNotFoundError:
            return None


_MARK_LIMIT = 100_000


def _place(url: str) -> _Folder | _Objects:
    if "://" not in url:
        return _Folder(Path(url))
    try:
        return _Objects(url)
    except (OSError, ImportError, ValueError) as error:
        raise ResegeoError(f"The store {url} cannot be reached ({error}).") from error


def _sync(path: Path) -> None:
    """Bring a file or a folder to the disk; Windows opens no folders."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_store(path: str) -> bool:
    """Whether a path or URL names a store by its suffix."""
    return path.rstrip("/").endswith(".store.zarr")


def quantise(features: NDArray[np.floating], dtype: str) -> dict[str, NDArray[Any]]:
    """Round features (..., D) to what the store keeps: float16, or int8 with one float16 factor a vector."""
    if dtype == "float16":
        return {"features": features.astype(np.float16)}
    peak = np.abs(features).max(axis=-1)
    factor = np.maximum(peak / 127, 2.0**-14).astype(np.float16)  # the least normal float16
    codes = np.clip(np.rint(features / factor.astype(np.float32)[..., None]), -127, 127)
    return {"features": codes.astype(np.int8), "factor": factor}


def restore(values: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Turn :func:`quantise`'s arrays back into features (..., D) float32."""
    features = values["features"].astype(np.float32)
    return features * values["factor"].astype(np.float32)[..., None] if "factor" in values else features
