"""Labels that lie there already, shown in another way: merged classes, other colours, a part of the scene.

Where only codes change, nothing is scored anew and no model is loaded: the codes are those of a class raster that an
earlier run of the same store has written, unless somebody changed it since.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from resegeo.progress import Progress
from resegeo.run.corrected import Found, found_again
from resegeo.run.labelling import Block, blocks_of, only
from resegeo.run.plan import Outputs, Plan
from resegeo.run.report import Mark, earlier_report, marks_of, versions
from resegeo.run.results import array_name, stored_scores
from resegeo.run.store import Store
from resegeo.scene.formats import open_raster
from resegeo.scene.windows import Rect
from resegeo.settings import POLYGON_KNOBS, Settings

_CODES = ("merge", "only", "aoi", "crop")
"""What of the options decides which codes labels are shown by."""
_COME_TO = ("stride", "overlap", "free_layers", "segment_layers", "local_layers", "min_area")


@dataclass(frozen=True)
class Labelled:
    """A class raster whose labels are those that a plan comes to."""

    raster: Path
    scores: Any | None
    """Those of its pixels, as :func:`resegeo.run.results.make_raster` keeps them."""
    whole: bool
    """Whether its codes are those of the class list, everywhere; else they are shown as the plan wants them."""
    model: Mapping[str, Any]
    """What its report says of the model."""
    found: Found | None
    """What its examples came to."""


def labelled_already(plan: Plan, outputs: Outputs, store: Store, *, scored: bool) -> Labelled | None:
    """Find such a class raster beside the results or beside the store; None where there is none.

    Parameters
    ----------
    plan:
        Of a finished store.
    outputs, store:
        Where results go, and where the labels came from.
    scored:
        Whether the scores of its pixels are needed.

    """
    if plan.made_with is None:
        return None
    folders = [outputs.folder] if store.local is None else [outputs.folder, store.local.parent]
    wanted = plan.options()
    for folder in dict.fromkeys(folders):
        for path in sorted(folder.glob(f"{glob.escape(plan.scene.name)}*.json")):
            report = earlier_report(path)
            if report and _labels(report["resegeo"], plan) == _labels(wanted, plan):
                found = _usable(path, report, plan, outputs, store, scored=scored)
                if found is not None:
                    return found
    return None


def _labels(options: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Return what of a run's options the labels depend on, but not how they are shown."""
    try:
        settings = dict(options["settings"])
        stride = Settings(stride=settings["stride"], overlap=settings["overlap"]).step(plan.geometry.image_size)
        classes = dict(options["classes"])
        classes["classes"] = [{**spec, "color": None} for spec in classes["classes"]]
    except Exception:  # a report that somebody wrote by hand
        return {}
    left = {name: value for name, value in settings.items() if name not in POLYGON_KNOBS | {*_COME_TO}}
    rest = {name: value for name, value in options.items() if name not in (*_CODES, "scores")}
    return rest | {"settings": left, "stride": stride, "classes": classes}


def _shown(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return how labels are shown by codes: empty where each class has its own, everywhere."""
    found = {name: options[name] for name in _CODES if options.get(name) is not None}
    if "merge" in found:
        specs = found["merge"]["classes"]["classes"]
        found["merge"] = [found["merge"]["owner"], [(spec["name"], spec["code"]) for spec in specs]]
    least = options["settings"]["min_area"]
    return found | ({"min_area": least} if least > 1 else {})


def _usable(
    path: Path, report: Mapping[str, Any], plan: Plan, outputs: Outputs, store: Store, *, scored: bool
) -> Labelled | None:
    known = marks_of(report)
    name = str(report["outputs"][0]) if report["outputs"] else ""
    raster, shown = path.with_name(name), _shown(report["resegeo"])
    whole = not shown
    same = shown == _shown(plan.options())
    if not whole and not same:
        return None
    # Scores of all classes are no matter of codes: those that lie there stay, where they are shown as before.
    if plan.scores and not (path == outputs.report and same and all(_whole(each, known) for each in outputs.scores)):
        return None
    if whole and plan.aoi is not None and plan.region is None:
        return None
    if report["windows"]["failed"] or report.get("unreadable_blocks") or report.get("versions") != versions():
        return None
    if not _whole(raster, known):
        return None
    scores = stored_scores(store, raster, report, framed=False)
    if scored and scores is None:
        return None
    found = None
    if plan.correction is not None:
        fitted = path.with_name(f"{path.stem}.fitted.safetensors")
        if plan.correction.kind == "places":
            if not _whole(fitted, known):
                return None
            found = found_again(fitted, report["examples"])
        else:
            found = Found(None, report["examples"])
    return Labelled(raster, scores if scored else None, whole, report["model"], found)


def _whole(path: Path, known: Mapping[str, Mark]) -> bool:
    return path.name in known and path.is_file() and known[path.name].fits(path)


def recoded(plan: Plan, source: Labelled, progress: Progress) -> Iterator[Block]:
    """Yield the blocks of a plan, in order, from the codes of another class raster."""
    classes, legend = plan.classes, plan.legend
    cut = blocks_of(plan)
    frame = Rect(0, 0, 0, 0) if source.whole else plan.frame
    with open_raster(str(source.raster)) as raster:
        for done, rect in enumerate(cut, start=1):
            common = rect if source.whole else rect.intersection(frame)
            codes = np.full((rect.height, rect.width), (classes if source.whole else legend).nodata, raster.dtypes[0])
            if common is not None:
                here = (
                    slice(common.row - rect.row, common.bottom - rect.row),
                    slice(common.col - rect.col, common.right - rect.col),
                )
                window = Window(common.col - frame.col, common.row - frame.row, common.width, common.height)
                codes[here] = raster.read(1, window=window)
            valid = codes != (classes if source.whole else legend).nodata
            if source.whole:
                if plan.region is not None:
                    valid &= plan.region.mask(rect)
                    codes[~valid] = classes.nodata
                if plan.merge is not None:
                    codes = plan.merge.codes(codes)
                if plan.only is not None:
                    codes = only(codes, valid, plan.only, legend)
            scores = None
            if source.scores is not None:
                scores = np.asarray(source.scores[rect.row : rect.bottom, rect.col : rect.right])
            yield Block(rect, codes, np.zeros((*codes.shape, 3), np.uint8), valid, readable=True, scores=scores)
            progress("labels", done, len(cut))


def keeps_scores(plan_raster: Path, source: Labelled) -> bool:
    """Whether the scores of the raster that is replaced are those of the one that comes, under the same name."""
    return source.scores is not None and array_name(plan_raster) == array_name(source.raster)
