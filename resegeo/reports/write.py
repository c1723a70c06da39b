"""Write the report of a folder: one page, the same as JSON and as CSV."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from resegeo.errors import InputNotice, ResegeoError, Spelling, escaped, in_python, shown
from resegeo.evaluation.evaluate import Evaluation, agreement, evaluate
from resegeo.evaluation.folders import matched
from resegeo.files import LONGEST_PATH, move, workshop
from resegeo.outputs.raster import read_class_raster_info
from resegeo.reports.facts import Facts, gather, table_rows
from resegeo.reports.layers import LONGEST, Stack, draw, thumbnail
from resegeo.reports.page import overview, page
from resegeo.run.report import earlier_report
from resegeo.run.results import scores_of, store_of
from resegeo.run.segmentation import Segmentation

PAGE = "report.html"
_SUMS = re.compile(rb"<!-- resegeo report ([0-9a-f]{64}) ([0-9a-f]{64}) ([0-9a-f]{64}) -->\n\Z")


def write_report_page(
    results: str | Path,
    *,
    truth: str | Path | None = None,
    legend: str | None = None,
    field: str | None = None,
    evaluation: Evaluation | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    spelling: Spelling = in_python,
) -> tuple[Path, ...]:
    """Write what a run came to as a page for readers: what ``resegeo report`` does.

    Parameters
    ----------
    results:
        Folder of a run, or the report ``<stem>.json`` in it; or the folder of a batch, which gets a page for each
        scene and one of all.
    truth:
        What is known of the place: the page then says how right the map is. Of a batch a folder, see
        :func:`resegeo.evaluation.folders.matched`. See :func:`resegeo.evaluation.evaluate.evaluate` for this,
        ``legend`` and ``field``.
    legend, field:
        What the values of ``truth`` mean.
    evaluation:
        Figures of a batch that were measured already, for the page of all.
    output:
        The page, ``report.html`` beside the results by default. ``.summary.json`` and ``.summary.csv`` lie beside it.
    overwrite:
        Replace files that are not as a report left them, too.
    spelling:
        Of parameters that the page names.

    Returns
    -------
    The page, JSON and CSV; of a batch the page of all comes first.

    Raises
    ------
    ResegeoError:
        When there is no finished run, or a file lies there that nobody may replace.

    """
    place = Path(results)
    runs = _runs(place)
    if runs is None:
        run = Segmentation.open(place)
        measured = None if truth is None else _measured(run.raster, truth, legend, field)
        target = Path(output) if output is not None else _page_of(run)
        files, _, _ = _write_one(run, target, measured, overwrite=overwrite, spelling=spelling)
        return files
    if truth is not None:
        if not Path(truth).is_dir():
            raise ResegeoError(
                f"{escaped(place)} holds {len(runs)} runs, and [[truth={escaped(truth)}]] is no folder: name a folder "
                "of truths that are called as the scenes are, or the folder of one scene."
            )
        evaluation = evaluate(matched(place, Path(truth)), legend=legend, field=field)
    images = () if evaluation is None else evaluation.images or (evaluation,)
    by_raster = {image.pairs[0][0]: image for image in images if image.pairs}
    written: list[Path] = []
    scenes = []
    for run in runs:
        found = by_raster.get(str(run.raster))
        known = None if found is None else (found, _right(found.pairs[0], legend, field))
        target = _page_of(run)
        files, facts, stack = _write_one(run, target, known, overwrite=overwrite, spelling=spelling)
        written += files
        scenes.append((facts, thumbnail(stack), f"./{quote(target.relative_to(place).as_posix())}"))
    target = Path(output) if output is not None else place / PAGE
    incomplete = [facts["title"] for facts, _, _ in scenes if facts["pixels_unprocessed"]]
    cautions = [f"Not complete: {', '.join(incomplete)}."] if incomplete else []
    cautions.append("Each scene's page has cautions of its own. Where scenes overlap, their areas count twice.")
    together = None if evaluation is None else evaluation.as_dict()
    html = overview(place.resolve().name, scenes, cautions, together)
    data = {"scenes": [{**facts, "page": link} for facts, _, link in scenes], "evaluation": together}
    tables = [table_rows(facts, measured=bool(by_raster)) for facts, _, _ in scenes]
    titles = [facts["title"] for facts, _, _ in scenes]
    rows = [["scene", *tables[0][0]]]
    rows += [[title, *row] for title, table in zip(titles, tables, strict=True) for row in table[1:]]
    return (*_put(target, html, data, rows, overwrite=overwrite), *written)


def _page_of(run: Segmentation) -> Path:
    """Name the page of a run: of several in a folder each has one of its own."""
    several = sum(1 for path in run.report.parent.glob("*.json") if earlier_report(path)) > 1
    return run.report.with_name(f"{run.report.stem}.{PAGE}" if several else PAGE)


def _runs(place: Path) -> list[Segmentation] | None:
    """Find the runs in the folders below one that holds none itself; None where it does."""
    if not place.is_dir() or any(earlier_report(path) for path in place.glob("*.json")):
        return None
    found = [
        path
        for path in sorted(place.rglob("*.json"))
        if not any(part.endswith(".zarr") or part.startswith(".") for part in path.relative_to(place).parts)
        and path.with_name(f"{path.stem}.classes.tif").exists()
        and earlier_report(path)
    ]
    return [Segmentation.open(path) for path in found] or None


_Measured = tuple[Evaluation, NDArray[np.uint8]]
"""Figures, and where the map is right, see :func:`resegeo.evaluation.evaluate.agreement`."""


def _measured(raster: Path, truth: str | Path, legend: str | None, field: str | None) -> _Measured:
    found = evaluate([(raster, truth)], legend=legend, field=field)
    return found, _right((raster, truth), legend, field)


def _right(pair: tuple[str | Path, str | Path], legend: str | None, field: str | None) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputNotice)  # given by the evaluation already
        return agreement(pair, LONGEST, legend=legend, field=field)


def _write_one(
    run: Segmentation, target: Path, measured: _Measured | None, *, overwrite: bool, spelling: Spelling
) -> tuple[tuple[Path, ...], Facts, Stack]:
    classes, _ = read_class_raster_info(run.raster)
    scores = scores_of(run.raster)
    figures, right = (None, None) if measured is None else measured
    facts = gather(run, scores, figures, spelling)
    store = store_of(run.raster)
    look = None if store is None else store.array("quicklook")
    stack = draw(run.raster, classes, None if look is None else np.asarray(look[...]), scores, right)
    return _put(target, page(facts, stack), facts, table_rows(facts), overwrite=overwrite), facts, stack


def _put(
    target: Path, html: str, facts: Mapping[str, Any], rows: list[list[str]], *, overwrite: bool
) -> tuple[Path, Path, Path]:
    """Write page, JSON and CSV; the page ends with the checksums of all three, by which the next run knows them."""
    if target.suffix.lower() not in (".html", ".htm"):
        raise ResegeoError(f"[[output={escaped(target)}]]: the page is HTML; its name must end in .html.")
    paths = target, target.with_suffix(".summary.json"), target.with_suffix(".summary.csv")
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    contents = [
        html.encode("utf-8", "backslashreplace"),
        json.dumps(facts, indent=2, ensure_ascii=True, allow_nan=False).encode() + b"\n",
        table.getvalue().encode("utf-8", "backslashreplace"),
    ]
    if not overwrite:
        _refuse_others(paths)
    contents[0] += f"<!-- resegeo report {' '.join(map(_sum, contents))} -->\n".encode()
    try:
        with workshop(target.parent) as place:
            made = {place / path.name: path for path in paths}  # the page first: it tells whose the others are
            for beside, content in zip(made, contents, strict=True):
                beside.write_bytes(content)
            move(made)
    except OSError as error:
        raise ResegeoError(
            f"{shown(target, LONGEST_PATH)} could not be written ({error.strerror or error}). Check free space and "
            "permissions."
        ) from error
    return paths


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _refuse_others(paths: tuple[Path, ...]) -> None:
    """See that what lies there is a report as it was written: anything else is somebody's."""
    there = [path for path in paths if path.exists() or path.is_symlink()]
    if not there:
        return
    known: dict[Path, str] = {}
    try:
        content = paths[0].read_bytes()
        found = _SUMS.search(content[-300:])
        if found is not None:
            known = dict(zip(paths, (sums.decode() for sums in found.groups()), strict=True))
        for path in there:
            own = path.read_bytes()
            if path == paths[0] and found is not None:
                own = own[: -len(found[0])]
            if known.get(path) != _sum(own):
                raise ResegeoError(
                    f"{shown(path, LONGEST_PATH)} exists and is not as a report left it; pass [[overwrite=True]] to "
                    "replace it, or name another page by [[output]]."
                )
    except OSError as error:
        raise ResegeoError(
            f"{shown(paths[0], LONGEST_PATH)} or what lies beside it cannot be read ({error.strerror or error}); name "
            "another page by [[output]]."
        ) from error
