"""The published workflow in one call: find a data set's images, segment, draw and measure each, add up.

Images are a batch like any other (:mod:`resegeo.batches.batch`), and go on where they stopped. As soon as one is there
its pictures are drawn and its labels compared; the figures of all so far are told after each.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from resegeo.batches.batch import SceneResult, Watch, refuse_foreign_table, segment_rows
from resegeo.batches.manifest import Row
from resegeo.datasets.config import Dataset, read_dataset
from resegeo.datasets.cutting import cut
from resegeo.datasets.measuring import (
    FIGURES,
    HEAD,
    TABLE,
    added,
    columns_of,
    line,
    measured,
    write_figures,
    write_table,
)
from resegeo.datasets.pictures import LEGEND, PREDICTED, REAL, colour_table, draw, legend
from resegeo.datasets.tiles import Labels, Tile, check_labels, find_tiles
from resegeo.documents import JSON_BYTES, read_json, read_yaml
from resegeo.errors import (
    GeoreferenceWarning,
    IgnoredSettingWarning,
    InputNotice,
    ResegeoError,
    UsageError,
    escaped,
    notice,
    shown,
)
from resegeo.evaluation.metrics import Accuracy
from resegeo.files import output_folder
from resegeo.process import undisturbed
from resegeo.run.options import Options, View
from resegeo.run.plan import look_at
from resegeo.run.prepare import choose
from resegeo.scene.formats import open_raster

MOST_DRAWN = 100_000_000
"""Pixels of an image up to which pictures of its size are drawn."""

MADE_BY = "resegeo dataset"

Tell = Callable[[str], None]
"""Called with a line after each image."""


@dataclass
class TileResult:
    """What became of one image."""

    name: str
    state: str = "waiting"
    """As of :class:`resegeo.batches.batch.SceneResult`."""
    accuracy: Accuracy | None = None
    """None where it has no labels, or none that can be compared."""
    reason: str = ""
    """What went wrong, in one sentence."""
    error: ResegeoError | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class DatasetResult:
    """What became of a data set."""

    tiles: tuple[TileResult, ...]
    accuracy: Accuracy | None
    """All images with labels together; None where there is none."""
    folder: Path
    pictures: Path
    published: Mapping[str, float]

    @property
    def failed(self) -> int:
        """Number of images that could not be segmented, or not be compared with their labels."""
        return sum(bool(tile.reason) for tile in self.tiles)

    @property
    def table(self) -> Path:
        """CSV file with a line an image."""
        return self.folder / TABLE


def segment_dataset(
    file: str | Path,
    output: str | Path | None = None,
    *,
    data: str | Path | None = None,
    progress: Watch | None = None,
    told: Tell | None = None,
    limit: int | None = None,
    **options: Any,
) -> DatasetResult:
    """Segment, draw and measure all images of a data set: what ``resegeo dataset`` does.

    Parameters
    ----------
    file:
        The reference implementation's ``config.yml``, or a data set's file of ours; see :mod:`resegeo.datasets.config`.
    output:
        Folder for the results; by default the file's ``output.base_dir``.
    data:
        Folder of the images instead of the file's ``input.dir``.
    progress:
        Called with the images done, the images in all, and what is being done.
    told:
        Called with a line after each image: the figures of all images so far.
    limit:
        The first so many images, for a quick look.
    **options:
        Any option of :func:`resegeo.segment`; they go before what the file says.

    Raises
    ------
    ResegeoError:
        With one sentence, where nothing can be done for any image: a mistake in the file, no images, labels that the
        file does not explain.
    Interrupted:
        When the user interrupts; the same call goes on.

    """
    with undisturbed(), warnings.catch_warnings():
        dataset = read_dataset(file)
        where = output if output is not None else dataset.output
        if where is None:
            raise UsageError(
                f"{escaped(dataset.path.name)} names no folder for the results (base_dir in output): add it, or name "
                "one by [[output]]."
            )
        root = output_folder(where)
        folder = _data_folder(dataset, data, root)
        warnings.simplefilter("ignore", GeoreferenceWarning)
        if limit is not None and limit < 1:
            raise UsageError(f"[[limit={limit}]] leaves no image; expected a whole number of 1 or more.")
        run = _Run(dataset, _tiles(dataset, folder, root, limit), root, _options(dataset, options), told or _quiet)
        return run.all(progress)


def _quiet(text: str) -> None:
    """Say nothing."""


def _tiles(dataset: Dataset, folder: Path, root: Path, limit: int | None) -> list[Tile]:
    """Find the images, cut into squares where the file says so."""
    found = find_tiles(dataset, folder, root)[:limit]
    if dataset.tile is None:
        return found
    pieces: list[Tile] = []
    for tile in found:
        try:
            pieces += cut(tile, dataset.tile, root)
        except ResegeoError as error:
            notice(f"{shown(tile.name)} stays whole: {error.text}")
            pieces.append(tile)
    return pieces[:limit]


def _data_folder(dataset: Dataset, data: str | Path | None, root: Path) -> Path:
    folder = Path(data) if data is not None else dataset.folder
    if folder is None:
        raise UsageError(
            f"{escaped(dataset.path.name)} names no folder of images (dir in input): add it, or name one by [[data]]."
        )
    if root.exists() and folder.exists() and root.samefile(folder):
        raise UsageError(
            f"The results would lie among the images, in {shown(root)}; name another folder by [[output]]."
        )
    return folder


def _options(dataset: Dataset, given: Mapping[str, Any]) -> dict[str, Any]:
    """Join what the file says with what was given, which goes before."""
    given = {name: value for name, value in given.items() if value is not None}
    said = dict(dataset.options)
    if given.get("model") is not None:
        said.pop("arch", None)
        said.pop("activation", None)
    if given.get("segments", "sam") != "sam":
        for name in ("sam_checkpoint", "sam_levels"):
            said.pop(name, None)
    if given.get("preset", said["preset"]) != said["preset"]:  # knobs of the file belong to its own preset
        said = {name: value for name, value in said.items() if name not in dataset.knobs}
    for pair in (("stride", "overlap"), ("gsd", "resize")):
        if any(name in given for name in pair):
            said = {name: value for name, value in said.items() if name not in pair}
    if given.get("settings") is not None:
        loaded = read_yaml(given["settings"], f"[[settings={escaped(given['settings'])}]]", error=UsageError)
        for name in loaded if isinstance(loaded, dict) else ():
            said.pop(name, None)
    return {"alpha": "ignore"} | said | given


class _Run:
    """A data set whose images are found."""

    def __init__(self, dataset: Dataset, tiles: list[Tile], root: Path, options: dict[str, Any], told: Tell) -> None:
        self.dataset, self.tiles, self.root, self.options, self.told = dataset, tiles, root, options, told
        self.overwrite = bool(options.get("overwrite"))
        chosen = Options.of(options)
        dataset.check_files(options)
        source, settings, sam = choose(dataset.classes, chosen.method)
        if sam is not None and settings.sam_mode == "tile" and "sam_levels" in dataset.options:
            notice(
                "[[sam_mode=tile]] takes no crops: crop_n_layers and crop_n_points_downscale_factor of sam_param_sets "
                "do not apply.",
                IgnoredSettingWarning,
            )
        if chosen.method.model == dataset.options.get("model"):
            dataset.check_model(source)
        self.view: View = chosen.view
        self.results = [TileResult(tile.name) for tile in tiles]
        self.names = tuple(dataset.categories)
        self.colours = colour_table(dataset.colors, self.names)
        self.columns = columns_of(dataset.classes, dataset.categories)
        self.total: Accuracy | None = None
        self.settled = 0

    def all(self, progress: Watch | None) -> DatasetResult:
        """Check all labels, then segment, draw and measure."""
        refuse_foreign_table(self.root / TABLE, HEAD, overwrite=self.overwrite)
        self._refuse_foreign_figures()
        watch = progress or _silent
        labelled = [number for number, tile in enumerate(self.tiles) if tile.labels is not None]
        for done, number in enumerate(labelled, 1):
            with _reading_labels():
                error = check_labels(self.tiles[number], self.dataset)
            if error is not None:
                self._fail(number, error)
            watch(0, len(self.tiles), f"looking through labels, {done} of {len(labelled)}")
        rows = [self._row(tile) for tile in self.tiles]
        folders = [self.root / tile.name for tile in self.tiles]
        options = {**self.options, "progress": watch, "each": self._settle}
        try:
            segment_rows(rows, folders, self.root, self.dataset.classes, **options)
        finally:
            if self.root.is_dir() and any(result.state != "waiting" for result in self.results):
                self._write()
        return DatasetResult(
            tuple(self.results), self.total, self.root, self.root / self.dataset.pictures, self.dataset.published
        )

    def _row(self, tile: Tile) -> Row:
        own: dict[str, Any] = {"name": _name(tile)}
        if "vector" not in self.options and not _is_placed(tile.image):
            own["vector"] = ()  # polygons of a picture that lies nowhere serve nobody
        return Row(str(tile.image), own, tile.name)

    def _fail(self, number: int, error: ResegeoError) -> None:
        result = self.results[number]
        result.reason, result.error = str(error), error

    def _settle(self, number: int, made: SceneResult) -> None:
        """Draw and measure an image that is segmented."""
        result, tile = self.results[number], self.tiles[number]
        result.state = made.state
        self.settled += 1
        if made.state == "failed":
            result.reason, result.error = made.reason, made.error
        else:
            try:
                self._look(number, fresh=made.state == "done")
            except ResegeoError as error:
                self._fail(number, error)
        what = "" if result.accuracy is not None else " failed" if result.reason else " has no labels"
        said = "" if self.total is None else f": {line(self.total)}"
        self.told(f"{self.settled} of {len(self.tiles)}, {escaped(tile.name)}{what}{said}")

    def _look(self, number: int, *, fresh: bool) -> None:
        tile, result = self.tiles[number], self.results[number]
        path = self.root / tile.name / f"{_name(tile)}.classes.tif"
        labels = tile.labels if not result.reason else None
        folder = self.root / self.dataset.pictures / tile.name
        try:
            with _reading_labels(), open_raster(str(path)) as raster:
                if labels is not None:
                    with Labels(tile, self.dataset, raster.shape) as truth:
                        result.accuracy = measured(raster, truth, self.columns)
                    self.total = result.accuracy if self.total is None else added(self.total, result.accuracy)
                names = (*PREDICTED, *(REAL if labels is not None else ()))
                if not fresh and not self.overwrite and _stand(folder, names, path, labels):
                    return
                if raster.width * raster.height > MOST_DRAWN:
                    notice(
                        f"{shown(tile.name)} has more than {MOST_DRAWN:,} pixels; no pictures of that size are drawn."
                    )
                    return
                codes = raster.read(1)
        except RasterioError as error:
            raise ResegeoError(f"{shown(path)} is damaged. Pass [[overwrite=True]] to make it anew.") from error
        self._draw(tile, folder, codes, labels)

    def _draw(self, tile: Tile, folder: Path, codes: NDArray[Any], labels: Path | None) -> None:
        height, width = codes.shape
        rgb, _ = look_at(tile.image, self.view).read(0, 0, height, width)
        found = self.columns[codes]
        found[found >= len(self.names)] = -1
        draw(folder, PREDICTED, found, rgb, self.colours, overwrite=self.overwrite)
        if labels is not None:
            real = np.empty(codes.shape, dtype=np.int64)
            with _reading_labels(), Labels(tile, self.dataset, codes.shape) as truth:
                for rect, indices in truth.read():
                    real[rect.row : rect.bottom, rect.col : rect.right] = indices
            draw(folder, REAL, real, rgb, self.colours, overwrite=self.overwrite)

    def _write(self) -> None:
        rows = [(each.name, each.state, each.accuracy, each.reason) for each in self.results]
        write_table(self.root / TABLE, self.names, rows)
        named = {name: self.dataset.colors[name] for name in self.names}
        legend(self.root / self.dataset.pictures / LEGEND, named, blank=True, overwrite=self.overwrite)
        if self.total is not None:
            measured_tiles = sum(each.accuracy is not None for each in self.results)
            facts = {"made_by": MADE_BY, "file": self.dataset.path.name, "tiles": len(self.tiles)}
            write_figures(self.root / FIGURES, self.total, {**facts, "tiles_measured": measured_tiles})

    def _refuse_foreign_figures(self) -> None:
        path = self.root / FIGURES
        if self.overwrite or not os.path.lexists(path):
            return
        with contextlib.suppress(ResegeoError):
            if path.stat().st_size < JSON_BYTES and read_json(path).get("made_by") == MADE_BY:
                return
        raise ResegeoError(
            f"{shown(path)} exists and was not written by this program. Name another folder by [[output]], or pass "
            "[[overwrite=True]] to replace it."
        )


def _silent(done: int, total: int, what: str) -> None:
    """Show no progress."""


@contextlib.contextmanager
def _reading_labels() -> Any:
    """Leave out how each label raster is read: the data set's file says what they mean."""
    with warnings.catch_warnings():
        for category in (InputNotice, NotGeoreferencedWarning):
            warnings.simplefilter("ignore", category)
        yield


def _name(tile: Tile) -> str:
    """What an image's results are called: the last part of its name, as files can be called everywhere."""
    return re.sub(r'[\x00-\x1f\x7f\\/?*:|<>"!;]', "_", Path(tile.name).name).strip() or "tile"


def _is_placed(image: Path) -> bool:
    """Whether an image lies somewhere; False too for one that cannot be opened, of which its segmentation tells."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with open_raster(str(image)) as raster:
                return not raster.transform.is_identity or bool(raster.gcps[0])
    except (RasterioError, ResegeoError):
        return False


def _stand(folder: Path, names: tuple[str, ...], raster: Path, labels: Path | None) -> bool:
    """Whether pictures are there that are younger than what they show."""
    try:
        youngest = max(path.stat().st_mtime_ns for path in (raster, labels) if path is not None)
        return all((folder / name).stat().st_mtime_ns >= youngest for name in names)
    except OSError:
        return False
