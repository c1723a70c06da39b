"""What a batch would need: scenes, windows, disk and time in total, measured on one scene of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resegeo.batches.batch import Methods
from resegeo.batches.destinations import gather, result_folders, store_below
from resegeo.errors import ResegeoError
from resegeo.files import output_folder
from resegeo.run.commands import prepare
from resegeo.run.estimation import Estimate, Pace
from resegeo.run.prepare import Classes, Run


@dataclass(frozen=True)
class ScenePlan:
    """What one scene of a batch would need."""

    scene: str
    estimate: Estimate | None
    """None: it cannot be segmented."""
    reason: str = ""
    """Why not, in one sentence."""


@dataclass(frozen=True)
class BatchEstimate:
    """What all scenes of a batch would need, one after another."""

    scenes: tuple[ScenePlan, ...]
    kinds: int
    """Kinds of scenes, by options, type of values and resampling: time was measured on one of each."""

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """Those of the scenes that can be segmented."""
        return tuple(scene.estimate for scene in self.scenes if scene.estimate is not None)

    @property
    def failed(self) -> tuple[ScenePlan, ...]:
        """Scenes that cannot be segmented."""
        return tuple(scene for scene in self.scenes if scene.estimate is None)

    @property
    def items(self) -> int:
        """Work items of all scenes."""
        return sum(each.items for each in self.estimates)

    @property
    def done(self) -> int:
        """Those of them that earlier runs have left."""
        return sum(each.done for each in self.estimates)

    @property
    def windows(self) -> int:
        """Windows of all scenes."""
        return sum(each.windows for each in self.estimates)

    @property
    def store_bytes(self) -> int:
        """What all stores take, at most."""
        return sum(each.store_bytes for each in self.estimates)

    @property
    def output_bytes(self) -> int:
        """What all class rasters take, at most."""
        return sum(each.output_bytes for each in self.estimates)

    @property
    def free_bytes(self) -> int | None:
        """Free space where the stores go, the least of several places; None: behind a URL, or no scene."""
        return min((each.free_bytes for each in self.estimates if each.free_bytes is not None), default=None)

    @property
    def memory_bytes(self) -> int:
        """Memory of the largest scene, its polygons included."""
        return max((each.memory_bytes + each.polygon_bytes for each in self.estimates), default=0)

    @property
    def total_seconds(self) -> float:
        """Seconds of all scenes."""
        return sum(each.total_seconds for each in self.estimates)


def estimate_many(
    scenes: str | Path | Sequence[str | Path],
    classes: Classes | None = None,
    output: str | Path = "batch_resegeo",
    *,
    asset: str | None = None,
    **options: Any,
) -> BatchEstimate:
    """Say what :func:`resegeo.segment_many` with the same arguments would need; writes nothing.

    Every scene is opened; time is measured by computing a few windows of one scene of each kind.

    Parameters
    ----------
    scenes, classes, output, asset:
        As for :func:`resegeo.segment_many`.
    **options:
        See :class:`resegeo.run.options.Keywords`.

    Raises
    ------
    ResegeoError:
        With one sentence, where nothing can be done for any scene. A scene that alone cannot be opened does not raise.

    """
    given = [str(scenes)] if isinstance(scenes, str | Path) else [str(scene) for scene in scenes]
    root = output_folder(output)
    rows, base = gather(given, root, asset)
    methods = Methods(classes, options)
    ways = [methods.of(row) for row in rows]
    paces: dict[tuple[Any, ...], Pace] = {}
    found = []
    for row, part, (own, joined, facts) in zip(rows, result_folders(rows, base), ways, strict=True):
        try:
            here = {**joined, "store": store_below(joined.get("store"), part)}
            run = prepare(row.scene, own, root / part, **here)
            kind = (facts, *_kind(run))
            if kind not in paces:
                paces[kind] = run.pace()
            found.append(ScenePlan(row.scene, run.estimate(paces[kind])))
        except ResegeoError as error:
            found.append(ScenePlan(row.scene, None, error.text))
    return BatchEstimate(tuple(found), len(paces))


def _kind(run: Run) -> tuple[Any, ...]:
    """What the time of a window depends on, beside model and options."""
    scene, canvas = run.plan.scene, run.plan.canvas
    return scene.dtype, scene.count, round(canvas.down, 1), round(canvas.across, 1)
