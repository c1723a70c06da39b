"""Which images a data set has, where their labels lie, and whether both go together."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from resegeo.datasets.config import PART, Dataset
from resegeo.documents import read_text
from resegeo.errors import ResegeoError, UsageError, escaped, shown
from resegeo.evaluation.legend import Legend
from resegeo.evaluation.metrics import UNKNOWN
from resegeo.evaluation.truth import Grid, RasterTruth
from resegeo.scene.formats import open_raster
from resegeo.scene.source import GeoReference
from resegeo.scene.windows import Rect, blocks

IGNORED = "not counted"
"""Name, in a legend, of label values that are left out: no class may come of them."""


@dataclass(frozen=True)
class Tile:
    """One image, and its labels where there are any."""

    name: str
    """Its place below the data set's folder, parts joined by /: what it is called, and where its results go."""
    image: Path
    labels: Path | None
    values: frozenset[str] = field(default=frozenset(), repr=False)
    """What the image's name says, by which ``only`` may choose it."""


def find_tiles(dataset: Dataset, folder: Path, output: Path) -> list[Tile]:
    """Find the images below a folder, whatever their depth, in the order of their names.

    Hidden files and folders, and the folder of the results, are passed over.

    Raises
    ------
    ResegeoError:
        When there is no folder, or no image in it.

    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise ResegeoError(
            f"The folder of the images, {shown(folder)}, {what}. Correct input.dir in {escaped(dataset.path.name)}, or "
            "name the folder by [[data]]."
        )
    pattern = _expression(dataset.image)
    fixed = "{" not in dataset.image
    away = output.absolute()
    files = list(_files(folder, away))
    elsewhere = _by_name(files) if "{" in dataset.label else {}
    tiles = []
    for path in files:
        place = path.relative_to(folder)
        found = pattern.fullmatch(place.as_posix())
        if found is None:
            continue
        parts = found.groupdict()
        base = folder / (parts.pop("_base") or ".")
        labels = _labels(base, _filled(dataset.label, parts), elsewhere)
        name = place.parent if fixed and "/" not in dataset.image else place.with_suffix("")
        tiles.append(
            Tile(
                folder.absolute().name if str(name) == "." else name.as_posix(),
                path,
                None if labels is None or labels.samefile(path) else labels,
                frozenset({path.name, path.stem, *parts.values()}),
            )
        )
    if not tiles:
        raise ResegeoError(
            f"No file below {shown(folder)} is called {escaped(dataset.image)}. Check input.dir and "
            f"input.target_image_name in {escaped(dataset.path.name)}."
        )
    seen: dict[str, Path] = {}
    for tile in tiles:
        first = seen.setdefault(tile.name.casefold(), tile.image)  # folders of Windows and macOS know no case
        if first != tile.image:
            raise ResegeoError(
                f"{shown(first)} and {shown(tile.image)} would have the same results, in {shown(tile.name)}; rename a "
                "folder."
            )
    return _chosen(tiles, dataset, folder)


def _files(folder: Path, away: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders[:] = sorted(
            each
            for each in folders
            if not each.startswith(".") and each != "__MACOSX" and (here / each).absolute() != away
        )
        yield from (here / name for name in sorted(files) if not name.startswith("."))


def _by_name(files: Sequence[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(path.name, []).append(path)
    return found


def _labels(base: Path, name: str, elsewhere: Mapping[str, Sequence[Path]]) -> Path | None:
    """Find labels beside an image or, where their name tells which, the only ones of it in another folder."""
    if (base / name).is_file():
        return base / name
    tail = Path(name).parts
    found = [path for path in elsewhere.get(tail[-1], ()) if path.parts[-len(tail) :] == tail]
    return found[0] if len(found) == 1 else None


def _filled(pattern: str, parts: Mapping[str, str]) -> str:
    return PART.sub(lambda name: parts.get(name[1], name[0]), pattern)


def _expression(pattern: str) -> re.Pattern[str]:
    """Build the expression of a place below the data's folder that ends in a name with parts in braces."""
    pieces = PART.split(pattern)
    seen: set[str] = set()
    said = ""
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            said += re.escape(piece)
        else:
            said += f"(?P={piece})" if piece in seen else f"(?P<{piece}>[^/]+?)"
            seen.add(piece)
    return re.compile(rf"(?:(?P<_base>.+)/)?{said}")


def _chosen(tiles: Sequence[Tile], dataset: Dataset, folder: Path) -> list[Tile]:
    """Keep the images that the file lists, by themselves or in a text file below the folder."""
    wanted = dataset.only
    if not wanted:
        return list(tiles)
    if len(wanted) == 1 and wanted[0].endswith(".txt"):
        lists = sorted(folder.rglob(wanted[0]))
        if not lists:
            raise ResegeoError(
                f"No file below {shown(folder)} is called {shown(wanted[0])}, which input.only in "
                f"{escaped(dataset.path.name)} names."
            )
        wanted = tuple(line.strip() for each in lists for line in read_text(each).splitlines() if line.strip())
    kept = [tile for tile in tiles if not tile.values.isdisjoint(wanted)]
    if not kept:
        raise ResegeoError(
            f"Of {len(tiles)} images below {shown(folder)} none is among those that input.only in "
            f"{escaped(dataset.path.name)} lists."
        )
    return kept


class Labels:
    """The labels of one image as indices of categories, block by block."""

    def __init__(self, tile: Tile, dataset: Dataset, shape: tuple[int, int]) -> None:
        """Open the labels of ``tile``, an image of ``shape`` (rows, columns).

        Raises
        ------
        ResegeoError:
            When they cannot be read, or have another size.

        """
        found = shape_of(tile.labels or tile.image)
        if found != shape:
            raise ResegeoError(
                f"{shown(tile.labels)} has {found[0]} × {found[1]} pixels (rows × columns), its image {shape[0]} × "
                f"{shape[1]}; labels must have the size of their image."
            )
        self.shape = shape
        self.names = tuple(dataset.categories)
        legend = Legend({value: name or IGNORED for value, name in dataset.values.items()})
        self._index = {name: number for number, name in enumerate(self.names)} | {IGNORED: UNKNOWN}
        grid = Grid(str(tile.image), *shape, GeoReference(None, None), self.names)
        self._truth = RasterTruth(str(tile.labels), grid, legend)

    def read(self) -> Iterator[tuple[Rect, NDArray[np.int64]]]:
        """Yield indices of categories, :data:`UNKNOWN` where a pixel is not counted."""
        for rect in blocks(*self.shape):
            yield rect, self._truth.read(rect, self._index)

    @property
    def strange(self) -> str:
        """Values met that nobody named, as a list of the first; empty where there are none."""
        return self._truth.strange

    def __enter__(self) -> Labels:
        return self

    def __exit__(self, *_: Any) -> None:
        self._truth.close()


def shape_of(path: Path) -> tuple[int, int]:
    """Return rows and columns of a raster.

    Raises
    ------
    ResegeoError:
        When it cannot be opened.

    """
    try:
        with open_raster(str(path)) as raster:
            return int(raster.height), int(raster.width)
    except RasterioError as error:
        raise ResegeoError(f"{shown(path)} cannot be opened as a raster: it is damaged. Get it anew.") from error


def check_labels(tile: Tile, dataset: Dataset) -> ResegeoError | None:
    """Look through the labels of an image; return what keeps them from being compared, None where nothing does.

    Raises
    ------
    ResegeoError:
        When they hold a value that has no class: a matter of the data set's file, which would spoil every figure.

    """
    try:
        with Labels(tile, dataset, shape_of(tile.image)) as labels:
            for _ in labels.read():
                pass
            strange = labels.strange
    except UsageError:
        raise  # values that no labels can have
    except ResegeoError as error:
        return error
    if strange:
        known = ", ".join(f"{value}: {name}" for value, name in list(dataset.values.items())[:12] if name is not None)
        raise ResegeoError(
            f"{shown(tile.labels)} holds the label values {strange}, which have no class; {escaped(dataset.path.name)} "
            f"knows {known}. Give them one in category_to_index or labels.values, or list them in labels.ignore."
        )
    return None
