"""The pixels of a source, of which only what a window needs is ever read; as a dask array where one is asked for.

A pixel is invalid where every used band is nodata or masked (GDAL's own rule for nodata values), where
a mask of the whole dataset or an alpha band says so, where a palette's colour is transparent, and where
any used band is NaN or infinite.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from resegeo.scene.formats import heard, opened
from resegeo.scene.source import Complaints, Source

if TYPE_CHECKING:
    import xarray as xr
    from rasterio.io import DatasetReader

_OPENING = threading.Lock()
"""Held while a thread opens its dataset: what silences warnings meanwhile is common to all threads."""


class Pixels(Protocol):
    """The used bands of a scene and, last, their validity as 0 and 1 in the same dtype."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        ...

    def read(self, top: int, left: int, bottom: int, right: int) -> NDArray[Any]:
        """Read (3 bands + validity, h, w) of rows top … bottom - 1, columns left … right - 1."""
        ...

    def lazy(self) -> xr.DataArray:
        """Return all of them as a DataArray (band, y, x) over dask."""
        ...


def pixels_of(raw: Source, used: tuple[int, int, int]) -> Pixels:
    """Return the pixels of a source."""
    return FilePixels(raw, used) if raw.data is None else ArrayPixels(raw, used)


def reading(raw: Source, used: tuple[int, int, int], pixels: Pixels) -> Callable[[int, int, int, int], NDArray[Any]]:
    """Return what reads a sample of a source: a file is open no longer than that takes."""
    return pixels.read if raw.data is not None else FilePixels(raw, used).read


class ArrayPixels:
    """The pixels of a DataArray."""

    def __init__(self, raw: Source, used: tuple[int, int, int]) -> None:
        import dask.array as da
        import xarray as xr

        if raw.data is None or raw.template is None:
            raise ValueError("a file has no array")
        picked = raw.data[[band - 1 for band in used]].rechunk((3, *raw.chunks))
        data = da.map_blocks(  # type: ignore[no-untyped-call]
            _append_validity,
            picked,
            raw.nodata_of(used),
            raw.masked,
            chunks=((4,), *picked.chunks[1:]),
            dtype=raw.dtype(used),
        )
        if data.dtype == np.bool_:
            data = data.astype(np.uint8) * np.uint8(255)
        like = raw.template
        coords = {dim: like.coords[dim].data for dim in like.dims[1:] if dim in like.coords}
        self._array = xr.DataArray(data, dims=("band", *like.dims[1:]), coords=coords, name=raw.name)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._array.dtype

    def read(self, top: int, left: int, bottom: int, right: int) -> NDArray[Any]:
        """Read rows top … bottom - 1, columns left … right - 1, validity last."""
        part = self._array.data[:, top:bottom, left:right]
        # The caller decides on threads; a few small chunks are read fastest right here.
        return np.asarray(part.compute(scheduler="synchronous"))

    def lazy(self) -> xr.DataArray:
        """Return the DataArray (band, y, x)."""
        return self._array


class FilePixels:
    """The pixels of a file, also as an array to be sliced; each thread keeps a dataset of its own. Picklable."""

    ndim = 3

    def __init__(self, raw: Source, used: tuple[int, ...]) -> None:
        self.path, self.bands, self.dtype = raw.label, used, raw.dtype(used)
        self.drivers = raw.drivers
        self.nodata, self.transparent = raw.nodata_of(used), raw.transparent
        self.masks = tuple(raw.masks[band - 1] for band in used)
        # An alpha band that serves as a colour is data: many four-band images call their infrared alpha.
        self.alpha = [band for band, role in enumerate(raw.roles, 1) if role == "alpha" and band not in used]
        self.mixed = len({raw.dtypes[band - 1] for band in used}) > 1
        self.shape = (4, raw.height, raw.width)
        self.name, self.chunks = raw.name, raw.chunks
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()

    def _dataset(self) -> DatasetReader:
        if getattr(self._local, "dataset", None) is None:
            with _OPENING, warnings.catch_warnings(), Complaints():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                self._local.dataset = opened(self.path, self.drivers)
        return self._local.dataset

    def __getitem__(self, place: tuple[slice, slice, slice]) -> NDArray[Any]:
        bands, rows, cols = place
        (top, bottom, _), (left, right, _) = rows.indices(self.shape[1]), cols.indices(self.shape[2])
        return self.read(top, left, bottom, right)[bands]

    def lazy(self) -> xr.DataArray:
        """Return a DataArray (band, y, x) that reads piece by piece."""
        import dask.array as da
        import xarray as xr

        rows, cols = (
            tuple(min(step, size - start) for start in range(0, size, step))
            for size, step in zip(self.shape[1:], self.chunks, strict=True)
        )
        data = da.from_array(  # type: ignore[no-untyped-call]
            self,
            chunks=((4,), rows, cols),
            lock=False,
            asarray=False,
            fancy=False,
            meta=np.empty((0, 0, 0), self.dtype),
        )
        return xr.DataArray(data, dims=("band", "y", "x"), name=self.name)

    @heard
    def read(self, top: int, left: int, bottom: int, right: int) -> NDArray[Any]:
        """Read rows top … bottom - 1, columns left … right - 1 of the used bands, validity last."""
        dataset = self._dataset()
        window = Window(left, top, right - left, bottom - top)
        if self.mixed:
            values = np.stack([dataset.read(band, window=window).astype(self.dtype) for band in self.bands])
        else:
            values = dataset.read(list(self.bands), window=window)
        bad = nodata_pixels(values, self.nodata)
        for at, (band, mask) in enumerate(zip(self.bands, self.masks, strict=True)):
            if mask == "own" or (mask == "dataset" and at == 0):
                bad[at if mask == "own" else slice(None)] |= dataset.read_masks(band, window=window) == 0
        valid = valid_pixels(values, bad)
        for band in self.alpha:
            valid &= dataset.read(band, window=window) > 0
        if self.transparent:
            valid &= ~np.isin(values[0], self.transparent)
        return np.concatenate([values, valid[None].astype(values.dtype)])


def nodata_pixels(values: NDArray[Any], nodata: Sequence[float | None]) -> NDArray[np.bool_]:
    """Pixels of each used band (b, h, w) that hold the band's nodata value."""
    bad = np.zeros(values.shape, dtype=bool)
    for band, missing in enumerate(nodata):
        if missing is not None and not np.isnan(missing):
            bad[band] = holds(values[band], missing)
    return bad


NEAR_LARGEST = 3.399e38
"""From here on a number of float32 is its largest, which texts give with six digits or fewer."""


def holds(values: NDArray[Any], missing: float) -> NDArray[np.bool_]:
    """Where values are a nodata value that is no NaN, as GDAL compares: floats within two units of the last place.

    A value that an integer type cannot hold is nowhere.
    """
    if values.dtype.kind != "f" or np.isinf(missing):
        return np.asarray(values == missing)
    if NEAR_LARGEST <= abs(missing) <= 1.002 * NEAR_LARGEST:
        beyond = values * np.sign(missing) >= NEAR_LARGEST
        return np.asarray(beyond & np.isfinite(values))
    if values.dtype == np.float32 and abs(missing) < NEAR_LARGEST:
        missing = float(np.float32(missing))
    with np.errstate(over="ignore", invalid="ignore"):
        slack = 2 * np.finfo(values.dtype).eps * abs(2 * missing)
        return np.asarray(np.abs(values - values.dtype.type(missing)) <= slack)


def valid_pixels(values: NDArray[Any], bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Validity (h, w) of used bands (b, h, w) of which some pixels are bad; NaN and infinity never count."""
    valid = ~bad.all(axis=0)
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(axis=0)
    return np.asarray(valid)


def _append_validity(values: NDArray[Any], nodata: tuple[float | None, ...], masked: bool) -> NDArray[Any]:
    if masked:  # NaN stands where the file holds its nodata, which may be one band's alone
        bad = np.isnan(values)
        values = np.where(bad, np.array(nodata, dtype=values.dtype)[:, None, None], values)
    else:
        bad = nodata_pixels(values, nodata)
    valid = valid_pixels(values, bad)
    return np.concatenate([values, valid[None].astype(values.dtype)])
