"""The store between the image side and the words: checkpoint, unit of distribution, source for new words.

A Zarr v3 group with one chunk a work item, on disk or behind any URL that fsspec knows. What the windows of an item
left behind is written first, its mark after it: an item counts as done only by its mark, since a killed process may
leave some of an item's arrays. The fill value is one that no item has, so that a chunk that was lost afterwards, as in
a copy that was cut short, is not taken for zeros. The store knows no words.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import zarr
from numpy.typing import NDArray

from resegeo.errors import ResegeoError
from resegeo.windows import ITEM_SIDE

FORMAT = 2
"""Version of the layout; a store of another one cannot be gone on with."""


class UnusableStoreError(ResegeoError):
    """A store that can only be replaced: damaged, or of another version's layout."""


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


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one window's values."""

    shape: tuple[int, ...]
    dtype: str
    compressed: bool = False


class Store:
    """Results of the work items of one scene. Open it with :meth:`create` or :meth:`open`."""

    def __init__(self, url: str, group: zarr.Group) -> None:
        """Take an open group; see :meth:`create` and :meth:`open`."""
        self.url = url
        self._group = group
        self._marks = _Marks(url)
        self.header: dict[str, Any] = dict(group.attrs["resegeo"])  # type: ignore[arg-type]
        self._arrays: dict[str, Any] = {name: group[name] for name in self.header["arrays"]}

    @classmethod
    def create(cls, url: str, header: Mapping[str, Any], *, items: int, arrays: Mapping[str, ArraySpec]) -> Store:
        """Lay out a new store, in place of what is there.

        Parameters
        ----------
        url:
            Path or fsspec URL.
        header:
            Plain values that say what the store holds.
        items:
            Number of work items.
        arrays:
            What a window leaves behind, by name.

        Raises
        ------
        ResegeoError:
            When nothing can be written there.

        """
        remove(url)
        try:
            group = zarr.open_group(store=url, mode="w")
            count = ITEM_SIDE * ITEM_SIDE
            for name, spec in arrays.items():
                group.create_array(
                    name,
                    shape=(items, count, *spec.shape),
                    chunks=(1, count, *spec.shape),
                    dtype=spec.dtype,
                    fill_value=_nothing(spec.dtype),
                    compressors="auto" if spec.compressed else None,
                )
            # Last: without its header a store does not count. Its own id tells it from one that replaces it.
            facts: dict[str, Any] = {"format": FORMAT, "id": uuid.uuid4().hex, "items": items, "arrays": list(arrays)}
            group.attrs["resegeo"] = {**header, **facts}
        except (OSError, ImportError, ValueError) as error:
            raise ResegeoError(f"The store {url} cannot be written ({error}).") from error
        return cls(url, group)

    @classmethod
    def open(cls, url: str, *, sweep: bool = False) -> Store | None:
        """Open a store; None where there is none, or one whose making was interrupted.

        ``sweep`` removes what killed processes left half-written; no other process may be writing then.

        Raises
        ------
        UnusableStoreError:
            When it is damaged, or of another version's layout.
        ResegeoError:
            When it cannot be reached.

        """
        try:
            text = _Marks(url).header()
        except Exception as error:  # the libraries behind fsspec share no base of errors
            raise ResegeoError(
                f"The store {url} cannot be opened ({error}). Nothing was changed; see that it can be reached, and run "
                "the same command again."
            ) from error
        remedy = "Pass --overwrite to replace it, or name another folder by -o."
        try:
            header = {} if text is None else json.loads(text).get("attributes", {}).get("resegeo", {})
            if not header:
                return None
            if header["format"] != FORMAT:
                raise UnusableStoreError(
                    f"The store {url} has layout {header['format']}, that of another version of resegeo; this one "
                    f"knows {FORMAT}. {remedy}"
                )
            store = cls(url, zarr.open_group(store=url, mode="r+"))
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UnusableStoreError(f"The store {url} is damaged ({type(error).__name__}). {remedy}") from error
        if sweep and store.local is not None:
            for pattern in ("*.partial", "*.tmp"):
                for path in store.local.rglob(pattern):
                    path.unlink(missing_ok=True)
        return store

    @property
    def local(self) -> Path | None:
        """The folder of a store on disk, else None."""
        return None if "://" in self.url else Path(self.url)

    @property
    def items(self) -> int:
        """Number of work items."""
        return int(self.header["items"])

    def done(self) -> set[int]:
        """Items that are complete."""
        return self._marks.list("done")

    def is_finished(self) -> bool:
        """Whether a run has ended with it and all items are there still."""
        if (
            self.header["finished"] and len(self.done()) < self.items
        ):  # marks were lost, as in a copy that was cut short
            self._unfinish()
        return bool(self.header["finished"])

    def is_done(self, index: int) -> bool:
        """Whether an item is complete."""
        return self._marks.read("done", index) is not None

    def failed(self) -> dict[int, str]:
        """Items that were given up, with the sentence why."""
        return self._marks.texts("failed")

    def channels(self, prompts: Sequence[Sequence[str]]) -> tuple[int, ...] | None:
        """Return which of the stored scores belong to prompts, each the texts of one; None where one is not there."""
        known = {tuple(texts): number for number, texts in enumerate(self.header["prompts"])}
        found = [known.get(tuple(texts)) for texts in prompts]
        return None if None in found else tuple(number for number in found if number is not None)

    def claim(self, names: Iterable[str]) -> None:
        """Remember the names of files that a run with this store writes, so that they are known as its own."""
        known = self.header.get("outputs", [])
        fresh = sorted({*known, *names})
        if fresh != known:
            self.note(outputs=fresh)

    def put(self, index: int, result: ItemResult) -> None:
        """Store one item, whole or not at all: first its values, then its mark.

        Raises
        ------
        LostStoreError:
            When another run replaced the store.

        """
        if result.windows.any():
            for name, array in self._arrays.items():
                padded = np.zeros(array.shape[1:], dtype=array.dtype)
                padded[np.flatnonzero(result.windows)] = result.values[name]
                array[index] = padded
                self._sync(name, array, index)
        flags = "".join("1" if flag else "0" for flag in result.windows)
        self._check_id()
        self._marks.write("done", index, flags + ("h" if result.halved else ""))
        self._marks.delete("failed", index)

    def fail(self, index: int, reason: str) -> None:
        """Record that an item was given up."""
        self._check_id()
        self._marks.write("failed", index, reason)

    def get(self, index: int) -> ItemResult | None:
        """Return one item; None where it is not done.

        Raises
        ------
        ResegeoError:
            When what is stored of it cannot be read. If it is damaged, it does not count as done from then on.

        """
        mark = self._mark(index)
        if mark is None:
            return None
        windows = np.asarray([flag == "1" for flag in mark.rstrip("h")])
        used = np.flatnonzero(windows)
        if not used.size:
            return ItemResult(windows, {})
        try:
            values = {name: np.asarray(array[index])[used] for name, array in self._arrays.items()}
        except OSError as error:
            raise ResegeoError(f"The store {self.url} cannot be read ({error}). Run the same command again.") from error
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            raise self._damaged(index) from error
        if any(_is_lost(found, self._arrays[name].fill_value) for name, found in values.items()):
            raise self._damaged(index)
        return ItemResult(windows, values)

    def counts(self) -> tuple[int, int, int]:
        """Windows done, windows without a valid pixel, and items whose batch was halved."""
        marks = [self._checked(index, mark) for index, mark in self._marks.texts("done").items()]
        return tuple(sum(mark.count(sign) for mark in marks) for sign in "10h")  # type: ignore[return-value]

    def _mark(self, index: int) -> str | None:
        """Read an item's mark: for each window 1, or 0 where there was nothing to do; h behind it if it was halved."""
        mark = self._marks.read("done", index)
        return None if mark is None else self._checked(index, mark)

    def _checked(self, index: int, mark: str) -> str:
        if _MARK.fullmatch(mark) is None:
            raise self._damaged(index)
        return mark

    def _damaged(self, index: int) -> ResegeoError:
        """Count an item as not done, since what is stored of it is damaged; return the sentence that says so."""
        with contextlib.suppress(OSError):
            self._marks.delete("done", index)
        self._unfinish()
        return ResegeoError(f"The store {self.url} is damaged: work item {index} cannot be read. {_ANEW}")

    def _unfinish(self) -> None:
        """Take back that a run has ended with it, where it can be written to."""
        if self.header.get("finished"):
            self.header["finished"] = False
            with contextlib.suppress(OSError):
                self.note()

    def _check_id(self) -> None:
        """See that the store there is still this one; see :class:`LostStoreError`."""
        try:
            there = json.loads(self._marks.header() or "{}").get("attributes", {}).get("resegeo", {}).get("id")
        except (ValueError, AttributeError):  # being written
            there = None
        if there != self.header.get("id"):
            raise LostStoreError(
                f"The store {self.url} was replaced or removed by another run while this one was writing to it. Let "
                "one end before the other begins, or name another folder by -o."
            )

    def keep_array(
        self, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str, *, fill: int | None = None
    ) -> Any:
        """Lay out a further array beside those of the items, in place of an earlier one: a Zarr array.

        With a ``fill`` value that it will not be full of, :meth:`require` can tell whether a part of it was lost.
        """
        return self._group.create_array(name, shape=shape, chunks=chunks, dtype=dtype, fill_value=fill, overwrite=True)

    def require(self, name: str) -> Any:
        """Return an array that :meth:`keep_array` laid out and a finished run has filled.

        Raises
        ------
        ResegeoError:
            When parts of it were lost. The store does not count as finished from then on.

        """
        array: Any = self._group.get(name)
        whole = array is not None and (array.fill_value == 0 or array.nchunks_initialized == array.nchunks)
        if not whole:
            self._unfinish()
            raise ResegeoError(f"The store {self.url} is damaged: {name!r} is not there whole. {_ANEW}")
        return array

    def array(self, name: str) -> Any:
        """Return an array that :meth:`keep_array` laid out."""
        return self._group[name]

    def has_array(self, name: str) -> bool:
        """Whether :meth:`keep_array` laid out an array of this name."""
        return name in self._group

    def drop_array(self, name: str) -> None:
        """Remove an array that :meth:`keep_array` laid out, if there is one."""
        if name in self._group:
            del self._group[name]

    def note(self, **facts: Any) -> None:
        """Add plain values to the header."""
        self.header.update(facts)
        self._group.attrs["resegeo"] = self.header

    def _sync(self, name: str, array: Any, index: int) -> None:
        """Bring a chunk to the disk before its mark."""
        if self.local is not None:
            key = array.metadata.encode_chunk_key((index, *[0] * (array.ndim - 1)))
            with contextlib.suppress(FileNotFoundError):  # all fill value: Zarr wrote nothing
                _sync_file(self.local / name / key)


def remove(url: str) -> None:
    """Remove a store and all that lies in it; the header first, so that what a kill leaves of it counts as none."""
    if "://" not in url:
        with contextlib.suppress(OSError):
            (Path(url) / "zarr.json").unlink()
        shutil.rmtree(url, ignore_errors=True)
        return
    try:
        system, root = fsspec.core.url_to_fs(url)
        system.invalidate_cache()  # other processes write there; marks that were overlooked would count in the next one
        if system.exists(root):
            with contextlib.suppress(FileNotFoundError):
                system.rm_file(f"{root}/zarr.json")
            system.rm(root, recursive=True)
    except (OSError, ImportError, ValueError) as error:
        raise ResegeoError(f"The store {url} cannot be reached ({error}).") from error


_ANEW = "Run `resegeo segment` on the scene again with the same options; it computes what is missing anew."

_MARK = re.compile(r"[01]+h?")


class _Marks:
    """Small files that say what is done: on disk synced and renamed into place, elsewhere one object each."""

    def __init__(self, url: str) -> None:
        self._remote = "://" in url
        if self._remote:
            self._system, self._root = fsspec.core.url_to_fs(url)
        else:
            self._folder = Path(url)

    def list(self, kind: str) -> set[int]:
        if self._remote:
            folder = f"{self._root}/marks/{kind}"
            self._system.invalidate_cache()
            names = (
                [entry.rsplit("/", 1)[-1] for entry in self._system.ls(folder, detail=False)]
                if (self._system.exists(folder))
                else []
            )
        else:
            try:
                names = [entry.name for entry in os.scandir(self._folder / "marks" / kind)]
            except FileNotFoundError:
                names = []
        return {int(name) for name in names if name.isdigit()}

    def read(self, kind: str, index: int) -> str | None:
        try:
            if self._remote:
                return str(self._system.cat_file(f"{self._root}/marks/{kind}/{index}").decode())
            return (self._folder / "marks" / kind / str(index)).read_text("utf-8")
        except FileNotFoundError:
            return None

    def texts(self, kind: str) -> dict[int, str]:
        """Read all marks of a kind; behind a URL many at a time, since each takes the way there and back."""
        indices = self.list(kind)
        if not self._remote or not indices:
            return {index: self.read(kind, index) or "" for index in indices}
        paths = {f"{self._root}/marks/{kind}/{index}": index for index in indices}
        found = self._system.cat(list(paths), on_error="omit")
        return {paths[path]: data.decode() for path, data in found.items()}

    def header(self) -> str | None:
        """Return the store's own header as it is now, whoever wrote it."""
        try:
            if self._remote:
                return str(self._system.cat_file(f"{self._root}/zarr.json").decode())
            return (self._folder / "zarr.json").read_text("utf-8")
        except FileNotFoundError:
            return None

    def write(self, kind: str, index: int, text: str) -> None:
        if self._remote:
            self._system.pipe_file(f"{self._root}/marks/{kind}/{index}", text.encode())
            return
        folder = self._folder / "marks" / kind
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f"{index}.{os.getpid()}.{threading.get_ident()}.tmp"
        with beside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(folder / str(index))

    def delete(self, kind: str, index: int) -> None:
        if self._remote:
            with contextlib.suppress(FileNotFoundError):
                self._system.rm_file(f"{self._root}/marks/{kind}/{index}")
        else:
            (self._folder / "marks" / kind / str(index)).unlink(missing_ok=True)


def _nothing(dtype: str) -> Any:
    """Fill value that no stored array is full of: an end of the type's range."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return float(np.finfo(kind).min)
    return int(np.iinfo(kind).min if kind.kind == "i" else np.iinfo(kind).max)


def _is_lost(values: NDArray[Any], fill: Any) -> bool:
    """Whether values are a chunk's that is not there; 0 was the fill value of earlier stores, which tells nothing."""
    return bool(fill != 0 and values.size and values.flat[0] == fill and (values == fill).all())


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
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
