"""Segment sources: anything that returns segment-id maps over a rectangle of the scene.

0 means "in no segment". Ids need not be dense; they are compared, never counted. All sources are
anchored to the scene: the ids of a pixel do not depend on which rectangle is asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from resegeo.errors import ResegeoError
from resegeo.region import Region, read_polygons, transform_of
from resegeo.scene import Scene
from resegeo.windows import Rect

TILE = 512
"""Side of the scene-anchored tiles that superpixels are computed on, in pixels."""

VECTOR_SUFFIXES = (".gpkg", ".shp", ".geojson", ".json", ".fgb", ".parquet", ".kml", ".gml", ".sqlite")

HALO = 32
"""Pixels around a tile that its superpixels also see, so that they settle beyond the tile's border."""


class SegmentSource(Protocol):
    """What the execution needs of a segment source."""

    @property
    def levels(self) -> int:
        """K, the number of levels of the hierarchy."""
        ...

    def ids(self, rect: Rect) -> NDArray[np.int64]:
        """Segment ids (K, height, width) over ``rect``; 0 outside the scene."""
        ...


class NoSegments:
    """One segment everywhere: restricted layers see the whole window."""

    levels = 1

    def ids(self, rect: Rect) -> NDArray[np.int64]:
        """Return ones."""
        return np.ones((1, rect.height, rect.width), dtype=np.int64)


class Superpixels:
    """SLIC superpixels of scikit-image on scene-anchored tiles, one level an average area.

    A tile is segmented together with a halo and cut out of it; ids are unique over the scene, so that
    segments end at tile borders and nowhere else.
    """

    def __init__(self, scene: Scene, areas: Sequence[int]) -> None:
        """Segment ``scene`` with superpixels of about ``areas`` pixels each, one level an area."""
        self._scene = scene
        self._areas = tuple(areas)
        self._across = -(-scene.width // TILE)
        # A work item touches a few tiles, and the next one mostly the same: two rows of tiles at most.
        self._tiles: OrderedDict[tuple[int, int], NDArray[np.int64]] = OrderedDict()
        self._kept = 2 * self._across + 4 if self._across <= 32 else 68

    @property
    def levels(self) -> int:
        """One level an area."""
        return len(self._areas)

    def ids(self, rect: Rect) -> NDArray[np.int64]:
        """Assemble the ids of all tiles that ``rect`` touches."""
        result = np.zeros((self.levels, rect.height, rect.width), dtype=np.int64)
        inside = rect.intersection(Rect(0, 0, self._scene.height, self._scene.width))
        if inside is None:
            return result
        for tile_row in range(inside.row // TILE, (inside.bottom - 1) // TILE + 1):
            for tile_col in range(inside.col // TILE, (inside.right - 1) // TILE + 1):
                ids = self._tile(tile_row, tile_col)
                tile = Rect(tile_row * TILE, tile_col * TILE, ids.shape[1], ids.shape[2])
                common = inside.intersection(tile)
                if common is not None:
                    result[_within(common, rect)] = ids[_within(common, tile)]
        return result

    def _tile(self, tile_row: int, tile_col: int) -> NDArray[np.int64]:
        key = (tile_row, tile_col)
        if key not in self._tiles:
            self._tiles[key] = self._segment(tile_row, tile_col)
            while len(self._tiles) > self._kept:
                self._tiles.popitem(last=False)
        self._tiles.move_to_end(key)
        return self._tiles[key]

    def _segment(self, tile_row: int, tile_col: int) -> NDArray[np.int64]:
        from skimage.segmentation import slic

        row, col = tile_row * TILE, tile_col * TILE
        core = Rect(row, col, min(TILE, self._scene.height - row), min(TILE, self._scene.width - col))
        top, left = max(0, row - HALO), max(0, col - HALO)
        bottom, right = min(self._scene.height, core.bottom + HALO), min(self._scene.width, core.right + HALO)
        rgb, valid = self._scene.read(top, left, bottom - top, right - left)
        ids = np.zeros((self.levels, core.height, core.width), dtype=np.int64)
        if not valid.any():
            return ids
        first = (tile_row * self._across + tile_col) * (TILE + 2 * HALO) ** 2
        for level, area in enumerate(self._areas):
            count = max(1, round(rgb.shape[0] * rgb.shape[1] / area))
            found = slic(rgb, n_segments=count, compactness=10.0, max_num_iter=5, start_label=1, channel_axis=-1)
            cut = found[row - top : core.bottom - top, col - left : core.right - left]
            ids[level] = cut.astype(np.int64) + first
        ids[:, ~valid[row - top : core.bottom - top, col - left : core.right - left]] = 0
        return ids


class LabelRaster:
    """Segments from a raster of ids on the scene's own grid; 0 and the raster's nodata are in no segment."""

    levels = 1

    def __init__(self, path: str | Path, scene: Scene) -> None:
        """Check that ``path`` lies on the grid of ``scene``.

        Raises
        ------
        ResegeoError:
            When the raster can't be read, is not integer, or has another size or georeference.

        """
        import rasterio
        from rasterio.errors import RasterioError

        self._path = str(path)
        self._extent = Rect(0, 0, scene.height, scene.width)
        remedy = "Give a label raster on the scene's own grid, or --segments superpixels or none."
        try:
            with rasterio.open(self._path) as raster:
                if np.dtype(raster.dtypes[0]).kind not in "iu":
                    raise ResegeoError(
                        f"--segments {path} holds {raster.dtypes[0]} values; expected whole numbers. {remedy}"
                    )
                if (raster.height, raster.width) != (scene.height, scene.width):
                    raise ResegeoError(
                        f"--segments {path} has {raster.height} × {raster.width} pixels (rows × columns), the scene "
                        f"{scene.height} × {scene.width}. {remedy}"
                    )
                there, here = raster.transform, scene.georeference.transform
                if here is not None and not there.is_identity and not there.almost_equals(here, 1e-3 * abs(here.a)):
                    raise ResegeoError(f"--segments {path} lies elsewhere than the scene. {remedy}")
                self._nodata = raster.nodata
        except RasterioError as error:
            raise ResegeoError(f"--segments {path} cannot be opened as a raster. {remedy}") from error

    def ids(self, rect: Rect) -> NDArray[np.int64]:
        """Read the part of ``rect`` inside the scene."""
        import rasterio
        from rasterio.windows import Window

        result = np.zeros((1, rect.height, rect.width), dtype=np.int64)
        inside = rect.intersection(self._extent)
        if inside is not None:
            with rasterio.open(self._path) as raster:
                found = raster.read(1, window=Window(inside.col, inside.row, inside.width, inside.height))
            ids = found.astype(np.int64)
            if self._nodata is not None:
                ids[found == self._nodata] = 0
            result[_within(inside, rect)] = ids
        return result


class VectorSegments:
    """Segments from the user's own polygons (parcels, building outlines): one level a file, rasterized on demand."""

    def __init__(self, paths: Sequence[str], scene: Scene) -> None:
        """Read the polygons of ``paths`` into the scene's CRS; see :func:`resegeo.region.read_polygons`."""
        transform = transform_of(scene, "--segments")
        self._levels = [Region(read_polygons(path, scene, "--segments"), transform) for path in paths]

    @property
    def levels(self) -> int:
        """One level a file."""
        return len(self._levels)

    def ids(self, rect: Rect) -> NDArray[np.int64]:
        """Polygon numbers from 1; 0 where there is none."""
        return np.stack([level.ids(rect) for level in self._levels])


def _within(part: Rect, whole: Rect) -> tuple[slice, slice, slice]:
    """Index of ``part`` in an array (K, h, w) that covers ``whole``."""
    row, col = part.row - whole.row, part.col - whole.col
    return slice(None), slice(row, row + part.height), slice(col, col + part.width)


def segment_source(name: str, scene: Scene, *, areas: Sequence[int]) -> SegmentSource:
    """Build the source that ``--segments`` names: superpixels, none, a label raster, or files with polygons."""
    if name == "superpixels":
        return Superpixels(scene, areas)
    if name == "none":
        return NoSegments()
    paths = [name] if Path(name).exists() else name.split(",")
    for path in paths:
        if not Path(path).exists() and not path.startswith(("/vsi", "http://", "https://", "s3://")):
            raise ResegeoError(
                f"--segments {path}: no such file. Expected superpixels, none, a label raster, or files with polygons."
            )
    if all(Path(path).suffix.lower() in VECTOR_SUFFIXES for path in paths):
        return VectorSegments(paths, scene)
    if len(paths) > 1:
        raise ResegeoError(
            f"--segments {name}: several files make the levels of a hierarchy only if all hold polygons."
        )
    return LabelRaster(name, scene)
