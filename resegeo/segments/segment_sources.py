"""Segment sources: anything that proposes segments for the windows of a canvas.

0 means "in no segment". Ids need not be dense; they are compared, never counted. Most sources are anchored to the
scene: the ids of a pixel do not depend on which windows are asked for. SAM's exact mode alone looks at each window
by itself, as the paper does.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from resegeo.errors import ResegeoError
from resegeo.files import is_there, sync
from resegeo.scene.formats import heard, is_local, open_raster
from resegeo.scene.grids import difference, name_of
from resegeo.scene.label_rasters import blank, is_masked, masked
from resegeo.scene.region import Region, read_polygons, transform_of
from resegeo.scene.resampling import VALID, Canvas
from resegeo.scene.source import damaged
from resegeo.scene.vector_layers import VECTOR_SUFFIXES
from resegeo.scene.windows import Rect

if TYPE_CHECKING:
    from resegeo.segments.sam_masks import SamSegmenter

TILE = 512
"""Side of the canvas-anchored tiles that superpixels are computed on, in pixels."""

SAM_TILE = 1024
"""Side of the tiles that SAM sees, its own input size."""

HALO = 32
"""Pixels around a tile that its superpixels also see, so that they settle beyond the tile's border."""


class SegmentSource(Protocol):
    """What the execution needs of a segment source."""

    @property
    def levels(self) -> int:
        """K, the number of levels of the hierarchy."""
        ...

    @property
    def finest(self) -> int:
        """The level with the smallest segments, from 0; label voting takes it."""
        ...

    def propose(self, windows: Sequence[Rect], rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Segment ids (B, K, S, S) of B windows of one work item, whose pixels (B, S, S, 3) are at hand."""
        ...


class Anchored:
    """Base of the sources whose ids belong to the scene: they answer any rectangle, and windows are cut from it."""

    levels: int
    finest: int = 0

    def ids(self, rect: Rect) -> NDArray[np.int64]:
        """Segment ids (K, height, width) over a rectangle of canvas pixels; 0 outside the scene."""
        raise NotImplementedError

    def propose(self, windows: Sequence[Rect], rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Cut the windows' ids from those of their common rectangle; see :class:`SegmentSource`."""
        row, col = min(w.row for w in windows), min(w.col for w in windows)
        bottom, right = max(w.bottom for w in windows), max(w.right for w in windows)
        whole = Rect(row, col, bottom - row, right - col)
        ids = self.ids(whole)
        return np.stack([ids[_within(window, whole)] for window in windows])


class NoSegments(Anchored):
    """One segment everywhere: restricted layers see the whole window."""

    levels = 1

    def ids(self, rect: Rect) -> NDArray[np.int64]:
        """Return ones."""
        return np.ones((1, rect.height, rect.width), dtype=np.int64)


class Tiled(Anchored):
    """Base of the sources that segment the canvas tile by tile; ids are unique over the scene.

    A work item touches a few tiles and the next one mostly the same, so the last ones used are kept: in memory, and
    beyond that in a folder where there is one.
    """

    def __init__(self, canvas: Canvas, *, tile: int, levels: int, kept: int, folder: Path | None = None) -> None:
        """Cut ``canvas`` into tiles of ``tile`` pixels, keep ``kept`` of them in memory and all in ``folder``."""
        self.levels = levels
        self._canvas = canvas
        self._side = tile
        self._across = -(-canvas.width // tile)
        self._tiles: OrderedDict[tuple[int, int], Future[NDArray[np.int32]]] = OrderedDict()
        self._lock = threading.Lock()
        self._kept = kept
        self._folder = folder

    def segment(self, core: Rect) -> NDArray[np.int32]:
        """Segment one tile: ids (K, h, w) from 1, 0 in none."""
        raise NotImplementedError

    def ids(self, rect: Rect) -> NDArray[np.int64]:
        """Assemble the ids of all tiles that ``rect`` touches; any thread may ask."""
        result = np.zeros((self.levels, rect.height, rect.width), dtype=np.int64)
        inside = rect.intersection(Rect(0, 0, self._canvas.height, self._canvas.width))
        if inside is None:
            return result
        side = self._side
        rows = range(inside.row // side, (inside.bottom - 1) // side + 1)
        cols = range(inside.col // side, (inside.right - 1) // side + 1)
        for (tile_row, tile_col), ids in self._made([(row, col) for row in rows for col in cols]):
            tile = Rect(tile_row * side, tile_col * side, ids.shape[1], ids.shape[2])
            common = inside.intersection(tile)
            if common is not None:
                found = ids[_within(common, tile)].astype(np.int64)
                # A tile has at most as many segments as pixels, its halo included.
                first = (tile_row * self._across + tile_col) * (side + 2 * HALO) ** 2
                result[_within(common, rect)] = np.where(found > 0, found + first, 0)
        return result

    def _made(self, wanted: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], NDArray[np.int32]]]:
        """Yield tiles with their ids: each is segmented once, by the thread that comes to it first."""
        others: list[tuple[tuple[int, int], Future[NDArray[np.int32]]]] = []
        for key in wanted:
            with self._lock:
                found = self._tiles.get(key)
                if found is None:
                    mine = self._tiles[key] = Future()
                self._tiles.move_to_end(key)
            if found is not None:
                others.append((key, found))  # waited for last: another thread may be at it
                continue
            try:
                mine.set_result(self._segmented(*key))
            except BaseException as error:
                with self._lock:
                    self._tiles.pop(key, None)  # whoever asks again tries again
                mine.set_exception(error)
                raise
            with self._lock:
                while len(self._tiles) > self._kept:
                    self._tiles.popitem(last=False)
            yield key, mine.result()
        for key, future in others:
            yield key, future.result()

    def _segmented(self, tile_row: int, tile_col: int) -> NDArray[np.int32]:
        row, col = tile_row * self._side, tile_col * self._side
        core = Rect(row, col, min(self._side, self._canvas.height - row), min(self._side, self._canvas.width - col))
        if self._folder is None:
            return self.segment(core)
        path = self._folder / f"{tile_row}_{tile_col}.npy"
        with contextlib.suppress(OSError, ValueError, EOFError):
            return np.asarray(np.load(path), dtype=np.int32)
        ids = self.segment(core)
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".tmp", delete=False) as beside:
            np.save(beside, ids)
        sync(Path(beside.name))  # of a file that power cut short, zeros would be read
        Path(beside.name).replace(path)  # whole or not at all: another process may look for it
        return ids


def tiles_kept(canvas: Canvas) -> int:
    """How many tiles of superpixels are kept: two rows of them, where they are not too many."""
    across = -(-canvas.width // TILE)
    return 2 * across + 4 if across <= 64 else 132


def turns(threads: int | None) -> int:
    """How many tiles' superpixels are computed at a time, however many ask.

    ``threads``, or one more than there are cores, since each waits for Python's global lock now and then.
    """
    return threads or (os.cpu_count() or 1) + 1


class Superpixels(Tiled):
    """SLIC superpixels of scikit-image on scene-anchored tiles, one level an average area.

    A tile is segmented together with a halo and cut out of it, so that segments end at tile borders and nowhere else.
    """

    def __init__(
        self, canvas: Canvas, areas: Sequence[int], *, scale: str = "full", threads: int | None = None
    ) -> None:
        """Segment ``canvas`` with superpixels of about ``areas`` pixels each, one level an area.

        ``scale``: ``half`` finds them in the image at half its size and enlarges them, a third of the time.
        ``threads``: see :func:`turns`.
        """
        super().__init__(canvas, tile=TILE, levels=len(areas), kept=tiles_kept(canvas))
        self._areas = tuple(areas)
        self._factor = 2 if scale == "half" else 1
        self._turns = threading.Semaphore(turns(threads))
        self.finest = self._areas.index(min(self._areas))

    def segment(self, core: Rect) -> NDArray[np.int32]:
        """Segment one tile with its halo."""
        top, left = max(0, core.row - HALO), max(0, core.col - HALO)
        bottom, right = min(self._canvas.height, core.bottom + HALO), min(self._canvas.width, core.right + HALO)
        rgb, share = self._canvas.read(top, left, bottom - top, right - left)
        valid = share >= VALID
        ids = np.zeros((self.levels, core.height, core.width), dtype=np.int32)
        if not valid.any():
            return ids
        inner = slice(core.row - top, core.bottom - top), slice(core.col - left, core.right - left)
        with self._turns:
            for level, area in enumerate(self._areas):
                ids[level] = self._slic(rgb, area)[inner]
        ids[:, ~valid[inner]] = 0
        return ids

    def _slic(self, rgb: NDArray[np.uint8], area: int) -> NDArray[np.int64]:
        """Superpixels (h, w) of a picture (h, w, 3), numbered from 1."""
        from skimage.segmentation import slic

        count = max(1, round(rgb.shape[0] * rgb.shape[1] / area))
        seen = rgb if self._factor == 1 else _reduced(rgb, self._factor)
        found = slic(seen, n_segments=count, compactness=10.0, max_num_iter=5, start_label=1, channel_axis=-1)
        if self._factor > 1:
            found = found.repeat(self._factor, axis=0).repeat(self._factor, axis=1)[: rgb.shape[0], : rgb.shape[1]]
        return np.asarray(found)


def _reduced(rgb: NDArray[np.uint8], factor: int) -> NDArray[np.float32]:
    """Means of squares of pixels, as shares of 255: (h, w, 3) -> (⌈h / factor⌉, ⌈w / factor⌉, 3)."""
    height, width = (-(-size // factor) for size in rgb.shape[:2])
    rest = [(0, whole * factor - size) for whole, size in zip((height, width), rgb.shape, strict=False)]
    squares = np.pad(rgb, (*rest, (0, 0)), mode="edge").reshape(height, factor, width, factor, 3)
    return np.asarray(squares.mean(axis=(1, 3), dtype=np.float32) / 255, dtype=np.float32)


class SamTiles(Tiled):
    """SAM over scene-anchored tiles, one image encoding each; a window may see segments of up to four tiles."""

    def __init__(self, canvas: Canvas, segmenter: SamSegmenter, *, folder: Path | None = None) -> None:
        """Segment ``canvas`` with ``segmenter``; finished tiles are kept in ``folder``, as they are costly."""
        super().__init__(canvas, tile=SAM_TILE, levels=len(segmenter.levels), kept=8, folder=folder)
        self._segmenter = segmenter

    def segment(self, core: Rect) -> NDArray[np.int32]:
        """Segment one tile; the last one of a row or column is moved inside, so that SAM sees a whole tile."""
        row = max(0, min(core.row, self._canvas.height - SAM_TILE))
        col = max(0, min(core.col, self._canvas.width - SAM_TILE))
        rgb, share = self._canvas.read(row, col, core.bottom - row, core.right - col)
        ids = self._segmenter.tile_ids(rgb, share >= VALID)
        return ids[:, core.row - row :, core.col - col :].astype(np.int32)


class SamWindows:
    """SAM on each window by itself, as the paper's code does."""

    finest = 0

    def __init__(self, segmenter: SamSegmenter) -> None:
        """Segment with ``segmenter``."""
        self._segmenter = segmenter
        self.levels = len(segmenter.levels)

    def propose(self, windows: Sequence[Rect], rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Run the mask generator of every level on every window."""
        return np.stack([self._segmenter.window_ids(window) for window in rgb])


class LabelRaster(Anchored):
    """Segments from a raster of ids on the scene's own grid; 0, nodata and what a mask leaves out are in no segment."""

    levels = 1

    def __init__(self, path: str | Path, canvas: Canvas) -> None:
        """Check that ``path`` lies on the grid of the canvas's scene.

        Raises
        ------
        ResegeoError:
            When the raster can't be read, is not one band of integers, or has another size or georeference.

        """
        from rasterio.errors import RasterioError

        scene = canvas.scene
        self._path = str(path)
        self._canvas = canvas
        self._extent = Rect(0, 0, scene.height, scene.width)
        remedy = "Give a label raster on the scene's own grid, or [[segments=superpixels]] or none."
        try:
            with open_raster(self._path, scene.formats) as raster:
                if raster.count != 1:
                    raise ResegeoError(f"[[segments={path}]] has {raster.count} bands; expected one, of ids. {remedy}")
                if np.dtype(raster.dtypes[0]).kind not in "iu":
                    raise ResegeoError(
                        f"[[segments={path}]] holds {raster.dtypes[0]} values; expected whole numbers. {remedy}"
                    )
                where = scene.georeference
                there = None if raster.transform.is_identity else raster.transform
                differs = difference(
                    (scene.height, scene.width), where.transform, where.crs, raster.shape, there, raster.crs
                )
                if differs == "size":
                    raise ResegeoError(
                        f"[[segments={path}]] has {raster.height} × {raster.width} pixels (rows × columns), the scene "
                        f"{scene.height} × {scene.width}. {remedy}"
                    )
                if differs == "place":
                    raise ResegeoError(f"[[segments={path}]] lies elsewhere than the scene. {remedy}")
                if differs == "crs":
                    raise ResegeoError(
                        f"[[segments={path}]] is in {name_of(raster.crs)!r}, the scene in {name_of(where.crs)!r}. "
                        f"{remedy}"
                    )
                self._masked = is_masked(raster)
        except RasterioError as error:
            raise ResegeoError(
                f"[[segments={path}]] cannot be opened as a raster, and its suffix is none of a file with polygons "
                f"(.gpkg, .shp, .geojson …). {remedy}"
            ) from error

    def ids(self, rect: Rect) -> NDArray[np.int64]:
        """Read the part of ``rect`` inside the scene; a canvas pixel has the id at its centre."""
        if self._canvas.native:
            return self._read(rect)[None]
        result = np.empty((1, rect.height, rect.width), dtype=np.int64)
        for part, source, rows, cols in self._canvas.nearest(rect):
            result[0, part] = self._read(source)[rows[:, None], cols]
        return result

    @heard
    def _read(self, rect: Rect) -> NDArray[np.int64]:
        """Ids (h, w) of scene pixels."""
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        result = np.zeros((1, rect.height, rect.width), dtype=np.int64)
        inside = rect.intersection(self._extent)
        if inside is not None:
            window = Window(inside.col, inside.row, inside.width, inside.height)
            try:
                with open_raster(self._path, self._canvas.scene.formats) as raster:
                    found = raster.read(1, window=window)
                    ids = found.astype(np.int64)
                    ids[blank(raster, found)] = 0
                    if self._masked:
                        ids[masked(raster, window)] = 0
            except RasterioError as error:
                raise damaged(self._path, f"rows {inside.row} to {inside.bottom - 1}", error) from error
            result[_within(inside, rect)] = ids
        return np.asarray(result[0])


class VectorSegments(Anchored):
    """Segments from the user's own polygons (parcels, building outlines): one level a file, rasterized on demand."""

    def __init__(self, paths: Sequence[str], canvas: Canvas) -> None:
        """Read the polygons of ``paths`` into the scene's CRS; see :func:`resegeo.scene.region.read_polygons`."""
        transform = transform_of(canvas.scene, "segments")
        self._canvas = canvas
        self._levels = [Region(read_polygons(path, canvas.scene, "segments"), transform) for path in paths]
        self.levels = len(paths)

    def ids(self, rect: Rect) -> NDArray[np.int64]:
        """Polygon numbers from 1; 0 where there is none."""
        return np.stack([level.ids(rect, self._canvas.to_scene) for level in self._levels])


def _within(part: Rect, whole: Rect) -> tuple[slice, slice, slice]:
    """Index of ``part`` in an array (K, h, w) that covers ``whole``."""
    row, col = part.row - whole.row, part.col - whole.col
    return slice(None), slice(row, row + part.height), slice(col, col + part.width)


def segment_source(
    name: str, canvas: Canvas, *, areas: Sequence[int] = (), scale: str = "full", threads: int | None = None
) -> SegmentSource:
    """Build the source that ``segments`` names: superpixels, none, a label raster, or files with polygons."""
    if name == "superpixels":
        return Superpixels(canvas, areas, scale=scale, threads=threads)
    if name == "none":
        return NoSegments()
    paths = [name] if is_there(name) else name.split(",")
    for path in paths:
        if is_local(path) and not is_there(path):
            raise ResegeoError(
                f"[[segments={path}]]: no such file. Expected superpixels, sam, none, a label raster, or files with "
                "polygons."
            )
    if all(Path(path).suffix.lower() in VECTOR_SUFFIXES for path in paths):
        return VectorSegments(paths, canvas)
    if len(paths) > 1:
        raise ResegeoError(
            f"[[segments={name}]]: several files make the levels of a hierarchy only if all hold polygons."
        )
    return LabelRaster(name, canvas)
