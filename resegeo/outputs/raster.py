"""Class codes to a Cloud-Optimized GeoTIFF with palette, attribute table, style and provenance."""

from __future__ import annotations

import json
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window

from resegeo.classes.class_list import ClassList
from resegeo.documents import parse_json
from resegeo.errors import ResegeoError
from resegeo.files import Note, is_there, move, saving, workshop
from resegeo.outputs.sieve import without_small, without_small_areas
from resegeo.outputs.strips import Codes
from resegeo.outputs.styles import colormap, qml_raster, rat_xml
from resegeo.scene.formats import open_raster
from resegeo.scene.source import GeoReference, is_local
from resegeo.scene.windows import BLOCK

CLASSES_TAG = "RESEGEO_CLASSES"
"""Tag of the raster that holds its class list as JSON."""

CACHE_BYTES = 256 * 2**20
"""GDAL's block cache: it must hold the strips that a row of windows needs, or each is decoded again and again."""


def write_class_raster(
    path: Path,
    blocks: Iterable[tuple[int, int, NDArray[np.unsignedinteger]]],
    *,
    height: int,
    width: int,
    georeference: GeoReference,
    classes: ClassList,
    tags: Mapping[str, str],
    min_area: int = 0,
    note: Note | None = None,
) -> dict[int, int]:
    """Write blocks of class codes as a COG, with a PAM attribute table and a QGIS style beside it.

    Parameters
    ----------
    path:
        The raster; ``<path>.aux.xml`` and the same name with ``.qml`` are written too.
    blocks:
        (row, col, codes (h, w)), each pixel once, in any order.
    height, width:
        Size of the raster in pixels.
    georeference:
        Where it lies: transform, GCPs and RPCs are taken over as they are.
    classes:
        The class list behind palette, names and codes.
    tags:
        Provenance.
    min_area:
        Areas of fewer pixels join a neighbour, see :func:`sieved`.
    note:
        See :func:`resegeo.files.move`.

    Returns
    -------
    Number of pixels of each code that occurs.

    Raises
    ------
    ResegeoError:
        When the disk is full or the folder can't be written to.

    """
    counts: Counter[int] = Counter()
    attributes, style = sidecars(path)
    with (
        saving(path, RasterioError),
        warnings.catch_warnings(),
        # GDAL's block cache takes 5 % of the machine's memory unless told otherwise; rasterio wants bytes.
        rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
        workshop(path.parent) as place,
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        plain, cloud, table, look = (place / name for name in ("plain.tif", "cog.tif", "table.xml", "style.qml"))
        sums = _write_plain(plain, blocks, counts, height, width, georeference, classes, tags)
        if min_area > 1:
            counts, sums = _sieve(plain, classes, min_area)
        _copy(plain, cloud)
        _verify(cloud, sums)
        table.write_text(rat_xml(classes, counts), "utf-8")
        look.write_text(qml_raster(classes), "utf-8")
        move({cloud: path, table: attributes, look: style}, note=note)
    return dict(counts)


def sidecars(path: Path) -> tuple[Path, Path]:
    """Return where the attribute table and the QGIS style of a class raster lie."""
    return path.with_name(path.name + ".aux.xml"), path.with_suffix(".qml")


def _write_plain(
    path: Path,
    blocks: Iterable[tuple[int, int, NDArray[np.unsignedinteger]]],
    counts: Counter[int],
    height: int,
    width: int,
    georeference: GeoReference,
    classes: ClassList,
    tags: Mapping[str, str],
) -> dict[Window, int]:
    """Write a tiled GeoTIFF block by block, all metadata included, for GDAL to copy; return the blocks' checksums."""
    sums: dict[Window, int] = {}
    profile = {"dtype": classes.dtype, "nodata": classes.nodata, "count": 1, "height": height, "width": width}
    with create_tiled(path, georeference, **profile, zlevel=1) as raster:  # GDAL compresses its copy anew
        raster.write_colormap(1, colormap(classes))
        raster.set_band_description(1, "class")
        raster.update_tags(**{**tags, CLASSES_TAG: json.dumps(classes.to_json(), ensure_ascii=False)})
        for row, col, codes in blocks:
            window = Window(col, row, codes.shape[1], codes.shape[0])
            raster.write(codes, 1, window=window)
            sums[window] = zlib.crc32(codes.tobytes())
            counts.update(_counted(codes))
    return sums


def create_tiled(path: Path, georeference: GeoReference, **profile: Any) -> Any:
    """Open a new tiled GeoTIFF of a scene's place, for GDAL to make a COG of; ``profile`` as rasterio takes it."""
    layout = {"driver": "GTiff", "compress": "deflate", "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    where = {"crs": georeference.crs, "transform": georeference.transform}
    given = {name: value for name, value in where.items() if value is not None}
    raster = rasterio.open(path, "w", **layout, bigtiff="if_safer", **profile, **given)
    if georeference.gcps and georeference.transform is None:
        raster.gcps = (list(georeference.gcps), georeference.gcps_crs or CRS())  # rasterio takes no None here
    if georeference.rpcs is not None:
        raster.rpcs = georeference.rpcs
    return raster


def _counted(codes: NDArray[np.unsignedinteger]) -> dict[int, int]:
    times = np.bincount(codes.ravel())
    found = np.flatnonzero(times)
    return dict(zip(found.tolist(), times[found].tolist(), strict=True))


def _sieve(path: Path, classes: ClassList, min_area: int) -> tuple[Counter[int], dict[Window, int]]:
    """Sieve a plain GeoTIFF in place; return the counts of codes and the checksums of the windows."""
    counts: Counter[int] = Counter()
    sums = {}
    with rasterio.open(path, "r+") as raster:
        codes = Codes(
            raster.height,
            raster.width,
            lambda top, bottom: raster.read(1, window=Window(0, top, raster.width, bottom - top)),
        )
        for top, part in without_small(codes, _seen(classes), min_area, BLOCK).strips(BLOCK):
            window = Window(0, top, *part.shape[::-1])
            raster.write(part, 1, window=window)
            sums[window] = zlib.crc32(part.tobytes())
            counts.update(_counted(part))
    return counts, sums


def _seen(classes: ClassList) -> Callable[[NDArray[Any]], NDArray[np.bool_]]:
    return lambda codes: (codes != classes.nodata) & (codes != classes.unprocessed)


def sieved(codes: NDArray[np.unsignedinteger], classes: ClassList, min_area: int) -> NDArray[np.unsignedinteger]:
    """Let areas (4-connected) of fewer than ``min_area`` pixels join a neighbour, until none is left that has one.

    See :func:`resegeo.outputs.sieve.without_small`; nodata and unprocessed pixels neither change nor take part.

    Parameters
    ----------
    codes:
        (h, w) class codes.
    classes:
        Their class list.
    min_area:
        Pixels; 0 and 1 change nothing.

    """
    if min_area <= 1:
        return codes
    return without_small_areas(codes, _seen(classes)(codes), min_area)


def sieved_codes(codes: Codes, classes: ClassList, min_area: int) -> Codes:
    """Do as :func:`sieved` with codes that are read in strips."""
    if min_area <= 1:
        return codes
    return without_small(codes, _seen(classes), min_area)


def _copy(plain: Path, cloud: Path) -> None:
    """Make a COG of a plain GeoTIFF; GDAL before 3.13 writes one only so."""
    try:
        rasterio.shutil.copy(
            plain,
            cloud,
            driver="COG",
            BLOCKSIZE=BLOCK,
            COMPRESS="DEFLATE",
            PREDICTOR="NO",
            OVERVIEW_RESAMPLING="MODE",  # GDAL's default would invent classes
            BIGTIFF="IF_SAFER",
        )
    except Exception as error:  # rasterio passes on GDAL's own errors here, which have no public base
        raise RasterioIOError(" ".join(str(error).split())) from error


def _verify(path: Path, sums: Mapping[Window, int]) -> None:
    """See that every block can be read back: GDAL says nothing of a disk that fills when a file is closed."""
    with rasterio.open(path) as raster:
        for window, expected in sums.items():
            if zlib.crc32(raster.read(1, window=window).tobytes()) != expected:
                raise RasterioIOError("it reads back otherwise than it was written")


def read_class_raster_info(path: str | Path, formats: Sequence[str] = ()) -> tuple[ClassList, GeoReference]:
    """Read class list and georeference of a class raster that this program wrote.

    ``formats`` are trusted for it, see :func:`resegeo.scene.formats.open_raster`.

    Raises
    ------
    ResegeoError:
        When it can't be opened or carries no class list.

    """
    if is_local(str(path)) and not is_there(path):
        raise ResegeoError(f"{path}: no such file. Give the .classes.tif that `resegeo segment` wrote.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with open_raster(str(path), formats) as raster:
                tag = raster.tags().get(CLASSES_TAG)
                gcps, gcps_crs = raster.gcps
                transform = None if raster.transform.is_identity else raster.transform
                where = GeoReference(raster.crs, transform, tuple(gcps), gcps_crs, raster.rpcs)
    except RasterioError as error:
        raise ResegeoError(f"{path} cannot be opened as a raster; expected a class raster of resegeo.") from error
    if tag is None:
        raise ResegeoError(
            f"{path} is no class raster of resegeo: it has no class list among its tags. Give the "
            ".classes.tif that `resegeo segment` wrote."
        )
    try:
        return ClassList.from_json(parse_json(tag, "the tag")), where
    except (ValueError, ResegeoError) as error:
        raise ResegeoError(f"{path}: the class list in its tag {CLASSES_TAG} cannot be read; write it anew.") from error
