"""Small rasters of every layout and compression, damaged in ways that files are: for whoever reads them to survive."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.transform import from_origin

LAYOUTS = [
    {"compress": compress, "tiled": tiled, "interleave": interleave, **more}
    for compress in ("none", "deflate", "lzw", "packbits", "zstd")
    for tiled in (False, True)
    for interleave in ("pixel", "band")
    for more in ({}, {"bigtiff": "yes"})
]
HOSTILE = (0, 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
"""Values that a damaged or hostile tag may hold for a size, an offset or a count."""


def sound_rasters(folder: Path) -> list[Path]:
    """Write one raster of each kind."""
    random = np.random.default_rng(0)
    bands = random.integers(0, 255, (3, 48, 64), dtype=np.uint8)
    shape = {"count": 3, "height": 48, "width": 64, "dtype": "uint8"}
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_200_000, 10, 10)}
    kinds: list[tuple[str, dict[str, object]]] = []
    for number, layout in enumerate(LAYOUTS):
        tiles = {"blockxsize": 16, "blockysize": 16} if layout["tiled"] else {"blockysize": 5}
        kinds.append((f"layout{number}.tif", {"driver": "GTiff", **place, **layout, **tiles}))
    kinds.append(("jpeg.tif", {"driver": "GTiff", **place, "compress": "jpeg", "photometric": "ycbcr"}))
    kinds.append(("plain.png", {"driver": "PNG"}))
    kinds.append(("plain.jp2", {"driver": "JP2OpenJPEG", **place}))
    kinds.append(("plain.jpg", {"driver": "JPEG"}))
    written = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, options in kinds:
            path = folder / name
            with rasterio.open(path, "w", **shape, **options) as raster:
                raster.write(bands)
            written.append(path)
        rasterio.shutil.copy(written[0], folder / "over.vrt", driver="VRT")
    return [*written, folder / "over.vrt"]


def damaged_rasters(folder: Path, count: int, seed: int) -> Iterator[tuple[str, Path]]:
    """Yield ``count`` times what was done and the file, which is written anew each time.

    Parameters
    ----------
    folder:
        Where the sound rasters, and the damaged ones in turn, are written.
    count:
        How many.
    seed:
        Which: equal seeds give equal files.

    """
    random = np.random.default_rng(seed)
    sound = sound_rasters(folder)
    ways = (_flipped, _cut, _zeroed, _tagged, _swapped)
    for number in range(count):
        source = sound[number % len(sound)]
        way = ways[int(random.integers(len(ways)))]
        path = folder / f"damaged{source.suffix}"
        path.write_bytes(way(source.read_bytes(), random))
        for beside in folder.glob("damaged*.aux.xml"):
            beside.unlink()
        yield f"{number}: {source.name} {way.__name__.strip('_')}", path


def _flipped(content: bytes, random: np.random.Generator) -> bytes:
    """Other bytes at a few places, of which most lie where headers do."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 16))):
        end = min(len(changed), 400) if random.random() < 0.7 else len(changed)
        changed[int(random.integers(end))] = int(random.integers(256))
    return bytes(changed)


def _cut(content: bytes, random: np.random.Generator) -> bytes:
    return content[: int(random.integers(len(content)))]


def _zeroed(content: bytes, random: np.random.Generator) -> bytes:
    """A stretch of zeros, as an unwritten page leaves."""
    start, length = int(random.integers(len(content))), int(random.integers(1, 600))
    return content[:start] + bytes(min(length, len(content) - start)) + content[start + length :]


def _swapped(content: bytes, random: np.random.Generator) -> bytes:
    """Two halves of the rest in the wrong order."""
    start = int(random.integers(len(content)))
    middle = (start + len(content)) // 2
    return content[:start] + content[middle:] + content[start:middle]


def _tagged(content: bytes, random: np.random.Generator) -> bytes:
    """A hostile number in a tag of a TIFF: its count, its value or its offset; other formats get it anywhere."""
    value = HOSTILE[int(random.integers(len(HOSTILE)))]
    changed = bytearray(content)
    if content[:4] == b"II*\0":
        start = struct.unpack_from("<I", content, 4)[0]
        tags = struct.unpack_from("<H", content, start)[0] if start + 2 <= len(content) else 0
        if 0 < tags < 100:
            tag = start + 2 + 12 * int(random.integers(tags))
            struct.pack_into("<I", changed, tag + int(random.choice((4, 8))), value)
            return bytes(changed)
    struct.pack_into("<I", changed, int(random.integers(max(1, len(changed) - 4))), value)
    return bytes(changed)
