"""Many scenes with one command: what is asked for, where each one goes, and a table of what became of them.

The model is loaded once, the words of a class file are embedded once. A scene that fails is noted and the next one
follows. What is finished is remembered in ``.batch.jsonl`` with size and time of the scene's files, so that the same
command passes over it without opening it; where that does not answer, the scene's own report does.
"""

from __future__ import annotations

import bisect
import contextlib
import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol

from resegeo.batches.destinations import SUFFIXES, gather, result_folders, store_below
from resegeo.batches.manifest import Row
from resegeo.batches.mosaic import build_mosaic, mosaic_path
from resegeo.batches.spread import PATIENCE, Made, Order, segmented, spread
from resegeo.checkpoints.sources import identity
from resegeo.classes.class_list import ClassList
from resegeo.documents import JSON_BYTES, parse_json, read_text
from resegeo.errors import Interrupted, ResegeoError, UsageError, escaped, notice, shown
from resegeo.files import alone, is_file, output_folder, refuse_links, whole, writable_folder
from resegeo.run.options import Keywords, Options, View, documented, stamp
from resegeo.run.prepare import Classes, as_class_list, choose, shown_as
from resegeo.run.report import versions
from resegeo.run.standing import stands
from resegeo.run.store_place import is_store
from resegeo.scene.formats import heard, known_formats
from resegeo.scene.source import is_local

if TYPE_CHECKING:
    from resegeo.progress import Progress

P = ParamSpec("P")

_ALONE = (SUFFIXES - {".vrt"}) | {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
"""Formats that keep their pixels in one file: its size and time tell whether it changed."""

TABLE = "batch.csv"
"""Table of what became of the scenes. A cell that a spreadsheet would take for a formula, as it begins with =, +, -, @
or an apostrophe, has one more apostrophe before it; what cannot be printed stands as escapes such as \\x1b."""

COLUMNS = ("scene", "state", "results", "reason")
"""Those of the table: a file of its name that does not begin with them is not ours."""

LEDGER = ".batch.jsonl"

MANY = 2
"""Scenes for each worker from which on a cluster gets them whole, instead of the work items of one after another."""

LARGEST = 50_000_000
"""Pixels up to which a worker gets a scene whole: drawing polygons takes memory for each (README)."""

Watch = Callable[[int, int, str], None]
"""Called with the scenes done, the scenes in all, and what is being done."""


@dataclass(frozen=True)
class SceneResult:
    """What became of one scene."""

    scene: str
    folder: Path
    """Where its results are."""
    state: str
    """``done``, ``skipped`` (it was finished already), ``failed``, or ``waiting`` after an interruption."""
    reason: str = ""
    """Why it failed, in one sentence."""
    error: ResegeoError | None = field(default=None, compare=False, repr=False)
    """The mistake that the sentence tells of, if it is one."""


@dataclass(frozen=True)
class BatchResult:
    """What became of all scenes, in the order in which they were asked for."""

    scenes: tuple[SceneResult, ...]
    table: Path
    """The same as a CSV file."""

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Number of scenes by state."""
        return Counter(result.state for result in self.scenes)

    @property
    def failed(self) -> int:
        """Number of scenes that failed."""
        return self.counts["failed"]


@dataclass(frozen=True, kw_only=True)
class BatchKeywords(Keywords):
    """All that :func:`segment_many` takes by keyword: what its signature is made of."""

    asset: str | None = None
    mosaic: str | None = None
    progress: Watch | None = None  # type: ignore[assignment]  # of scenes, not of stages


class Batches(Protocol[P]):
    """How :func:`segment_many` is called: its keywords are the fields of :class:`BatchKeywords`."""

    def __call__(
        self,
        scenes: str | Path | Sequence[str | Path],
        classes: Classes | None = None,
        output: str | Path = "batch_resegeo",
        *args: P.args,
        **options: P.kwargs,
    ) -> BatchResult:
        """Segment many scenes."""
        ...


def _batches(keywords: Callable[P, object]) -> Callable[[Callable[..., BatchResult]], Batches[P]]:
    return lambda function: documented(function)


@_batches(BatchKeywords)
@heard
def segment_many(
    scenes: str | Path | Sequence[str | Path],
    classes: Classes | None = None,
    output: str | Path = "batch_resegeo",
    *,
    asset: str | None = None,
    mosaic: str | None = None,
    cluster: Any = None,
    append: str | Path | None = None,
    progress: Watch | None = None,
    **options: Any,
) -> BatchResult:
    """Segment many scenes by words: what ``resegeo batch`` does.

    Parameters
    ----------
    scenes:
        One or several of: a raster or a finished store (path or URL), a pattern such as ``scenes/**/*.tif``, a folder
        (all rasters below it), a manifest with options for each scene (see
        :func:`resegeo.batches.manifest.read_manifest`).
    classes:
        As for :func:`resegeo.segment`; None where the manifest names a class file (``prompts``) for each scene.
    output:
        Folder for the results: those of ``scenes/north/a.tif`` go to ``output/north/a/`` if ``scenes`` is the folder
        that was searched. ``batch.csv`` in it says what became of each scene.
    asset:
        Which asset of a STAC item is the scene.
    mosaic:
        Name under which all scenes, tiles of one grid, are segmented as one, without seams; see
        :func:`resegeo.batches.mosaic.build_mosaic`.
    cluster:
        As for :func:`resegeo.segment`; workers are started, or connected to, once. Where there are at least twice as
        many scenes as workers, each worker takes whole scenes, except very large ones.
    append:
        GeoPackage that collects the polygons of all scenes that are finished in the end, in one layer; its field
        ``scene`` names the folder of a scene's results below ``output``. What lies there already just so is left.
    progress:
        Called with the scenes done, the scenes in all, and what is being done.
    **options:
        Any other option of :func:`resegeo.segment`; a scene's own options go before them.

    Returns
    -------
    What became of each scene. A scene that fails does not raise.

    Raises
    ------
    ResegeoError:
        With one sentence, where nothing can be done for any scene: no scene found, two with the same results, a class
        file, model or setting that can't be used.
    Interrupted:
        When the user interrupts; the same call goes on.

    """
    given = [str(scenes)] if isinstance(scenes, str | Path) else [str(scene) for scene in scenes]
    root = output_folder(output)
    rows, base = gather(given, root, asset)
    methods = Methods(classes, options)
    watch = progress or _silent
    collecting = None if append is None else Path(append)
    if collecting is not None:
        from resegeo.outputs.collecting import refuse_collecting

        refuse_collecting(collecting, option="append")
    refuse_foreign_table(root / TABLE, COLUMNS, overwrite=bool(options.get("overwrite")))
    if mosaic is not None:
        for row in rows:
            if row.options:
                raise UsageError(
                    f"{row.where}: {', '.join(row.options)} cannot apply to one tile of a mosaic; give it by an option."
                )
        methods.of(Row(mosaic, {}, "[[mosaic]]"))
        formats = known_formats(View(formats=options.get("formats")).formats)
        with alone({root / TABLE: 0}), _put_back(mosaic_path(root, mosaic)):
            made = str(build_mosaic([row.scene for row in rows], root, mosaic, formats))
            # Its tiles were looked at when it was written, and may lie anywhere.
            trusted = {"formats": (*formats, "VRT")}
            rows = [Row(made, trusted, f"[[mosaic={mosaic}]]")]
            return _Batch(rows, [root / mosaic], root, methods, options, cluster, watch, append=collecting).run()
    folders = [root / part for part in result_folders(rows, base)]
    if collecting is not None and collecting.absolute().parent in (folder.absolute() for folder in folders):
        raise UsageError(f"[[append={shown(collecting)}]] lies among the results of a scene; name a file elsewhere.")
    return _segmented(rows, folders, root, methods, options, cluster, watch, _nothing, collecting)


def segment_rows(
    rows: Sequence[Row],
    folders: Sequence[Path],
    root: Path,
    classes: Classes,
    *,
    cluster: Any = None,
    progress: Watch | None = None,
    each: Callable[[int, SceneResult], None] | None = None,
    **options: Any,
) -> BatchResult:
    """Segment scenes whose places are settled: ``folders``, below ``root``, one a row; else as :func:`segment_many`.

    ``each`` is called with the number of a row, from 0, and what became of it, as soon as that is known.
    """
    refuse_foreign_table(root / TABLE, COLUMNS, overwrite=bool(options.get("overwrite")))
    methods = Methods(classes, options)
    return _segmented(rows, folders, root, methods, options, cluster, progress or _silent, each or _nothing)


def _segmented(rows: Sequence[Row], folders: Sequence[Path], root: Path, methods: Methods, *rest: Any) -> BatchResult:
    for row in rows:
        methods.of(row)  # all mistakes in options are told before anything starts
    with alone({root / TABLE: 0}):  # two batches in one folder would each note what the other has in hand as failed
        return _Batch(rows, folders, root, methods, *rest).run()


@contextlib.contextmanager
def _put_back(vrt: Path) -> Iterator[None]:
    """Let a mosaic be written anew, and put the old one back where the results beside it stay those of the old one."""
    before = vrt.read_bytes() if vrt.is_file() else None
    report = vrt.with_suffix(".json")
    stood = stamp(report)
    try:
        yield
    finally:
        if before is not None and report.exists() and stamp(report) == stood:
            vrt.write_bytes(before)


def _silent(done: int, total: int, what: str) -> None:
    """Show no progress."""


def _nothing(number: int, result: SceneResult) -> None:
    """Do nothing when a scene is settled."""


# How each one is segmented


class Methods:
    """Options common to all scenes, joined with a scene's own; what equal ones come to is found once."""

    def __init__(self, classes: Classes | None, options: Mapping[str, Any]) -> None:
        self._classes, self._options = classes, options
        self._kept: dict[str, tuple[ClassList, dict[str, Any], str]] = {}
        self._lists: dict[str, ClassList] = {}

    def of(self, row: Row) -> tuple[ClassList, dict[str, Any], str]:
        """Class list and options of a scene, and all that its results and its store depend on beside its pixels."""
        named = {name: value for name, value in row.options.items() if name == "name"}
        row = replace(row, options={name: value for name, value in row.options.items() if name not in named})
        key = json.dumps(row.options, sort_keys=True)
        if key not in self._kept:
            try:
                self._kept[key] = self._join(row)
            except ResegeoError as error:
                if not row.options or error.text.startswith(row.where):
                    raise
                raise type(error)(f"{row.where}: {error.text}") from error
        classes, options, facts = self._kept[key]
        return (classes, {**options, **named}, f"{facts}{json.dumps(named)}") if named else self._kept[key]

    def file(self, row: Row) -> str | Path | None:
        """Return a scene's class file, where there is a file."""
        wanted = row.options.get("prompts", self._classes)
        return wanted if is_store(row.scene) and isinstance(wanted, str | Path) else None

    def _join(self, row: Row) -> tuple[ClassList, dict[str, Any], str]:
        own = dict(row.options)
        classes = self._class_list(own.pop("prompts", self._classes), row)
        common = dict(self._options)
        for pair in (("stride", "overlap"), ("gsd", "resize")):
            if any(name in own for name in pair):  # the scene's own goes before, whichever of the two it is
                for name in pair:
                    common.pop(name, None)
        options = {**common, **own}
        chosen = Options.of(options)
        source, settings, sam = choose(classes, chosen.method)
        _, merge = shown_as(classes, chosen) if chosen.kept.examples is None else (classes, None)
        if chosen.kept.examples is None:  # else examples may bring further classes
            legend = classes if merge is None else merge.classes
            legend.codes_of(chosen.only, "only")
            legend.codes_of(settings.regularize, "regularize")
        facts = [
            classes.to_json(),
            identity(source),
            settings.as_dict(),
            [stamp(name) for name in settings.segments.split(",")],
            None if sam is None else sam.sha256,
            chosen.facts(),
            versions()["resegeo"],
        ]
        return classes, options, json.dumps(facts, sort_keys=True, default=str)

    def _class_list(self, wanted: Classes | None, row: Row) -> ClassList:
        if wanted is None:
            raise UsageError(
                f"{row.where} has no class file: pass [[classes]], or name one in a manifest's column prompts."
            )
        if not isinstance(wanted, str | Path):
            return as_class_list(wanted)
        if str(wanted) not in self._lists:
            self._lists[str(wanted)] = as_class_list(wanted)
        return self._lists[str(wanted)]


# The run


@dataclass
class _Batch:
    """A batch whose options are checked and whose places are settled."""

    rows: Sequence[Row]
    folders: Sequence[Path]
    root: Path
    methods: Methods
    options: Mapping[str, Any]
    cluster: Any
    watch: Watch
    each: Callable[[int, SceneResult], None] = _nothing
    append: Path | None = None
    """The file that collects polygons."""
    reports: dict[int, Path] = field(init=False, default_factory=dict)
    """Of scenes that are finished, by number."""
    results: list[SceneResult] = field(init=False)
    done: int = field(init=False, default=0)

    def run(self) -> BatchResult:
        """Segment what is not finished yet."""
        pairs = zip(self.rows, self.folders, strict=True)
        self.results = [SceneResult(row.scene, folder, "waiting") for row, folder in pairs]
        ledger, files = _Ledger(self.root), _Files()
        keys = [self._key(row, files) for row in self.rows]
        for number, key in enumerate(keys):
            try:
                self._stay_inside(number)
            except ResegeoError as error:
                self._settle(number, "failed", str(error), error)
                continue
            report = None if key is None else ledger.holds(self.folders[number], key)
            if report is not None:
                self.reports[number] = report
                self._settle(number, "skipped")
        waiting = [number for number, result in enumerate(self.results) if result.state == "waiting"]
        with writable_folder(self.root):
            if waiting:
                self._run(waiting, keys, ledger)
            if self.append is not None:
                self._collect(self.append)
            return BatchResult(tuple(self.results), _write_table(self.root, self.results))

    def _run(self, waiting: Sequence[int], keys: Sequence[str | None], ledger: _Ledger) -> None:
        from resegeo.clip.encoder import pick_device, set_threads
        from resegeo.run.clusters import connect, workers_of
        from resegeo.run.compute import Models

        pick_device(self.options.get("device"))
        set_threads(self.options.get("threads"))
        models = Models()
        try:
            with connect(self.cluster) if self.cluster is not None else contextlib.nullcontext() as client:
                left = waiting
                if client is not None and self._many(waiting, len(workers_of(client))):
                    left = []
                    self.watch(self.done, len(self.rows), "whole scenes on the workers")
                    orders = (self._order(number, models=None) for number in waiting)
                    with contextlib.closing(spread(client, orders, largest=LARGEST)) as ready:
                        for order, made in ready:
                            if made.large:
                                left.append(order.number)
                            else:
                                self._take(order, made, keys, ledger)
                for number in left:
                    order = self._order(number, models=models, cluster=client, progress=self._stages(number))
                    self._take(order, segmented(order), keys, ledger)
        except KeyboardInterrupt as error:
            _write_table(self.root, self.results)
            finished = sum(result.state in ("done", "skipped") for result in self.results)
            raise Interrupted(
                f"Interrupted: {finished} of {len(self.rows)} scenes are finished in {self.root}. The same command "
                "continues."
            ) from error

    def _collect(self, path: Path) -> None:
        """Add the polygons of all scenes that are finished to a file; those that cannot be are told as failed."""
        from resegeo.run.collected import collect_many

        self.watch(self.done, len(self.rows), f"polygons to {shown(path.name)}")
        numbers = sorted(self.reports)
        runs = [(self.reports[number], self.folders[number].relative_to(self.root).as_posix()) for number in numbers]
        errors = collect_many(runs, path, overwrite=bool(self.options.get("overwrite")))
        for number, error in zip(numbers, errors, strict=True):
            if error is not None:
                self.results[number] = replace(self.results[number], state="failed", reason=str(error), error=error)

    def _many(self, waiting: Sequence[int], workers: int) -> bool:
        """Whether scenes are so many that each worker had better take whole ones.

        A store behind a URL says that workers may not see the folder of the results.
        """
        return len(waiting) >= MANY * workers > 0 and "://" not in str(self.options.get("store"))

    def _order(self, number: int, **hooks: Any) -> Order:
        """Write down what :func:`segment` is to be told of a scene."""
        row, folder = self.rows[number], self.folders[number]
        classes, options, _ = self.methods.of(row)
        given = {**options, "store": self._store(number), **hooks}
        # The results of a store are named after the class file.
        patience = PATIENCE if self.cluster is not None else 0.0
        return Order(number, row.scene, self.methods.file(row) or classes, folder, given, patience)

    def _store(self, number: int) -> str | None:
        """Name the place of a scene's store, below the one that is named for all."""
        part = self.folders[number].relative_to(self.root)
        return store_below(self.methods.of(self.rows[number])[1].get("store"), part)

    def _stay_inside(self, number: int) -> None:
        """See that a scene's results and store go where they belong; see :class:`ResegeoError`."""
        refuse_links(self.root, self.folders[number])
        store, place = self.methods.of(self.rows[number])[1].get("store"), self._store(number)
        if store is not None and place is not None and "://" not in place:
            refuse_links(Path(store), Path(place))

    def _stages(self, number: int) -> Progress:
        row = self.rows[number]
        done, total, name = self.done, len(self.rows), shown(row.options.get("name") or Path(row.scene).name)
        return lambda stage, at, of: self.watch(done, total, f"{name}: {stage} {at} of {of}")

    def _take(self, order: Order, made: Made, keys: Sequence[str | None], ledger: _Ledger) -> None:
        """Note what became of a scene; see :class:`ResegeoError` where no other would fare better."""
        for category, text in made.notes:
            notice(text, category)
        if made.hopeless and made.error is not None and not any(result.state == "done" for result in self.results):
            raise made.error
        if made.result is None:
            self._settle(order.number, "failed", made.reason, made.error)
            return
        self.reports[order.number] = made.result.report
        self._settle(order.number, "skipped" if made.result.reused else "done")
        key = keys[order.number]
        if key is not None:
            ledger.add(order.folder, key, made.result.report)

    def _settle(self, number: int, state: str, reason: str = "", error: ResegeoError | None = None) -> None:
        self.results[number] = SceneResult(self.rows[number].scene, self.folders[number], state, reason, error)
        self.done += 1
        self.watch(self.done, len(self.rows), "")
        self.each(number, self.results[number])

    def _key(self, row: Row, files: _Files) -> str | None:
        """Checksum of options and of what the scene's files say of themselves; None where they can't vouch for it."""
        path = Path(row.scene)
        try:
            if not is_local(row.scene) or path.suffix.lower() not in _ALONE or not is_file(path):
                return None
            known = f"{self.methods.of(row)[2]}{files.belonging_to(path)}"
        except OSError:  # a name that is too long, a folder that may not be read: its segmentation will tell
            return None
        return hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()


class _Files:
    """Name, size and time of the files that lie beside a scene and bear its name: a.tif, a.tfw, a.tif.aux.xml."""

    def __init__(self) -> None:
        self._seen: dict[Path, list[tuple[str, int, int]]] = {}

    def belonging_to(self, scene: Path) -> list[tuple[str, int, int]]:
        """Return them sorted; a folder is looked through once."""
        folder = scene.parent
        if folder not in self._seen:
            with os.scandir(folder) as entries:
                found = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
            self._seen[folder] = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)
        all_ = self._seen[folder]
        first, end = (bisect.bisect_left(all_, (scene.stem + sign,)) for sign in "./")  # "/" comes after "."
        return all_[first:end]


class _Ledger:
    """Scenes that are finished: a line of JSON each, appended when a scene is."""

    def __init__(self, root: Path) -> None:
        self._path, self._root = root / LEDGER, root
        self._lines: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(ResegeoError):
            for line in read_text(self._path, most=JSON_BYTES).splitlines():
                with contextlib.suppress(ResegeoError, KeyError, TypeError):  # cut off when the process was killed
                    entry = parse_json(line, "")
                    self._lines[entry["folder"]] = entry
        # A file of the user's by that name stays as it is: without a ledger all scenes are looked at.
        ours = (
            self._path.is_file()
            and not self._path.is_symlink()
            and (bool(self._lines) or not self._path.stat().st_size)
        )
        self._kept = ours or not os.path.lexists(self._path)

    def holds(self, folder: Path, key: str) -> Path | None:
        """Report of a scene that is finished with these options, and whose results lie there as they were left."""
        entry = self._lines.get(self._name(folder))
        if entry is None or entry.get("key") != key:
            return None
        report = entry.get("report")
        sound = isinstance(report, str) and Path(report).name == report and stands(folder / report)
        return folder / str(report) if sound else None

    def add(self, folder: Path, key: str, report: Path) -> None:
        """Note that a scene is finished."""
        if not self._kept:
            return
        entry = {"folder": self._name(folder), "key": key, "report": report.name}
        with contextlib.suppress(OSError), self._path.open("a", encoding="ascii") as stream:
            stream.write("\n" + json.dumps(entry))  # first, in case the last line was cut off

    def _name(self, folder: Path) -> str:
        return folder.relative_to(self._root).as_posix()


def _write_table(root: Path, results: Sequence[SceneResult]) -> Path:
    path = root / TABLE
    try:
        with whole(path) as beside, beside.open("w", newline="", encoding="utf-8") as stream:
            lines = csv.writer(stream, lineterminator="\n")
            lines.writerow(COLUMNS)
            for result in results:
                cells = (result.scene, result.state, result.folder.relative_to(root).as_posix(), result.reason)
                lines.writerow(map(_cell, cells))
    except OSError as error:
        raise ResegeoError(f"{path} cannot be written ({error.strerror}). Check free space and rights.") from error
    return path


def refuse_foreign_table(path: Path, columns: Sequence[str], *, overwrite: bool) -> None:
    """Refuse to replace a table that does not begin with our columns; see :class:`ResegeoError`."""
    if overwrite or not os.path.lexists(path):
        return
    try:
        with path.open("rb") as stream:
            head = stream.read(100).split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    except OSError:
        head = ""
    if path.is_symlink() or not path.is_file() or not f"{head},".startswith(f"{','.join(columns)},"):
        raise ResegeoError(
            f"{shown(path)} exists and is no table of this program. Name another folder by [[output]], or pass "
            "[[overwrite=True]] to replace it."
        )


def _cell(text: str) -> str:
    """Write text so that a spreadsheet shows it, see :data:`TABLE`."""
    return f"'{escaped(text)}" if text.startswith(("=", "+", "-", "@", "'")) else escaped(text)
