"""What a file or a DataArray says of itself, before bands are chosen and a pixel is read."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.rpc import RPC

from resegeo.errors import ResegeoError, notice, shown
from resegeo.files import LONGEST_PATH, is_file, is_folder, is_there, name_problem
from resegeo.scene.formats import checked, opened, refuse_boundless
from resegeo.scene.formats import is_local as is_local

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr
    from rasterio.io import DatasetReader

CHUNK = 512
"""Side of the pieces in which the dask array reads a scene."""


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
class Source:
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
    """The file or URL, its mask and further parts, and behind a VRT its sources."""
    part: str = ""
    """Which of several rasters in these files it is."""
    stored: np.dtype[Any] | None = None
    """Type in the file behind an array that became floating-point on reading, as its nodata was masked; else None."""
    drivers: tuple[str, ...] | None = None
    """Drivers of GDAL by which the file is opened; None for all."""
    descriptions: tuple[str, ...] = ()
    """What the file calls each band."""
    wavelengths: tuple[float | None, ...] = ()
    """Central wavelength of each band in nm."""
    bits: tuple[int, ...] = ()
    """Bits of a value of each uint8 band where fewer than 8 are used (TIFF's NBITS), else 0."""
    masked: bool = False
    """Whether NaN stands for the nodata value in such an array."""

    def dtype(self, used: Sequence[int]) -> np.dtype[Any]:
        """Return the type that holds all used bands."""
        return np.result_type(*(self.dtypes[band - 1] for band in used))

    def nodata_of(self, used: Sequence[int]) -> tuple[float | None, ...]:
        """Return the nodata value of each used band."""
        return tuple(self.nodata[band - 1] for band in used)


def file_source(path: str, *, assigned: bool, formats: Sequence[str] = ()) -> Source:
    """Read what a file, URL or /vsi path says of itself.

    ``assigned``: the user gives a CRS, so that an unreadable one does not matter. ``formats``: those that the user
    trusts beside the usual ones, see :func:`resegeo.scene.formats.open_raster`.

    Raises
    ------
    ResegeoError:
        When the file is missing, in no format that GDAL reads, or its CRS cannot be read.

    """
    if not path:
        raise ResegeoError("The scene's path is empty; expected a raster file such as a GeoTIFF.")
    local = is_local(path)
    if local and not is_there(Path(path)):
        if name_problem(Path(path)) is not None:
            raise ResegeoError(f"{shown(path)} cannot be a file's name; expected the path of a scene.")
        raise ResegeoError(f"{shown(path, LONGEST_PATH)}: no such file. Check the path of the scene.")
    folder = is_folder(path)
    path = path.rstrip("/") if is_file(Path(path)) else path
    try:
        with warnings.catch_warnings(), Complaints() as complaints:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            drivers = checked(path, formats)
            with opened(path, drivers) as raster:
                refuse_boundless(path, raster)
                raw = replace(_facts(path, raster), drivers=drivers)
                lost = None if assigned else _unreadable_crs(raster, complaints.texts)
    except RasterioError as error:
        if folder:  # some formats are folders
            raise ResegeoError(f"{path} is a folder; expected a raster file such as a GeoTIFF.") from error
        if not local:
            reason = _reason(error)
            remedy = "Check the address and that it can be reached."
            if "Range downloading not supported" in reason:
                remedy = "Download the file first, as its server sends none in parts."
            raise ResegeoError(f"{path} cannot be opened as a raster ({reason}). {remedy}") from error
        raise ResegeoError(
            f"{path} cannot be opened as a raster: it is damaged or in no format that GDAL {rasterio.__gdal_version__} "
            "reads. Expected a GeoTIFF or another georeferenced image; a format that may reach for other files, or "
            "hosts, is read where [[formats]] names it."
        ) from error
    except CRSError as error:
        lost = str(error)
    if lost is not None:
        raise ResegeoError(
            f"{path} has a CRS that cannot be read ({lost}). Say which it is by [[assign_crs=EPSG:xxxx]]."
        )
    return raw


class Complaints(logging.Filter):
    """Keeps what GDAL says while a file is opened, which is where it speaks of a CRS that it cannot read."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the text, and the record from whoever listens."""
        self.texts.append(record.getMessage())
        return False

    def __enter__(self) -> Complaints:
        logging.getLogger("rasterio._env").addFilter(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("rasterio._env").removeFilter(self)


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


def _facts(path: str, raster: DatasetReader) -> Source:
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
    return Source(
        label=path,
        name=stem_of(path),
        height=raster.height,
        width=raster.width,
        count=raster.count,
        dtypes=tuple(raster.dtypes),
        descriptions=tuple(text or "" for text in raster.descriptions),
        wavelengths=tuple(_wavelength(raster, band) for band in raster.indexes),
        bits=tuple(_bits(raster, band) for band in raster.indexes),
        georeference=GeoReference(raster.crs, transform, tuple(gcps), gcps_crs, raster.rpcs),
        nodata=tuple(raster.nodatavals),
        roles=tuple(interp.name for interp in raster.colorinterp),
        masks=tuple(map(_mask_kind, raster.mask_flag_enums, raster.nodatavals)),
        data=None,
        chunks=(min(raster.height, chunk_rows), min(raster.width, chunk_cols)),
        template=None,
        palette=palette,
        transparent=transparent,
        files=_files(path, raster),
        part=_part(path, raster),
    )


def _files(path: str, raster: DatasetReader) -> tuple[str, ...]:
    """Name the files that hold the pixels and what masks them.

    Overviews and statistics come and go, and change no label; what an .aux.xml may say beside is known otherwise.
    """
    return tuple(name for name in raster.files if not name.lower().endswith((".ovr", ".aux.xml"))) or (path,)


def _part(path: str, raster: DatasetReader) -> str:
    """Tell which raster of several in a file is meant: the path without its folders; nothing where it is the file's."""
    if path.startswith("/vsi") or "://" in path or is_local(path):
        return ""
    for name in raster.files:
        path = path.replace(name, Path(name).name)
    return path


def _wavelength(raster: DatasetReader, band: int) -> float | None:
    tags = {**raster.tags(band), **raster.tags(band, ns="IMAGERY")}
    return told_wavelength(raster.descriptions[band - 1] or "", list(tags.items()))


def _bits(raster: DatasetReader, band: int) -> int:
    bits = raster.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", "0")
    return int(bits) if raster.dtypes[band - 1] == "uint8" and bits in map(str, range(1, 8)) else 0


def _mask_kind(flags: Sequence[MaskFlags], nodata: float | None) -> str:
    """Alpha bands and plain nodata values are read as such; NODATA_VALUES (PNG's) is one mask for all bands.

    A nodata value of 64 bits that is beyond a float's whole numbers is known to GDAL alone, which makes a mask of it.
    """
    if flags == [MaskFlags.nodata] and nodata is None:
        return "own"
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        return "dataset"
    return "" if flags else "own"


def _palette(raster: DatasetReader) -> tuple[NDArray[np.uint8] | None, tuple[int, ...]]:
    """Return the colours (n, 3) of a palette image for every value it can hold, and its transparent values."""
    if raster.colorinterp[0] != ColorInterp.palette or raster.dtypes[0] not in ("uint8", "uint16") or raster.count > 2:
        return None, ()
    try:
        table = raster.colormap(1)
    except ValueError:
        notice(
            f"{shown(raster.name)} calls itself a palette image but has no table of colours; its values are taken as "
            "grey.",
        )
        return None, ()
    colours = np.zeros((np.iinfo(raster.dtypes[0]).max + 1, 3), dtype=np.uint8)
    for value, colour in table.items():
        colours[value] = colour[:3]
    return colours, tuple(value for value, colour in table.items() if colour[3] == 0)


def array_source(array: xr.DataArray) -> Source:
    """Read what a DataArray (band, y, x) or (y, x) says of itself; see :class:`ResegeoError`."""
    import rioxarray  # noqa: F401  registers the .rio accessor
    import xarray as xr

    if not isinstance(array, xr.DataArray):
        raise ResegeoError(f"The scene is of type {type(array).__name__}; expected a path, a URL or a DataArray.")
    if array.ndim == 2:
        array = array.expand_dims("band")
    if 0 in array.shape:  # rioxarray finds no place for it either
        raise ResegeoError(f"The DataArray has no pixels: its shape is {array.shape}.")
    try:
        y, x = array.rio.y_dim, array.rio.x_dim
        crs, transform, missing = array.rio.crs, array.rio.transform(recalc=True), array.rio.nodata
    except Exception as error:  # rioxarray's errors share no base
        raise ResegeoError(
            f"The DataArray has dimensions {array.dims}; expected (band, y, x) or (y, x) with rioxarray's convention."
        ) from error
    if array.ndim != 3:
        raise ResegeoError(f"The DataArray has dimensions {array.dims}; expected (band, y, x) or (y, x).")
    for dim in (y, x):
        if dim in array.coords and not _evenly_spaced(array.coords[dim].values):
            raise ResegeoError(f"The DataArray's coordinates of {dim} are not evenly spaced; resample it first.")
    stored, fill = _before_masking(array)
    missing = missing if fill is None else fill
    other = next(str(dim) for dim in array.dims if dim not in (x, y))
    array = array.transpose(other, y, x)
    count, height, width = array.shape
    chunked = array.chunk({y: min(CHUNK, height), x: min(CHUNK, width), other: count})
    return Source(
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
        stored=stored,
        masked=fill is not None,
    )


def _before_masking(array: xr.DataArray) -> tuple[np.dtype[Any] | None, float | None]:
    """Return the integer type and the nodata value that an array of floats had in its file, where it was masked."""
    encoding = array.encoding
    try:
        stored = np.dtype(encoding.get("dtype", array.dtype))
    except TypeError:  # a type of rasterio's own
        return None, None
    scaled = encoding.get("scale_factor", 1) != 1 or encoding.get("add_offset", 0) != 0
    if array.dtype.kind != "f" or stored.kind not in "ui" or scaled:
        return None, None
    fill = encoding.get("_FillValue")
    return stored, None if fill is None or np.isnan(fill) else float(fill)


def _evenly_spaced(values: NDArray[Any]) -> bool:
    """Whether coordinates stay within a tenth of a step of a straight line (float32 ones are never exact)."""
    if values.ndim != 1 or values.size < 3 or values.dtype.kind not in "uif":
        return True
    line = np.linspace(values[0], values[-1], values.size)
    return bool(np.abs(values - line).max() <= 0.1 * abs(line[1] - line[0]))


def stem_of(path: str) -> str:
    """Name for the outputs: the file's, without suffix, a URL's query, and what a path may not hold everywhere.

    ``!`` and ``;`` are among that: geopandas reads a path with one of them as something else.
    """
    if "://" in path or path.startswith("/vsi"):
        path = path.split("?")[0].rpartition("!")[2]  # zip:///archive.zip!file.tif
    return re.sub(r"[\x00-\x1f?*:|<>\"!;]", "_", Path(path.rstrip("/")).stem) or "scene"


def damaged(label: str, where: str, error: Exception) -> ResegeoError:
    """Say in one sentence where a source cannot be read, and how to mend it."""
    if "://" in label or label.startswith("/vsi"):
        remedy = "Check the network or the archive, and run the same command again."
    elif label.lower().endswith(".vrt"):
        remedy = "Check the files that it is made of."
    else:
        remedy = "Get the file again, or repair it with gdal_translate."
    return ResegeoError(f"{label} is damaged: {where} cannot be read ({_reason(error)}). {remedy}")


def _reason(error: BaseException) -> str:
    """Return what GDAL said first: the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()).rstrip(".")


def told_wavelength(description: str, tags: Sequence[tuple[str, str]]) -> float | None:
    """Return the central wavelength of a band in nm by its tags or its description; None where they do not tell."""
    said = [value for key, value in tags if re.fullmatch(r"(central_?)?wavelength(_(um|nm))?", key, re.IGNORECASE)]
    said += re.findall(r"wavelength\D{0,9}([\d.]+)", description[:200])
    for text in said:
        number = re.match(r"\s*(\d+(\.\d*)?)", text)
        value = float(number[1]) if number is not None and len(number[1]) < 20 else np.nan
        value = value * 1000 if value < 100 else value  # micrometres
        if 100 < value < 100_000:
            return value
    return None
