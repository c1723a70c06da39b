"""What is there already: asked once before a run begins, and once more when it is alone with its files."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from resegeo.errors import ResegeoError, shown
from resegeo.files import LONGEST_PATH, name_problem
from resegeo.outputs.raster import sidecars
from resegeo.outputs.vector_files import PARTS, open_elsewhere, parts_of
from resegeo.run.options import RunOptions
from resegeo.run.plan import Outputs, Plan, differences
from resegeo.run.report import Journal, Mark, earlier_report, marks_of, raster_options, versions
from resegeo.run.resume import existing_store, lacks_anything
from resegeo.run.store import Store


class State(Enum):
    """What lies under a name that a run writes to."""

    ABSENT = "absent"
    WHOLE = "whole"
    """As a run of ours wrote it."""
    DAMAGED = "damaged"
    """Empty, or ours and no longer readable: nothing is lost with it."""
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
    if not options.overwrite:
        _refuse_another(report, outputs, wanted)
    known = marks_of(report)
    marks = Journal(outputs.report).known
    for name, mark in known.items():
        marks.setdefault(name, []).append(mark)
    files = list(dict.fromkeys([*files, *(outputs.folder / name for name in marks)]))
    states = {path: state_of(path, marks.get(path.name, [])) for path in files}
    extra = sidecars(outputs.raster)
    finished = (
        report is not None and bool(report) and not report["windows"]["failed"] and not report.get("unreadable_blocks")
    )
    # Whoever gave the raster another style, or let GDAL keep statistics of it, has not changed a result.
    kept = [path for path in files if path.name in known and not (path in extra and states[path] is State.EDITED)]
    complete = not options.overwrite and finished and all(states[path] is State.WHOLE for path in kept)
    complete = complete and not lacks_anything(plan, url, options)
    store = None
    if alone and not complete:
        _refuse_open(states)
        store = existing_store(plan, url, options)
        _refuse_users(states, outputs, overwrite=options.overwrite)
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


def _touched(outputs: Outputs, beside: Sequence[Path]) -> list[Path]:
    """All files that a run may write or replace, except its report."""
    parts = [part for path in outputs.vectors for part in parts_of(path)]
    return [outputs.raster, *sidecars(outputs.raster), *parts, outputs.picture, *beside, outputs.areas]


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


def _refuse_users(states: Mapping[Path, State], outputs: Outputs, *, overwrite: bool) -> None:
    """Refuse to replace what the user made or changed."""
    for path in (*_touched(outputs, outputs.beside), outputs.report):
        said = shown(path, LONGEST_PATH)
        if path.is_dir() and not path.is_symlink():
            raise ResegeoError(
                f"{said} is a folder, and a file of the results has its name. Name another one by [[output]]."
            )
        if overwrite or path not in states:
            continue
        if states[path] is State.FOREIGN:
            raise ResegeoError(
                f"{said} exists and is not known as a result of this program. Name another folder by [[output]], or "
                "pass "
                "[[overwrite=True]] to replace it."
            )
        if states[path] is State.EDITED:
            raise ResegeoError(
                f"{said} was changed since this program wrote it. Keep it under another name, or pass "
                "[[overwrite=True]] to "
                "replace it."
            )


def state_of(path: Path, marks: Sequence[Mark]) -> State:
    """Tell what lies under a name, given the marks of the files that runs of ours have written there."""
    if not os.path.lexists(path):
        return State.ABSENT
    found = path.lstat()
    ordinary = stat.S_ISREG(found.st_mode)
    if ordinary and not found.st_size:
        return State.DAMAGED
    try:
        if ordinary and any(mark.fits(path) for mark in marks):
            return State.WHOLE
    except OSError as error:
        raise ResegeoError(f"{shown(path, LONGEST_PATH)} cannot be read ({error.strerror}).") from error
    if not marks:
        return State.FOREIGN
    return State.EDITED if not ordinary or _opens(path) else State.DAMAGED


def _opens(path: Path) -> bool:
    """Whether a file can be read to its end as what its suffix says."""
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
                with rasterio.open(path) as raster:
                    for _, window in raster.block_windows(1):
                        raster.read(window=window)
        elif suffix in PARTS:
            from resegeo.outputs.vectors import readable

            return readable(path)
    except (RasterioError, ET.ParseError, OSError, ValueError, SyntaxError):
        return False
    return True
