"""A look at what words come to, before a run: a handful of windows that differ, in seconds.

Windows are chosen by the image alone, so that other words see the same ones: of some spread over the scene the most
ordinary first, then each time the one that is least like those chosen. Then every prompt competes with every other,
as if each were a class of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resegeo.clip.blending import Grouping, WindowScores, class_codes, rescaled
from resegeo.errors import ResegeoError, UsageError, shown
from resegeo.outputs.contact_sheet import PromptLine, Tile, write_sheet
from resegeo.progress import Progress, silent
from resegeo.run.arithmetic import settled
from resegeo.run.commands import prepare
from resegeo.run.compute import Machine, start_machine
from resegeo.run.labelling import Labeller
from resegeo.run.plan import Plan
from resegeo.scene.windows import Rect, WorkItem

if TYPE_CHECKING:
    import xarray as xr

    from resegeo.run.prepare import Classes

CANDIDATES = 48
"""Windows that are looked at to choose from."""
MOST = 40
"""Windows that can be asked for."""
_FULL = 0.6
"""Share of a window that must be valid, unless none has it."""


@dataclass(frozen=True)
class PromptFacts:
    """How one prompt fared among all."""

    prompt: str
    class_name: str
    share: float
    """Of the pixels looked at, where it is the most probable of all prompts."""
    windows: tuple[tuple[int, float], ...]
    """Numbers from 1 of the windows that it wins most of, and its share there; largest first."""
    rival: str | None
    """Prompt of another class that is most often second where it wins; where it never wins, that beats it where it
    comes nearest."""
    nearest: float
    """Largest ratio, up to 1, of its probability to the best one at a pixel: 1 where it wins somewhere."""


@dataclass(frozen=True)
class WindowFacts:
    """What became of one window."""

    rows: tuple[int, int]
    """First and last row in the scene."""
    cols: tuple[int, int]
    shares: dict[str, float]
    """Share of its valid pixels by class, largest first, background and classes without pixels left out."""
    scores: dict[str, float]
    """Mean probability of these pixels."""


@dataclass(frozen=True)
class Trial:
    """What a trial came to."""

    sheet: Path
    windows: tuple[WindowFacts, ...]
    prompts: tuple[PromptFacts, ...]

    @property
    def never(self) -> tuple[PromptFacts, ...]:
        """Prompts that no pixel takes."""
        return tuple(each for each in self.prompts if not each.share)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "sheet": str(self.sheet),
            "windows": [
                {"rows": list(w.rows), "cols": list(w.cols), "shares": w.shares, "scores": w.scores}
                for w in self.windows
            ],
            "prompts": [
                {
                    "prompt": each.prompt,
                    "class": each.class_name,
                    "share": each.share,
                    "windows": [{"window": number, "share": share} for number, share in each.windows],
                    "competes_with": each.rival,
                    "nearest": each.nearest,
                }
                for each in self.prompts
            ],
        }


def try_words(
    scene: str | Path | xr.DataArray,
    classes: Classes,
    output: str | Path | None = None,
    *,
    count: int = 6,
    overwrite: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> Trial:
    """Show what words come to on a few windows of a scene: what ``resegeo try`` does.

    Parameters
    ----------
    scene, classes:
        As for :func:`resegeo.segment`; no store.
    output:
        PNG file for the contact sheet, ``<stem>.try.png`` here by default.
    count:
        Number of windows; fewer where the scene has fewer.
    overwrite:
        Whether the file may be replaced.
    progress:
        See :class:`resegeo.run.options.RunOptions`.
    **options:
        Those of :func:`resegeo.segment` that say how.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is wrong and how to mend it.

    """
    if not 1 <= count <= MOST:
        raise UsageError(f"[[count={count}]]: expected 1 to {MOST} windows.")
    run = prepare(scene, classes, None, **options)
    plan = run.plan
    if plan.made_with is not None:
        raise UsageError(f"{shown(str(scene))} is a store, which holds no pixels; a trial needs the scene itself.")
    sheet = Path(f"{plan.scene.name}.try.png" if output is None else output)
    if sheet.suffix.lower() != ".png":
        raise UsageError(f"[[output={shown(sheet)}]]: the sheet is a picture; its suffix is .png.")
    if sheet.exists() and not overwrite:
        raise ResegeoError(
            f"{shown(sheet)} exists; pass [[overwrite=True]] to replace it, or name another by [[output]]."
        )
    windows = choose_windows(plan, count)
    machine = start_machine(
        plan,
        plan.kept(features=False),
        device=run.options.device,
        threads=run.options.threads,
        models=run.options.models,
    )
    judge = _Judge.of(settled(machine, machine.encoder.encode_texts(plan.classes.prompt_texts)))
    seen = []
    for number, window in enumerate(windows, 1):
        found = judge.look(window)
        if found is not None:
            seen.append(found)
        progress("windows", number, len(windows))
    if not seen:
        raise ResegeoError(f"{plan.scene.source} has no valid pixel where a trial looks; check it with `resegeo info`.")
    facts = tuple(judge.window_facts(each) for each in seen)
    prompts = judge.prompt_facts(seen)
    tiles = [Tile(each.rgb, each.codes, one.shares, one.scores) for each, one in zip(seen, facts, strict=True)]
    lines = [PromptLine(p.prompt, p.class_name, p.share, [n for n, _ in p.windows], p.rival) for p in prompts]
    write_sheet(sheet, tiles, lines, plan.classes, title=plan.scene.name)
    return Trial(sheet, facts, prompts)


def choose_windows(plan: Plan, count: int) -> list[Rect]:
    """Choose windows of a scene that differ, by the image alone; the same each time.

    Raises
    ------
    ResegeoError:
        When no window has a valid pixel.

    """
    every = [window for index in _spread(plan.items, CANDIDATES) for window in plan.grid.item(index).windows]
    looked = []
    for number in _spread(len(every), CANDIDATES):
        window = every[number]
        rgb, share = plan.canvas.read(window.row, window.col, window.height, window.width)
        valid = share > 0.5
        if valid.any():
            looked.append((window, float(valid.mean()), describe(rgb, valid)))
    if not looked:
        raise ResegeoError(
            f"{plan.scene.source} has no valid pixel where a trial looks: check its nodata value with `resegeo info`."
        )
    full = [each for each in looked if each[1] >= _FULL] or looked
    windows = [each[0] for each in full]
    return [windows[number] for number in differing(np.stack([each[2] for each in full]), windows, count)]


def _spread(size: int, most: int) -> list[int]:
    """Up to ``most`` numbers below ``size``, evenly spread."""
    count = min(size, most)
    return [(2 * number + 1) * size // (2 * count) for number in range(count)]


def describe(rgb: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Describe the look of a window (h, w, 3): quantiles of each colour, and how much neighbours differ."""
    values = rgb[valid].astype(np.float64)
    gray = rgb.astype(np.float64).mean(axis=2)
    edges = [np.abs(np.diff(gray, axis=axis)) for axis in (0, 1)]
    both = [valid[1:] & valid[:-1], valid[:, 1:] & valid[:, :-1]]
    rough = [float(edge[where].mean()) if where.any() else 0.0 for edge, where in zip(edges, both, strict=True)]
    return np.array([*np.percentile(values, (10, 50, 90), axis=0).ravel(), 4 * rough[0], 4 * rough[1]])


def differing(looks: NDArray[np.float64], windows: Sequence[Rect], count: int) -> list[int]:
    """Choose windows by their looks (n, d): the most ordinary one, then each time the one farthest from those chosen.

    A distance counts as far as the two windows show different places.
    """
    far = np.linalg.norm(looks[:, None] - looks[None], axis=2)
    far *= np.array([[1 - _common(one, other) for other in windows] for one in windows])
    chosen = [int(np.argmin(np.linalg.norm(looks - np.median(looks, axis=0), axis=1)))]
    while len(chosen) < min(count, len(looks)):
        away = far[:, chosen].min(axis=1)
        away[chosen] = -1.0  # equal windows too are taken once each
        chosen.append(int(np.argmax(away)))
    return chosen


def _common(one: Rect, other: Rect) -> float:
    """Share of a window that another covers."""
    both = one.intersection(other)
    return 0.0 if both is None else both.height * both.width / (one.height * one.width)


@dataclass(frozen=True, eq=False)
class _Seen:
    """One window, computed."""

    rect: Rect
    rgb: NDArray[np.uint8]
    codes: NDArray[np.unsignedinteger[Any]]
    valid: NDArray[np.bool_]
    best: NDArray[np.float32]
    """(h, w) probability of the best class."""
    prompts: NDArray[np.float32]
    """(Q, h, w) probabilities of prompts, each a class of its own."""


@dataclass(frozen=True)
class _Judge:
    """Computes windows and sums them up."""

    machine: Machine
    labeller: Labeller
    apart: Labeller
    """Takes each prompt for a class."""

    @classmethod
    def of(cls, machine: Machine) -> _Judge:
        plan = machine.plan
        labeller = Labeller.of(plan, _Nothing(), machine.encoder.logit_scale)
        count = len(plan.classes.prompt_class)
        blender = replace(labeller.blender, grouping=Grouping(tuple(range(count)), count), vote=False)
        return cls(machine, labeller, replace(labeller, blender=blender))

    def look(self, window: Rect) -> _Seen | None:
        """Compute one window; None where nothing in it is valid."""
        plan, scene = self.machine.plan, self.machine.plan.scene
        values = self.machine.encode(self.machine.read(WorkItem(0, (window,)))).values
        rect = plan.canvas.scene_rect(window).intersection(Rect(0, 0, scene.height, scene.width))
        if not values or rect is None:
            return None
        segments = values.get("segments")
        scores = WindowScores(window, values["reduced"][0], values["cls"][0], None if segments is None else segments[0])
        rgb, valid = scene.read(rect.row, rect.col, rect.height, rect.width)
        if plan.region is not None:
            valid &= plan.region.mask(rect)
        if not valid.any():
            return None
        classes = plan.classes
        by_class = rescaled(self.labeller.blender.blend(rect, [scores]), [spec.scale for spec in classes.classes])
        codes = class_codes(by_class, valid, classes, self.labeller.floors)
        prompts = self.apart.blender.blend(rect, [scores])
        return _Seen(rect, rgb, codes, valid, by_class.max(axis=0), prompts)

    def window_facts(self, seen: _Seen) -> WindowFacts:
        """Sum one window up by classes."""
        classes, total = self.machine.plan.classes, int(seen.valid.sum())
        shares, scores = {}, {}
        for spec in classes.drawn:
            own = seen.codes == spec.code
            if own.any():
                shares[spec.name] = round(int(own.sum()) / total, 4)
                scores[spec.name] = round(float(seen.best[own].mean()), 4)
        order = sorted(shares, key=lambda name: -shares[name])
        rect = seen.rect
        return WindowFacts(
            (rect.row, rect.bottom - 1),
            (rect.col, rect.right - 1),
            {name: shares[name] for name in order},
            {name: scores[name] for name in order},
        )

    def prompt_facts(self, seen: Sequence[_Seen]) -> tuple[PromptFacts, ...]:
        """Sum all windows up by prompts."""
        classes = self.machine.plan.classes
        owner = np.asarray(classes.prompt_class)
        names = [prompt for spec in classes.classes for prompt in spec.prompts]
        count = len(names)
        every = np.concatenate([each.prompts[:, each.valid] for each in seen], axis=1)
        home = np.concatenate([np.full(int(each.valid.sum()), number) for number, each in enumerate(seen, 1)])
        every, home = every[:, np.isfinite(every[0])], home[np.isfinite(every[0])]
        winner, best = every.argmax(axis=0), every.max(axis=0)
        facts = []
        for number in range(count):
            won = winner == number
            ratio = every[number] / best
            others = np.flatnonzero(owner != owner[number])
            rival = None
            if len(others):
                at = won if won.any() else ratio >= np.quantile(ratio, 0.99)
                seconds = others[every[others][:, at].argmax(axis=0)]
                rival = names[int(np.bincount(seconds, minlength=count).argmax())]
            spots = []
            for place in range(1, len(seen) + 1):
                here = home == place
                share = float(won[here].mean()) if here.any() else 0.0
                if share > 0:
                    spots.append((place, round(share, 4)))
            spots.sort(key=lambda spot: -spot[1])
            facts.append(
                PromptFacts(
                    names[number],
                    classes.classes[owner[number]].name,
                    round(float(won.mean()), 6),
                    tuple(spots[:3]),
                    rival,
                    round(float(ratio.max()), 4),
                )
            )
        return tuple(facts)


class _Nothing:
    """No stored windows."""

    def windows(self, item: WorkItem) -> list[WindowScores]:
        """Return none."""
        return []
