"""The store between the image side and the words: checkpoint, unit of distribution, source for new words.

A Zarr v3 group with one chunk a work item, on disk or behind any URL that fsspec knows; :mod:`resegeo.run.header` says
what it holds and how that is laid out. What the windows of an item left behind is written first, its mark after it: an
item counts as done only by its mark, since a killed process may leave some of an item's arrays. Every chunk has a
checksum, and the mark one of the item's values and of itself: what was flipped, lost or swapped since is never taken
for a result. The store knows no words.

Its files lie in a :mod:`resegeo.run.store_place`, its arrays are those of :mod:`resegeo.run.store_arrays`, and what may
be removed of it is what :mod:`resegeo.run.store_removal` knows as ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resegeo.errors import ResegeoError, shown
from resegeo.run.header import FORMAT, StoreHeader
from resegeo.run.store_arrays import (
    DECODING,
    PatientArray,
    chunk_bytes,
    chunk_places,
    chunk_values,
    crc,
    cuts,
    laid_out,
    most_bytes,
    open_group,
    opened,
)
from resegeo.run.store_place import ARRAY_FILES, place_of, tried
from resegeo.run.store_removal import (
    MARK,
    REMAKE,
    ForeignFolderError,
    UnusableStoreError,
    clear,
    group_document,
    header_at,
)

if TYPE_CHECKING:
    import zarr


def stored_header(url: str) -> StoreHeader | None:
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
    document = header_at(url)
    if document is None:
        return None
    if document["format"] != FORMAT:
        raise UnusableStoreError(
            f"The store {url} has layout {document['format']}, that of another version of resegeo; this one knows "
            f"{FORMAT}. {REMAKE}"
        )
    if document.keys() == {"format", "id"}:
        return None
    try:
        return StoreHeader.read(document)
    except (ValueError, OverflowError, RecursionError) as error:
        raise UnusableStoreError(f"The header of the store {url} is damaged ({shown(error)}). {REMAKE}") from error


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
        self._specs = header.layout.item_arrays()
        self._place = place_of(url)
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
        place = place_of(url)
        try:
            clear(url, place)
            # First: from now on what lies there is known as ours. Without the rest it does not count.
            place.write("zarr.json", group_document({"format": FORMAT, "id": header.id}))
            group = open_group(url)
            arrays = {name: laid_out(url, group, name, spec) for name, spec in header.layout.item_arrays().items()}
            for name in arrays:
                place.sync(f"{name}/zarr.json", name)
            place.write("zarr.json", group_document(header.document()))
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
        header = stored_header(url)
        if header is None:
            return None
        place = place_of(url)
        link = place.link()
        if link is not None:
            raise ForeignFolderError(
                f"The store {url} holds the symbolic link {shown(link)}, which no store of resegeo does; remove it."
            )
        group = open_group(url)
        arrays = {}
        for name, spec in header.layout.item_arrays().items():
            arrays[name] = opened(url, group, name, spec)
            if arrays[name] is None:
                raise UnusableStoreError(
                    f"The store {url} is damaged: its array {name} is not there as it was laid out. {REMAKE}"
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

    def put(self, index: int, result: ItemResult) -> None:
        """Store one item, whole or not at all: first its values, then its mark.

        Raises
        ------
        LostStoreError:
            When another run replaced the store.
        ResegeoError:
            When a store behind a URL cannot be reached.

        """
        self.mark(index, self.keep(index, result))

    def keep(self, index: int, result: ItemResult) -> bytes:
        """Store the values of one item, which do not count before :meth:`mark` is given what this returns."""
        kept = {}
        if result.windows.any():
            for name, array in self._arrays.items():
                kept[name] = np.ascontiguousarray(result.values[name], dtype=array.dtype)
                self._put_chunk(name, array, index, kept[name], result.windows)
        flags = "".join("1" if flag else "0" for flag in result.windows) + ("h" if result.halved else "")
        return self._sealed(index, f"{flags} {self._sum(index, flags, kept):08x}").encode()

    def mark(self, index: int, sealed: bytes) -> None:
        """Count an item as done whose values :meth:`keep` has stored."""
        self._check_id()
        self._write_mark("done", index, sealed)
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
        except DECODING as error:
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
        return self._patient(laid_out(self.url, self._group, name, self.header.layout.kept_array(name)))

    def seal(self, name: str, **facts: str) -> None:
        """Note that an array of :meth:`keep_array` is complete, and plain facts with it."""
        array = tried(self.url, lambda: self._group[name])
        sums = {"sum": self._array_sum(name, array), **facts}
        tried(self.url, lambda: array.attrs.update(sums))
        self._place.sync_below(name)  # Zarr does not: power that is lost would take what the header counts on

    def array(self, name: str, **facts: str) -> Any | None:
        """Return an array that is as it was sealed with such facts; None where it is not."""
        spec = self.header.layout.kept_array(name)
        array = opened(self.url, self._group, name, spec)
        if array is None or any(array.attrs.get(key) != value for key, value in facts.items()):
            return None
        paths = (f"{name}/{array.metadata.encode_chunk_key(place)}" for place in chunk_places(array))
        if not all(self._place.is_plain(path, most_bytes(spec)) for path in paths):
            return None
        try:
            return self._patient(array) if array.attrs.get("sum") == self._array_sum(name, array) else None
        except DECODING:
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
        self._place.remove(re.compile(rf"{re.escape(name)}/{ARRAY_FILES}"), name)

    def finish(self) -> None:
        """Note that a run has ended with it."""
        self.settle()
        self._note(finished=True)
        self._place.sync("", "..")

    def _note(self, **facts: Any) -> None:
        """Write facts to the header."""
        with self._lock:
            self.header = replace(self.header, **facts)
            self._place.write("zarr.json", group_document(self.header.document()))

    def _unfinish(self) -> None:
        """Take back that a run has ended with it, where it can be written to; the next run looks at all of it."""
        self.header = replace(self.header, finished=False, suspect=True)
        with contextlib.suppress(OSError):
            self._note()

    def _sum(self, index: int, flags: str, values: Mapping[str, NDArray[Any]]) -> int:
        """Checksum of an item's values that holds for this item of this store alone."""
        return crc(f"{self.header.id} {index} {flags}", (values[name] for name in sorted(values)))

    def _array_sum(self, name: str, array: Any) -> str:
        """Checksum of a kept array, chunk by chunk."""
        return f"{crc(f'{self.header.id} {name}', (self._part(array, cut) for cut in cuts(array))):08x}"

    def _patient(self, array: Any) -> Any:
        return array if self.local is not None else PatientArray(self.url, array)

    def _part(self, array: Any, cut: tuple[slice, ...]) -> NDArray[Any]:
        return np.ascontiguousarray(tried(self.url, lambda: array[cut], *DECODING))

    def _chunk(self, name: str, index: int) -> NDArray[Any]:
        spec = self._specs[name]
        data = self._place.read(self._chunk_path(name, index), most_bytes(spec))
        return np.asarray(chunk_values(data, spec)[0])

    def _chunk_path(self, name: str, index: int) -> str:
        array = self._arrays[name]
        return f"{name}/{array.metadata.encode_chunk_key((index, *[0] * (array.ndim - 1)))}"

    def _put_chunk(self, name: str, array: Any, index: int, values: NDArray[Any], windows: NDArray[np.bool_]) -> None:
        """Bring the chunk of one item to the disk, before its mark: a row of values for each window that is set.

        It holds what Zarr writes; but Zarr copies the values several times and takes a processor eight times as long,
        which a fast model would wait for.
        """
        padded = values
        if len(values) < array.shape[1]:
            padded = np.zeros(array.shape[1:], dtype=array.dtype)
            padded[np.flatnonzero(windows)] = values
        path = self._chunk_path(name, index)
        parts = chunk_bytes(padded, self._specs[name])
        if parts is None:
            self._place.delete(path)
        else:
            self._place.write_chunk(path, *parts)

    def _sealed(self, index: int, text: str) -> str:
        digest = hashlib.sha256(f"{self.header.id} {index} {text}".encode()).hexdigest()
        return f"{text} {digest[:16]}"

    def _parsed(self, index: int, mark: bytes) -> tuple[str, int]:
        """Read a mark: for each window 1, or 0 where there was nothing to do, h behind it if halved; and a checksum."""
        found = MARK.fullmatch(mark)
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


_ANEW = "Run `resegeo segment` on the scene again with the same options; it computes what is missing anew."


_NUMBER = re.compile(r"0|[1-9][0-9]{0,11}")
