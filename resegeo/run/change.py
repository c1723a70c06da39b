"""What changed between two maps of one area: a cross table, a raster and polygons of the changes.

Most of what differs between two maps that were made apart is error, not change: borders lie a pixel beside, and a
pixel that either map is unsure of falls to one class here and to another there. So each difference is weighed: whether
it lies at a border of classes, whether both maps were sure, how large it is; and the result says how much is left.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import reproject

from resegeo.classes.class_file import class_list
from resegeo.classes.class_list import ClassList
from resegeo.clip.blending import NO_SCORE, SCORE_STEPS
from resegeo.errors import ResegeoError, UsageError, notice, shown
from resegeo.files import LONGEST_PATH, is_there, move, output_folder, saving, workshop, writable_folder
from resegeo.outputs.area_table import pixel_areas
from resegeo.outputs.polygons import polygonize
from resegeo.outputs.raster import read_class_raster_info, sidecars, write_class_raster
from resegeo.outputs.vector_files import open_elsewhere
from resegeo.outputs.vectors import write_polygons
from resegeo.process import undisturbed
from resegeo.run.results import scores_of
from resegeo.run.segmentation import Segmentation
from resegeo.scene.formats import open_raster
from resegeo.scene.grids import SLACK, difference
from resegeo.scene.source import GeoReference
from resegeo.units import area as read_area

SURE = 0.5
"""Score from which on a map is taken to be sure of a pixel, unless told otherwise."""

_NONE = -1
"""Class of a pixel that has none: nodata, or unprocessed."""


@dataclass(frozen=True)
class Transition:
    """One way of changing, or of staying the same, and how much ground it covers."""

    before: str
    after: str
    pixels: int
    ha: float | None
    """None where the maps tell no areas."""
    sure: float | None
    """Share of it where both maps are sure, 0 … 1; None where their scores were not kept."""


@dataclass(frozen=True)
class Change:
    """What differs between two maps, and where that is written."""

    transitions: tuple[Transition, ...]
    """Those that occur, unchanged classes included; the largest change first."""
    differing: float
    """Share of the area that both maps cover, 0 … 1."""
    at_borders: float
    """Share of the differing pixels that touch, in either map, another class than their own: 0 … 1."""
    small: int
    """Differing pixels in areas smaller than the minimum, taken for unchanged."""
    unsure: int
    """Differing pixels of which a map was not sure, taken for unchanged."""
    raster: Path
    polygons: Path | None
    """None where the maps have no place that polygons could have."""
    table: Path
    report: Path

    def files(self) -> tuple[Path, ...]:
        """All paths, in the order in which they are written."""
        drawn = () if self.polygons is None else (self.polygons,)
        return (self.raster, *drawn, self.table, self.report)

    def caution(self) -> str:
        """Say in one sentence how far the differences are to be trusted."""
        return (
            f"{self.differing:.1%} of the area differs, {self.at_borders:.0%} of that at borders of classes; two maps "
            "made apart differ where either is wrong, so look at the large and sure changes first."
        )


@dataclass(frozen=True)
class _Map:
    """One of the two maps on the common grid."""

    names: tuple[str, ...]
    codes: NDArray[np.int32]
    """(h, w): indices into ``names``, or -1."""
    scores: NDArray[np.uint8] | None


def compare(
    before: str | Path,
    after: str | Path,
    output: str | Path,
    *,
    min_area: str | float = 0,
    sure: float = SURE,
    only_sure: bool = False,
    overwrite: bool = False,
) -> Change:
    """Compare two maps of one area: what ``resegeo compare`` does. Holds the common area in memory.

    Classes are matched by name. Where the grids are the same up to whole pixels, pixels are compared as they are; else
    the second map is read on the first one's grid, the nearest pixel for each.

    Parameters
    ----------
    before, after:
        Class rasters, or folders of finished runs.
    output:
        Folder for ``change.tif``, ``change.gpkg``, ``change.csv`` and ``change.json``.
    min_area:
        Differing areas smaller than this are taken for unchanged: pixels, or an area such as ``"0.5ha"``.
    sure:
        Score (0 … 1) from which on a map is sure of a pixel; counts where both runs' scores lie in their stores.
    only_sure:
        Take differences of which a map is not sure for unchanged.
    overwrite:
        Replace earlier files of these names.

    Raises
    ------
    ResegeoError:
        When a map cannot be read, the two have no area in common, or files of these names exist.
    UsageError:
        When ``sure`` is not in 0 … 1, or ``only_sure`` asks for scores that were not kept.

    """
    if not 0 <= sure <= 1:
        raise UsageError(f"[[sure={sure:g}]]: expected a score from 0 to 1.")
    measure = read_area(min_area, "[[min_area]]")
    paths = [_raster_of(before), _raster_of(after)]
    folder = output_folder(output)
    targets = {kind: folder / f"change.{kind}" for kind in ("tif", "gpkg", "csv", "json")}
    _refuse([*targets.values(), *sidecars(targets["tif"])], overwrite=overwrite)
    open_elsewhere(targets["gpkg"])
    with undisturbed():
        where, first, second = _on_one_grid(*paths)
        if only_sure and (first.scores is None or second.scores is None):
            raise UsageError(
                "[[only_sure]] needs the scores of both maps, which lie in the stores of their runs; run both again "
                "without [[discard_store]], or leave it out."
            )
        names = tuple(dict.fromkeys([*first.names, *second.names]))
        a, b = (_renumbered(each, names) for each in (first, second))
        common = (a != _NONE) & (b != _NONE)
        if not common.any():
            raise ResegeoError(f"{paths[0]} and {paths[1]} have no pixel in common that both have classes for.")
        differs = common & (a != b)
        borders = (_at_border(a) | _at_border(b)) & differs
        certain = _certain(first, second, sure)
        unsure = 0
        if only_sure and certain is not None:
            unsure = int((differs & ~certain).sum())
            kept = differs & certain
        else:
            kept = differs
        pixel = _pixel_area(where)
        kept, small = _large(kept, a, b, measure.in_pixels(pixel, "[[min_area]]"))
        transitions = _transitions(a, b, common, kept, certain, names, where)
        with writable_folder(folder), _together(folder) as beside:
            classes, codes = _recoded(a, b, kept, common, names, (first, second), paths)
            _write_raster(beside / "change.tif", codes, where, classes, paths)
            drawn = _write_polygons(beside, classes, certain, where)
            made = Change(
                transitions,
                float(differs.sum() / common.sum()),
                float(borders.sum() / max(1, differs.sum())),
                small,
                unsure,
                targets["tif"],
                targets["gpkg"] if drawn else None,
                targets["csv"],
                targets["json"],
            )
            _write_table(beside / "change.csv", transitions)
            options = {"min_area": str(min_area), "sure": sure, "only_sure": only_sure}
            _write_report(beside / "change.json", made, paths, options)
    return made


@contextlib.contextmanager
def _together(folder: Path) -> Iterator[Path]:
    """Yield a folder to write to; what lies there at the end is moved to ``folder``, all of it or nothing."""
    with workshop(folder) as place:
        try:
            yield place
        except ResegeoError as error:  # the user knows the files by their final names
            names = (shown(place, LONGEST_PATH), shown(folder, LONGEST_PATH))
            raise ResegeoError(error.text.replace(*names)) from error
        with saving(folder):
            move({path: folder / path.name for path in sorted(place.iterdir())})


def _raster_of(path: str | Path) -> Path:
    """Return the class raster of a finished run, or the raster itself."""
    where = Path(path)
    if not is_there(where):
        raise ResegeoError(f"{shown(where)}: no such file or folder. Give a class raster, or the folder of a run.")
    return Segmentation.open(where).raster if where.is_dir() or where.suffix == ".json" else where


def _refuse(paths: list[Path], *, overwrite: bool) -> None:
    for path in paths:
        if os.path.lexists(path) and (not overwrite or not path.is_file()):
            raise ResegeoError(
                f"{shown(path, LONGEST_PATH)} exists; pass [[overwrite=True]] to replace it, or name another folder by "
                "[[output]]."
            )


def _on_one_grid(one: Path, other: Path) -> tuple[GeoReference, _Map, _Map]:
    """Read both maps on the grid of the first, cut to what they have in common."""
    (classes, where), (others, there) = (read_class_raster_info(path) for path in (one, other))
    codes, theirs = _read(one), _read(other)
    scores, their_scores = scores_of(one), scores_of(other)
    if where.transform is None or there.transform is None:
        if codes.shape != theirs.shape or (where.transform is None) != (there.transform is None) or where.gcps:
            raise ResegeoError(
                f"{one} and {other} cannot be laid over each other: without a transform both must have none, no "
                f"control points, and the same size; they have {codes.shape[1]} × {codes.shape[0]} and "
                f"{theirs.shape[1]} × {theirs.shape[0]} pixels. Warp them first, for example with gdalwarp."
            )
        first = _numbered(codes, classes, None if scores is None else np.asarray(scores[...]))
        return where, first, _numbered(theirs, others, None if their_scores is None else np.asarray(their_scores[...]))
    offset = _offset(where, codes.shape, there, theirs.shape)
    if offset is None:
        notice(f"{other} lies on another grid than {one}: the nearest of its pixels is taken for each.")
        rows, cols = slice(0, codes.shape[0]), slice(0, codes.shape[1])
        moved = _warped(theirs, there, where, codes.shape, fill=others.nodata)
        moved_scores = None
        if their_scores is not None:
            moved_scores = _warped(np.asarray(their_scores[...]), there, where, codes.shape, fill=NO_SCORE)
    else:
        down, right = offset
        rows = slice(max(0, down), min(codes.shape[0], down + theirs.shape[0]))
        cols = slice(max(0, right), min(codes.shape[1], right + theirs.shape[1]))
        if rows.start >= rows.stop or cols.start >= cols.stop:
            raise ResegeoError(f"{one} and {other} have no area in common.")
        its = slice(rows.start - down, rows.stop - down), slice(cols.start - right, cols.stop - right)
        moved = theirs[its]
        moved_scores = None if their_scores is None else np.asarray(their_scores[its])
    first = _numbered(codes[rows, cols], classes, None if scores is None else np.asarray(scores[rows, cols]))
    second = _numbered(moved, others, moved_scores)
    transform = where.transform @ Affine.translation(cols.start, rows.start)
    return GeoReference(where.crs, transform), first, second


def _read(path: Path) -> NDArray[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with open_raster(str(path)) as raster:
                return np.asarray(raster.read(1))
    except RasterioError as error:
        raise ResegeoError(f"{path} is damaged: its pixels cannot be read. Run `resegeo segment` again.") from error


def _offset(
    where: GeoReference, shape: tuple[int, int], there: GeoReference, its: tuple[int, int]
) -> tuple[int, int] | None:
    """Rows and columns by which the second grid's corner lies in the first; None where pixels do not coincide."""
    if where.transform is None or there.transform is None:
        return None
    try:
        right, down = ~where.transform @ (there.transform.c, there.transform.f)
    except ValueError:
        return None
    if abs(right - round(right)) > SLACK or abs(down - round(down)) > SLACK:
        return None
    moved = where.transform @ Affine.translation(round(right), round(down))
    if difference(its, moved, where.crs, its, there.transform, there.crs) is not None:
        return None
    return round(down), round(right)


def _warped(
    values: NDArray[Any], there: GeoReference, where: GeoReference, shape: tuple[int, int], *, fill: int
) -> NDArray[Any]:
    if (where.crs is None) != (there.crs is None):
        raise ResegeoError("One of the maps has no CRS. Pass [[assign_crs=EPSG:xxxx]] when it is made.")
    moved = np.full(shape, fill, dtype=values.dtype)
    with contextlib.suppress(RasterioError):  # nothing in common
        reproject(
            values,
            moved,
            src_transform=there.transform,
            src_crs=there.crs or "EPSG:3857",
            dst_transform=where.transform,
            dst_crs=where.crs or "EPSG:3857",
            src_nodata=fill,
            dst_nodata=fill,
            resampling=Resampling.nearest,
        )
    return moved


def _numbered(codes: NDArray[Any], classes: ClassList, scores: NDArray[np.uint8] | None) -> _Map:
    """Turn codes into indices of names, background first."""
    listed = [0, *(spec.code for spec in classes.drawn)]
    index = np.full(max(classes.nodata, classes.unprocessed) + 1, _NONE, dtype=np.int32)
    index[listed] = np.arange(len(listed))
    return _Map(tuple(classes.name_of(code) for code in listed), index[codes], scores)


def _renumbered(each: _Map, names: tuple[str, ...]) -> NDArray[np.int32]:
    index = np.array([names.index(name) for name in each.names] + [_NONE], dtype=np.int32)
    return np.asarray(index[each.codes], dtype=np.int32)  # the last one is that of -1


def _at_border(codes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Pixels with a neighbour, by an edge, of another class."""
    found = np.zeros(codes.shape, dtype=bool)
    down, right = codes[1:] != codes[:-1], codes[:, 1:] != codes[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= right
    found[:, :-1] |= right
    return found


def _certain(first: _Map, second: _Map, sure: float) -> NDArray[np.bool_] | None:
    """Pixels that both maps are sure of; None where scores are missing."""
    if first.scores is None or second.scores is None:
        return None
    least = sure * SCORE_STEPS
    one, other = ((scores != NO_SCORE) & (scores >= least) for scores in (first.scores, second.scores))
    return np.asarray(one & other)


def _pixel_area(where: GeoReference) -> float | None:
    """Area of a pixel in m², in the first row's middle where it differs; None where there is none."""
    found = float(np.mean(pixel_areas(where, 0, 1, 1)))
    return found if math.isfinite(found) else None


def _large(
    differs: NDArray[np.bool_], a: NDArray[np.int32], b: NDArray[np.int32], least: float
) -> tuple[NDArray[np.bool_], int]:
    """Take out areas of one transition (4-connected) of fewer than ``least`` pixels; returns how many pixels went."""
    if least <= 1:
        return differs, 0
    from skimage.measure import label

    pairs = np.where(differs, a * (int(b.max()) + 1) + b + 1, 0)
    areas = label(pairs, background=0, connectivity=1)  # type: ignore[no-untyped-call]
    sizes = np.bincount(areas.ravel())
    kept = differs & (sizes >= least)[areas]
    return kept, int(differs.sum() - kept.sum())


def _transitions(
    a: NDArray[np.int32],
    b: NDArray[np.int32],
    common: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    certain: NDArray[np.bool_] | None,
    names: tuple[str, ...],
    where: GeoReference,
) -> tuple[Transition, ...]:
    """Count pixels and ground of each transition; what is taken for unchanged counts as its class before."""
    count = len(names)
    pixels, sure = np.zeros(count**2, dtype=np.int64), np.zeros(count**2, dtype=np.int64)
    ground = np.zeros(count**2)
    for row in range(len(a)):
        seen = common[row]
        pairs = (a[row] * count + np.where(kept[row], b[row], a[row]))[seen]
        sizes = np.broadcast_to(pixel_areas(where, row, row + 1, a.shape[1]), (1, a.shape[1]))[0][seen]
        pixels += np.bincount(pairs, minlength=count**2)
        ground += np.bincount(pairs, weights=sizes, minlength=count**2)
        if certain is not None:
            sure += np.bincount(pairs[certain[row][seen]], minlength=count**2)
    found = []
    for pair in np.flatnonzero(pixels):
        amount = float(ground[pair])
        found.append(
            Transition(
                names[pair // count],
                names[pair % count],
                int(pixels[pair]),
                round(amount / 10_000, 4) if math.isfinite(amount) else None,
                None if certain is None else round(float(sure[pair] / pixels[pair]), 4),
            )
        )
    return tuple(sorted(found, key=lambda each: (each.before == each.after, -each.pixels, each.before, each.after)))


def _recoded(
    a: NDArray[np.int32],
    b: NDArray[np.int32],
    kept: NDArray[np.bool_],
    common: NDArray[np.bool_],
    names: tuple[str, ...],
    maps: tuple[_Map, _Map],
    paths: list[Path],
) -> tuple[ClassList, NDArray[np.unsignedinteger]]:
    """Make a class of each transition, in the colour of what it became, and codes of the pixels (h, w)."""
    colours: dict[str, tuple[int, int, int]] = {}
    for path in reversed(paths):
        classes, _ = read_class_raster_info(path)
        colours |= {classes.name_of(code): classes.color_of(code) for code in (0, *(s.code for s in classes.drawn))}
    count = len(names)
    pairs = a * count + b
    found = np.unique(pairs[kept])
    entries = [
        {
            "name": f"{names[pair // count]} → {names[pair % count]}",
            "color": "#{:02x}{:02x}{:02x}".format(
                *(
                    (first + 3 * last) // 4
                    for first, last in zip(colours[names[pair // count]], colours[names[pair % count]], strict=True)
                )
            ),
        }
        for pair in found
    ]
    listed = class_list(entries or [{"name": "no change found", "color": "#808080"}])
    codes = np.full(a.shape, listed.nodata, dtype=listed.dtype)
    codes[common] = 0
    codes[kept] = np.searchsorted(found, pairs[kept]) + 1
    return listed, codes


def _write_raster(
    path: Path, codes: NDArray[np.unsignedinteger], where: GeoReference, classes: ClassList, paths: list[Path]
) -> None:
    def strips() -> Iterator[tuple[int, int, NDArray[np.unsignedinteger]]]:
        for row in range(0, len(codes), 512):
            yield row, 0, codes[row : row + 512]

    height, width = codes.shape
    tags = {"RESEGEO_CHANGE": json.dumps([path.name for path in paths], ensure_ascii=False)}
    write_class_raster(path, strips(), height=height, width=width, georeference=where, classes=classes, tags=tags)


def _write_polygons(folder: Path, classes: ClassList, certain: NDArray[np.bool_] | None, where: GeoReference) -> bool:
    """Draw the changes with what they were, what they became, and the share of which both maps are sure."""
    if where.transform is None:
        return False
    weights = None if certain is None else np.where(certain, SCORE_STEPS, 0).astype(np.uint8)
    frame = polygonize(folder / "change.tif", classes=classes, scores=weights)
    parts = [name.split(" → ") for name in frame["class_name"]]
    frame.insert(2, "before", [part[0] for part in parts])
    frame.insert(3, "after", [part[-1] for part in parts])
    frame = frame.rename(columns={"score_mean": "sure"}).astype({"before": "str", "after": "str"})
    write_polygons(frame, folder / "change.gpkg", classes)
    return True


def _write_table(path: Path, transitions: tuple[Transition, ...]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["before", "after", "pixels", "ha", "sure"])
    for each in transitions:
        cells = (each.before, each.after, each.pixels, each.ha, each.sure)
        writer.writerow(["" if value is None else value for value in cells])
    with saving(path):
        path.write_text(text.getvalue(), "utf-8")


def _write_report(path: Path, made: Change, paths: list[Path], options: dict[str, Any]) -> None:
    document = {
        "resegeo_change": 1,
        "before": str(paths[0]),
        "after": str(paths[1]),
        **options,
        "differing": round(made.differing, 6),
        "at_borders": round(made.at_borders, 6),
        "small_pixels": made.small,
        "unsure_pixels": made.unsure,
        "caution": made.caution(),
        "transitions": [vars(each) for each in made.transitions],
    }
    with saving(path):
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
