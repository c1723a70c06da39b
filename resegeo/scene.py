"""Open a raster: size, CRS, bands, validity, stretch; pixels served lazily as RGB and a valid mask.

Metadata is settled before pixels. The pixels stand behind a dask-backed :class:`xarray.DataArray`
(band, y, x) of which only what a window needs is ever computed.

A pixel is invalid where every used band is nodata or masked (GDAL's own rule for nodata values), where
a mask of the whole dataset or an alpha band says so, where a palette's colour is transparent, and where
any used band is NaN or infinite. A band that is nodata beside valid ones stays out of the stretch.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
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

from resegeo.errors import GeoreferenceWarning, IgnoredSettingWarning, InputNotice, ResegeoError, UsageError
from resegeo.stamps import stamp

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

CHUNK = 512
"""Side of the pieces in which the dask array reads a scene."""

_OPENING = threading.Lock()
"""Held while a thread opens its dataset: what silences warnings meanwhile is common to all threads."""

SAMPLE_SIDE = 64
SAMPLE_COUNT = 16
"""The stretch is taken from at most SAMPLE_COUNT² squares of SAMPLE_SIDE² pixels at full resolution."""


_OTHER_COLOURS = ("cyan", "magenta", "yellow", "black", "hue", "saturation", "lightness", "Y", "Cb", "Cr")


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
    """Colours (256 or 65536, 3) of a palette image, else None."""
    stamp: str | None = None
    """Checksum over size and time of the files, or over ETags; changes with a file that the fingerprint, which looks
    at a sample, may take for the same."""

    def read(self, row: int, col: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a rectangle, which may reach beyond the scene.

        Returns
        -------
        RGB (height, width, 3) uint8 and validity (height, width) bool. Invalid pixels and those outside
        are RGB 0 and False.

        """
        rgb = np.zeros((height, width, 3), dtype=np.uint8)
        valid = np.zeros((height, width), dtype=bool)
        inside, values = self._inside(row, col, height, width)
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
        valid = np.zeros((height, width), dtype=bool)
        inside, values = self._inside(row, col, height, width)
        valid[inside] = values[-1] != 0
        return valid

    def _inside(self, row: int, col: int, height: int, width: int) -> tuple[tuple[slice, slice], NDArray[Any]]:
        """Cut a rectangle at the scene's border: where that lies in the rectangle, and its values."""
        top, left = min(max(row, 0), self.height), min(max(col, 0), self.width)
        bottom, right = max(min(row + height, self.height), top), max(min(col + width, self.width), left)
        inside = slice(top - row, bottom - row), slice(left - col, right - col)
        if top == bottom or left == right:
            return (slice(0), slice(0)), np.empty((4, 0, 0), dtype=np.uint8)
        return inside, self._compute(top, left, bottom, right)

    def _compute(self, top: int, left: int, bottom: int, right: int) -> NDArray[Any]:
        part = self.array.data[:, top:bottom, left:right]
        try:
            # The caller decides on threads; a few small chunks are read fastest right here.
            return np.asarray(part.compute(scheduler="synchronous"))
        except (RasterioError, OSError) as error:
            where = f"rows {top} to {bottom - 1}, columns {left} to {right - 1}"
            raise _damaged(self.source, where, error) from error


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
        Bands for red, green and blue, from 1; by default those that say so, else the first three. A palette
        image is then read as plain numbers, and an alpha band that is named as plain data.
    stretch:
        Values that become 0 and 255, as the file stores them, before any scale and offset tags. By default
        uint8 passes through, any other dtype is stretched between the 2nd and 98th percentile of each band
        over a fixed sample of the whole scene at full resolution (which scale and offset would not change).
    assign_crs:
        CRS for a scene that has none.

    Raises
    ------
    ResegeoError:
        When the source can't be read as an image, with one sentence that says why.

    """
    if isinstance(source, xr.DataArray):
        raw = _from_array(source)
    elif isinstance(source, str | PathLike):
        raw = _from_file(str(source), assigned=assign_crs is not None)
    else:
        raise ResegeoError(f"The scene is of type {type(source).__name__}; expected a path, a URL or a DataArray.")
    given = _given_stretch(stretch)
    used = _choose_bands(raw, bands)
    georeference = _with_crs(raw, assign_crs)
    if bands is not None:
        raw = replace(raw, palette=None, transparent=())
    if raw.palette is not None and given is not None:
        warnings.warn(
            f"{raw.label} is a palette image: --stretch does not apply to its colours.",
            IgnoredSettingWarning,
            stacklevel=2,
        )
    array = _rgb_and_validity(raw, used)
    sample = list(_sample(raw, used, array))
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
        dtype=str(raw.dtype(used)),
        bands=used,
        georeference=georeference,
        nodata=raw.nodata_of(used),
        stretch=None if raw.palette is not None else _stretch(array.dtype, sample, given, raw.nodata_of(used)),
        array=array,
        fingerprint=_fingerprint(raw, sample),
        palette=raw.palette,
        stamp=stamp(raw.files),
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
    dtypes: tuple[str, ...]
    georeference: GeoReference
    nodata: tuple[float | None, ...]
    roles: tuple[str, ...]
    """Colour interpretation of each band: red, green, blue, alpha, or anything else."""
    masks: tuple[str, ...]
    """Mask of each band beyond nodata values: ``dataset`` (one for all bands), ``own``, or nothing."""
    data: da.Array | None
    """(band, y, x) for a DataArray; None for a file, which is read by path."""
    chunks: tuple[int, int]
    template: xr.DataArray | None
    palette: NDArray[np.uint8] | None = None
    transparent: tuple[int, ...] = ()
    """Values of a palette image whose colour is transparent."""
    files: tuple[str, ...] = ()
    """The file or URL, and behind a VRT its sources."""

    def dtype(self, used: Sequence[int]) -> np.dtype[Any]:
        """Return the type that holds all used bands."""
        return np.result_type(*(self.dtypes[band - 1] for band in used))

    def nodata_of(self, used: Sequence[int]) -> tuple[float | None, ...]:
        """Return the nodata value of each used band."""
        return tuple(self.nodata[band - 1] for band in used)


class _Reader:
    """Reads pieces of a file by path; each thread keeps a dataset of its own. Picklable."""

    def __init__(self, raw: _Raw, used: tuple[int, ...]) -> None:
        self.path, self.bands, self.dtype = raw.label, used, raw.dtype(used)
        self.nodata, self.transparent = raw.nodata_of(used), raw.transparent
        self.masks = tuple(raw.masks[band - 1] for band in used)
        # An alpha band that serves as a colour is data: many four-band images call their infrared alpha.
        self.alpha = [band for band, role in enumerate(raw.roles, 1) if role == "alpha" and band not in used]
        self.mixed = len({raw.dtypes[band - 1] for band in used}) > 1
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()

    def _dataset(self) -> DatasetReader:
        if getattr(self._local, "dataset", None) is None:
            with _OPENING, warnings.catch_warnings(), _Complaints():
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
        if self.mixed:
            values = np.stack([dataset.read(band, window=window).astype(self.dtype) for band in self.bands])
        else:
            values = dataset.read(list(self.bands), window=window)
        bad = _nodata(values, self.nodata)
        for at, (band, mask) in enumerate(zip(self.bands, self.masks, strict=True)):
            if mask == "own" or (mask == "dataset" and at == 0):
                bad[at if mask == "own" else slice(None)] |= dataset.read_masks(band, window=window) == 0
        valid = _valid(values, bad)
        for band in self.alpha:
            valid &= dataset.read(band, window=window) > 0
        if self.transparent:
            valid &= ~np.isin(values[0], self.transparent)
        return np.concatenate([values, valid[None].astype(values.dtype)])


def _nodata(values: NDArray[Any], nodata: Sequence[float | None]) -> NDArray[np.bool_]:
    """Pixels of each used band (b, h, w) that hold the band's nodata value."""
    bad = np.zeros(values.shape, dtype=bool)
    for band, missing in enumerate(nodata):
        if missing is not None and not np.isnan(missing):
            bad[band] = values[band] == missing
    return bad


def _valid(values: NDArray[Any], bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Validity (h, w) of used bands (b, h, w) of which some pixels are bad; NaN and infinity never count."""
    valid = ~bad.all(axis=0)
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(axis=0)
    return np.asarray(valid)


class _Complaints(logging.Filter):
    """Keeps what GDAL says while a file is opened, which is where it speaks of a CRS that it cannot read."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.texts.append(record.getMessage())
        return False

    def __enter__(self) -> _Complaints:
        logging.getLogger("rasterio._env").addFilter(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("rasterio._env").removeFilter(self)


def is_local(path: str) -> bool:
    """Whether a path means a file here, not a URL, a path of GDAL's own or a driver's prefix (NETCDF:file:variable)."""
    # Prefixes have two letters or more, a drive of Windows one; a file may carry a colon in its name.
    special = path.startswith("/vsi") or re.match(r"[A-Za-z][A-Za-z0-9+_.-]+:", path) is not None
    with contextlib.suppress(OSError, ValueError):  # no name that a file could have
        return not special or Path(path).exists()
    return not special


def _from_file(path: str, *, assigned: bool) -> _Raw:
    if not path:
        raise ResegeoError("The scene's path is empty; expected a raster file such as a GeoTIFF.")
    local = is_local(path)
    try:
        if local and not Path(path).exists():
            raise ResegeoError(f"{path}: no such file. Check the path of the scene.")
        folder = Path(path).is_dir()
        path = path.rstrip("/") if Path(path).is_file() else path
    except (OSError, ValueError) as error:  # a name too long, or with a NUL
        raise ResegeoError(f"{path[:60]!r} … cannot be a file's name; expected the path of a scene.") from error
    try:
        with warnings.catch_warnings(), _Complaints() as complaints:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as raster:
                raw = _facts(path, raster)
                lost = None if assigned else _unreadable_crs(raster, complaints.texts)
    except RasterioError as error:
        if folder:  # some formats are folders
            raise ResegeoError(f"{path} is a folder; expected a raster file such as a GeoTIFF.") from error
        if not local:
            raise ResegeoError(
                f"{path} cannot be opened as a raster ({_reason(error)}). Check the address and that it can be reached."
            ) from error
        raise ResegeoError(
            f"{path} cannot be opened as a raster: it is damaged or in no format that GDAL {rasterio.__gdal_version__} "
            "reads. Expected a GeoTIFF or another georeferenced image."
        ) from error
    except CRSError as error:
        lost = str(error)
    if lost is not None:
        raise ResegeoError(f"{path} has a CRS that cannot be read ({lost}). Say which it is by --assign-crs EPSG:xxxx.")
    return raw


def _unreadable_crs(raster: DatasetReader, complaints: Sequence[str]) -> str | None:
    """Return why the file's CRS cannot be read, or None where it has none or a sound one."""
    if raster.crs is not None and not raster.crs.to_wkt().startswith(("LOCAL_CS", "ENGCRS")):
        return None
    for text in complaints:  # GDAL makes a nameless local system of an unknown code
        unknown = re.search(r"crs not found: (\S+)", text)
        if unknown is not None:
            return f"{unknown.group(1)} is unknown to PROJ"
    if raster.crs is None and not raster.gcps[0]:
        described = [name for name in raster.files if name.lower().endswith((".vrt", ".aux.xml"))]
        for name in described:  # GDAL passes over a text there that is no CRS, without a word
            with contextlib.suppress(OSError):
                found = re.search(r"<SRS[^>]*>([^<]+)</SRS>", Path(name).read_text("utf-8", "replace"))
                if found is not None:
                    return f"{found.group(1).strip()[:60]} is none"
    return None


def _reason(error: BaseException) -> str:
    """Return what GDAL said first: the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()).rstrip(".")


def _damaged(label: str, where: str, error: Exception) -> ResegeoError:
    if "://" in label or label.startswith("/vsi"):
        remedy = "Check the network or the archive, and run the same command again."
    elif label.lower().endswith(".vrt"):
        remedy = "Check the files that it is made of."
    else:
        remedy = "Get the file again, or repair it with gdal_translate."
    return ResegeoError(f"{label} is damaged: {where} cannot be read ({_reason(error)}). {remedy}")


def stem_of(path: str) -> str:
    """Name for the outputs: the file's, without suffix and without a URL's query."""
    if "://" in path or path.startswith("/vsi"):
        path = path.split("?")[0]
    return re.sub(r"[\x00-\x1f?*:|<>\"]", "_", Path(path.rstrip("/")).stem) or "scene"


def _facts(path: str, raster: DatasetReader) -> _Raw:
    if raster.count == 0:
        inside = ", ".join(raster.subdatasets[:3])
        raise ResegeoError(
            f"{path} has no bands of its own" + (f"; name one of its parts, such as {inside}." if inside else ".")
        )
    gcps, gcps_crs = raster.gcps
    transform = None if raster.transform.is_identity else raster.transform
    palette, transparent = _palette(raster)
    rows, cols = raster.block_shapes[0]
    # Whole tiles of the file in both directions, but pieces of wide strips: GDAL keeps a strip once it is decoded.
    chunk_rows, chunk_cols = (max(1, CHUNK // side) * side if side <= 4 * CHUNK else CHUNK for side in (rows, cols))
    return _Raw(
        label=path,
        name=stem_of(path),
        height=raster.height,
        width=raster.width,
        count=raster.count,
        dtypes=tuple(raster.dtypes),
        georeference=GeoReference(raster.crs, transform, tuple(gcps), gcps_crs, raster.rpcs),
        nodata=tuple(raster.nodatavals),
        roles=tuple(interp.name for interp in raster.colorinterp),
        masks=tuple(_mask_kind(flags) for flags in raster.mask_flag_enums),
        data=None,
        chunks=(min(raster.height, chunk_rows), min(raster.width, chunk_cols)),
        template=None,
        palette=palette,
        transparent=transparent,
        files=(path, *(name for name in raster.files if name != path)) if raster.driver == "VRT" else (path,),
    )


def _mask_kind(flags: Sequence[MaskFlags]) -> str:
    """Alpha bands and plain nodata values are read as such; NODATA_VALUES (PNG's) is one mask for all bands."""
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        return "dataset"
    return "" if flags else "own"


def _palette(raster: DatasetReader) -> tuple[NDArray[np.uint8] | None, tuple[int, ...]]:
    """Return the colours (n, 3) of a palette image for every value it can hold, and its transparent values."""
    if raster.colorinterp[0] != ColorInterp.palette or raster.dtypes[0] not in ("uint8", "uint16") or raster.count > 2:
        return None, ()
    table = raster.colormap(1)
    colours = np.zeros((np.iinfo(raster.dtypes[0]).max + 1, 3), dtype=np.uint8)
    for value, colour in table.items():
        colours[value] = colour[:3]
    return colours, tuple(value for value, colour in table.items() if colour[3] == 0)


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
    if 0 in array.shape:
        raise ResegeoError(f"The DataArray has no pixels: its shape is {array.shape}.")
    for dim in (y, x):
        if dim in array.coords and not _evenly_spaced(array.coords[dim].values):
            raise ResegeoError(f"The DataArray's coordinates of {dim} are not evenly spaced; resample it first.")
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
        dtypes=(np.dtype(array.dtype).str,) * count,
        georeference=GeoReference(crs, None if transform.is_identity else transform),
        nodata=(None if missing is None else float(missing),) * count,
        roles=("",) * count,
        masks=("",) * count,
        data=chunked.data,
        chunks=(min(CHUNK, height), min(CHUNK, width)),
        template=array,
    )


def _evenly_spaced(values: NDArray[Any]) -> bool:
    """Whether coordinates stay within a tenth of a step of a straight line (float32 ones are never exact)."""
    if values.ndim != 1 or values.size < 3 or values.dtype.kind not in "uif":
        return True
    line = np.linspace(values[0], values[-1], values.size)
    return bool(np.abs(values - line).max() <= 0.1 * abs(line[1] - line[0]))


def _choose_bands(raw: _Raw, bands: Sequence[int] | None) -> tuple[int, int, int]:
    used = _default_bands(raw) if bands is None else _given_bands(raw, bands)
    for band in used:
        dtype = raw.dtypes[band - 1]
        if dtype.startswith("complex") or np.dtype(dtype).kind == "c":
            raise ResegeoError(
                f"{raw.label} holds complex numbers ({dtype}); expected real ones. Take magnitudes first."
            )
        if np.dtype(dtype).kind not in "uifb":
            raise ResegeoError(f"{raw.label} holds {dtype} values; expected numbers.")
    return used


def _given_bands(raw: _Raw, bands: Sequence[int]) -> tuple[int, int, int]:
    if len(bands) != 3 or not all(float(band).is_integer() and 1 <= int(band) <= raw.count for band in bands):
        raise UsageError(
            f"--bands {','.join(map(str, bands))} does not fit {raw.label}, which has {raw.count} band(s); "
            f"expected three numbers from 1 to {raw.count}."
        )
    red, green, blue = map(int, bands)
    return red, green, blue


def _default_bands(raw: _Raw) -> tuple[int, int, int]:
    if {"red", "green", "blue"} <= set(raw.roles):
        red, green, blue = (raw.roles.index(role) + 1 for role in ("red", "green", "blue"))
        return red, green, blue
    other = [role for role in raw.roles if role in _OTHER_COLOURS]
    if len(other) >= 3:
        raise ResegeoError(
            f"{raw.label} has the colours {', '.join(other)}; expected red, green and blue. Convert it first, or name "
            "three bands by --bands."
        )
    usable = [band for band, role in enumerate(raw.roles, start=1) if role != "alpha"] or [1]
    if len(usable) >= 3:
        return usable[0], usable[1], usable[2]
    if raw.palette is None:
        warnings.warn(
            f"{raw.label} has {len(usable)} band(s) beside alpha: band {usable[0]} serves as red, green and blue.",
            InputNotice,
            stacklevel=4,
        )
    return usable[0], usable[0], usable[0]


def _rgb_and_validity(raw: _Raw, used: tuple[int, int, int]) -> xr.DataArray:
    """Build the lazy array (3 bands + validity, y, x)."""
    if raw.data is None:
        rows, cols = (
            tuple(min(step, size - start) for start in range(0, size, step))
            for size, step in zip((raw.height, raw.width), raw.chunks, strict=True)
        )
        dtype = raw.dtype(used)
        data = da.map_blocks(  # type: ignore[no-untyped-call]
            _Reader(raw, used), chunks=((4,), rows, cols), dtype=dtype, meta=np.empty((0, 0, 0), dtype)
        )
    else:
        picked = raw.data[[band - 1 for band in used]].rechunk((3, *raw.chunks))
        data = da.map_blocks(  # type: ignore[no-untyped-call]
            _append_validity, picked, raw.nodata_of(used), chunks=((4,), *picked.chunks[1:]), dtype=raw.dtype(used)
        )
    if data.dtype == np.bool_:
        data = data.astype(np.uint8) * np.uint8(255)
    if raw.template is not None:
        like = raw.template
        coords = {dim: like.coords[dim].data for dim in like.dims[1:] if dim in like.coords}
        return xr.DataArray(data, dims=("band", *like.dims[1:]), coords=coords, name=raw.name)
    return xr.DataArray(data, dims=("band", "y", "x"), name=raw.name)


def _append_validity(values: NDArray[Any], nodata: tuple[float | None, ...]) -> NDArray[Any]:
    valid = _valid(values, _nodata(values, nodata))
    return np.concatenate([values, valid[None].astype(values.dtype)])


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


def _sample(raw: _Raw, used: tuple[int, int, int], array: xr.DataArray) -> Iterator[NDArray[Any]]:
    """Yield squares at full resolution on a grid anchored to the scene: never overviews, which come and go."""

    def starts(size: int) -> list[int]:
        if size <= SAMPLE_COUNT * SAMPLE_SIDE:
            return list(range(0, size, SAMPLE_SIDE))
        return [int(k * (size - SAMPLE_SIDE) / (SAMPLE_COUNT - 1)) for k in range(SAMPLE_COUNT)]

    # Straight from the file where there is one: through dask every square would cost a whole chunk.
    reader = None if raw.data is not None else _Reader(raw, used)
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
            raise _damaged(raw.label, f"rows {row} to {bottom - 1}", error) from error


def _given_stretch(given: Stretch | Sequence[float] | None) -> Stretch | None:
    if given is None or isinstance(given, Stretch):
        return given
    if len(given) != 2 or not -np.inf < given[0] < given[1] < np.inf:
        raise UsageError(
            f"--stretch {':'.join(f'{value:g}' for value in given)} is no range; expected two numbers of which the "
            "second is larger, such as 200:3000."
        )
    return Stretch((given[0],) * 3, (given[1],) * 3)


def _stretch(
    dtype: np.dtype[Any], sample: Sequence[NDArray[Any]], given: Stretch | None, nodata: Sequence[float | None]
) -> Stretch | None:
    if given is not None or dtype == np.uint8:
        return given
    low, high = [], []
    for band in range(3):
        # Valid pixels, and of those the ones where this band is no nodata beside valid ones.
        pieces = [piece[band][(piece[-1] != 0) & ~_nodata(piece[:3], nodata)[band]] for piece in sample]
        values = np.concatenate(pieces).astype(np.float64)
        # Without a sampled pixel anything will do; a scene without any valid pixel is refused later.
        two, most = np.percentile(values, (2, 98)) if values.size else (0.0, 1.0)
        low.append(float(two))
        high.append(float(most))
    return Stretch(tuple(low), tuple(high))


def _fingerprint(raw: _Raw, sample: Sequence[NDArray[Any]]) -> str:
    """Checksum of what the scene is, free of its path and dates, so that a copy is the same scene."""
    digest = hashlib.sha256()
    where = raw.georeference
    gcps = [(point.row, point.col, point.x, point.y, point.z) for point in where.gcps]
    rpcs = None if where.rpcs is None else sorted(where.rpcs.to_gdal().items())
    facts = (raw.height, raw.width, raw.count, raw.dtypes, raw.nodata, where.transform, gcps, rpcs, raw.transparent)
    digest.update(repr(facts).encode())
    digest.update(b"" if raw.palette is None else raw.palette.tobytes())
    digest.update((where.crs or where.gcps_crs or CRS()).to_wkt().encode())
    for piece in sample:
        digest.update(np.ascontiguousarray(piece).tobytes())
    return digest.hexdigest()
