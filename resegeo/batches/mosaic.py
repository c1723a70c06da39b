"""Tiles of one grid as one scene: a VRT over them, so that windows, segments and polygons know no seams.

GDAL's own VRT driver describes each tile; here the sources of all are put at their places in one file. (gdalbuildvrt
and osgeo do not come with rasterio, and rio-vrt 0.3.1 knows no masks or palettes, takes tiles of different pixel sizes
and fails without a CRS.)
"""

from __future__ import annotations

import contextlib
import os
import re
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from resegeo.errors import ResegeoError, UsageError
from resegeo.files import is_there, refuse_links, whole
from resegeo.scene.formats import open_raster
from resegeo.scene.source import is_local

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

MARK = "RESEGEO_MOSAIC"
"""Metadata by which a mosaic that a batch made is told from a scene of the user's own."""

SLACK = 0.01
"""Share of a pixel by which a tile may miss the common grid."""


@dataclass(frozen=True)
class _Tile:
    """A tile, and what GDAL says of it."""

    path: str
    transform: Affine
    width: int
    height: int
    kind: dict[str, str]
    """What must be the same for all tiles, as messages say it."""
    description: ET.Element = field(repr=False)


def build_mosaic(tiles: Sequence[str], output: Path, name: str, formats: Sequence[str] = ()) -> Path:
    """Write ``output/name/name.vrt`` over tiles of one grid.

    Where tiles overlap, a valid pixel of a later one covers those before it. Pixels that no tile covers are nodata, or
    masked where the tiles have no nodata value.

    Parameters
    ----------
    tiles:
        Paths or URLs of rasters with the same CRS, bands, dtype, nodata, palette and pixel size, on one grid.
    output:
        Folder of the batch.
    name:
        Name of the mosaic.
    formats:
        As for :func:`resegeo.scene.formats.open_raster`.

    Returns
    -------
    The VRT. A file with the same content is left as it is.

    Raises
    ------
    ResegeoError:
        With one sentence, where the tiles do not fit together.

    """
    if not re.fullmatch(r"[^\x00-\x1f/\\?*:|<>\"]+", name) or name in (".", "..") or name.endswith(".vrt"):
        raise UsageError(f"[[mosaic={name!r}]] cannot be a folder's name; expected a plain name such as district.")
    path = mosaic_path(output, name)
    refuse_links(output, path)
    twice = next((tile for number, tile in enumerate(tiles) if tile in tiles[:number]), None)
    if twice is not None:
        raise ResegeoError(f"{twice} is named twice; name each tile of a mosaic once.")
    own = next((tile for tile in tiles if is_there(path) and is_there(tile) and path.samefile(tile)), None)
    if own is not None:
        raise ResegeoError(f"{own} is the mosaic {name!r} itself and cannot be a tile of it; leave it out.")
    if is_there(path) and not is_mosaic(path):
        raise ResegeoError(f"{path} exists and is no mosaic of this program. Remove it, or name the mosaic otherwise.")
    read = [_describe(tile, formats) for tile in tiles]
    for tile in read[1:]:
        for what, value in tile.kind.items():
            if value != read[0].kind[what]:
                raise ResegeoError(
                    f"{tile.path} and {read[0].path} are no tiles of one mosaic: {what} is {value} there, "
                    f"{read[0].kind[what]} here. Convert one, or segment them without [[mosaic]]."
                )
    text = ET.tostring(_assemble(read, path.parent, name), encoding="unicode")
    try:
        if not is_there(path) or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path) as beside:
                beside.write_text(text, "utf-8")
    except OSError as error:
        raise ResegeoError(
            f"{path} cannot be written ({error.strerror}); name another folder by [[output]]."
        ) from error
    return path


def mosaic_path(output: Path, name: str) -> Path:
    """Return where the VRT of a mosaic lies: where its results do."""
    return output / name / f"{name}.vrt"


def is_mosaic(path: Path) -> bool:
    """Whether a file is a mosaic that a batch made."""
    if path.suffix.lower() != ".vrt":
        return False
    with contextlib.suppress(OSError), path.open("rb") as stream:
        return MARK.encode() in stream.read(500)
    return False


def _describe(path: str, formats: Sequence[str]) -> _Tile:
    if is_local(path) and not is_there(path):
        raise ResegeoError(f"{path}: no such file. Check the path of the tile.")
    try:
        with open_raster(path, formats) as raster, MemoryFile(ext=".vrt") as memory:
            if raster.transform.is_identity:
                raise ResegeoError(f"{path} has no transform that says where it lies, as a tile of a mosaic must.")
            rasterio.shutil.copy(raster, memory.name, driver="VRT")
            description = ET.fromstring(memory.read())
            return _Tile(path, raster.transform, raster.width, raster.height, _kind(raster, description), description)
    except (RasterioError, ET.ParseError) as error:
        raise ResegeoError(f"{path} cannot be opened as a raster, as a tile of a mosaic must be.") from error


def _kind(raster: DatasetReader, description: ET.Element) -> dict[str, str]:
    palettes = [ET.tostring(table, encoding="unicode") for table in description.iter("ColorTable")]
    crs = raster.crs
    return {
        "the CRS": "none" if crs is None else str(crs.to_string())[:60],
        "the number of bands": str(raster.count),
        "the type": ", ".join(dict.fromkeys(raster.dtypes)),
        "the nodata value": ", ".join(dict.fromkeys(str(value) for value in raster.nodatavals)),
        "the pixel": " × ".join(f"{value:.9g}" for value in _pixel(raster.transform)),
        "the order of colours": ", ".join(colour.name for colour in raster.colorinterp),
        "the mask": "a band of its own" if description.find("MaskBand") is not None else "none",
        "the palette": f"one with checksum {zlib.crc32(''.join(palettes).encode()):08x}" if palettes else "none",
    }


def _pixel(transform: Affine) -> tuple[float, ...]:
    """Width and height of a pixel, and what turns it where anything does."""
    straight, turned = (transform.a, transform.e), (transform.b, transform.d)
    return (*straight, *turned) if any(turned) else straight


def _assemble(tiles: Sequence[_Tile], folder: Path, name: str) -> ET.Element:
    """Put the sources of all tiles at their places in the description of the first."""
    first = tiles[0]
    inverse = ~first.transform
    places = []
    for tile in tiles:
        col, row = inverse @ (tile.transform.c, tile.transform.f)
        place = round(col), round(row)
        if max(abs(col - place[0]), abs(row - place[1])) > SLACK:
            raise ResegeoError(
                f"{tile.path} lies {col:.2f} columns and {row:.2f} rows from {first.path}; tiles of one grid are whole "
                "numbers apart. Resample it, or segment them without [[mosaic]]."
            )
        places.append(place)
    left, top = min(col for col, _ in places), min(row for _, row in places)
    boxes = [
        (col - left, row - top, col - left + tile.width, row - top + tile.height)
        for (col, row), tile in zip(places, tiles, strict=True)
    ]
    width, height = max(box[2] for box in boxes), max(box[3] for box in boxes)
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    ET.SubElement(ET.SubElement(root, "Metadata"), "MDI", key=MARK).text = name
    origin = first.transform @ Affine.translation(left, top)
    for part in first.description:
        if part.tag == "SRS":
            root.append(part)
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(value) for value in origin.to_gdal())
    masked = first.description.find("MaskBand") is not None
    alpha = any(band.findtext("ColorInterp") == "Alpha" for band in first.description.findall("VRTRasterBand"))
    bands = [_Band(root, band, masked=masked or alpha) for band in first.description.findall("VRTRasterBand")]
    covered = shapely.union_all([shapely.box(*box) for box in boxes]).area
    nodata = all(band.missing is not None for band in bands)
    gaps = covered < width * height - 0.5 and not (nodata or masked or alpha)
    mask = ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte") if masked or gaps else None
    for tile, box in zip(tiles, boxes, strict=True):
        file, relative = _seen_from(folder, tile.path)
        found = tile.description.findall("VRTRasterBand")
        for band, described in zip(bands, found, strict=True):
            band.element.append(_source(described, file, relative, box, **band.options))
        if mask is not None:
            described = tile.description.findall("MaskBand/VRTRasterBand")[0] if masked else found[0]
            options: dict[str, str] = {"NODATA": "0"} if masked else {"ScaleOffset": "255", "ScaleRatio": "0"}
            mask.append(_source(described, file, relative, box, **options))
    return root


class _Band:
    """A band of the mosaic: the first tile's without its source."""

    def __init__(self, root: ET.Element, like: ET.Element, *, masked: bool) -> None:
        self.element = ET.SubElement(root, "VRTRasterBand", like.attrib)
        for part in like:
            if not part.tag.endswith("Source"):
                self.element.append(part)
        self.missing = like.findtext("NoDataValue")
        self.options: dict[str, str] = {}
        if like.findtext("ColorInterp") == "Alpha":
            self.options["NODATA"] = "0"  # a transparent pixel covers nothing
        elif self.missing is not None:
            self.options["NODATA"] = self.missing
        elif masked:
            self.options["UseMaskBand"] = "true"


def _source(band: ET.Element, name: str, relative: bool, box: tuple[int, int, int, int], **options: str) -> ET.Element:
    """Take a tile's source to its place; ``options`` make it a source of GDAL's complex kind."""
    source = deepcopy(next(part for part in band if part.tag.endswith("Source")))
    source.tag = "ComplexSource" if options else source.tag
    file = source.find("SourceFilename")
    place = source.find("DstRect")
    if file is None or place is None:
        raise ResegeoError(f"{name}: GDAL {rasterio.__gdal_version__} describes it in an unknown way.")
    file.text = name
    file.set("relativeToVRT", str(int(relative)))
    place.set("xOff", str(box[0]))
    place.set("yOff", str(box[1]))
    for key, value in options.items():
        for old in source.findall(key):
            source.remove(old)
        ET.SubElement(source, key).text = value
    return source


def _seen_from(folder: Path, path: str) -> tuple[str, bool]:
    """Name a tile from the folder of the VRT, so that both can be moved together."""
    if not is_local(path):
        return path, False
    with contextlib.suppress(ValueError):  # another drive of Windows
        return Path(os.path.relpath(path, folder)).as_posix(), True
    return str(Path(path).resolve()), False
