"""What the store of a plan becomes: the class raster and its polygons."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resegeo.clip.blending import NO_SCORE
from resegeo.errors import GeoreferenceWarning, ResegeoError, notice
from resegeo.files import is_there
from resegeo.outputs.picture import Quicklook
from resegeo.outputs.raster import sidecars, write_class_raster
from resegeo.progress import Progress
from resegeo.run.plan import Outputs, Plan
from resegeo.run.report import Journal, Mark, earlier_report, marks_of, provenance_tags, raster_identity
from resegeo.run.score_rasters import score_rasters
from resegeo.run.standing import Standing, State
from resegeo.run.store import Store
from resegeo.scene.gcps import unplaced
from resegeo.scene.region import outline
from resegeo.scene.resampling import ground_sample_distance
from resegeo.scene.source import stem_of
from resegeo.scene.windows import Rect
from resegeo.settings import SUFFIXES
from resegeo.units import area_in_pixels

if TYPE_CHECKING:
    from resegeo.run.labelling import Block, Doubt


_FEW_PIXELS = 5
"""Areas of fewer pixels are hardly more than noise, whatever they measure on the ground."""
_MANY = 100
"""Polygons too small from which on there may be a word about it."""


@dataclass(frozen=True)
class MadeRaster:
    """A class raster that was written, and what was learnt on the way."""

    pixels: dict[str, int]
    """By name of class."""
    marks: dict[str, Mark]
    """Of the raster and its sidecars, by name."""
    unreadable: int
    """Blocks of the scene that could not be read."""
    look: Quicklook
    scores: Any | None
    """Array (height, width) of the pixels' scores, see :func:`resegeo.clip.blending.class_scores`; None if nobody
    asked."""
    doubts: Mapping[str, Any]
    """See :meth:`resegeo.run.labelling.Doubt.facts`."""


def make_raster(
    plan: Plan,
    outputs: Outputs,
    store: Store,
    labelled: Iterator[Block],
    *,
    scored: bool,
    ranked: bool,
    journal: Journal,
    scores: Any | None = None,
) -> MadeRaster:
    """Write the class raster; on the way keep validity, colours and quicklook, so that new words need no scene.

    ``labelled`` are its blocks; ``scored`` keeps the pixels' scores too, for the polygons, where ``scores`` does not
    say that they are in the store already; ``ranked`` writes those of all classes.
    """
    scene, frame = plan.scene, plan.frame
    stored = store.header.finished
    look = Quicklook.blank(scene.height, scene.width)
    near = look if plan.crop is None else Quicklook.blank(frame.height, frame.width)
    valid = None if stored else store.keep_array("valid")
    colours = None if stored or not store.header.kept.features else store.keep_array("colours")
    fresh = None if scores is not None else _fresh_scores(store, plan, outputs, scored=scored)
    kept_scores = fresh if scores is None else scores
    unreadable = 0
    doubt: Doubt | None = None

    from resegeo.run.labelling import look_of  # which loads what computes; polygons need none of it

    def codes(blocks: Iterator[Block]) -> Iterator[tuple[int, int, Any]]:
        nonlocal unreadable, doubt
        for block in blocks:
            unreadable += not block.readable
            if block.doubt is not None:
                doubt = block.doubt if doubt is None else doubt + block.doubt
            part = block.within(frame)
            if part is None:
                continue
            if near is not look:
                near.put(part.rect.row, part.rect.col, part.rgb, part.valid)
            if every is not None:
                every.put(part)
            yield part.rect.row, part.rect.col, part.codes
        plan.refuse_changes()  # after the last read, and before the raster gets its name

    where: dict[str, Any] = {"height": frame.height, "width": frame.width, "georeference": plan.georeference}
    with contextlib.ExitStack() as stack:
        every = None
        if ranked:
            every = stack.enter_context(score_rasters(outputs.scores, plan.legend, **where, note=journal.note))
        counts = write_class_raster(
            outputs.raster,
            codes(look_of(labelled, look, valid, fresh, colours)),
            **where,
            classes=plan.legend,
            tags=provenance_tags(plan),
            min_area=plan.min_area,
            note=journal.note,
        )
    marks = {path.name: journal.written[path.name] for path in (outputs.raster, *sidecars(outputs.raster))}
    if kept_scores is not None:
        _name_owner(store, outputs.raster, kept_scores, raster_identity(plan.options(), marks[outputs.raster.name]))
    if stored:
        near = _stored_look(plan, store)
    else:
        kept = store.keep_array("quicklook")
        kept[...] = look.rgb
        if not store.failed() and not unreadable:
            store.seal("quicklook")
            store.seal("valid")
            if colours is not None:
                store.seal("colours")
            store.finish()
    pixels = {plan.legend.name_of(code): count for code, count in sorted(counts.items())}
    doubts = {} if doubt is None else doubt.facts([spec.name for spec in plan.legend.classes])
    return MadeRaster(pixels, marks, unreadable, near, _framed(kept_scores, plan.crop), doubts)


def kept_raster(
    plan: Plan, outputs: Outputs, store: Store | None, standing: Standing, *, scored: bool
) -> MadeRaster | None:
    """Return the class raster that an earlier run left, with what its store keeps of it; None: one must be made."""
    earlier = standing.report
    if store is None or earlier is None or not store.header.finished:  # else it needs more than scores anew
        return None
    if not standing.raster or (plan.scores and any(standing.files[path] is not State.WHOLE for path in outputs.scores)):
        return None
    scores = stored_scores(store, outputs.raster, earlier)
    if scored and scores is None:
        return None
    marks = {path.name: standing.known[path.name] for path in (outputs.raster, *sidecars(outputs.raster))}
    return MadeRaster(dict(earlier["pixels"]), marks, 0, _stored_look(plan, store), scores, earlier.get("doubts") or {})


def _stored_look(plan: Plan, store: Store) -> Quicklook:
    """Return the quicklook that an earlier run kept, of the part that results show."""
    whole = Quicklook(plan.scene.height, plan.scene.width, np.asarray(store.require("quicklook")[...]))
    return whole if plan.crop is None else whole.part(plan.crop)


@dataclass(frozen=True)
class _Framed:
    """The part of an array (height, width) on disk that results show."""

    array: Any
    frame: Rect

    def __getitem__(self, rows: slice) -> NDArray[np.uint8]:
        first, end, _ = rows.indices(self.frame.height)
        row, col = self.frame.row, self.frame.col
        return np.asarray(self.array[row + first : row + end, col : col + self.frame.width])


def _framed(array: Any | None, frame: Rect | None) -> Any | None:
    return array if array is None or frame is None else _Framed(array, frame)


def stored_scores(store: Store, raster: Path, report: Mapping[str, Any], *, framed: bool = True) -> Any | None:
    """Return the scores of a class raster that :func:`make_raster` kept, an array (height, width) on disk.

    It has the raster's size, or the scene's where ``framed`` is False.

    None where there are none of that very raster, which ``report`` tells: a store serves several folders, and names may
    be the same there.
    """
    owner = raster_identity(report["resegeo"], marks_of(report)[raster.name])
    crop = report["resegeo"].get("crop") if framed else None
    return _framed(store.array(array_name(raster), **{_OWNER: owner}), None if crop is None else Rect(*crop))


def store_of(raster: Path) -> Store | None:
    """Find the store that the report of a finished run's class raster names; None where it is gone."""
    earlier = earlier_report(raster.with_name(f"{raster.name.removesuffix('.classes.tif')}.json"))
    if not earlier or not earlier.get("store"):
        return None
    beside = raster.with_name(earlier["store"].rpartition("/")[2])  # folders can be moved
    with contextlib.suppress(ResegeoError):
        return Store.open(str(beside) if is_there(beside) else earlier["store"])
    return None


def scores_of(raster: Path) -> Any | None:
    """Find the scores of a finished run's class raster in the store that its report names; None where they are gone."""
    earlier = earlier_report(raster.with_name(f"{raster.name.removesuffix('.classes.tif')}.json"))
    if not earlier or raster.name not in marks_of(earlier) or not marks_of(earlier)[raster.name].fits(raster):
        return None
    store = store_of(raster)
    with contextlib.suppress(ResegeoError):
        return None if store is None else stored_scores(store, raster, earlier)
    return None


def scene_of(raster: Path) -> str | None:
    """Name the scene of a finished run's class raster as its report tells it; None where that is gone."""
    earlier = earlier_report(raster.with_name(f"{raster.name.removesuffix('.classes.tif')}.json"))
    known = earlier.get("scene") if earlier and raster.name in marks_of(earlier) else None
    source = known.get("source") if isinstance(known, dict) else None
    return stem_of(source) if isinstance(source, str) else None


_OWNER = "raster"


def array_name(raster: Path) -> str:
    """Return the name under which a store keeps the scores of a class raster."""
    return f"scores-{raster.stem}"


def _name_owner(store: Store, raster: Path, scores: Any, identity: str) -> None:
    """Write to an array of scores whose they are: last, so that those of a run that was killed are nobody's."""
    if not isinstance(scores, np.ndarray):
        store.seal(array_name(raster), **{_OWNER: identity})


def _fresh_scores(store: Store, plan: Plan, outputs: Outputs, *, scored: bool) -> Any | None:
    """Lay out an array for the scores of a class raster; those of the one that it replaces are gone in any case."""
    name = array_name(outputs.raster)
    try:
        if scored:
            return store.keep_array(name)
        store.drop_array(name)
    except OSError:  # a finished store that may only be read
        if scored:
            return np.full((plan.scene.height, plan.scene.width), NO_SCORE, dtype=np.uint8)
    return None


def can_draw_polygons(plan: Plan) -> bool:
    """Whether polygons can be written; what is impossible for good is said before hours are spent.

    Raises
    ------
    ResegeoError:
        When a format that was asked for cannot hold them.

    """
    georeference = plan.georeference
    if not plan.settings.vector:
        return False
    why = unplaced(georeference)
    if why is not None:
        notice(
            f"{plan.scene.source} {why}, the class raster keeps what the scene has.",
            GeoreferenceWarning,
        )
        return False
    from resegeo.outputs.vectors import IN_DEGREES, no_degrees  # with geopandas, which no other result needs

    crs = georeference.crs or georeference.gcps_crs
    transform = georeference.transform
    where = None if transform is None else outline(plan.frame.height, plan.frame.width, transform)
    formats = [
        IN_DEGREES[suffix] for suffix in (SUFFIXES[name] for name in plan.settings.vector) if suffix in IN_DEGREES
    ]
    why = no_degrees(crs, where, formats[0]) if formats else None
    if why is not None:
        remedy = "Pass [[assign_crs=EPSG:xxxx]], or choose" if crs is None else "Choose"
        raise ResegeoError(f"{plan.scene.source} {why}. {remedy} another format by [[vector=gpkg]].")
    return True


def make_polygons(plan: Plan, outputs: Outputs, scores: Any, progress: Progress, journal: Journal) -> None:
    """Draw the polygons of the class raster that was written, with the mean of their pixels' scores."""
    from resegeo.outputs.polygons import draw
    from resegeo.outputs.vectors import write_polygons

    settings = plan.settings
    progress("polygons", 0, len(outputs.vectors))
    drawing = draw(
        outputs.raster,
        classes=plan.legend,
        keep_background=settings.keep_background,
        smooth=settings.smooth,
        simplify=plan.simplify,
        regularize=settings.regularize,
        scene=plan.scene.name,
        scores=scores,
    )
    _suggest_min_area(plan, drawing.borders.areas.sizes[1:])
    for done, path in enumerate(outputs.vectors):
        own = drawing.regularized if path.stem != outputs.report.stem else None
        write_polygons(own or drawing, path, plan.legend, note=journal.note)
        progress("polygons", done + 1, len(outputs.vectors))


def smallest_worth(ground: tuple[float, float] | None) -> tuple[int, str]:
    """Return the pixels below which an area is hardly worth a polygon, and how ``min_area`` says it.

    Parameters
    ----------
    ground:
        Height and width of a pixel in metres; None where the scene does not tell.

    """
    pixels = 0 if ground is None else area_in_pixels("10m2", ground, "min_area")
    return (pixels, "10m2") if pixels >= _FEW_PIXELS else (_FEW_PIXELS, f"{_FEW_PIXELS}px")


def _suggest_min_area(plan: Plan, sizes: NDArray[np.int64]) -> None:
    """Suggest a smallest area where a good part of many polygons is too small to tell anything."""
    least, text = smallest_worth(ground_sample_distance(plan.scene))
    small = int(np.count_nonzero(sizes < least))
    if plan.min_area <= 1 and small >= _MANY and small > len(sizes) / 3:
        what = "10 m²" if text == "10m2" else f"{least} pixels"
        notice(
            f"{small:,} of {len(sizes):,} polygons are smaller than {what}; [[min_area={text}]] lets such areas join a "
            "neighbour."
        )
