"""The report of a run: written last, it marks that all results are there; read, it says what a new run may keep.

Until it is written, a journal beside it says which files the run has written so far.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rasterio

from resegeo.errors import ResegeoError, shown
from resegeo.files import LONGEST_PATH, checksum, read_limited, saving, whole
from resegeo.run.plan import Plan, fingerprint
from resegeo.settings import POLYGON_KNOBS

LARGEST = 2**28
"""Bytes of a report that are read at most; failed items make it long."""

_UNFINISHED = "resegeo_unfinished"


@dataclass(frozen=True)
class Mark:
    """What tells whether a file is still as it was written."""

    bytes: int
    sha256: str
    modified: int
    """Nanoseconds; a file of another time may be the same still."""

    @classmethod
    def of(cls, path: Path) -> Mark:
        """Take the mark of a file."""
        state = path.stat()
        return cls(state.st_size, checksum(path), state.st_mtime_ns)

    def fits(self, path: Path) -> bool:
        """Whether a file has this mark; it is read only where its time is another."""
        state = path.lstat()
        if state.st_size != self.bytes:
            return False
        return state.st_mtime_ns == self.modified or checksum(path) == self.sha256


class Journal:
    """Files of a run that has not ended, with their marks: a file beside the report, until that is written.

    What lay there before with a known mark is kept in it, since a run may be killed before it has replaced it.
    """

    def __init__(self, report: Path) -> None:
        """Go on with the journal that an interrupted run left beside ``report``, if there is one."""
        self._path = report.with_name(f".{report.name}.part")
        self.known: dict[str, list[Mark]] = {}
        self.written: dict[str, Mark] = {}
        """By name, what this run has written."""
        if not os.path.lexists(self._path) or self._path.lstat().st_size == 0:
            return
        try:
            entries = json.loads(read_limited(self._path, LARGEST))[_UNFINISHED]
            self.known = {name: [Mark(**mark) for mark in marks] for name, marks in entries.items()}
            if any(Path(name).name != name for name in self.known):
                raise ValueError("names of other folders")
        except (ResegeoError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ResegeoError(
                f"{shown(self._path, LONGEST_PATH)} is no journal of an interrupted run. Remove it, or name another "
                "folder by [[output]]."
            ) from error

    def keep(self, marks: Mapping[str, Mark]) -> None:
        """Remember files of an earlier run before its report goes."""
        for name, mark in marks.items():
            self._add(name, mark)
        self._save()

    def note(self, files: Mapping[Path, Path]) -> None:
        """Remember files that are about to get their names, see :func:`resegeo.files.move`."""
        for file, path in files.items():
            self.written[path.name] = Mark.of(file)
            self._add(path.name, self.written[path.name])
        self._save()

    @property
    def lies_there(self) -> bool:
        """Whether a run is on its way, or was killed."""
        return os.path.lexists(self._path)

    def end(self) -> None:
        """Remove the journal: the report stands in for it."""
        self._path.unlink(missing_ok=True)

    def _add(self, name: str, mark: Mark) -> None:
        marks = self.known.setdefault(name, [])
        if mark not in marks:
            marks.append(mark)

    def _save(self) -> None:
        if not self.known:
            return
        entries = {name: [asdict(mark) for mark in marks] for name, marks in self.known.items()}
        with whole(self._path) as beside:
            beside.write_text(json.dumps({_UNFINISHED: entries}), "utf-8")


def earlier_report(path: Path) -> dict[str, Any] | None:
    """Read the report of an earlier run; None where there is none or a cut one, {} where it is not ours."""
    if not os.path.lexists(path):
        return None
    content = b"?"
    try:
        content = read_limited(path, LARGEST)
        found = json.loads(content)
        ours = all(isinstance(found[name], dict) for name in ("resegeo", "windows", "files", "modified", "pixels"))
        ours = ours and isinstance(found["outputs"], list) and isinstance(found["windows"]["failed"], int)
        if not ours or not set(found["outputs"]) <= found["files"].keys():
            return {}
        return found if all(Path(name).name == name for name in marks_of(found)) else {}
    except (ResegeoError, ValueError, KeyError, TypeError, RecursionError):
        return None if _is_cut(content) else {}


_OPENING = b'{\n  "files": {\n    "'
"""How a report of ours begins."""


def _is_cut(content: bytes) -> bool:
    """Whether what is no sound report is the beginning of one, or holds nothing."""
    return not content.strip(b"\0") or _OPENING.startswith(content) or content.startswith(_OPENING)


def rescued(path: Path) -> dict[str, Mark]:
    """Marks of the files that a cut report lists, where they stand in what is left of it."""
    try:
        text = read_limited(path, LARGEST).decode("utf-8", "replace")
        found, end = json.JSONDecoder().raw_decode(text, len('{\n  "files": '))
        beside, _ = json.JSONDecoder().raw_decode(text, end + len(',\n  "modified": '))
        marks = marks_of({"files": found, "modified": beside})
    except (ResegeoError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: mark for name, mark in marks.items() if Path(name).name == name}


def marks_of(report: Mapping[str, Any] | None) -> dict[str, Mark]:
    """Marks of the files that a report lists, by name."""
    if not report:
        return {}
    return {
        name: Mark(int(sums["bytes"]), str(sums["sha256"]), int(report["modified"][name]))
        for name, sums in report["files"].items()
    }


def listed(marks: Mapping[str, Mark]) -> dict[str, Any]:
    """Write marks down as a report keeps them: ``files`` depend on the results alone, ``modified`` does not."""
    return {
        "files": {name: {"bytes": mark.bytes, "sha256": mark.sha256} for name, mark in marks.items()},
        "modified": {name: mark.modified for name, mark in marks.items()},
    }


def raster_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a run's options what comes after the class raster."""
    settings = {key: value for key, value in options.get("settings", {}).items() if key not in POLYGON_KNOBS}
    return {**options, "settings": settings}


def raster_identity(options: Mapping[str, Any], raster: Mark) -> str:
    """Checksum of a class raster and of the options that it came from."""
    return fingerprint({"options": raster_options(options), "sha256": raster.sha256})


def provenance_tags(plan: Plan) -> dict[str, str]:
    """Provenance for the raster's own tags; no dates, and no detour that led there, so that equal results are equal."""
    source = plan.source
    settings = plan.image_options()["settings"] | plan.label_options()["settings"]
    return {
        "RESEGEO_VERSION": versions()["resegeo"],
        "RESEGEO_SCENE": plan.scene.fingerprint,
        "RESEGEO_MODEL": f"{source.name} {source.architecture} {source.activation} sha256:{source.sha256}",
        "RESEGEO_SETTINGS": json.dumps(settings, sort_keys=True),
    }


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of everything that the results may depend on."""
    names: Sequence[str] = ("resegeo", "torch", "open_clip_torch", "rasterio", "scikit-image", "shapely", "numpy")
    found = {"python": platform.python_version(), "gdal": rasterio.__gdal_version__}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was never installed
            found[name] = "unknown"
    return found


def write_report(path: Path, document: Mapping[str, Any]) -> None:
    """Write a report, whole or not at all.

    Raises
    ------
    ResegeoError:
        When the disk is full or the folder can't be written to.

    """
    with saving(path), whole(path) as beside:
        beside.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
