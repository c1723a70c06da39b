"""Large images and their labels cut into squares as benchmarks do: side by side, the last one moved back inside."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from resegeo.datasets.tiles import Tile, shape_of
from resegeo.errors import ResegeoError, shown
from resegeo.files import whole
from resegeo.scene.formats import open_raster

FOLDER = "cut"
"""Of the pieces, in that of the results."""


def starts(length: int, side: int) -> list[int]:
    """First pixels of squares of ``side`` along a side of an image."""
    return [min(start, max(0, length - side)) for start in range(0, length, side)]


def cut(tile: Tile, side: int, folder: Path) -> list[Tile]:
    """Cut an image and its labels into squares, written as GeoTIFFs below ``folder``; a small one stays as it is.

    Pieces that are there already, younger than what they are cut from, are left.

    Raises
    ------
    ResegeoError:
        When the image or its labels cannot be read, differ in size, or a piece cannot be written.

    """
    height, width = shape_of(tile.image)
    if height <= side and width <= side:
        return [tile]
    if tile.labels is not None and shape_of(tile.labels) != (height, width):
        return [tile]  # which says so where it is looked at
    return list(_pieces(tile, side, (height, width), folder / FOLDER / tile.name))


def _pieces(tile: Tile, side: int, shape: tuple[int, int], folder: Path) -> Iterator[Tile]:
    for row in starts(shape[0], side):
        for col in starts(shape[1], side):
            window = Window(col, row, min(side, shape[1]), min(side, shape[0]))
            name = f"{row}_{col}"
            image, labels = folder / f"{name}.tif", folder / f"{name}.labels.tif"
            _write(tile.image, window, image)
            if tile.labels is not None:
                _write(tile.labels, window, labels)
            yield Tile(f"{tile.name}/{name}", image, None if tile.labels is None else labels)


def _write(source: Path, window: Window, path: Path) -> None:
    try:
        if path.exists() and path.stat().st_mtime_ns >= source.stat().st_mtime_ns:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with open_raster(str(source)) as raster, whole(path) as beside:
                placed = not raster.transform.is_identity
                profile = {
                    "driver": "GTiff",
                    "count": raster.count,
                    "height": window.height,
                    "width": window.width,
                    "dtype": raster.dtypes[0],
                    "nodata": raster.nodata,
                    "compress": "deflate",
                    **({"crs": raster.crs, "transform": raster.window_transform(window)} if placed else {}),
                }
                with rasterio.open(beside, "w", **profile) as out:
                    out.write(raster.read(window=window))
                    out.colorinterp = raster.colorinterp
                    if raster.colorinterp[0].name == "palette":
                        out.write_colormap(1, raster.colormap(1))
    except RasterioError as error:
        raise ResegeoError(f"{shown(source)} is damaged, and cannot be cut. Get it anew.") from error
    except OSError as error:
        raise ResegeoError(
            f"{shown(path)} cannot be written ({error.strerror}). Check free space and rights."
        ) from error
