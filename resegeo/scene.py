"""Open a raster: size, CRS, bands, validity, stretch; pixels served lazily as RGB and a valid mask.

Metadata is settled before pixels. The pixels stand behind a dask-backed :class:`xarray.DataArray`
(band, y, x) of which only what a window needs is ever computed.
"""

from __future__ import annotations

import hashlib
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import rasterio
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.rpc import RPC
from rasterio.windows import Window

from resegeo.errors import GeoreferenceWarning, InputNotice, ResegeoError, UsageError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

CHUNK = 512
"""Side of the pieces in which the dask array reads a scene."""

SAMPLE_SIDE = 64
SAMPLE_COUNT = 16
"""The stretch is taken from at most SAMPLE_COUNT² squares of SAMPLE_SIDE² pixels at full resolution."""


@dataclass(frozen=True)
class GeoReference:
    """Where a scene lies: an affine transform, ground control points, RPCs, or nothing."""

    crs: CRS | None
    transform: Affine | None
    gcps: tuple[GroundControlPoint, ...] = ()
    gcps_crs: CRS | None = None
    rpcs: RPC | None = None

    @property
    def kind(self) -> str:
        """``transform``, ``gcps``, ``rpcs`` or ``none``."""
        if self.transform is not None:
            return "transform"
        if self.gcps:
            return "gcps"
        return "rpcs" if self.rpcs is not None else "none"


@dataclass(frozen=True)
class Stretch:
    """Values of each used band that become 0 and 255."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, bands: NDArray[Any]) -> NDArray[np.uint8]:
        """Stretch (3, h, w) of any real dtype to uint8; a constant band and NaN become 0."""
        low = np.asarray(self.low, dtype=np.float64)[:, None, None]
        span = np.asarray(self.high, dtype=np.float64)[:, None, None] - low
        with np.errstate(over="ignore", invalid="ignore"):  # a tiny span, or NaN and infinity among the values
            factor = np.divide(255.0, span, out=np.zeros_like(span), where=span > 0)
            values = (bands.astype(np.float64) - low) * factor
        values = np.nan_to_num(values, nan=0.0, posinf=255.0, neginf=0.0)
        return np.asarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Scene:
    """A raster ready to be windowed. Build it with :func:`open_scene`."""

    name: str
    source: str
    height: int
    width: int
    count: int
    dtype: str
    bands: tuple[int, int, int]
    """The bands used as red, green and blue, from 1."""
    georeference: GeoReference
    nodata: tuple[float | None, ...]
    """Nodata of the three used bands."""
    stretch: Stretch | None
    """None where uint8 passes through."""
    array: xr.DataArray
    """(band, y, x): the three used bands and, last, validity as 0 and 1 in the same dtype."""
    fingerprint: str
    palette: NDArray[np.uint8] | None = None
    """Colours (256, 3) of a palette image, else None."""

    def read(self, row: int, col: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a rectangle, which may reach beyond the scene.

        Returns
        -------
        RGB (height, width, 3) uint8 and validity (height, width) bool. Invalid pixels and those outside
        are RGB 0 and False.

        """
        rgb = np.zeros((height, width, 3), dtype=np.uint8)
        valid = np.zeros((height, width), dtype=bool)
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + height, self.height), min(col + width, self.width)
        if top >= bottom or left >= right:
            return rgb, valid
        values = self._compute(top, left, bottom, right)
        inside = slice(top - row, bottom - row), slice(left - col, right - col)
        good = values[-1] != 0
        if self.palette is not None:
            colours = self.palette[values[0]]
        elif self.stretch is not None:
            colours = self.stretch.apply(values[:3]).transpose(1, 2, 0)
        else:
            colours = values[:3].transpose(1, 2, 0)
        rgb[inside] = np.where(good[..., None], colours, 0)
        valid[inside] = good
        return rgb, valid

    def valid(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """Read validity alone: (height, width) bool, False outside the scene."""
        return self.read(row, col, height, width)[1]

    def _compute(self, top: int, left: int, bottom: int, right: int) -> NDArray[Any]:
        part = self.array.data[:, top:bottom, left:right]
        try:
            # The caller decides on threads; a few small chunks are read fastest right here.
            return np.asarray(part.compute(scheduler="synchronous"))
        except (RasterioError, OSError) as error:
            raise ResegeoError(
                f"{self.source} is damaged: rows {top} to {bottom - 1}, columns {left} to {right - 1} cannot be read. "
                "Get the file again, or repair it with gdal_translate."
            ) from error


def open_scene(
    source: str | Path | xr.DataArray,
    *,
    bands: Sequence[int] | None = None,
    stretch: Stretch | tuple[float, float] | None = None,
    assign_crs: str | None = None,
) -> Scene:
    """Open a scene and settle everything but its pixels.

    Parameters
    ----------
    source:
        A path, URL or GDAL /vsi path, or a DataArray (band, y, x) or (y, x) with its CRS as rioxarray keeps it.
    bands:
        Bands for red, green and blue, from 1; by default those that say so, else the first three.
    stretch:
        Values that become 0 and 255. By default uint8 passes through, any other dtype is stretched between
        the 2nd and 98th percentile of each band over a fixed sample of the whole scene at full resolution.
    assign_crs:
        CRS for a scene that has none.

    Raises
    ------
    ResegeoError:
        When the source can't be read as an image, with one sentence that says why.

    """
    raw = _from_array(source) if isinstance(source, xr.DataArray) else _from_file(str(source))
    used = _choose_bands(raw, bands)
    palette = raw.palette if raw.palette is not None and bands is None else None
    array = _rgb_and_validity(raw, used)
    sample = list(_sample(raw, used, array))
    georeference = _with_crs(raw, assign_crs)
    if georeference.crs is None and georeference.gcps_crs is None and georeference.kind != "rpcs":
        warnings.warn(
            f"{raw.label} has no CRS. Pass --assign-crs EPSG:xxxx, or accept an output without one.",
            GeoreferenceWarning,
            stacklevel=2,
        )
    return Scene(
        name=raw.name,
        source=raw.label,
        height=raw.height,
        width=raw.width,
        count=raw.count,
        dtype=str(raw.dtype),
        bands=used,
        georeference=georeference,
        nodata=tuple(raw.nodata[band - 1] for band in used),
        stretch=None if palette is not None else _stretch(array.dtype, sample, stretch),
        array=array,
        fingerprint=_fingerprint(raw, sample),
        palette=palette,
    )


def describe(scene: Scene) -> dict[str, object]:
    """Return the facts that ``resegeo info`` prints, as plain values."""
    where = scene.georeference
    crs = where.crs or where.gcps_crs
    facts: dict[str, object] = {
        "source": scene.source,
        "size": f"{scene.height} rows × {scene.width} columns",
        "bands": f"{scene.count}, of which {', '.join(map(str, scene.bands))} serve as red, green, blue",
        "dtype": scene.dtype,
        "nodata": next((value for value in scene.nodata if value is not None), None),
        "stretch": "none (uint8 as it is)"
        if scene.stretch is None
        else ", ".join(f"{a:g}:{b:g}" for a, b in zip(scene.stretch.low, scene.stretch.high, strict=True)),
        "crs": None if crs is None else (crs.to_string() if crs.to_epsg() else crs.to_wkt()[:80]),
        "georeference": where.kind,
    }
    if where.transform is not None:
        unit = "" if where.crs is None else f" {where.crs.units_factor[0]}"
        columns = np.hypot(where.transform.a, where.transform.d)
        rows = np.hypot(where.transform.b, where.transform.e)
        facts["pixel"] = f"{columns:g} × {rows:g}{unit}"
        facts["upper left"] = f"{where.transform.c:.10g}, {where.transform.f:.10g}"
    return facts


@dataclass(frozen=True)
class _Raw:
    """What a file or a DataArray says of itself, before bands are chosen."""

    label: str
    name: str
    height: int
    width: int
    count: int
    dtype: np.dtype[Any]
    georeference: GeoReference
    nodata: tuple[float | None, ...]
    roles: tuple[str, ...]
    """Colour interpretation of each band: red, green, blue, alpha, or anything else."""
    masked: bool
    """Whether the file itself brings a mask (alpha, .msk) beyond nodata values."""
    data: da.Array | None
    """(band, y, x) for a DataArray; None for a file, which is read by path."""
    chunks: tuple[int, int]
    template: xr.DataArray | None
    palette: NDArray[np.uint8] | None = None


class _Reader:
    """Reads pieces of a file by path; each thread keeps a dataset of its own. Picklable."""

    def __init__(self, path: str, bands: tuple[int, ...], *, masked: bool, nodata: tuple[float | None, ...]) -> None:
        self.path, self.bands, self.masked, self.nodata = path, bands, masked, nodata
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()

    def _dataset(self) -> DatasetReader:
        if getattr(self._local, "dataset", None) is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                self._local.dataset = rasterio.open(self.path)
        return self._local.dataset

    def __call__(self, block_info: Any = None) -> NDArray[Any]:
        (_, _), (top, bottom), (left, right) = block_info[None]["array-location"]
        return self.read(top, left, bottom, right)

    def read(self, top: int, left: int, bottom: int, right: int) -> NDArray[Any]:
        """Read rows top … bottom - 1, columns left … right - 1 of the used bands, validity last."""
        dataset = self._dataset()
        window = Window(left, top, right - left, bottom - top)
        values = dataset.read(list(self.bands), window=window)
        valid = _valid_values(values, self.nodata)
        if self.masked:
            valid &= dataset.dataset_mask(window=window) != 0
        return np.concatenate([values, valid[None].astype(values.dtype)])


def _valid_values(values: NDArray[Any], nodata: tuple[float | None, ...]) -> NDArray[np.bool_]:
    """Validity (h, w) of used bands (b, h, w): a pixel is nodata where every band is; NaN and inf never count."""
    bad = np.zeros(values.shape, dtype=bool)
    for band, missing in enumerate(nodata):
        if missing is not None and not np.isnan(missing):
            bad[band] = values[band] == missing
    valid = ~bad.all(axis=0)
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(axis=0)
    return np.asarray(valid)


def _from_file(path: str) -> _Raw:
    local = "://" not in path and not path.startswith("/vsi") and ":" not in path[2:]
    if local and not Path(path).exists():
        raise ResegeoError(f"{path}: no such file. Check the path of the scene.")
    if local and Path(path).is_dir():
        raise ResegeoError(f"{path} is a folder; expected a raster file such as a GeoTIFF.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as raster:
                return _facts(path, raster)
    except RasterioError as error:
        raise ResegeoError(
            f"{path} cannot be opened as a raster: it is damaged or in no format that GDAL {rasterio.__gdal_version__} "
            "reads. Expected a GeoTIFF or another georeferenced image."
        ) from error
    except CRSError as error:
        raise ResegeoError(
            f"{path} has a CRS that cannot be read ({error}). Write a valid one into it first."
        ) from error


def _stem(path: str) -> str:
    """Name for the outputs: the file's, without suffix and without a URL's query."""
    return re.sub(r"[?*:|<>\"]", "_", Path(path.split("?")[0].rstrip("/")).stem) or "scene"


def _facts(path: str, raster: DatasetReader) -> _Raw:
    if raster.count == 0:
        inside = ", ".join(raster.subdatasets[:3])
        raise ResegeoError(
            f"{path} has no bands of its own" + (f"; name one of its parts, such as {inside}." if inside else ".")
        )
    dtype = np.dtype(raster.dtypes[0])
    gcps, gcps_crs = raster.gcps
    transform = None if raster.transform.is_identity else raster.transform
    roles = tuple(interp.name for interp in raster.colorinterp)
    flags = raster.mask_flag_enums[0]
    palette = None
    if raster.colorinterp[0] == ColorInterp.palette and dtype == np.uint8 and raster.count <= 2:
        table = raster.colormap(1)
        palette = np.array([table.get(value, (0, 0, 0, 255))[:3] for value in range(256)], dtype=np.uint8)
    rows, cols = raster.block_shapes[0]
    # Chunks hold whole blocks of the file; strips are full rows, so few of them make a chunk.
    chunk_cols = min(raster.width, max(cols, -(-CHUNK // cols) * cols))
    chunk_rows = max(1, min(CHUNK, CHUNK * CHUNK // chunk_cols))
    chunk_rows = min(raster.height, max(rows, chunk_rows // rows * rows))
    return _Raw(
        label=path,
        name=_stem(path),
        height=raster.height,
        width=raster.width,
        count=raster.count,
        dtype=dtype,
        georeference=GeoReference(raster.crs, transform, tuple(gcps), gcps_crs, raster.rpcs),
        nodata=tuple(raster.nodatavals),
        roles=roles,
        masked=MaskFlags.per_dataset in flags or MaskFlags.alpha in flags,
        data=None,
        chunks=(chunk_rows, chunk_cols),
        template=None,
        palette=palette,
    )


def _from_array(array: xr.DataArray) -> _Raw:
    if array.ndim == 2:
        array = array.expand_dims("band")
    try:
        y, x = array.rio.y_dim, array.rio.x_dim
        crs, transform, missing = array.rio.crs, array.rio.transform(recalc=True), array.rio.nodata
    except Exception as error:  # rioxarray's errors share no base
        raise ResegeoError(
            f"The DataArray has dimensions {array.dims}; expected (band, y, x) or (y, x) with rioxarray's convention."
        ) from error
    if array.ndim != 3:
        raise ResegeoError(f"The DataArray has dimensions {array.dims}; expected (band, y, x) or (y, x).")
    other = next(str(dim) for dim in array.dims if dim not in (x, y))
    array = array.transpose(other, y, x)
    count, height, width = array.shape
    chunked = array.chunk({y: min(CHUNK, height), x: min(CHUNK, width), other: count})
    return _Raw(
        label=str(array.name or "the DataArray"),
        name=re.sub(r"[^\w.-]", "_", str(array.name or "scene")),
        height=height,
        width=width,
        count=count,
        dtype=np.dtype(array.dtype),
        georeference=GeoReference(crs, None if transform.is_identity else transform),
        nodata=(None if missing is None else float(missing),) * count,
        roles=("",) * count,
        masked=False,
        data=chunked.data,
        chunks=(min(CHUNK, height), min(CHUNK, width)),
        template=array,
    )


def _choose_bands(raw: _Raw, bands: Sequence[int] | None) -> tuple[int, int, int]:
    if raw.dtype.kind == "c":
        raise ResegeoError(
            f"{raw.label} holds complex numbers ({raw.dtype}); expected real ones. Take magnitudes first."
        )
    if raw.dtype.kind not in "uifb":
        raise ResegeoError(f"{raw.label} holds {raw.dtype} values; expected numbers.")
    if bands is not None:
        chosen = tuple(int(band) for band in bands)
        if len(chosen) != 3 or not all(1 <= band <= raw.count for band in chosen):
            raise UsageError(
                f"--bands {','.join(map(str, chosen))} does not fit {raw.label}, which has {raw.count} band(s); "
                f"expected three numbers from 1 to {raw.count}."
            )
        return chosen[0], chosen[1], chosen[2]
    if {"red", "green", "blue"} <= set(raw.roles):
        red, green, blue = (raw.roles.index(role) + 1 for role in ("red", "green", "blue"))
        return red, green, blue
    usable = [band for band, role in enumerate(raw.roles, start=1) if role != "alpha"] or [1]
    if len(usable) >= 3:
        return usable[0], usable[1], usable[2]
    if raw.palette is None:
        warnings.warn(
            f"{raw.label} has {len(usable)} band(s) beside alpha: band {usable[0]} serves as red, green and blue.",
            InputNotice,
            stacklevel=3,
        )
    return usable[0], usable[0], usable[0]


def _rgb_and_validity(raw: _Raw, used: tuple[int, int, int]) -> xr.DataArray:
    """Build the lazy array (3 bands + validity, y, x)."""
    if raw.data is None:
        rows, cols = (
            tuple(min(step, size - start) for start in range(0, size, step))
            for size, step in zip((raw.height, raw.width), raw.chunks, strict=True)
        )
        data = da.map_blocks(  # type: ignore[no-untyped-call]
            _reader(raw, used), chunks=((4,), rows, cols), dtype=raw.dtype, meta=np.empty((0, 0, 0), raw.dtype)
        )
    else:
        nodata = tuple(raw.nodata[band - 1] for band in used)
        picked = raw.data[[band - 1 for band in used]].rechunk((3, *raw.chunks))
        data = da.map_blocks(  # type: ignore[no-untyped-call]
            _append_validity, picked, nodata, chunks=((4,), *picked.chunks[1:]), dtype=raw.dtype
        )
    if data.dtype == np.bool_:
        data = data.astype(np.uint8) * np.uint8(255)
    if raw.template is not None:
        like = raw.template
        coords = {dim: like.coords[dim].data for dim in like.dims[1:] if dim in like.coords}
        return xr.DataArray(data, dims=("band", *like.dims[1:]), coords=coords, name=raw.name)
    return xr.DataArray(data, dims=("band", "y", "x"), name=raw.name)


def _append_validity(values: NDArray[Any], nodata: tuple[float | None, ...]) -> NDArray[Any]:
    return np.concatenate([values, _valid_values(values, nodata)[None].astype(values.dtype)])


def _with_crs(raw: _Raw, assign_crs: str | None) -> GeoReference:
    where = raw.georeference
    if assign_crs is None:
        return where
    try:
        crs = CRS.from_user_input(assign_crs)
    except CRSError as error:
        raise UsageError(f"--assign-crs {assign_crs} is no CRS; expected something like EPSG:32633.") from error
    if where.crs is not None and where.crs != crs:
        warnings.warn(
            f"{raw.label} says its CRS is {where.crs.to_string()[:60]}; --assign-crs {assign_crs} replaces it.",
            GeoreferenceWarning,
            stacklevel=3,
        )
    if where.gcps and where.transform is None:
        return GeoReference(None, None, where.gcps, crs, where.rpcs)
    return GeoReference(crs, where.transform, where.gcps, where.gcps_crs, where.rpcs)


def _reader(raw: _Raw, used: tuple[int, int, int]) -> _Reader:
    return _Reader(raw.label, used, masked=raw.masked, nodata=tuple(raw.nodata[band - 1] for band in used))


def _sample(raw: _Raw, used: tuple[int, int, int], array: xr.DataArray) -> Iterator[NDArray[Any]]:
    """Yield squares at full resolution on a grid anchored to the scene: never overviews, which come and go."""

    def starts(size: int) -> list[int]:
        if size <= SAMPLE_COUNT * SAMPLE_SIDE:
            return list(range(0, size, SAMPLE_SIDE))
        return [int(k * (size - SAMPLE_SIDE) / (SAMPLE_COUNT - 1)) for k in range(SAMPLE_COUNT)]

    # Straight from the file where there is one: through dask every square would cost a whole chunk.
    reader = None if raw.data is not None else _reader(raw, used)
    for row in starts(raw.height):
        bottom = min(row + SAMPLE_SIDE, raw.height)
        try:
            for col in starts(raw.width):
                right = min(col + SAMPLE_SIDE, raw.width)
                if reader is not None:
                    yield reader.read(row, col, bottom, right)
                else:
                    yield np.asarray(array.data[:, row:bottom, col:right].compute(scheduler="synchronous"))
        except (RasterioError, OSError) as error:
            raise ResegeoError(
                f"{raw.label} is damaged: rows {row} to {min(row + SAMPLE_SIDE, raw.height) - 1} cannot be read. "
                "Get the file again, or repair it with gdal_translate."
            ) from error


def _stretch(
    dtype: np.dtype[Any], sample: Sequence[NDArray[Any]], given: Stretch | tuple[float, float] | None
) -> Stretch | None:
    if isinstance(given, Stretch):
        return given
    if given is not None:
        low, high = given
        if not low < high:
            raise UsageError(f"--stretch {low:g}:{high:g} is empty; the second number must be larger than the first.")
        return Stretch((low,) * 3, (high,) * 3)
    if dtype == np.uint8:
        return None
    values: list[NDArray[Any]] = []
    for piece in sample:
        good = piece[-1] != 0
        if good.any():
            values.append(piece[:3][:, good])
    if not values:  # all sampled squares are invalid; a scene without any valid pixel is refused later
        return Stretch((0.0,) * 3, (1.0,) * 3)
    joined = np.concatenate(values, axis=1).astype(np.float64)
    low, high = np.percentile(joined, (2, 98), axis=1)
    return Stretch(tuple(float(v) for v in low), tuple(float(v) for v in high))


def _fingerprint(raw: _Raw, sample: Sequence[NDArray[Any]]) -> str:
    """Checksum of what the scene is, free of its path and dates, so that a copy is the same scene."""
    digest = hashlib.sha256()
    where = raw.georeference
    facts = (raw.height, raw.width, raw.count, str(raw.dtype), raw.nodata, where.transform, len(where.gcps))
    digest.update(repr(facts).encode())
    digest.update((where.crs or where.gcps_crs or CRS()).to_wkt().encode())
    for piece in sample:
        digest.update(np.ascontiguousarray(piece).tobytes())
    return digest.hexdigest()
