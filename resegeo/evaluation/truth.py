"""What is known of a scene: a label raster, a mask, or polygons, read as class indices on the prediction's grid.

A truth pixel without a class is not counted. :data:`resegeo.evaluation.legend.BACKGROUND` is a class like any other:
"none of the named ones".
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from resegeo.errors import ResegeoError, UsageError, notice
from resegeo.evaluation.legend import BACKGROUND, EXAMPLE, NONZERO, OUTSIDE, Legend, colour_of
from resegeo.evaluation.metrics import UNKNOWN
from resegeo.files import is_folder, is_there
from resegeo.outputs.raster import CLASSES_TAG, read_class_raster_info
from resegeo.scene.formats import is_local, open_raster
from resegeo.scene.grids import difference
from resegeo.scene.label_rasters import blank, is_masked, masked
from resegeo.scene.region import Region, outline
from resegeo.scene.source import GeoReference
from resegeo.scene.vector_layers import VECTOR_SUFFIXES, laid_over, read_layer
from resegeo.scene.windows import Rect


@dataclass(frozen=True)
class Grid:
    """The prediction's pixels: what every truth is brought onto."""

    path: str
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

    def __init__(self, path: str, grid: Grid, legend: Legend | None, formats: Sequence[str] = ()) -> None:
        """Open ``path`` and settle what its values mean.

        Raises
        ------
        ResegeoError:
            When it cannot be opened, cannot be brought onto ``grid``, or holds something else than labels.
        UsageError:
            When ``legend`` does not fit it.

        """
        from rasterio.enums import ColorInterp
        from rasterio.errors import NotGeoreferencedWarning, RasterioError

        self._path, self._seen, self._files = path, set[int](), ExitStack()
        self._formats = formats
        self._grid = grid
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                source = self._files.enter_context(open_raster(path, formats))
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
        self._strict = self._indexed = False
        self._table, self._nonzero = self._meaning(source, grid, legend, colours)
        self._source = source
        if legend is None and source.nodata is not None and len(self._bands) == 1:
            self._table.pop(source.nodata, None)  # such as 0, which is background elsewhere
        self._dataset, self._alpha = self._on_grid(source, grid, alpha)
        self._masked = self._dataset is source and not alpha and is_masked(source)

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
            return legend.packed(Path(self._path), colours), legend.entries.get(NONZERO)
        if CLASSES_TAG in source.tags():
            classes, _ = read_class_raster_info(self._path, self._formats)
            values = {spec.code: spec.name for spec in classes.drawn}
            return {0: BACKGROUND, **_known(values, grid, self._path)}, None
        if len(grid.names) == 1:
            notice(f"{self._path} is read as a mask: any value but 0 is {grid.names[0]}, 0 is background.")
            return {0: BACKGROUND}, grid.names[0]
        if colours == 3:
            raise UsageError(
                f"{self._path} is a picture of colours; say what they mean by [[legend]], for example "
                f'"#3C1098={grid.names[0]},#000000=background", or {NONZERO}={grid.names[0]},0=background.'
            )
        classes, _ = read_class_raster_info(grid.path, self._formats)
        self._strict, self._indexed = True, classes.indexed
        notice(f"The values of {self._path} are read as the prediction's own codes; [[legend]] says otherwise.")
        return {0: BACKGROUND, **{spec.code: spec.name for spec in classes.drawn}}, None

    def _on_grid(self, source: Any, grid: Grid, alpha: list[int]) -> tuple[Any, int | None]:
        """Return the dataset to read from and its alpha band; warped where the grids differ."""
        from rasterio.enums import Resampling
        from rasterio.vrt import WarpedVRT

        theirs = None if source.transform.is_identity else source.transform
        ours = grid.where.transform
        size = (grid.height, grid.width)
        same_size = source.shape == size
        comparable = ours is not None and theirs is not None
        both_crs = source.crs is not None and grid.where.crs is not None
        if difference(size, ours, grid.where.crs, source.shape, theirs, source.crs) is None:
            if (ours is None) != (theirs is None):
                notice(f"Only one of {grid.path} and {self._path} is georeferenced; they are compared pixel by pixel.")
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
        notice(f"{self._path} has another grid than {grid.path}; its nearest pixels are taken.")
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
            valid = np.ones(raw.shape[1:], dtype=bool)
            if self._alpha:
                valid = self._dataset.read(self._alpha, window=window) > 0
            if self._masked:
                valid &= ~masked(self._source, window)
        except RasterioError as error:
            raise ResegeoError(
                f"{self._path} is damaged: rows {rect.row} to {rect.bottom - 1} cannot be read. Get it anew."
            ) from error
        missing = blank(self._source, raw[0]) if len(raw) == 1 else np.zeros(raw.shape[1:], dtype=bool)
        if raw.dtype.kind == "f":
            whole = (raw == np.round(raw)) & (np.abs(raw) < 2**62)
            strange = ~np.isfinite(raw[0]) | (missing & ~whole[0])  # no class can be named by such a value
            if not (whole | strange).all():
                raise ResegeoError(f"{self._path} holds fractions; expected whole numbers, one for each class.")
            valid &= ~strange
            raw = np.where(strange, 0, raw)
        values = raw[0].astype(np.int64)
        if self._indexed and (valid & ~missing & (values == 0)).any():
            raise UsageError(
                f"{self._path} holds 0, and the codes of {self._grid.path} are the index of each class in a data set's "
                "configuration plus 1: labels of such a data set hold the index itself. Pass [[legend=config.yml]], "
                'that file, or say what values mean, such as "0=background".'
            )
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
        left = ~named & ~missing & valid
        result[~valid] = UNKNOWN
        if self._nonzero is not None:
            result[left & (values != 0)] = index[self._nonzero]
        elif left.any() and (self._strict or len(self._seen) < 9):
            self._seen.update(np.unique(values[left])[:9].tolist())
            if self._strict:
                raise UsageError(
                    f"{self._path} holds the values {self._values()}, which are no codes of the prediction; say what "
                    f"its values mean by [[legend]], for example {EXAMPLE}."
                )
        return result

    @property
    def strange(self) -> str:
        """Values met on reading that have no class, the first of them; empty where there are none."""
        return self._values()

    def why_empty(self) -> str:
        """Name the first values without a class; see :class:`Truth`."""
        if not self._seen:
            return "where the two overlap it is empty or nodata. Check that both show the same place"
        return f"it holds {self._values()} there. Say what its values mean by [[legend]], for example {EXAMPLE}"

    def _values(self) -> str:
        several = len(self._bands) == 3 or self._palette is not None
        return ", ".join(f"#{value:06X}" if several else str(value) for value in sorted(self._seen)[:9])

    def close(self) -> None:
        """Close the files."""
        self._files.close()


class VectorTruth:
    """Polygons with a field that names their class; a pixel belongs to the polygon that holds its centre."""

    def __init__(self, path: str, grid: Grid, legend: Legend | None, field: str) -> None:
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
        frame = read_layer(path, path, field=field)
        if field not in frame.columns or field == frame.geometry.name:
            there = ", ".join(name for name in frame.columns if name != frame.geometry.name) or "none"
            raise UsageError(f"{path} has no field {field!r}; its fields are: {there}. Name one by [[field]].")
        frame = frame[frame[field].notna().to_numpy()]
        if frame.empty:
            raise ResegeoError(f"{path} holds no polygons with a value in {field!r}; expected some.")
        values = [_text(value) for value in frame[field]]
        entries = dict(legend.entries) if legend is not None else {}
        if NONZERO in entries:
            raise UsageError(
                f"[[legend]]: {NONZERO} is for rasters, but {path} holds polygons; name values of {field!r}."
            )
        self._outside = entries.pop(OUTSIDE, None)
        unused = sorted(set(entries) - set(values))
        if unused:
            notice(f"[[legend]] names {', '.join(unused)}, which no polygon of {path} has in {field!r}.")
        own = {value: value for value in values if value not in entries}
        meant = {**entries, **_known(own, grid, path)}
        if not any(meant[value] in grid.names for value in values):
            raise ResegeoError(
                f"{path} has {', '.join(sorted(set(values))[:6])} in {field!r}, none of which is a class of "
                f"{grid.path} ({', '.join(grid.names)}). Name another [[field]], or say what they mean by [[legend]]."
            )
        # Without a georeference polygons of ours lie in pixels, rows counted downwards as negative y.
        transform = grid.where.transform if grid.where.transform is not None else Affine(1, 0, 0, 0, -1, 0)
        geometry, kept = np.asarray(frame.geometry.values, dtype=object), np.arange(len(frame))
        if grid.where.crs is not None:
            extent = outline(grid.height, grid.width, transform)
            geometry, kept = laid_over(geometry, frame.crs, grid.where.crs, extent, path)
        self._meant = frozenset(meant[value] for value in values)
        self._classes = [meant[values[number]] for number in kept]
        self._region = Region(geometry, transform)

    @property
    def names(self) -> frozenset[str]:
        """Classes of the polygons, and that of the pixels outside if the legend has one."""
        return self._meant | ({self._outside} if self._outside else frozenset())

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


def open_truth(
    path: str, grid: Grid, *, legend: Legend | None, field: str | None, formats: Sequence[str] = ()
) -> Truth:
    """Open a truth by its suffix: polygons, or else a raster; see :class:`VectorTruth`, :class:`RasterTruth`.

    ``formats`` are trusted for a raster, see :func:`resegeo.scene.formats.open_raster`.
    """
    checked = legend.checked(grid.names) if legend is not None else None
    if is_local(path) and not is_there(path):
        raise ResegeoError(f"{path}: no such file; expected a truth raster, a mask, or polygons.")
    if is_folder(path):
        raise ResegeoError(f"{path} is a folder; expected a truth raster, a mask, or polygons.")
    if Path(path.split("?")[0]).suffix.lower() in VECTOR_SUFFIXES:
        return VectorTruth(path, grid, checked, field or "class_name")
    if field is not None:
        raise UsageError(f"[[field={field}]] is for polygons, but {path} is none of {', '.join(VECTOR_SUFFIXES)}.")
    return RasterTruth(path, grid, checked, formats)


def _known(values: Mapping[Any, str], grid: Grid, path: str) -> dict[Any, str]:
    """Spell names as the prediction does; those that it has not become background, with a note."""
    known = {name.casefold(): name for name in (*grid.names, BACKGROUND)}
    strange = sorted({name for name in values.values() if name.casefold() not in known})
    if strange:
        notice(f"{', '.join(strange)} of {path}: not among the prediction's classes, so background.")
    return {value: known.get(name.casefold(), BACKGROUND) for value, name in values.items()}


def _text(value: object) -> str:
    """Return a field's value as the user would write it; whole numbers without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
