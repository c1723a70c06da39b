"""A stratified random sample of a class raster, to be labelled by a person in QGIS, and what it says of the map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from resegeo.classes.class_list import ClassList
from resegeo.errors import ResegeoError, UsageError, notice
from resegeo.evaluation.area_estimation import Estimates, Sample, allocate, estimate
from resegeo.files import is_there, name_problem
from resegeo.outputs.raster import read_class_raster_info
from resegeo.scene.formats import heard, open_raster
from resegeo.scene.vector_layers import read_layer
from resegeo.scene.windows import blocks

FIELD = "class_name"
"""Field of the points that a person fills in."""


@dataclass(frozen=True)
class ClassRaster:
    """A class raster whose strata are its classes and its background."""

    path: Path
    classes: ClassList
    codes: tuple[int, ...]
    """Codes that occur, in order: the strata."""
    sizes: NDArray[np.int64]
    """(H,) pixels of each."""

    @classmethod
    @heard
    def open(cls, path: Path) -> ClassRaster:
        """Count the pixels of each class.

        Raises
        ------
        ResegeoError:
            When it is no class raster of ours, or nothing in it was labelled.

        """
        classes, _ = read_class_raster_info(path)
        known = [0, *(spec.code for spec in classes.drawn)]
        counts = np.zeros(int(np.iinfo(classes.dtype).max) + 1, dtype=np.int64)
        for _, block in _blocks(path):
            counts += np.bincount(block.ravel(), minlength=len(counts))
        codes = tuple(code for code in known if counts[code])
        if not codes:
            raise ResegeoError(f"{path} has no labelled pixel to draw a sample from.")
        return cls(path, classes, codes, counts[list(codes)])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the strata."""
        return tuple(self.classes.name_of(code) for code in self.codes)


def _blocks(path: Path) -> Iterator[tuple[Any, NDArray[Any]]]:
    with open_raster(str(path)) as raster:
        for rect in blocks(raster.height, raster.width):
            window = Window(rect.col, rect.row, rect.width, rect.height)
            yield rect, raster.read(1, window=window)


@heard
def draw(raster: ClassRaster, count: int, *, seed: int = 0, least: int = 30) -> NDArray[np.int64]:
    """Draw a simple random sample in each stratum, without replacement.

    Every pixel gets a random key from the seed and its place alone; a stratum's points are those with the smallest
    keys. So the sample is the same wherever it is drawn, and memory is bounded by the block.

    Returns
    -------
    (n, 3): row, column and stratum of each point, in random order, so that the order tells nothing of the class.

    """
    wanted = allocate(count, raster.sizes, least=least)
    kept: list[NDArray[Any]] = [np.empty((0, 3)) for _ in raster.codes]
    for number, (rect, block) in enumerate(_blocks(raster.path)):
        keys = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number])).random(block.shape)
        for stratum, code in enumerate(raster.codes):
            rows, cols = np.nonzero(block == code)
            if not rows.size:
                continue
            own = np.column_stack([keys[rows, cols], rows + rect.row, cols + rect.col])
            if len(own) > wanted[stratum]:
                own = own[np.argpartition(own[:, 0], wanted[stratum])[: wanted[stratum] + 1]]
            both = np.concatenate([kept[stratum], own])
            kept[stratum] = both[np.lexsort((both[:, 2], both[:, 1], both[:, 0]))][: wanted[stratum]]
    points = np.concatenate(
        [np.column_stack([part[:, 1:], np.full(len(part), stratum)]) for stratum, part in enumerate(kept)]
    ).astype(np.int64)
    return np.asarray(points[np.random.Generator(np.random.Philox(key=seed)).permutation(len(points))])


@heard
def write_points(raster: ClassRaster, points: NDArray[np.int64], output: Path, *, overwrite: bool = False) -> Path:
    """Write points as a GeoPackage whose form in QGIS offers the classes; the map's own answer is not in it.

    Raises
    ------
    UsageError:
        When the file is no GeoPackage by name.
    ResegeoError:
        When it exists, or the raster has no place on the map.

    """
    import geopandas as gpd
    import shapely

    from resegeo.outputs.point_forms import write_point_form

    if output.suffix.lower() != ".gpkg":
        raise UsageError(f"[[output={output}]]: points are written as a GeoPackage; name a file that ends in .gpkg.")
    why = name_problem(output)
    if why is not None:
        raise ResegeoError(f"{why} Name another file by [[output]].")
    if is_there(output) and not overwrite:
        raise ResegeoError(
            f"{output} exists; pass [[overwrite=True]] to replace it, or name another file by [[output]]."
        )
    with open_raster(str(raster.path)) as opened:
        crs, transform = opened.crs, opened.transform
    x, y = transform @ (points[:, 1] + 0.5, points[:, 0] + 0.5)
    frame = gpd.GeoDataFrame(
        {"point": np.arange(1, len(points) + 1), FIELD: np.full(len(points), None, dtype=object), "note": ""},
        geometry=shapely.points(x, y),
        crs=None if crs is None else crs.to_wkt(),
    )
    answers = [raster.classes.name_of(code) for code in (*(spec.code for spec in raster.classes.drawn), 0)]
    write_point_form(frame, output, FIELD, answers)
    return output


@heard
def judge(raster: ClassRaster, points: str | Path, *, field: str = FIELD) -> tuple[Estimates, float | None]:
    """Estimate areas and accuracies of a map from the points of its sample, labelled by a person.

    Parameters
    ----------
    raster:
        The class raster that the sample was drawn from, unchanged.
    points:
        Vector file with points and their true class; those without one are left out, with a note.
    field:
        Field that holds the class.

    Returns
    -------
    The estimates, and the area of a pixel in m² where it is the same for all.

    Raises
    ------
    ResegeoError:
        When the file has no such field, a name that is none of the classes, a point beside the map, or too few points.

    """
    frame = read_layer(str(points), str(points), shapes=lambda table: table, holds="points")
    if field not in frame.columns:
        raise ResegeoError(f"{points} has no field {field!r}; it has {', '.join(map(str, frame.columns[:-1]))}.")
    labelled = frame[frame[field].notna() & (frame[field].astype(str).str.strip() != "")]
    if len(labelled) < len(frame):
        notice(
            f"{len(frame) - len(labelled)} of {len(frame)} points of {points} have no {field} and are left out; the "
            "estimates hold if they are no special ones.",
        )
    with open_raster(str(raster.path)) as opened:
        if opened.crs is not None and labelled.crs is not None:
            labelled = labelled.to_crs(opened.crs.to_wkt())
        rows, cols, truth = _places(labelled, opened, raster, str(points), field)
        codes = np.array(
            [
                opened.read(1, window=Window(int(col), int(row), 1, 1))[0, 0]
                for row, col in zip(rows, cols, strict=True)
            ],
            dtype=np.int64,
        )
        area = pixel_area(opened.crs, opened.transform, opened.height, opened.width)
    known = {code: index for index, code in enumerate(raster.codes)}
    outside = [code for code in codes.tolist() if code not in known]
    if outside:
        raise ResegeoError(f"{len(outside)} points of {points} lie on pixels without a label; were they moved?")
    names = [raster.classes.name_of(code) for code in (0, *(spec.code for spec in raster.classes.drawn))]
    used = [name for name in names if name in raster.names or name in set(truth)]
    stratum = np.array([known[code] for code in codes.tolist()], dtype=np.int64)
    mapped = np.array([used.index(raster.names[index]) for index in stratum], dtype=np.int64)
    true = np.array([used.index(name) for name in truth], dtype=np.int64)
    empty = [name for index, name in enumerate(raster.names) if not (stratum == index).any()]
    if empty:
        raise ResegeoError(
            f"No labelled point lies on {', '.join(empty)}: a stratified estimate needs two or more in every class "
            "of the map."
        )
    pixels = np.array([raster.sizes[raster.names.index(name)] if name in raster.names else 0 for name in used])
    return estimate(Sample(stratum, mapped, true, raster.sizes), tuple(used), pixels), area


def _places(
    frame: Any, opened: Any, raster: ClassRaster, points: str, field: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Rows, columns and true names of labelled points; see :func:`judge`."""
    kinds = set(frame.geometry.geom_type.dropna())
    if not len(frame) or kinds - {"Point"}:
        raise ResegeoError(f"{points} holds {', '.join(sorted(kinds)) or 'no labelled points'}; expected points.")
    known = {raster.classes.name_of(code).casefold(): raster.classes.name_of(code) for code in raster.codes}
    known |= {spec.name.casefold(): spec.name for spec in raster.classes.drawn} | {"background": "background"}
    said = [str(value).strip().casefold() for value in frame[field]]
    strange = sorted({value for value in said if value not in known})
    if strange:
        raise ResegeoError(
            f"{points} says {strange[0]!r}, which is no class of {raster.path.name}; known are "
            f"{', '.join(dict.fromkeys(known.values()))}."
        )
    cols, rows = ~opened.transform @ (frame.geometry.x.to_numpy(), frame.geometry.y.to_numpy())
    rows, cols = np.floor(rows).astype(np.int64), np.floor(cols).astype(np.int64)
    if ((rows < 0) | (cols < 0) | (rows >= opened.height) | (cols >= opened.width)).any():
        raise ResegeoError(f"A point of {points} lies beside {raster.path.name}; is it the sample of another map?")
    return rows, cols, [known[value] for value in said]


def pixel_area(crs: Any, transform: Any, height: int, width: int) -> float | None:
    """Area of a pixel in m², corrected by the projection's scale at the raster's centre.

    None without a projected CRS: pixels of a geographic one differ in area, so that shares alone are estimated.
    """
    import pyproj

    if crs is None or not crs.is_projected:
        return None
    planar = abs(transform.a * transform.e - transform.b * transform.d) * float(crs.linear_units_factor[1]) ** 2
    known = pyproj.CRS.from_wkt(crs.to_wkt())
    x, y = transform @ (width / 2, height / 2)
    try:
        longitude, latitude = pyproj.Transformer.from_crs(known, known.geodetic_crs, always_xy=True).transform(x, y)
        scale = pyproj.Proj(known).get_factors(longitude, latitude).areal_scale
    except (pyproj.exceptions.ProjError, AttributeError):
        return float(planar)
    return float(planar / scale) if np.isfinite(scale) and scale > 0 else float(planar)
