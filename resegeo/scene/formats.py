"""Which files may be opened as a raster: formats that read no other file and no network, and sizes that can be planned.

A file may come from a stranger, and GDAL takes it for what its content says, whatever its name: an XML of 300 bytes
named ``.tif`` may describe a service on the network, or any file of this machine as raw bytes. Formats whose files
hold their pixels are read; others only where they are named.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import rasterio
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from resegeo.errors import ResegeoError, UsageError, shown
from resegeo.files import is_file, is_folder, is_there, read_limited

SELF_CONTAINED = (
    "GTiff",
    "JPEG",
    "PNG",
    "JP2OpenJPEG",
    "WEBP",
    "BMP",
    "GIF",
    "BIGGIF",
    "HFA",
    "ENVI",
    "EHdr",
    "AAIGrid",
    "NITF",
    "GPKG",
    "MBTiles",
)
"""Drivers of GDAL whose pixels lie in the file, or beside it under its own name.

Not among them: services (WMS, WCS, WMTS, STACIT, …), containers that name other files (HDF5 and netCDF take raw bytes
from anywhere by "external storage"; PCIDSK, ERS, MRF, PDS, DIMAP), and VRT, which is looked into: see
:func:`open_raster`.
"""

MOST_PIXELS = 10**11
"""Pixels of a scene: a million windows of the smallest model at its usual stride are 10¹⁰, and the plan holds more."""

MOST_ROWS = 10**8
"""Rows or columns of a scene."""

MOST_BANDS = 10_000
"""Bands of a scene: time series of hyperspectral images have some thousands."""

_VRT_BYTES = 64 * 2**20
_VRT_DEPTH = 4
"""VRTs over VRTs that are looked into."""

_FOLDERS = ("Zarr", "AIG")
"""Drivers of formats that are folders."""

_SIDECARS = (".msk", ".ovr")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9+_.-]+:")


def is_local(path: str) -> bool:
    """Whether a path means a file here, not a URL, a path of GDAL's own or a driver's prefix (NETCDF:file:variable)."""
    # Prefixes have two letters or more, a drive of Windows one; a file may carry a colon in its name.
    special = path.startswith("/vsi") or _PREFIX.match(path) is not None
    with contextlib.suppress(OSError, ValueError):  # no name that a file could have
        return not special or is_there(path)
    return not special


def known_formats(formats: Sequence[str] | None) -> tuple[str, ...]:
    """Spell formats that a user trusts as GDAL does.

    Raises
    ------
    UsageError:
        When GDAL has no such format.

    """
    if not formats:
        return ()
    with rasterio.Env() as env:
        drivers = {name.casefold(): name for name in env.drivers()}
    for name in formats:
        if str(name).casefold() not in drivers:
            raise UsageError(
                f"[[formats={shown(name)}]] is no format that GDAL {rasterio.__gdal_version__} reads; expected names "
                "of "
                "GDAL's raster drivers, such as VRT or netCDF."
            )
    return tuple(dict.fromkeys(drivers[str(name).casefold()] for name in formats))


@contextlib.contextmanager
def open_raster(path: str, formats: Sequence[str] = ()) -> Iterator[DatasetReader]:
    """Open a raster for reading: the one way for scenes, labels, masks and truths.

    Parameters
    ----------
    path:
        A file, URL, /vsi path, or a driver's prefix and what it takes; the prefix names its format.
    formats:
        GDAL's names of formats that are trusted beside :data:`SELF_CONTAINED`. A VRT that is not among them may only
        be composed of rasters beside or below it, each of which holds to the same rule.

    Raises
    ------
    ResegeoError:
        When it is no ordinary file, reaches for other files, or is larger than can be planned.
    RasterioError:
        As rasterio does, when it is damaged or in no format that is read.

    """
    # Not as a context of its own, which would be an environment of GDAL: left unclosed, as after an error, this one
    # would later end that of somebody else.
    raster = opened(path, checked(path, formats))
    try:
        refuse_boundless(path, raster)
        yield raster
    finally:
        raster.close()


P = ParamSpec("P")
T = TypeVar("T")


def heard(call: Callable[P, T]) -> Callable[P, T]:
    """Let GDAL say what it has to say to Python's loggers while a function runs, not to stderr itself.

    It reads much of a file when that is first asked for, long after it was opened, and listens for each thread alone.
    """

    @functools.wraps(call)
    def within(*args: P.args, **kwargs: P.kwargs) -> T:
        with rasterio.Env():
            return call(*args, **kwargs)

    return within


@ensure_env_with_credentials  # type: ignore[untyped-decorator]
def opened(path: str, drivers: Collection[str] | None) -> DatasetReader:
    """Open a raster that :func:`checked` has looked at by the drivers that it returned."""
    # What rasterio.open does, which takes one driver alone.
    return DatasetReader(path, driver=None if drivers is None else list(drivers))


def checked(path: str, formats: Sequence[str] = ()) -> tuple[str, ...] | None:
    """Return the drivers by which a raster may be opened, None for all; see :func:`open_raster`."""
    formats = known_formats(formats)
    if is_local(path):
        refuse_special(path)
        if is_folder(path):  # one that the user named
            return (*_FOLDERS, *formats)
        return _checked(Path(path), formats, 0)
    if _PREFIX.match(path) and "://" not in path:
        return None  # the user has named the format
    return (*SELF_CONTAINED, *formats)


def refuse_special(path: str | Path) -> None:
    """Refuse a pipe, a socket or a device, which would be waited for, or read, without end; see ResegeoError."""
    with contextlib.suppress(OSError, ValueError):  # whoever opens it says more
        mode = Path(path).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ResegeoError(f"{shown(path)} is a pipe, a socket or a device; expected an ordinary file.")


def refuse_boundless(path: str, raster: DatasetReader) -> None:
    """Refuse a raster of more pixels, rows, columns or bands than can be planned, whatever its file holds."""
    height, width, count = raster.height, raster.width, raster.count
    if height * width > MOST_PIXELS or max(height, width) > MOST_ROWS:
        raise ResegeoError(
            f"{shown(path)} says that it has {height:,} × {width:,} pixels (rows × columns); at most {MOST_PIXELS:,}, "
            f"and {MOST_ROWS:,} in a row or column, can be planned. Cut it into parts, for example with gdal_translate "
            "-srcwin."
        )
    if count > MOST_BANDS:
        raise ResegeoError(
            f"{shown(path)} says that it has {count:,} bands; at most {MOST_BANDS:,} are read. Take those that serve "
            "as red, green and blue with gdal_translate -b."
        )


def _checked(path: Path, formats: tuple[str, ...], depth: int) -> tuple[str, ...]:
    """Look at a file here, its sidecars, and into a VRT."""
    drivers = (*SELF_CONTAINED, *formats)
    for sidecar in (Path(f"{path}{end}") for end in _SIDECARS):
        if not _begins(sidecar, _TIFF) and is_file(sidecar) and sidecar.stat().st_size and "VRT" not in formats:
            raise ResegeoError(
                f"{shown(sidecar)} is no TIFF, as masks and overviews beside a raster are; remove it, or trust it by "
                "[[formats=VRT]]."
            )
    if "VRT" in formats or not _is_vrt(path):
        return drivers
    for source in _sources(path):
        if not is_there(source):
            continue  # GDAL says which one is missing when it is read
        refuse_special(source)
        if depth >= _VRT_DEPTH:
            raise ResegeoError(f"{shown(path)} is a VRT over VRTs, more than {_VRT_DEPTH} deep; flatten it.")
        inner = _checked(source, formats, depth + 1)
        try:
            with opened(str(source), inner):
                pass
        except RasterioError as error:
            raise ResegeoError(
                f"{shown(path)} is made of {shown(source)}, which cannot be opened as a raster: it is damaged, or in "
                f"none of the formats that are read without being named. {_TRUST}"
            ) from error
    return (*drivers, "VRT")


_TRUST = "Where you trust the file, pass [[formats=VRT]]."


def _begins(path: Path, signs: Sequence[bytes]) -> bool:
    with contextlib.suppress(OSError, ValueError):
        if is_file(path):
            with path.open("rb") as stream:
                return stream.read(4) in signs
    return False


def _is_vrt(path: Path) -> bool:
    """Whether GDAL takes a file for a VRT: it looks for its element in the first bytes, whatever the name."""
    with contextlib.suppress(OSError, ValueError):
        if is_file(path):
            with path.open("rb") as stream:
                return b"<VRTDataset" in stream.read(4096)
    return False


_BAND_KINDS = (None, "VRTSourcedRasterBand", "VRTWarpedRasterBand", "VRTPansharpenedRasterBand")
_DATASET_KINDS = (None, "VRTWarpedDataset", "VRTPansharpenedDataset")
_NAMES = ("SourceFilename", "SourceDataset", "OverviewFilename", "DEMPath")
_METADATA_NAMES = ("X_DATASET", "Y_DATASET", "OVERVIEW_FILE", "RPC_DEM")


def _sources(vrt: Path) -> list[Path]:
    """Return the files that a VRT is made of; refuse one that reads others than rasters beside or below it."""
    try:
        text = read_limited(vrt, _VRT_BYTES)
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise ResegeoError(f"{shown(vrt)} is a VRT with definitions of its own (DOCTYPE), which are not read.")
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise ResegeoError(f"{shown(vrt)} is damaged: as a VRT it is no sound XML ({shown(error)}).") from error
    found: dict[Path, None] = {}
    inside = vrt.parent.absolute()
    for element in root.iter():
        kind = element.get("subClass")
        known = _DATASET_KINDS if element.tag == "VRTDataset" else _BAND_KINDS
        if kind not in known or element.tag in ("PixelFunctionCode", "ArraySource", "ProcessingSteps", "Group"):
            raise ResegeoError(
                f"{shown(vrt)} is a VRT that computes pixels or takes raw bytes from a file "
                f"({shown(kind or element.tag)}). {_TRUST}"
            )
        named = element.tag in _NAMES or element.get("relativeToVRT") is not None
        named = named or element.get("key") in _METADATA_NAMES or element.get("name") in _METADATA_NAMES
        name = (element.text or "").strip()
        if not named or not name:
            continue
        relative = element.get("relativeToVRT", element.get("relativetoVRT", "0")) == "1"
        place = Path(os.path.normpath(inside / name if relative else Path(name).absolute()))
        if name.startswith(("/vsi", "<")) or "\0" in name or not is_local(str(place) if relative else name):
            raise ResegeoError(f"{shown(vrt)} is a VRT over {shown(name)}, which is no file. {_TRUST}")
        if not place.is_relative_to(os.path.normpath(inside)):
            raise ResegeoError(
                f"{shown(vrt)} is a VRT over {shown(name)}, which lies neither beside nor below it. {_TRUST}"
            )
        found[place] = None
    return list(found)
