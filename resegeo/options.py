"""What a user may ask of a run, sorted by what it is for: how to look, by what method, who computes and keeps what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from resegeo.execute import Progress
    from resegeo.machine import Models
    from resegeo.scene import Stretch


def silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class View:
    """How a scene is looked at: parameters of :func:`resegeo.segment`."""

    bands: Sequence[int] | None = None
    stretch: Stretch | tuple[float, float] | None = None
    assign_crs: str | None = None
    aoi: str | Path | None = None
    bbox: Sequence[float] | None = None
    formats: Sequence[str] | None = None
    alpha: str | None = None


@dataclass(frozen=True)
class Method:
    """By which model and how: parameters of :func:`resegeo.segment`."""

    model: str | None = None
    arch: str | None = None
    activation: str | None = None
    preset: str = "default"
    settings: str | Path | None = None
    sam_checkpoint: str | Path | None = None
    sam_arch: str | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    """Fields of :class:`resegeo.settings.Settings`."""


@dataclass(frozen=True)
class RunOptions:
    """Who computes and what is kept: nothing that the results depend on."""

    device: str | None = None
    threads: int | None = None
    overwrite: bool = False
    keep_features: bool | None = None
    """None: where they take less than :data:`resegeo.plan.FEATURE_BUDGET` bytes."""
    discard_store: bool = False
    cluster: Any = None
    """Number of local worker processes, the address of a ``distributed`` scheduler, or an open client; None: here."""
    read_ahead: int = 1
    """Work items that are read while the model is busy with another."""
    progress: Progress = silent
    models: Models | None = None
    """Models that are loaded already, and keep those that are not."""


IRRELEVANT = frozenset({"device", "threads", "overwrite", "cluster", "read_ahead", "progress", "models"})
"""Options that neither results nor what is kept depend on; all others count as different ones."""


@dataclass(frozen=True)
class Options:
    """All that :func:`resegeo.segment` takes by keyword, sorted by what it is for."""

    view: View
    method: Method
    run: RunOptions
    only: Sequence[str] = ()
    store: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Sort keywords; None counts as not given, and what is none of the others is taken for a knob."""
        rest = {key: value for key, value in given.items() if value is not None}

        def taken(kind: type) -> dict[str, Any]:
            return {f.name: rest.pop(f.name) for f in fields(kind) if f.name in rest and f.name != "knobs"}

        view, run, method = View(**taken(View)), RunOptions(**taken(RunOptions)), taken(Method)
        own = {name: rest.pop(name) for name in ("only", "store") if name in rest}
        return cls(view, Method(**method, knobs=rest), run, **own)

    def facts(self) -> dict[str, Any]:
        """Return all that results and store depend on, beside pixels, words, model and knobs, as plain values.

        Model and knobs are what :func:`resegeo.prepare.choose` makes of them. A file is named with its size and time.
        """
        values: dict[str, Any] = {"only": self.only}
        for part in (self.view, self.run):
            values |= {each.name: getattr(part, each.name) for each in fields(part)}
        found = {name: value for name, value in values.items() if name not in IRRELEVANT}
        return {**found, "aoi": None if self.view.aoi is None else stamp(self.view.aoi)}


def stamp(path: str | Path) -> list[Any]:
    """Return path, size and time of a file, by which a change is told; the path alone where there is none."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return [str(path)]
    return [str(path), stat.st_size, stat.st_mtime_ns]
