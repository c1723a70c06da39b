"""A plan carried out into files: store, class raster, polygons, picture, and at last the report that marks the end."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from resegeo.checkpoints.model_card import ModelCardNotice, doubts
from resegeo.clip.encoder import Encoder, set_threads
from resegeo.errors import Interrupted, ResegeoError, notice
from resegeo.files import alone, writable_folder
from resegeo.outputs.area_table import class_areas, write_areas
from resegeo.outputs.picture import write_overlay
from resegeo.outputs.raster import CACHE_BYTES, sieved
from resegeo.progress import Progress
from resegeo.run.arithmetic import settled
from resegeo.run.clusters import STREAMS, connect, share_of
from resegeo.run.companions import write_companions
from resegeo.run.compute import Machine, Models, start_machine
from resegeo.run.corrected import Found, fitted_on, write_fitted
from resegeo.run.executors import Task, run_here, run_on_cluster
from resegeo.run.header import Kept
from resegeo.run.labelling import Block, Scorer, label_scene
from resegeo.run.options import RunOptions
from resegeo.run.pipeline import Room
from resegeo.run.plan import Job, Outputs, Plan, fingerprint
from resegeo.run.recoding import keeps_scores, labelled_already, recoded
from resegeo.run.report import Journal, listed, versions, write_report
from resegeo.run.results import (
    can_draw_polygons,
    kept_raster,
    make_polygons,
    make_raster,
)
from resegeo.run.resume import keeps_features, new_store
from resegeo.run.reuse import reused
from resegeo.run.segmentation import Segmentation
from resegeo.run.standing import Standing, look
from resegeo.run.store import Store
from resegeo.run.store_removal import remove
from resegeo.scene.reader import describe


class _Clock:
    """Seconds a stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = round(now - self._last, 3)
        self._last = now


@dataclass
class _Progress:
    """Counts the items of a stage."""

    report: Progress
    total: int
    done: int = 0
    stage: str = "windows"

    def __call__(self) -> None:
        self.done += 1
        self.report(self.stage, self.done, self.total)


def compute_files(
    plan: Plan, outputs: Outputs, url: str, job: Job | None, options: RunOptions, locks: Mapping[Path, float]
) -> Segmentation:
    """Compute what is not there yet, alone with the files of ``locks``; see :func:`resegeo.run.beginning.run_files`."""
    drawable = can_draw_polygons(plan)
    with (
        writable_folder(outputs.folder),
        alone(locks),
        _interruptions(plan, url),
        # GDAL's block cache takes 5 % of the machine's memory unless told.
        rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
    ):
        # Again: another run may have ended meanwhile.
        found = look(plan, outputs, url, options, alone=True)
        if found.complete:
            Journal(outputs.report).end()
            return reused(found, outputs, url, options)
        return _run(plan, outputs, url, job, options, found, drawable=drawable)


def _run(
    plan: Plan,
    outputs: Outputs,
    url: str,
    job: Job | None,
    options: RunOptions,
    found: Standing,
    *,
    drawable: bool,
) -> Segmentation:
    """Compute what is not there yet and write the results; nobody else writes there meanwhile."""
    wanted, journal = plan.options(), Journal(outputs.report)
    started, clock = datetime.now(UTC), _Clock()
    store = found.store
    raster = kept_raster(plan, outputs, store, found, scored=drawable)
    source = None
    if raster is None and store is not None:
        source = labelled_already(plan, outputs, store, scored=drawable)
    if raster is None and source is None and plan.aoi is not None and plan.region is None:
        raise ResegeoError(
            f"{outputs.report} tells of a region of the scene, which has to be labelled anew; give it again by "
            "[[aoi]] or [[bbox]]."
        )
    kept_scores = outputs.scores if plan.scores and (raster is not None or source is not None) else ()
    ready = None if source is not None else _Ready.load(plan, url, store, options)
    clock.lap("model")
    with contextlib.nullcontext() if ready is None else _workers(ready, job, options) as workers:
        # Workers were found before anything is written.
        journal.keep(found.known)
        for path in found.left:
            path.unlink(missing_ok=True)
        outputs.report.unlink(missing_ok=True)  # the mark of an earlier run
        if ready is not None:
            store = store or new_store(plan, url, ready.kept)
            _compute_items(plan, store, ready, job, options, workers)
            clock.lap("windows")
            _refuse_nothing(plan, store)
    assert store is not None
    kept_whole = None
    if ready is None:
        assert source is not None
        model, corrected, blocks = source.model, source.found, recoded(plan, source, options.progress)
        kept_whole = source.scores if keeps_scores(outputs.raster, source) else None
    else:
        model, corrected = ready.facts(plan), fitted_on(plan, store, ready.texts, ready.encoder.logit_scale)
        blocks = iter(()) if raster is not None else ready.blocks(plan, store, corrected, options, scored=drawable)
    if corrected is not None:
        clock.lap("examples")
    if raster is None:
        ranked = plan.scores and not kept_scores
        raster = make_raster(
            plan, outputs, store, blocks, scored=drawable, ranked=ranked, journal=journal, scores=kept_whole
        )
    beside = plan.beside(outputs)
    if corrected is not None and outputs.fitted in beside:
        write_fitted(outputs.fitted, plan, corrected, note=journal.note)
    clock.lap("labels")
    if drawable:
        make_polygons(plan, outputs, raster.scores, options.progress, journal)
        clock.lap("polygons")
    options.progress("picture", 0, 1)
    write_overlay(outputs.picture, raster.look, outputs.raster, plan.legend, note=journal.note)
    options.progress("picture", 1, 1)
    clock.lap("picture")
    covered = class_areas(outputs.raster, plan.legend, raster.scores)
    write_areas(outputs.areas, covered, journal.note)
    clock.lap("areas")
    written = outputs.vectors if drawable else ()
    marks = {path.name: found.known[path.name] for path in kept_scores} | raster.marks | journal.written
    write_companions(plan, outputs, written, covered, marks, journal.note)
    beside = (*beside, *outputs.companions)
    clock.lap("companions")
    document = {
        **listed(marks | journal.written),
        "resegeo": wanted,
        "fingerprint": fingerprint(wanted),
        "versions": versions(),
        "scene": describe(plan.scene),
        "model": dict(model),
        "schedule": asdict(plan.schedule),
        "pixels": raster.pixels,
        "areas": [asdict(row) for row in covered],
        "doubts": dict(raster.doubts),
        "outputs": [path.name for path in (outputs.raster, *written, outputs.picture, *beside, outputs.areas)],
        **({} if corrected is None else {"examples": dict(corrected.facts)}),
        "store": None if options.discard_store else url,
        **_outcome(plan, store),
        "unreadable_blocks": raster.unreadable,
        "started": started.isoformat(timespec="seconds"),
        "seconds": clock.laps,
    }
    write_report(outputs.report, document)
    journal.end()
    if options.discard_store:
        remove(url)
    _mention_doubts(plan, raster.doubts)
    failed = document["windows"]["failed"] + raster.unreadable
    return Segmentation(
        outputs.raster,
        written,
        outputs.picture,
        outputs.areas,
        outputs.report,
        reused=False,
        failed=failed,
        beside=beside,
    )


def _mention_doubts(plan: Plan, found: Mapping[str, Any]) -> None:
    """Say at the end where the scores speak against the result; scaled by the user's own factor they tell nothing."""
    if not found or plan.settings.logit_scale is not None or len(plan.classes.classes) < 2:
        return
    ties = {name: (tie["with"], tie["share"]) for name, tie in found["near_ties"].items()}
    said = doubts(plan.scene.name, found["mean_scores"], ties)
    if said is not None:
        notice(said, ModelCardNotice)


def _outcome(plan: Plan, store: Store) -> dict[str, Any]:
    """What the report says of windows done, skipped and failed."""
    failures = store.failed()
    done, skipped, halved = store.counts()
    failed = sum(len(plan.grid.item(index).windows) for index in failures)
    return {
        "windows": {"planned": plan.grid.count, "done": done, "skipped": skipped, "failed": failed},
        "batches_halved": halved,
        "failures": [
            {"item": index, **_place(plan, index), "reason": reason} for index, reason in sorted(failures.items())
        ],
    }


def run_codes(plan: Plan, options: RunOptions) -> np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]:
    """Run a plan of a scene in memory and return its codes (height, width)."""
    legend, frame = plan.legend, plan.frame
    codes = np.full((frame.height, frame.width), legend.nodata, dtype=legend.dtype)
    with tempfile.TemporaryDirectory(prefix="resegeo-") as folder:
        url = str(Path(folder) / "scene.store.zarr")
        ready = _Ready.load(plan, url, None, options)
        store = new_store(plan, url, ready.kept)
        _compute_items(plan, store, ready, None, options, None)
        _refuse_nothing(plan, store)
        found = fitted_on(plan, store, ready.texts, ready.encoder.logit_scale)
        for block in ready.blocks(plan, store, found, options):
            part = block.within(frame)
            if part is not None:
                rect = part.rect
                codes[rect.row : rect.bottom, rect.col : rect.right] = part.codes
    return sieved(codes, legend, plan.min_area)


@dataclass(frozen=True)
class _Ready:
    """What is loaded and checked before anything is written."""

    encoder: Encoder
    machine: Machine | None
    """None where all items are done, or others compute them."""
    kept: Kept
    """What the store keeps."""
    texts: np.ndarray[Any, np.dtype[np.float32]] = field(repr=False)

    @classmethod
    def load(cls, plan: Plan, url: str, store: Store | None, options: RunOptions) -> _Ready:
        """Load the model, open the segment source and embed the words."""
        set_threads(options.threads)
        models = options.models or Models()
        kept = plan.kept(features=keeps_features(plan, options)) if store is None else store.header.kept
        if plan.made_with is not None or (store is not None and len(store.done()) == store.items):
            encoder = models.encoder(plan.source, device=options.device, precision=kept.arithmetic.precision)
            return cls(encoder, None, kept, models.texts(encoder, plan.classes.prompt_texts))
        tiles = None if "://" in url else Path(url) / "tiles"
        machine = start_machine(plan, kept, device=options.device, threads=options.threads, tiles=tiles, models=models)
        texts = models.texts(machine.encoder, plan.classes.prompt_texts)
        machine = settled(machine, texts)
        return cls(machine.encoder, machine, machine.kept, texts)

    def scorer(self, plan: Plan, store: Store, found: Found | None = None) -> Scorer:
        """Answer for the scores of stored windows."""
        if self.kept.features:
            return Scorer(store, self.texts, vectors=None if found is None else found.vectors)
        return Scorer(store, None, store.channels(plan.classes.prompt_texts))

    def blocks(
        self, plan: Plan, store: Store, found: Found | None, options: RunOptions, *, scored: bool = False
    ) -> Iterator[Block]:
        """Label the scene block by block, as examples corrected the words."""
        return label_scene(
            plan,
            self.scorer(plan, store, found),
            self.encoder.logit_scale,
            options.progress,
            threads=options.threads,
            scored=scored,
            fitted=None if found is None else found.fitted,
            ranked=plan.scores,
        )

    def facts(self, plan: Plan) -> dict[str, Any]:
        """What the report says of the model."""
        encoder = self.encoder
        return {
            "name": encoder.name,
            "architecture": plan.source.architecture,
            "sha256": encoder.sha256,
            "activation": encoder.activation,
            "composition": [{"variant": name, "weight": weight} for name, weight in plan.source.composition],
            "logit_scale": encoder.logit_scale,
            "device": encoder.device,
            **self.kept.arithmetic.facts(),
        }


def ready_for(plan: Plan, url: str, store: Store, options: RunOptions) -> _Ready:
    """Load what new words for a finished store need."""
    return _Ready.load(plan, url, store, options)


def _compute_items(
    plan: Plan, store: Store, ready: _Ready, job: Job | None, options: RunOptions, workers: Any | None
) -> None:
    """Compute what is not done yet, whatever was tried before; on ``workers``, a client of a cluster, if given."""
    pending = sorted(set(range(plan.items)) - store.done())
    tick = _Progress(options.progress, plan.items, plan.items - len(pending))
    if not pending:
        return
    if ready.machine is None:
        raise ResegeoError(f"The store {store.url} lacks {len(pending)} of {plan.items} work items.")
    if workers is None or job is None:
        run_here(ready.machine, store, pending, tick, Room.of(plan, ahead=options.read_ahead, threads=options.threads))
    else:
        tiles = None if store.local is None else store.local.resolve() / "tiles"
        where = store.url if store.local is None else str(store.local.resolve())
        identity = fingerprint(plan.image_options() | {"store": store.header.id})
        share, threads, room = share_of(options.cluster), options.threads, None
        if share is not None:
            threads = threads or share.threads
            room = Room.of(plan, ahead=options.read_ahead, threads=threads, among=share.workers * STREAMS)
        task = Task(job, where, options.device, threads, tiles, identity, room)
        run_on_cluster(workers, task, pending, tick)
    if store.local is not None:
        shutil.rmtree(store.local / "tiles", ignore_errors=True)
    try:
        plan.refuse_changes()
    except ResegeoError:
        store.undo(pending)
        raise
    store.settle()


@contextlib.contextmanager
def _interruptions(plan: Plan, url: str) -> Iterator[None]:
    """Turn an interruption into a sentence that says what is done and how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        store = Store.open(url)
        done = 0 if store is None else len(store.done())
        raise Interrupted(
            f"Interrupted: {done} of {plan.items} work items are done and kept in {url}. The same command continues."
        ) from error


def _workers(ready: _Ready, job: Job | None, options: RunOptions) -> contextlib.AbstractContextManager[Any]:
    """Connect to the workers that shall compute, or to none."""
    if options.cluster is None or job is None or ready.machine is None:
        return contextlib.nullcontext()
    return connect(options.cluster)


def _refuse_nothing(plan: Plan, store: Store) -> None:
    """End a run in which nothing could be computed; its store goes too."""
    done, _, _ = store.counts()
    if done:
        return
    failed = store.failed()
    remove(store.url)
    if failed:
        raise ResegeoError(f"Nothing could be computed: {failed[min(failed)]}")
    if plan.region is not None:
        raise ResegeoError(f"{plan.scene.source} has no valid pixel inside the region given; enlarge it.")
    raise ResegeoError(
        f"{plan.scene.source} has no valid pixel: all of it is nodata, masked or transparent. "
        "Check its nodata value with `resegeo info`."
    )


def _place(plan: Plan, index: int) -> dict[str, list[int]]:
    """First and last row and column of the scene that an item covers."""
    rect = plan.canvas.scene_rect(plan.grid.item(index).bounds)
    rows = [max(0, rect.row), min(plan.scene.height, rect.bottom) - 1]
    return {"rows": rows, "cols": [max(0, rect.col), min(plan.scene.width, rect.right) - 1]}
