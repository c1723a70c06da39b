"""Zarr arrays of a store: laid out and opened as :class:`resegeo.run.header.ArraySpec` says, and their checksums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray

from resegeo.run.header import CHECKSUM_BYTES, ArraySpec
from resegeo.run.store_place import tried

if TYPE_CHECKING:
    import zarr

LEVEL = 0
"""Of compression by Zstandard: its own default."""

DECODING = (ValueError, TypeError, RuntimeError, IndexError)
"""What decoders of damaged metadata and chunks raise."""


def open_group(url: str) -> zarr.Group:
    """Open the Zarr group of a store."""
    import zarr

    return tried(url, lambda: zarr.open_group(store=url, mode="r+", use_consolidated=False))


def laid_out(url: str, group: zarr.Group, name: str, spec: ArraySpec) -> Any:
    """Lay out an array, empty yet."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    checked = [ZstdCodec(level=LEVEL), Crc32cCodec()] if spec.compressed else [Crc32cCodec()]
    return tried(
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


def opened(url: str, group: zarr.Group, name: str, spec: ArraySpec) -> Any | None:
    """Open an array; None where it is not there as :func:`laid_out` laid it out."""
    import zarr

    try:
        array: Any = tried(url, lambda: group[name], KeyError, *DECODING)
        if not isinstance(array, zarr.Array):
            return None
        codecs = [codec.to_dict()["name"] for codec in array.metadata.codecs]  # type: ignore[union-attr]
        same = (array.shape, array.chunks, array.dtype) == (spec.shape, spec.chunks, np.dtype(spec.dtype))
    except (KeyError, FileNotFoundError, *DECODING):
        return None
    wanted = ["bytes", *(["zstd"] if spec.compressed else []), "crc32c"]
    return array if same and codecs == wanted and array.fill_value == spec.fill else None


class PatientArray:
    """A Zarr array behind a URL, whose parts are read and written as :func:`tried` does."""

    def __init__(self, url: str, array: Any) -> None:
        self._url, self._array = url, array

    def __getattr__(self, name: str) -> Any:
        return getattr(self._array, name)

    def __getitem__(self, key: Any) -> Any:
        return tried(self._url, lambda: self._array[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        tried(self._url, lambda: self._array.__setitem__(key, value))


def chunk_places(array: Any) -> Iterator[tuple[int, ...]]:
    """Number the chunks of an array along its axes."""
    yield from np.ndindex(*(-(-size // chunk) for size, chunk in zip(array.shape, array.chunks, strict=True)))


def cuts(array: Any) -> Iterator[tuple[slice, ...]]:
    """Cut an array into its chunks."""
    for place in chunk_places(array):
        yield tuple(slice(n * chunk, (n + 1) * chunk) for n, chunk in zip(place, array.chunks, strict=True))


def crc(seed: str, arrays: Iterable[NDArray[Any]]) -> int:
    """Checksum of a text and of arrays' bytes."""
    found = google_crc32c.value(seed.encode())
    for array in arrays:
        found = google_crc32c.extend(found, _bytes_of(array))
    return int(found)


def chunk_bytes(values: NDArray[Any], spec: ArraySpec) -> tuple[bytes | memoryview, bytes] | None:
    """Bring a chunk of an array into the bytes that Zarr stores it as.

    Parameters
    ----------
    values:
        The chunk in C order, of the array's dtype.
    spec:
        How :func:`laid_out` laid the array out; what it is filled with has to be 0.

    Returns
    -------
    The bytes and their checksum; None for a chunk of nothing but zeros, which is not stored.

    """
    plain = _bytes_of(values.astype(values.dtype.newbyteorder("<"), copy=False))
    if not plain.any():
        return None
    if not spec.compressed:
        return plain.data, _checksum(google_crc32c.value(plain))
    packed: bytes = Zstd(level=LEVEL).encode(plain)
    return packed, _checksum(google_crc32c.value(packed))


def most_bytes(spec: ArraySpec) -> int:
    """Return how many bytes a chunk takes at most: what cannot be compressed grows by less than a hundredth."""
    plain = int(np.prod(spec.chunks)) * np.dtype(spec.dtype).itemsize
    return plain + plain // 100 + 1024


def chunk_values(data: bytes | None, spec: ArraySpec) -> NDArray[Any]:
    """Bring what :func:`chunk_bytes` gave back into the values of a chunk; None stands for zeros.

    Compressed bytes that hold less than a chunk leave zeros behind, which the checksum of the item's values tells.

    Raises
    ------
    ValueError, RuntimeError:
        When the bytes are damaged, or hold more than a chunk.

    """
    values = np.zeros(spec.chunks, dtype=np.dtype(spec.dtype).newbyteorder("<"))
    if data is not None:
        held = memoryview(data)[:-CHECKSUM_BYTES]
        if _checksum(google_crc32c.value(bytes(held))) != data[-CHECKSUM_BYTES:]:
            raise ValueError("the checksum of a chunk is another")
        if spec.compressed:
            Zstd().decode(held, out=_bytes_of(values))
        elif len(held) != values.nbytes:
            raise ValueError("a chunk is of another size")
        else:
            _bytes_of(values)[:] = np.frombuffer(held, dtype=np.uint8)
    return values.astype(spec.dtype, copy=False)


def _checksum(found: int) -> bytes:
    return int(found).to_bytes(CHECKSUM_BYTES, "little")


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8)
