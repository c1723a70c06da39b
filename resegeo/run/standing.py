"""What is there already: asked once before a run begins, and once more when it is alone with its files."""

from __future__ import annotations

import csv
import io
import os
import stat
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from PIL import Image
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from safetensors import SafetensorError, safe_open

from resegeo.documents import parse_json
from resegeo.errors import ResegeoError, shown
from resegeo.files import LONGEST_PATH, name_problem, read_limited
from resegeo.outputs.area_table import ClassArea, as_csv
from resegeo.outputs.raster import sidecars
from resegeo.outputs.vector_files import PARTS, open_elsewhere, parts_of
from resegeo.run.options import RunOptions
from resegeo.run.plan import Outputs, Plan, differences
from resegeo.run.report import LARGEST, Journal, Mark, earlier_report, marks_of, raster_options, rescued, versions
from resegeo.run.resume import existing_store, lacks_anything
from resegeo.run.store import Store
from resegeo.scene.formats import open_raster


class State(Enum):
    """What lies under a name that a run writes to."""

    ABSENT = "absent"
    WHOLE = "whole"
    """As a run of ours wrote it."""
    DAMAGED = "damaged"
    """Empty, or ours and cut or no longer readable: nothing is lost with it."""
    EDITED = "edited"
    """Ours once, and readable: somebody changed it since."""
    FOREIGN = "foreign"
    """Nothing that a run of ours is known to have written."""


@dataclass(frozen=True)
class Standing:
    """What lies where a run's results go, and what of it can be kept."""

    report: Mapping[str, Any] | None
    """That of the run that ended here; None where there is none."""
    files: Mapping[Path, State]
    """All that the run may write or replace, and all that the report lists."""
    complete: bool
    """Whether the results of an equal run lie there, and nothing has to be done."""
    raster: bool
    """Whether the class raster with its sidecars lies there that the run comes to."""
    left: tuple[Path, ...]
    """Files of the run that is replaced which the new one does not write: they would stand beside it as if its own."""
    vectors: tuple[Path, ...] = ()
    """Polygon files of the report."""
    store: Store | None = None
    """The store that the run can go on with; asked for only when nobody else writes there."""
    known: Mapping[str, Mark] = field(default_factory=dict)
    """Marks of the files that the report lists."""


def look(plan: Plan, outputs: Outputs, url: str, options: RunOptions, *, alone: bool) -> Standing:
    """See what is there already.

    Parameters
    ----------
    plan, outputs, url:
        The run, its files and its store.
    options:
        Whether it may replace what others made, and what it shall keep.
    alone:
        Whether locks are held, so that nobody else writes there: only then the store is opened to go on with, and files
        of the user's refuse the run.

    Raises
    ------
    ResegeoError:
        When the run would replace what must not be replaced, or its files cannot have their names.

    """
    files = _touched(outputs, plan.beside(outputs))
    touched = files
    for path in files:
        why = name_problem(path)
        if why is not None:
            raise ResegeoError(f"{why} Give the scene a shorter or plainer name.")
    wanted, report = plan.options(), earlier_report(outputs.report)
    if not options.overwrite and not (plan.in_place and report):
        _refuse_another(report, outputs, wanted)
    known = marks_of(report) if report is not None else rescued(outputs.report)
    marks = Journal(outputs.report).known
    for name, mark in known.items():
        marks.setdefault(name, []).append(mark)
    files = list(dict.fromkeys([*files, *(outputs.folder / name for name in marks)]))
    states = {path: state_of(path, marks.get(path.name, [])) for path in files}
    if states[outputs.areas] is State.EDITED and report and _begins(outputs.areas, report):
        states[outputs.areas] = State.DAMAGED  # cut between two rows, it is a table still
    extra = sidecars(outputs.raster)
    finished = _is_finished(report)
    complete = not options.overwrite and finished and _are_whole(states, known, extra)
    complete = complete and report is not None and report["resegeo"] == wanted
    complete = complete and not lacks_anything(plan, url, options)
    store = None
    if alone and not complete:
        _refuse_open(states)
        store = existing_store(plan, url, options, alone=True)
        _refuse_users(states, outputs, options)
    return Standing(
        report=report or None,
        files=states,
        complete=complete,
        raster=report is not None
        and finished
        and raster_options(report["resegeo"]) == raster_options(wanted)
        and report.get("versions") == versions()
        and all(states[path] is State.WHOLE for path in (outputs.raster, *extra)),
        left=tuple(path for path in files if path not in touched and states[path] is not State.EDITED),
        vectors=tuple(path for path in outputs.vectors if path.name in known),
        store=store,
        known=known,
    )


def foresee(plan: Plan, outputs: Outputs, url: str, options: RunOptions) -> Standing:
    """See what a run would find, and the store that it would go on with, while others may write there.

    Raises
    ------
    ResegeoError:
        As :func:`look`, when the run would be refused.

    """
    found = look(plan, outputs, url, options, alone=False)
    try:
        return replace(found, store=existing_store(plan, url, options, alone=False))
    except ResegeoError:
        if found.complete:  # without a store that lets other words be tried
            return found
        raise


def stands(path: Path) -> bool:
    """Whether the report of a finished run lies there, and its results as the run left them."""
    report = earlier_report(path)
    if not report or not report["outputs"] or not _is_finished(report):
        return False
    known = marks_of(report)
    states = {path.with_name(name): state_of(path.with_name(name), [mark]) for name, mark in known.items()}
    return _are_whole(states, known, sidecars(path.with_name(report["outputs"][0])))


def _is_finished(report: Mapping[str, Any] | None) -> bool:
    """Whether a run has ended with all that it could compute."""
    return (
        report is not None and bool(report) and not report["windows"]["failed"] and not report.get("unreadable_blocks")
    )


def _are_whole(states: Mapping[Path, State], known: Mapping[str, Mark], extra: Sequence[Path]) -> bool:
    """Whether all files that a report lists are as it says.

    Whoever gave the raster another style, saved the project, or let GDAL keep statistics has not changed a result.
    """
    marked = ((path, state) for path, state in states.items() if path.name in known)
    return all(
        state is State.WHOLE or (state is State.EDITED and (path in extra or path.suffix == ".qgz"))
        for path, state in marked
    )


def _touched(outputs: Outputs, beside: Sequence[Path]) -> list[Path]:
    """All files that a run may write or replace, except its report."""
    parts = [part for path in outputs.vectors for part in parts_of(path)]
    return [
        outputs.raster,
        *sidecars(outputs.raster),
        *parts,
        outputs.picture,
        *beside,
        outputs.areas,
        *outputs.companions,
    ]


def _refuse_another(report: Mapping[str, Any] | None, outputs: Outputs, wanted: Mapping[str, Any]) -> None:
    """Refuse to replace the results of another run, or a file that is no report."""
    if report is None:
        return
    if not report:
        raise ResegeoError(
            f"{shown(outputs.report, LONGEST_PATH)} exists and was not written by this program, or by an earlier "
            "version of it. Name another folder by [[output]], or pass [[overwrite=True]] to replace it."
        )
    changed = differences(report["resegeo"], wanted)
    if report.get("versions", {}).get("resegeo") != versions()["resegeo"]:
        changed = changed or ["version of resegeo"]
    if changed or report["resegeo"] != wanted:
        raise ResegeoError(
            f"{shown(outputs.folder, LONGEST_PATH)} holds the results of another run; different: "
            f"{', '.join(changed)}. Pass [[overwrite=True]] to replace them, or name another folder by [[output]]."
        )


def _refuse_open(states: Mapping[Path, State]) -> None:
    for path in states:
        if path.suffix.lower() == ".gpkg":
            open_elsewhere(path)


def _refuse_users(states: Mapping[Path, State], outputs: Outputs, options: RunOptions) -> None:
    """Refuse to replace what the user made or changed."""
    table = sidecars(outputs.raster)[0]
    for path in (*_touched(outputs, outputs.beside), outputs.report):
        said = shown(path, LONGEST_PATH)
        if path.is_dir() and not path.is_symlink():
            raise ResegeoError(
                f"{said} is a folder, and a file of the results has its name. Name another one by [[output]]."
            )
        state = states.get(path)
        if state is State.FOREIGN and not options.overwrite:
            raise ResegeoError(
                f"{said} exists and is not known as a result of this program. Name another folder by [[output]], or "
                "pass [[overwrite=True]] to replace it."
            )
        # Statistics that GDAL keeps in the attribute table's file are nobody's work.
        spared = options.overwrite and (options.replace_edited or path == table)
        if state is State.EDITED and not spared:
            raise ResegeoError(
                f"{said} was changed since this program wrote it. Keep it under another name, or pass "
                "[[overwrite=True]] [[replace_edited=True]] to replace it."
            )


def state_of(path: Path, marks: Sequence[Mark]) -> State:
    """Tell what lies under a name, given the marks of the files that runs of ours have written there."""
    if not os.path.lexists(path):
        return State.ABSENT
    found = path.lstat()
    ordinary = stat.S_ISREG(found.st_mode)
    try:
        if ordinary and any(mark.fits(path) for mark in marks):
            return State.WHOLE
        if ordinary and _holds_nothing(path):
            return State.DAMAGED
    except OSError as error:
        raise ResegeoError(f"{shown(path, LONGEST_PATH)} cannot be read ({error.strerror}).") from error
    if not marks:
        return State.FOREIGN
    return State.EDITED if not ordinary or _opens(path) else State.DAMAGED


def _holds_nothing(path: Path) -> bool:
    """Whether a file has no content, or zeros alone, as some file systems leave it when power is lost."""
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            if block.strip(b"\0"):
                return False
    return True


def _begins(table: Path, report: Mapping[str, Any]) -> bool:
    """Whether a table of areas is the beginning of the one that a report came with."""
    try:
        rows = [ClassArea(**row) for row in report.get("areas", [])]
        return as_csv(rows).encode().startswith(read_limited(table, LARGEST))
    except (ResegeoError, TypeError, AttributeError):
        return False


def _opens(path: Path) -> bool:
    """Whether a file can be read to its end as what its suffix says: cut at any byte it cannot, but for rare ones."""
    suffix = path.suffix.lower()
    try:
        if suffix in (".qml", ".sld", ".xml"):
            ET.parse(path)
        elif suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
        elif suffix == ".tif":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with open_raster(str(path)) as raster:
                    for _, window in raster.block_windows(1):
                        raster.read(window=window)
        elif suffix in PARTS:
            from resegeo.outputs.vectors import readable

            return readable(path)
        elif suffix == ".csv":
            return _sound_table(read_limited(path, LARGEST).decode())
        elif suffix == ".safetensors":
            with safe_open(path, framework="np") as tensors:  # which compares the file's size with what it tells
                return bool(tensors.keys())
        elif suffix == ".qgz":
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
        elif suffix == ".json":
            return bool(parse_json(read_limited(path, LARGEST).decode(), path.name))
        elif suffix == ".prj":
            return CRS.from_wkt(path.read_text()) is not None
        elif suffix == ".cpg":
            return not any(name.startswith(path.read_text()) for name in _ENCODINGS)
    except (
        RasterioError,
        SafetensorError,
        ResegeoError,
        ET.ParseError,
        OSError,
        ValueError,
        SyntaxError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        return False
    return True


_ENCODINGS = ("UTF-", "ISO-8859-")
"""Beginnings of what GDAL writes to a .cpg file."""


def _sound_table(text: str) -> bool:
    """Whether a table ends with a whole row, of as many cells as all others."""
    rows = list(csv.reader(io.StringIO(text), strict=True))
    return text.endswith("\n") and "\0" not in text and len({len(row) for row in rows}) == 1
