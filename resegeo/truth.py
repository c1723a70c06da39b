"""What is known of a scene: a label raster, a mask, or polygons, read as class indices on the prediction's grid.

A truth pixel without a class is not counted. :data:`resegeo.legend.BACKGROUND` is a class like any other: "none of
the named ones".
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from resegeo.errors import InputNotice, ResegeoError, UsageError
from resegeo.legend import BACKGROUND, EXAMPLE, NONZERO, OUTSIDE, Legend, colour_of
from resegeo.metrics import UNKNOWN
from resegeo.raster import CLASSES_TAG, read_class_raster_info
from resegeo.region import Region
from resegeo.segments import VECTOR_SUFFIXES
from resegeo.sources import GeoReference
from resegeo.windows import Rect


@dataclass(frozen=True)
class Grid:
    """The prediction's pixels: what every truth is brought onto."""

    path: Path
    height: int
    width: int
    where: GeoReference
    names: tuple[str, ...]
    """Classes that the prediction tells apart."""


class Truth(Protocol):
    """Something that tells the class of pixels on a prediction's grid."""

    @property
    def names(self) -> frozenset[str]:
        """Classes it may name, spelt as in the prediction."""
        ...

    def read(self, rect: Rect, index: Mapping[str, int]) -> NDArray[np.int64]:
        """Return class indices (h, w) by ``index``; :data:`UNKNOWN` where nothing is known."""
        ...

    def why_empty(self) -> str:
        """Say, after reading, why no pixel may have had a class, and the remedy."""
        ...

    def close(self) -> None:
        """Release files."""
        ...


class RasterTruth:
    """A label raster, a mask or a picture of colours: on the prediction's grid, or warped onto it."""

    def __init__(self, path: Path, grid: Grid, legend: Legend | None) -> None:
        """Open ``path`` and settle what its values mean.

        Raises
        ------
        ResegeoError:
            When it cannot be opened, cannot be brought onto ``grid``, or holds something else than labels.
        UsageError:
            When ``legend`` does not fit it.

        """
        import rasterio
        from rasterio.enums import ColorInterp
        from rasterio.errors import RasterioError

        self._path, self._seen, self._files = path, set[int](), ExitStack()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                source = self._files.enter_context(rasterio.open(path))
        except RasterioError as error:
            raise ResegeoError(
                f"{path} cannot be opened as a raster; expected a truth raster, a mask, or polygons "
                f"({', '.join(VECTOR_SUFFIXES)})."
            ) from error
        alpha = [i for i, kind in enumerate(source.colorinterp, 1) if kind == ColorInterp.alpha]
        self._bands = [i for i in range(1, source.count + 1) if i not in alpha]
        if len(self._bands) not in (1, 3):
            raise ResegeoError(f"{path} has {len(self._bands)} bands; expected one band of labels or three of colours.")
        if np.dtype(source.dtypes[0]).kind not in "iuf" or (len(self._bands) == 3 and source.dtypes[0] != "uint8"):
            raise ResegeoError(f"{path} holds {source.dtypes[0]} values; expected whole numbers or 8-bit colours.")
        self._palette = self._colours(source, legend)
        colours = 3 if self._palette is not None else len(self._bands)
        self._strict = False
        self._table, self._nonzero = self._meaning(source, grid, legend, colours)
        nodata = source.nodata if len(self._bands) == 1 else None
        self._nodata = None if nodata is None or np.isnan(nodata) else int(nodata)
        self._dataset, self._alpha = self._on_grid(source, grid, alpha)

    def _colours(self, source: Any, legend: Legend | None) -> NDArray[np.int64] | None:
        """Return packed colours of a palette image where the legend names colours."""
        if legend is None or not any(colour_of(value) is not None for value in legend.entries):
            return None
        try:
            palette = source.colormap(1) if len(self._bands) == 1 else None
        except ValueError:
            return None
        if palette is None:
            return None
        table = np.zeros(max(palette) + 1, dtype=np.int64)
        for value, (red, green, blue, _) in palette.items():
            table[value] = red << 16 | green << 8 | blue
        return table

    def _meaning(
        self, source: Any, grid: Grid, legend: Legend | None, colours: int
    ) -> tuple[dict[int, str], str | None]:
        """Return value -> class, and the class of any other value but 0."""
        if legend is not None:
            return legend.packed(self._path, colours), legend.entries.get(NONZERO)
        if CLASSES_TAG in source.tags():
            classes, _ = read_class_raster_info(self._path)
            values = {spec.code: spec.name for spec in classes.drawn}
            return {0: BACKGROUND, **_known(values, grid, self._path)}, None
        if len(grid.names) == 1:
            _say(f"{self._path} is read as a mask: any value but 0 is {grid.names[0]}, 0 is background.")
            return {0: BACKGROUND}, grid.names[0]
        if colours == 3:
            raise UsageError(
                f"{self._path} is a picture of colours; say what they mean by --map, for example "
                f'"#3C1098={grid.names[0]},#000000=background", or {NONZERO}={grid.names[0]},0=background.'
            )
        classes, _ = read_class_raster_info(grid.path)
        self._strict = True
        _say(f"The values of {self._path} are read as the prediction's own codes; --map says otherwise.")
        return {0: BACKGROUND, **{spec.code: spec.name for spec in classes.drawn}}, None

    def _on_grid(self, source: Any, grid: Grid, alpha: list[int]) -> tuple[Any, int | None]:
        """Return the dataset to read from and its alpha band; warped where the grids differ."""
        from rasterio.enums import Resampling
        from rasterio.vrt import WarpedVRT

        theirs = None if source.transform.is_identity else source.transform
        ours = grid.where.transform
        same_size = (source.height, source.width) == (grid.height, grid.width)
        comparable = ours is not None and theirs is not None
        both_crs = source.crs is not None and grid.where.crs is not None
        same_crs = source.crs == grid.where.crs if both_crs else True
        if same_size and (not comparable or (same_crs and _alike(ours, theirs, grid))):
            if (ours is None) != (theirs is None):
                _say(f"Only one of {grid.path} and {self._path} is georeferenced; they are compared pixel by pixel.")
            return source, alpha[0] if alpha else None
        if not (comparable and both_crs):
            if same_size:
                raise ResegeoError(
                    f"{self._path} and {grid.path} lie differently, and not both have a CRS to warp one onto the "
                    "other. Give a truth on the prediction's grid."
                )
            raise ResegeoError(
                f"{self._path} has {source.height} × {source.width} pixels (rows × columns), {grid.path} "
                f"{grid.height} × {grid.width}, and not both are georeferenced. Give a truth on the prediction's grid."
            )
        _say(f"{self._path} has another grid than {grid.path}; its nearest pixels are taken.")
        warped = self._files.enter_context(
            WarpedVRT(
                source,
                crs=grid.where.crs,
                transform=ours,
                height=grid.height,
                width=grid.width,
                resampling=Resampling.nearest,
                # Raw values, so that a legend can name the nodata value; alpha tells what lies outside.
                src_nodata=None,
                nodata=None,
                add_alpha=not alpha,
            )
        )
        return warped, alpha[0] if alpha else warped.count

    @property
    def names(self) -> frozenset[str]:
        """Classes of the legend."""
        return frozenset(self._table.values()) | ({self._nonzero} if self._nonzero else frozenset())

    def read(self, rect: Rect, index: Mapping[str, int]) -> NDArray[np.int64]:
        """Return class indices (h, w); see :class:`Truth`."""
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        window = Window(rect.col, rect.row, rect.width, rect.height)
        try:
            raw = self._dataset.read(self._bands, window=window)
            valid = self._dataset.read(self._alpha, window=window) > 0 if self._alpha else None
        except RasterioError as error:
            raise ResegeoError(
                f"{self._path} is damaged: rows {rect.row} to {rect.bottom - 1} cannot be read. Get it anew."
            ) from error
        if raw.dtype.kind == "f":
            blank = np.isnan(raw[0])
            valid = ~blank if valid is None else valid & ~blank
            raw = np.where(blank, 0, raw)
            if (raw != np.round(raw)).any():
                raise ResegeoError(f"{self._path} holds fractions; expected whole numbers, one for each class.")
        values = raw[0].astype(np.int64)
        if len(raw) == 3:
            values = values << 16 | raw[1].astype(np.int64) << 8 | raw[2]
        elif self._palette is not None:
            values = self._palette[np.clip(values, 0, len(self._palette) - 1)]
        keys = np.array(sorted(self._table), dtype=np.int64)
        result = np.full(values.shape, UNKNOWN, dtype=np.int64)
        named = np.zeros(values.shape, dtype=bool)
        if keys.size:
            spot = np.searchsorted(keys, values).clip(max=keys.size - 1)
            named = keys[spot] == values
            result[named] = np.array([index[self._table[int(key)]] for key in keys])[spot[named]]
        left = ~named if self._nodata is None else ~named & (values != self._nodata)
        if valid is not None:
            result[~valid] = UNKNOWN
            left &= valid
        if self._nonzero is not None:
            result[left & (values != 0)] = index[self._nonzero]
        elif left.any() and (self._strict or len(self._seen) < 9):
            self._seen.update(np.unique(values[left])[:9].tolist())
            if self._strict:
                raise UsageError(
                    f"{self._path} holds the values {self._values()}, which are no codes of the prediction; say what "
                    f"its values mean by --map, for example {EXAMPLE}."
                )
        return result

    def why_empty(self) -> str:
        """Name the first values without a class; see :class:`Truth`."""
        if not self._seen:
            return "where the two overlap it is empty or nodata. Check that both show the same place"
        return f"it holds {self._values()} there. Say what its values mean by --map, for example {EXAMPLE}"

    def _values(self) -> str:
        several = len(self._bands) == 3 or self._palette is not None
        return ", ".join(f"#{value:06X}" if several else str(value) for value in sorted(self._seen)[:9])

    def close(self) -> None:
        """Close the files."""
        self._files.close()


class VectorTruth:
    """Polygons with a field that names their class; a pixel belongs to the polygon that holds its centre."""

    def __init__(self, path: Path, grid: Grid, legend: Legend | None, field: str) -> None:
        """Read the polygons of ``path`` whose ``field`` has a value, in the prediction's CRS.

        Raises
        ------
        ResegeoError:
            When the file can't be read, holds no polygons, or has no way onto ``grid``.
        UsageError:
            When it has no such field, or ``legend`` does not fit it.

        """
        self._path = path
        if grid.where.kind in ("gcps", "rpcs"):
            raise ResegeoError(
                f"{grid.path} is georeferenced by {grid.where.kind} alone, so {path} cannot be laid over it. "
                "Give a truth raster of the same size."
            )
        frame = _frame(path, grid)
        if field not in frame.columns or field == frame.geometry.name:
            there = ", ".join(name for name in frame.columns if name != frame.geometry.name) or "none"
            raise UsageError(f"{path} has no field {field!r}; its fields are: {there}. Name one by --field.")
        polygonal = [g is not None and "Polygon" in g.geom_type and not g.is_empty for g in frame.geometry]
        frame = frame[np.asarray(polygonal, dtype=bool) & frame[field].notna().to_numpy()]
        if frame.empty:
            raise ResegeoError(f"{path} holds no polygons with a value in {field!r}; expected some.")
        values = [_text(value) for value in frame[field]]
        entries = dict(legend.entries) if legend is not None else {}
        if NONZERO in entries:
            raise UsageError(f"--map: {NONZERO} is for rasters, but {path} holds polygons; name values of {field!r}.")
        self._outside = entries.pop(OUTSIDE, None)
        unused = sorted(set(entries) - set(values))
        if unused:
            _say(f"--map names {', '.join(unused)}, which no polygon of {path} has in {field!r}.")
        own = {value: value for value in values if value not in entries}
        meant = {**entries, **_known(own, grid, path)}
        if not any(meant[value] in grid.names for value in values):
            raise ResegeoError(
                f"{path} has {', '.join(sorted(set(values))[:6])} in {field!r}, none of which is a class of "
                f"{grid.path} ({', '.join(grid.names)}). Name another --field, or say what they mean by --map."
            )
        self._classes = [meant[value] for value in values]
        transform = grid.where.transform
        # Without a georeference polygons of ours lie in pixels, rows counted downwards as negative y.
        self._region = Region(
            np.asarray(frame.geometry.values), transform if transform is not None else Affine(1, 0, 0, 0, -1, 0)
        )

    @property
    def names(self) -> frozenset[str]:
        """Classes of the polygons, and that of the pixels outside if the legend has one."""
        return frozenset(self._classes) | ({self._outside} if self._outside else frozenset())

    def read(self, rect: Rect, index: Mapping[str, int]) -> NDArray[np.int64]:
        """Return class indices (h, w); the later of two overlapping polygons counts."""
        outside = UNKNOWN if self._outside is None else index[self._outside]
        table = np.array([outside, *(index[name] for name in self._classes)], dtype=np.int64)
        return table[self._region.ids(rect)]

    def why_empty(self) -> str:
        """Say that the polygons lie elsewhere; see :class:`Truth`."""
        return "its polygons lie elsewhere. Check that both show the same place, and the CRS of both"

    def close(self) -> None:
        """Hold no file."""


def open_truth(path: str | Path, grid: Grid, *, legend: Legend | None, field: str | None) -> Truth:
    """Open a truth by its suffix: polygons, or else a raster; see :class:`VectorTruth`, :class:`RasterTruth`."""
    path = Path(path)
    checked = legend.checked(grid.names) if legend is not None else None
    if not path.exists() and not str(path).startswith(("/vsi", "http://", "https://", "s3://")):
        raise ResegeoError(f"{path}: no such file; expected a truth raster, a mask, or polygons.")
    if path.is_dir():
        raise ResegeoError(f"{path} is a folder; expected a truth raster, a mask, or polygons.")
    if path.suffix.lower() in VECTOR_SUFFIXES:
        return VectorTruth(path, grid, checked, field or "class_name")
    if field is not None:
        raise UsageError(f"--field {field} is for polygons, but {path} is none of {', '.join(VECTOR_SUFFIXES)}.")
    return RasterTruth(path, grid, checked)


def _frame(path: Path, grid: Grid) -> Any:
    """Read a vector file into the prediction's CRS."""
    import geopandas as gpd
    import pyogrio
    import pyproj

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of several layers the first is taken
            # GDAL's Parquet driver is no part of pyogrio's wheels.
            frame = gpd.read_parquet(path) if path.suffix.lower() == ".parquet" else gpd.read_file(path)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError, OSError) as error:
        raise ResegeoError(f"{path} cannot be opened as a vector file with polygons.") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise ResegeoError(f"{path} holds no geometries; expected polygons.")
    crs = grid.where.crs
    if crs is None or frame.crs is None:
        if crs is not None:
            _say(f"{path} has no CRS; it is taken to be that of {grid.path}.")
        return frame
    try:
        return frame.to_crs(crs.to_wkt())
    except pyproj.exceptions.ProjError as error:
        raise ResegeoError(f"{path} has no way from its CRS into that of {grid.path}.") from error


def _known(values: Mapping[Any, str], grid: Grid, path: Path) -> dict[Any, str]:
    """Spell names as the prediction does; those that it has not become background, with a note."""
    known = {name.casefold(): name for name in (*grid.names, BACKGROUND)}
    strange = sorted({name for name in values.values() if name.casefold() not in known})
    if strange:
        _say(f"{', '.join(strange)} of {path}: not among the prediction's classes, so background.")
    return {value: known.get(name.casefold(), BACKGROUND) for value, name in values.items()}


def _alike(ours: Affine | None, theirs: Affine | None, grid: Grid) -> bool:
    """Tell whether two transforms put the grid's corners less than a tenth of a pixel apart."""
    if ours is None or theirs is None:
        return False
    corners = ((0, 0), (grid.width, 0), (0, grid.height))
    moved = [~ours @ (theirs @ corner) for corner in corners]
    return all(abs(x - col) < 0.1 and abs(y - row) < 0.1 for (x, y), (col, row) in zip(moved, corners, strict=True))


def _text(value: object) -> str:
    """Return a field's value as the user would write it; whole numbers without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _say(notice: str) -> None:
    warnings.warn(notice, InputNotice, stacklevel=3)
