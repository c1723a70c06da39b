"""Scores of every class, and how sure the best one is, as Cloud-Optimized GeoTIFFs beside the class raster."""

from __future__ import annotations

import contextlib
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window

from resegeo.classes.class_list import ClassList
from resegeo.clip.blending import NO_SCORE, SCORE_STEPS
from resegeo.files import Note, move, saving, workshop
from resegeo.outputs.raster import create_tiled
from resegeo.scene.source import GeoReference
from resegeo.scene.windows import BLOCK

if TYPE_CHECKING:
    from resegeo.run.labelling import Block

CONFIDENCE_BANDS = ("best class", "second class", "best score", "margin")
"""Codes of the best two classes, whatever the thresholds; the best score, and how far the second lies below it."""


class ScoreRasters:
    """Takes blocks as they are labelled; at the end both files get their names."""

    def __init__(self, place: Path, paths: Sequence[Path], classes: ClassList, height: int, width: int) -> None:
        """Write into the folder ``place`` what becomes ``paths``: scores and confidence."""
        self._place, self._paths, self._classes = place, tuple(paths), classes
        self._size = height, width
        self._rasters: list[Any] = []
        self._sums: list[dict[Window, int]] = [{}, {}]

    def open(self, stack: contextlib.ExitStack, georeference: GeoReference) -> None:
        """Lay out both files."""
        names = [spec.name for spec in self._classes.classes]
        scored = [1 / SCORE_STEPS]
        layouts: list[tuple[str, int, Sequence[str], list[float]]] = [
            ("uint8", NO_SCORE, names, scored * len(names)),
            (self._classes.dtype, self._classes.nodata, CONFIDENCE_BANDS, [1.0, 1.0, *scored, *scored]),
        ]
        for number, (dtype, nodata, bands, scales) in enumerate(layouts):
            height, width = self._size
            profile = {"dtype": dtype, "nodata": nodata, "count": len(bands), "height": height, "width": width}
            opened = create_tiled(self._plain(number), georeference, photometric="minisblack", **profile)
            raster = stack.enter_context(opened)
            raster.scales = scales
            for band, name in enumerate(bands, start=1):
                raster.set_band_description(band, name)
            self._rasters.append(raster)

    def put(self, block: Block) -> None:
        """Take a block; one that was not scored stays nodata."""
        if block.by_class is None or block.ranks is None:
            return
        rect = block.rect
        codes = np.array([spec.code for spec in self._classes.classes], dtype=self._classes.dtype)
        best, second, margin = block.ranks
        none = np.isnan(margin) | ~block.valid
        top = np.take_along_axis(block.by_class, best[None], axis=0)[0]
        apart = np.rint(np.nan_to_num(margin) * SCORE_STEPS)
        confidence = np.stack([codes[best], codes[second], top, apart]).astype(self._classes.dtype)
        confidence[:, none] = self._classes.nodata
        window = Window(rect.col, rect.row, rect.width, rect.height)
        for raster, sums, values in zip(self._rasters, self._sums, (block.by_class, confidence), strict=True):
            values = np.ascontiguousarray(values)
            raster.write(values, window=window)
            sums[window] = zlib.crc32(values.tobytes())

    def finish(self, note: Note | None) -> None:
        """Make COGs of both, see that they read back, and give them their names."""
        files: dict[Path, Path] = {}
        for number, (path, resampling) in enumerate(zip(self._paths, ("AVERAGE", "NEAREST"), strict=True)):
            cloud = self._place / f"cog-{number}.tif"
            try:
                rasterio.shutil.copy(
                    self._plain(number),
                    cloud,
                    driver="COG",
                    BLOCKSIZE=BLOCK,
                    COMPRESS="DEFLATE",
                    PREDICTOR="NO",
                    OVERVIEW_RESAMPLING=resampling,
                    BIGTIFF="IF_SAFER",
                )
            except Exception as error:  # GDAL's own errors, which have no public base
                raise RasterioIOError(" ".join(str(error).split())) from error
            with rasterio.open(cloud) as raster:
                for window, expected in self._sums[number].items():
                    values: NDArray[Any] = raster.read(window=window)
                    if zlib.crc32(values.tobytes()) != expected:
                        raise RasterioIOError("it reads back otherwise than it was written")
            files[cloud] = path
        move(files, note=note)

    def _plain(self, number: int) -> Path:
        return self._place / f"plain-{number}.tif"


@contextlib.contextmanager
def score_rasters(
    paths: Sequence[Path],
    classes: ClassList,
    *,
    height: int,
    width: int,
    georeference: GeoReference,
    note: Note | None = None,
) -> Iterator[ScoreRasters]:
    """Yield what takes the blocks; where nothing fails, both files lie there afterwards.

    Raises
    ------
    ResegeoError:
        When the disk is full or the folder can't be written to.

    """
    with saving(paths[0], RasterioError), warnings.catch_warnings(), workshop(paths[0].parent) as place:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        made = ScoreRasters(place, paths, classes, height, width)
        with contextlib.ExitStack() as stack:
            made.open(stack, georeference)
            yield made
        made.finish(note)
