"""Examples out of a vector file: points, lines or polygons that name a class, brought onto the pixels of a scene."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from resegeo.classes.class_list import MOST_CODES, MOST_NAME, ClassList, ClassSpec
from resegeo.classes.palette import colors_for
from resegeo.errors import GeoreferenceWarning, InputNotice, ResegeoError, UsageError, escaped, notice, shown
from resegeo.run.example_features import MOST_PLACES, Places, counts, lattice
from resegeo.scene.grids import name_of
from resegeo.scene.reader import Scene
from resegeo.scene.region import Region, outline, transform_of
from resegeo.scene.vector_layers import areal, laid_over, read_layer, turned
from resegeo.scene.windows import BLOCK, Rect

FIELDS = ("class", "class_name", "class_id")
"""Fields that name the class, the first that a file has."""
MOST_NEW = 100
"""Classes that examples may add: a field of more names is hardly one of classes."""
_TILE = 1024
"""Pixels along a side of the parts in which polygons become pixels and validity is read."""


@dataclass(frozen=True)
class Clicks:
    """What a file of examples says of a scene."""

    places: Places
    """Valid pixels of the scene, thinned."""
    classes: ClassList
    """The class list, and behind it the classes that the file adds: they have no words."""
    field: str
    counts: Mapping[str, int]
    """Places of each class that has any, by name."""
    sample: Places
    """Valid pixels spread over the scene; their labels mean nothing."""


def read_clicks(path: str, field: str | None, scene: Scene, region: Region | None, classes: ClassList) -> Clicks:
    """Read examples; what cannot be used of them is said, with counts.

    Parameters
    ----------
    path:
        Vector file in any format and CRS.
    field:
        The field that names the class; None: the first of :data:`FIELDS` that there is.
    scene:
        The scene that they lie in.
    region:
        Where the run looks: outside is nodata.
    classes:
        The class list. A name that it lacks becomes a class without words.

    Raises
    ------
    UsageError:
        When there is no such field.
    ResegeoError:
        When the file can't be read, or fewer than two classes have a place in the scene.

    """
    drawn = read_drawn(path, field, classes)
    places, sample, outside, invalid = on_scene(drawn, scene, region)
    skipped = drawn.skipped + Counter({"outside the scene": outside, "in nodata": invalid})
    found = counts(places.label, tuple(spec.name for spec in drawn.classes.classes))
    said = [f"{count:,} {why}" for why, count in skipped.items() if count]
    if said:
        notice(f"{drawn.what}: left out are {', '.join(said)}.", InputNotice)
    refuse_one_class(found, drawn.what)
    both = len(places) - len(np.unique(np.stack([places.rows, places.cols]), axis=1).T)
    if both:
        notice(f"{drawn.what}: {both:,} pixels are given to more than one class.", InputNotice)
    return Clicks(places, drawn.classes, drawn.field, found, sample)


@dataclass(frozen=True)
class Drawn:
    """Shapes of a file of examples that name a class, wherever they lie."""

    geometry: NDArray[Any]
    label: NDArray[np.int64]
    """Index of the class of each."""
    crs: Any
    classes: ClassList
    """The class list, and behind it the classes that the file adds: they have no words."""
    field: str
    what: str
    """How messages call the file."""
    skipped: Counter[str]
    """How many were left out, by reason."""


def read_drawn(path: str, field: str | None, classes: ClassList) -> Drawn:
    """Read the shapes of a file of examples; the parameters and errors are those of :func:`read_clicks`."""
    what = f"[[examples={escaped(path)}]]"
    frame = read_layer(
        path, what, field=(field,) if field else FIELDS, shapes=_drawn, holds="points, lines or polygons"
    )
    name = _field_of(frame, field, what)
    extended, label, skipped = _labels(frame[name].tolist(), classes, what, name)
    used = label >= 0
    geometry = np.asarray(frame.geometry.values, dtype=object)[used]
    return Drawn(geometry, label[used], frame.crs, extended, name, what, skipped)


def on_scene(drawn: Drawn, scene: Scene, region: Region | None) -> tuple[Places, Places, int, int]:
    """Return the valid pixels of a scene under shapes, thinned, and those of a sample that is spread over it.

    Behind them how many shapes have no pixel there, and how many pixels under shapes are not valid. Where there is
    nothing under shapes the sample is empty too.
    """
    places, outside = _pixels(drawn.geometry, drawn.label, drawn.crs, scene, drawn.what)
    places = places.thinned()
    spread = lattice(scene.height, scene.width) if len(places) else places
    both, valid = _seen(scene, region, places.followed_by(spread))  # at once, so that nothing is read twice
    own = np.arange(len(both)) < len(places)
    return both.part(own & valid), both.part(~own & valid), outside, int((own & ~valid).sum())


def refuse_one_class(found: Mapping[str, int], what: str) -> None:
    """Refuse examples that have nothing to tell apart; see :class:`ResegeoError`."""
    if len(found) >= 2:
        return
    said = "; ".join(f"{name}: {count:,}" for name, count in found.items())
    raise ResegeoError(
        f"{what} has {'examples of one class only' if found else 'no example'} in this scene"
        f"{f' ({shown(said)})' if found else ''}; expected some of two classes or more, since what one is shows beside "
        "what it is not. Add points of another class."
    )


def extended_by(classes: ClassList, names: Sequence[str]) -> ClassList:
    """Add classes without words behind those of a list, with the next codes and free colours."""
    if not names:
        return classes
    colors = colors_for(list(names), tuple(spec.color for spec in classes.classes))
    last = max(spec.code for spec in classes.classes)
    if last + len(names) > MOST_CODES:
        raise ResegeoError(f"The examples add {len(names)} classes, and {MOST_CODES:,} are the most of a class raster.")
    new = tuple(
        ClassSpec(name, last + 1 + n, (), color) for n, (name, color) in enumerate(zip(names, colors, strict=True))
    )
    return replace(classes, classes=(*classes.classes, *new))


def _drawn(frame: Any) -> Any:
    """Rows of a table that have a shape; a table without geometries has none."""
    import geopandas as gpd

    if not isinstance(frame, gpd.GeoDataFrame):
        return frame.iloc[:0]
    kept = [shape is not None and not shape.is_empty for shape in frame.geometry.values]
    return frame[kept].reset_index(drop=True)


def _field_of(frame: Any, field: str | None, what: str) -> str:
    others = [str(name) for name in frame.columns if name != frame.geometry.name]
    listed = shown(", ".join(others), 200) or "none"
    if field is not None:
        if field not in others:
            raise UsageError(f"[[field={field}]]: {what} has no such field; it has {listed}.")
        return field
    for name in FIELDS:
        if name in others:
            return name
    raise UsageError(
        f"{what} has no field {', '.join(FIELDS[:-1])} or {FIELDS[-1]}; name the one with the classes by [[field]], "
        f"out of {listed}."
    )


def _labels(
    values: Sequence[Any], classes: ClassList, what: str, field: str
) -> tuple[ClassList, NDArray[np.int64], Counter[str]]:
    """Index of the class of each row, -1 of those that are left out, which are counted."""
    by_code = {spec.code: index for index, spec in enumerate(classes.classes) if not spec.background}
    hidden = [index for index, spec in enumerate(classes.classes) if spec.background]
    by_name = {spec.name.casefold(): index for index, spec in enumerate(classes.classes)}
    if len(hidden) == 1:
        by_code[0] = hidden[0]
        by_name.setdefault("background", hidden[0])
    told: list[int | str] = []
    skipped: Counter[str] = Counter()
    for value in values:
        text = "" if value is None or value != value else " ".join(str(value).split())
        if not text:
            skipped["without a class"] += 1
            told.append(-1)
        elif isinstance(value, int | float | np.number) and not isinstance(value, bool):
            index = by_code.get(int(value), -1) if float(value).is_integer() else -1
            skipped["of a code that the class file lacks"] += index < 0
            told.append(index)
        elif text.casefold() in by_name:
            told.append(by_name[text.casefold()])
        elif text in ("background", "unprocessed", "nodata"):
            skipped[f"called {text}"] += 1
            told.append(-1)
        else:
            if len(text) > MOST_NAME or escaped(text) != text:
                raise ResegeoError(
                    f"{what}: its field {shown(field)} holds {shown(text)}, which is no name of a class; expected "
                    f"printable characters, at most {MOST_NAME}."
                )
            told.append(text)
    spelt: dict[str, str] = {}
    for one in sorted(each for each in told if isinstance(each, str)):
        spelt.setdefault(one.casefold(), one)
    new = sorted(spelt.values())
    if len(new) > MOST_NEW:
        raise ResegeoError(
            f"{what}: its field {shown(field)} holds {len(new):,} names that the class file lacks, such as "
            f"{shown(new[0])}, and {MOST_NEW} are the most; name the field with the classes by [[field]]."
        )
    extended = extended_by(classes, new)
    if new:
        notice(f"{what}: new classes, which the class file lacks: {shown(', '.join(new), 200)}.", InputNotice)
    number = {name.casefold(): len(classes.classes) + n for n, name in enumerate(new)}
    label = np.array([one if isinstance(one, int) else number[one.casefold()] for one in told], dtype=np.int64)
    return extended, label, +skipped


def _pixels(
    geometry: NDArray[Any], label: NDArray[np.int64], there: Any, scene: Scene, what: str
) -> tuple[Places, int]:
    """Pixels of the scene under shapes, and how many shapes have none there."""
    transform = transform_of(scene, "examples")
    extent = outline(scene.height, scene.width, transform)
    crs = scene.georeference.crs
    shapes = [areal(shape) for shape in geometry]
    flat = np.array([shape is not None for shape in shapes], dtype=bool)
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
    seen = np.zeros(len(geometry), dtype=bool)

    def add(rows: NDArray[Any], cols: NDArray[Any], owner: NDArray[np.int64]) -> None:
        rows, cols = np.floor(rows), np.floor(cols)
        inside = (rows >= 0) & (rows < scene.height) & (cols >= 0) & (cols < scene.width)
        owner = owner[inside]
        seen[owner] = True
        found.append((rows[inside].astype(np.int64), cols[inside].astype(np.int64), label[owner]))
        if sum(len(part[0]) for part in found) > 50 * MOST_PLACES:
            thin = Places(*(np.concatenate(part) for part in zip(*found, strict=True))).thinned()
            found[:] = [(thin.rows, thin.cols, thin.label)]

    thin_shapes = np.flatnonzero(~flat)
    if thin_shapes.size:
        moved = _moved(geometry[thin_shapes], there, crs, extent, what)
        step = max(abs(transform.a) + abs(transform.b), abs(transform.d) + abs(transform.e)) / 2
        for shape, owner in zip(moved, thin_shapes, strict=True):
            near = shape if shape.geom_type == "Point" else shapely.intersection(shape, extent)
            if near.is_empty:
                continue
            if "Point" not in near.geom_type:
                near = shapely.segmentize(near, step)
            cols, rows = ~transform @ shapely.get_coordinates(near).T
            finite = np.isfinite(cols) & np.isfinite(rows)
            add(rows[finite], cols[finite], np.full(finite.sum(), owner))
    areas = np.flatnonzero(flat)
    if areas.size:
        polygons = np.array([shapes[index] for index in areas], dtype=object)
        kept = np.arange(len(polygons))
        if crs is not None:
            polygons, kept = laid_over(polygons, there, crs, extent, what)
        for polygon, owner in zip(polygons, areas[kept], strict=True):
            _fill(polygon, int(owner), transform, scene, add)
    none = np.zeros(0, dtype=np.int64)
    places = Places(*(np.concatenate(part) for part in zip(*found, strict=True))) if found else Places(none, none, none)
    return places, int((~seen).sum())


def _fill(
    polygon: Any, owner: int, transform: Affine, scene: Scene, add: Callable[[Any, Any, NDArray[np.int64]], None]
) -> None:
    """Add the pixels whose centre a polygon holds; of one that holds none, a pixel inside it."""
    region = Region(np.array([polygon], dtype=object), transform)
    cols, rows = ~transform @ shapely.get_coordinates(shapely.envelope(polygon)).T
    if not (np.isfinite(cols).all() and np.isfinite(rows).all()):
        return
    top, bottom = max(0, int(rows.min())), min(scene.height, int(rows.max()) + 1)
    left, right = max(0, int(cols.min())), min(scene.width, int(cols.max()) + 1)
    some = False
    for row in range(top, bottom, _TILE):
        for col in range(left, right, _TILE):
            rect = Rect(row, col, min(_TILE, bottom - row), min(_TILE, right - col))
            down, across = np.nonzero(region.mask(rect))
            if down.size:
                some = True
                add(down + row, across + col, np.full(down.size, owner))
    if not some and top < bottom and left < right:
        point = shapely.get_coordinates(shapely.point_on_surface(polygon))[0]
        col, row = ~transform @ tuple(point)
        add(np.array([row]), np.array([col]), np.array([owner]))


def _moved(geometry: NDArray[Any], there: Any, crs: Any, extent: Any, what: str) -> NDArray[Any]:
    """Bring points and lines into the scene's CRS; lines get points enough to stay straight where they were drawn."""
    import pyproj

    if crs is None:
        return geometry
    here = pyproj.CRS.from_wkt(crs.to_wkt())
    if there is None:
        notice(f"{what} has no CRS; its coordinates are taken to be in the scene's.", GeoreferenceWarning)
    elif there != here:
        try:
            forth = pyproj.Transformer.from_crs(there, here, always_xy=True)
        except pyproj.exceptions.ProjError as error:
            raise ResegeoError(
                f"{what} is in {there.name!r}, from which no way leads into the scene's CRS, {name_of(crs)!r}."
            ) from error
        lengths = shapely.length(geometry)
        long = lengths > 0
        geometry = geometry.copy()
        geometry[long] = shapely.segmentize(geometry[long], lengths[long] / 100)
        geometry = np.asarray(
            shapely.transform(shapely.force_2d(geometry), lambda xy: np.column_stack(forth.transform(*xy.T)))
        )
    return turned(geometry, here, extent)


def _seen(scene: Scene, region: Region | None, places: Places) -> tuple[Places, NDArray[np.bool_]]:
    """Read the colours of places, and which of them (P,) lie on valid pixels, inside the region."""
    result = np.zeros(len(places), dtype=bool)
    colours = np.zeros((len(places), 3), dtype=np.uint8)
    side = BLOCK  # as stores cut their arrays, so that no chunk is read twice
    tile = places.rows // side * (1 + scene.width // side) + places.cols // side
    for number in np.unique(tile):
        own = np.flatnonzero(tile == number)
        rows, cols = places.rows[own], places.cols[own]
        rect = Rect(
            int(rows.min()), int(cols.min()), int(rows.max() - rows.min()) + 1, int(cols.max() - cols.min()) + 1
        )
        rgb, valid = scene.read(rect.row, rect.col, rect.height, rect.width)
        if region is not None:
            valid = valid & region.mask(rect)
        result[own] = valid[rows - rect.row, cols - rect.col]
        colours[own] = rgb[rows - rect.row, cols - rect.col]
    return replace(places, colours=colours if scene.coloured else None), result


def is_fitted(path: str | Path) -> bool:
    """Whether a file of examples is what a run has fitted, by its name."""
    return str(path).lower().endswith(".safetensors")
