"""Chunks of items are the bytes that Zarr itself writes, are read as Zarr reads them, and damage is seen."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from stores import header

from resegeo.run.header import ArraySpec
from resegeo.run.quantisation import quantise
from resegeo.run.store import DamagedItemError, ItemResult, Store
from resegeo.run.store_arrays import DECODING, chunk_bytes, chunk_values, crc, laid_out, most_bytes, open_group


def by_zarr(folder: Path, spec: ArraySpec, values: np.ndarray) -> bytes | None:
    """What Zarr writes for the one chunk of an array; None: nothing."""
    group = zarr.open_group(str(folder), mode="w")
    array = laid_out(str(folder), open_group(str(folder)), "a", spec)
    array[0] = values
    assert group["a"].shape == spec.shape
    file = folder / f"a/{array.metadata.encode_chunk_key((0,) * array.ndim)}"
    return file.read_bytes() if file.exists() else None


def drawn(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.normal(0, 9, shape).astype(dtype) if dtype[0] == "f" else random.integers(0, 90, shape).astype(dtype)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint16"])
def test_a_chunk_is_what_zarr_writes(tmp_path, dtype, compressed):
    spec = ArraySpec((2, 3, 5, 7), (1, 3, 5, 7), dtype, compressed=compressed)
    values = drawn(dtype, spec.chunks)
    for other in (values, values * np.array(0, dtype), -np.zeros_like(values)):
        found = chunk_bytes(other, spec)
        written = None if found is None else b"".join(found)
        assert written == by_zarr(tmp_path, spec, other)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint16"])
def test_what_zarr_has_written_is_read_back(tmp_path, dtype, compressed):
    spec = ArraySpec((2, 3, 5, 7), (1, 3, 5, 7), dtype, compressed=compressed)
    values = drawn(dtype, spec.chunks)
    for other in (values, values * np.array(0, dtype)):
        data = by_zarr(tmp_path, spec, other)
        found = chunk_values(data, spec)
        assert found.dtype == other.dtype
        assert np.array_equal(found, other)
        assert data is None or len(data) <= most_bytes(spec)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_chunk_is_no_values_whichever_byte_it_is(tmp_path, compressed):
    spec = ArraySpec((1, 9, 7), (1, 9, 7), "float32", compressed=compressed)
    good = b"".join(chunk_bytes(drawn("float32", spec.chunks), spec))
    for at in range(len(good)):
        for bad in (good[:at], good[:at] + bytes([good[at] ^ 64]) + good[at + 1 :]):
            with pytest.raises(DECODING):
                chunk_values(bad, spec)
    for other in (good + b"\0", (1).to_bytes() + good, b""):
        with pytest.raises(DECODING):
            chunk_values(other, spec)


def test_a_chunk_of_another_size_is_no_chunk():
    spec, one = (ArraySpec((1, size), (1, size), "int8", compressed=False) for size in (9, 1))
    with pytest.raises(ValueError, match="another size"):
        chunk_values(b"".join(chunk_bytes(np.ones(one.chunks, np.int8), one)), spec)


@pytest.mark.parametrize("what", ["folder", "pipe", "nothing at all"])
def test_what_is_no_file_is_a_damaged_chunk(tmp_path, what):
    store = Store.create(str(tmp_path / "a.store.zarr"), header(1, windows=4))
    shapes = {name: spec.shape[1:] for name, spec in store.header.layout.item_arrays().items()}
    store.put(0, ItemResult(np.ones(4, bool), {name: np.ones(shape) for name, shape in shapes.items()}))
    chunk = next(path for path in (tmp_path / "a.store.zarr").rglob("c/**/*") if path.is_file())
    chunk.unlink()
    if what == "folder":
        chunk.mkdir()
    elif what == "pipe":
        os.mkfifo(chunk)
    with pytest.raises(DamagedItemError):
        store.get(0)


def test_a_chunk_that_claims_more_than_it_may_hold_takes_no_memory():
    """A few bytes of Zstandard that would become 16 MiB, under a right checksum."""
    import tracemalloc

    spec = ArraySpec((1, 9, 7), (1, 9, 7), "float32", compressed=True)
    large = ArraySpec((1, 2**22), (1, 2**22), "float32", compressed=True)
    data = b"".join(chunk_bytes(np.ones(large.chunks, np.float32), large))
    tracemalloc.start()
    with pytest.raises(DECODING):
        chunk_values(data, spec)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("url", ["{}/a.store.zarr", "memory://{}/a.store.zarr"])
def test_what_is_kept_is_read_back_by_zarr_itself(tmp_path, url):
    url = url.format(tmp_path)
    store = Store.create(url, header(2, windows=4))
    random = np.random.default_rng(1)
    arrays = {name: zarr.open_array(f"{url}/{name}", mode="r") for name in store.header.layout.item_arrays()}
    for flags in (np.ones(4, bool), np.array([True, False, True, False])):
        used = np.flatnonzero(flags)
        values = {
            name: random.normal(0, 1, (len(used), *array.shape[2:])).astype(array.dtype)
            for name, array in arrays.items()
        }
        store.put(1, ItemResult(flags, values))
        for name, array in arrays.items():
            assert (array[1][used] == values[name]).all()
            assert not array[1][~flags].any()
        assert not any(array[0].any() for array in arrays.values())


@pytest.mark.parametrize("what", ["folder", "pipe", "zeros without end", "links that go round", "too many bytes"])
def test_a_kept_array_of_what_is_no_file_is_not_read(tmp_path, what):
    store = Store.create(str(tmp_path / "a.store.zarr"), header(1, windows=4))
    array = store.keep_array("valid")
    array[...] = True
    store.seal("valid")
    assert store.array("valid") is not None
    chunk = next(path for path in (tmp_path / "a.store.zarr/valid").rglob("c/**/*") if path.is_file())
    data = chunk.read_bytes()
    chunk.unlink()
    if what == "folder":
        chunk.mkdir()
    elif what == "pipe":
        os.mkfifo(chunk)
    elif what == "too many bytes":
        chunk.write_bytes(data + bytes(10**7))
    else:
        chunk.symlink_to("/dev/zero" if what == "zeros without end" else chunk)
    assert store.array("valid") is None


def test_nothing_is_left_of_a_chunk_that_becomes_zeros(tmp_path):
    store = Store.create(str(tmp_path / "a.store.zarr"), header(1, windows=4))
    shapes = {name: spec.shape[1:] for name, spec in store.header.layout.item_arrays().items()}
    for factor in (1, 0):
        store.put(0, ItemResult(np.ones(4, bool), {name: np.full(shape, factor) for name, shape in shapes.items()}))
    found = store.get(0)
    assert found is not None
    assert not any(values.any() for values in found.values.values())
    assert not [path for path in (tmp_path / "a.store.zarr").rglob("c/**/*") if path.is_file()]


def test_a_chunk_that_cannot_be_written_leaves_no_half_of_it(tmp_path, monkeypatch):
    store = Store.create(str(tmp_path / "a.store.zarr"), header(1, windows=4))
    values = {name: np.ones(spec.shape[1:]) for name, spec in store.header.layout.item_arrays().items()}

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            store.put(0, ItemResult(np.ones(4, bool), values))
    assert not [path for path in (tmp_path / "a.store.zarr").rglob("c/**/*") if path.is_file()]
    assert store.get(0) is None


def test_the_checksum_of_arrays_is_that_of_their_bytes():
    import google_crc32c

    arrays = [drawn(dtype, (2, 3)) for dtype in ("float32", "uint16", "int8")] + [np.empty((0, 4), np.float16)]
    assert crc("seed", arrays) == google_crc32c.value(b"seed" + b"".join(array.tobytes() for array in arrays))


def test_features_are_rounded_as_numpy_rounds_them():
    bits = np.arange(0, 2**32, 4_099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = np.arange(0x3C00, 0x3C40, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (near[1:] + near[:-1]) / 2  # halfway between two numbers of 16 bits
    values = np.concatenate([bits[np.isfinite(bits)], near, ties])
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float16)
    assert (quantise(values, "float16")["features"].view(np.uint16) == wanted.view(np.uint16)).all()
    apart = values[: len(values) // 2 * 2].reshape(2, -1)[:, ::2]  # not contiguous
    assert (quantise(apart, "float16")["features"] == wanted[: len(values) // 2 * 2].reshape(2, -1)[:, ::2]).all()
