"""What ``precision auto`` comes to: bfloat16 where a machine is quick at it and a scene's labels stay what they are.

It is settled once, by whoever makes a store, and stands in its header: everybody else who computes for that store, on
whatever machine, takes what stands there, so that no store is of two kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resegeo.clip.blending import WindowScores, class_codes, rescaled
from resegeo.clip.encoder import quick_at_bfloat16
from resegeo.errors import ResegeoError, notice
from resegeo.run.compute import Batch, Machine
from resegeo.run.header import Arithmetic
from resegeo.run.labelling import Labeller
from resegeo.run.plan import Plan
from resegeo.scene.windows import Rect, WorkItem

AGREEMENT = 0.998
"""Share of pixels that must keep their label."""
WINDOWS = 8
"""Windows that labels are compared on."""
CANDIDATES = 32
"""Windows among which those with valid pixels are taken."""


def settled(machine: Machine, texts: NDArray[np.float32]) -> Machine:
    """Settle what a machine computes in, where that is left to it, and say so.

    Parameters
    ----------
    machine:
        For a store that is to be made; one whose arithmetic is known is returned as it is.
    texts:
        (Q, D) the words of its plan.

    Raises
    ------
    ResegeoError:
        When the model computes no numbers in float32.

    """
    if machine.kept.arithmetic.precision != "auto":
        return machine
    if not quick_at_bfloat16(machine.encoder.device):
        notice(
            f"[[precision=auto]] comes to float32: {machine.encoder.device} has no instructions for bfloat16 here (AMX "
            "or AVX512-BF16 of a processor, or a CUDA GPU from Ampere on)."
        )
        return _computing_in(machine, Arithmetic("float32"))
    same, windows = _agreement(machine, texts)
    if same >= AGREEMENT:
        notice(
            f"[[precision=auto]] comes to bfloat16: its labels are those of float32 in {100 * same:.2f} % of the "
            f"pixels of {windows} windows."
        )
        return _computing_in(machine, Arithmetic("bfloat16", same))
    if windows:
        notice(
            f"[[precision=auto]] comes to float32: labels in bfloat16 are the same in {100 * same:.2f} % of the pixels "
            f"of {windows} windows, and {100 * AGREEMENT:g} % are wanted."
        )
    return _computing_in(machine, Arithmetic("float32", same if windows else None))


def sample(plan: Plan) -> Sequence[Rect]:
    """Windows spread evenly over a plan's, by the plan alone; the first ones that have valid pixels are to be taken.

    They come in an order in which any number of the first ones is spread too.
    """
    count = min(plan.grid.count, CANDIDATES)
    spread = [(2 * number + 1) * plan.grid.count // (2 * count) for number in range(count)]
    step = max(1, count // WINDOWS)
    across = len(plan.grid.cols)
    side = plan.grid.window
    return [
        Rect(plan.grid.rows[number // across], plan.grid.cols[number % across], side, side)
        for first in range(step)
        for number in spread[first::step]
    ]


def _computing_in(machine: Machine, found: Arithmetic) -> Machine:
    encoder = replace(machine.encoder, precision=found.precision)
    return replace(machine, encoder=encoder, kept=replace(machine.kept, arithmetic=found))


def _agreement(machine: Machine, texts: NDArray[np.float32]) -> tuple[float, int]:
    """Share of pixels whose labels in bfloat16 are those in float32, and of how many windows; 0 of none."""
    plan = machine.plan
    exact, quick = (
        replace(_computing_in(machine, Arithmetic(precision)), texts=texts) for precision in ("float32", "bfloat16")
    )
    same = pixels = windows = 0
    for window in sample(plan):
        rect = plan.canvas.scene_rect(window).intersection(Rect(0, 0, plan.scene.height, plan.scene.width))
        if rect is None:
            continue
        try:
            batch = machine.read(WorkItem(0, (window,)))
            valid = plan.scene.valid(rect.row, rect.col, rect.height, rect.width)
        except ResegeoError:  # the run itself says what it cannot read
            continue
        if not batch.windows.any():
            continue
        if plan.region is not None:
            valid &= plan.region.mask(rect)
        expected = _labels(exact, batch, window, rect, valid)
        try:
            found = _labels(quick, batch, window, rect, valid)
        except ResegeoError:  # out of the range of numbers
            return 0.0, windows + 1
        same += int((expected == found)[valid].sum())
        pixels += int(valid.sum())
        windows += 1
        if windows == WINDOWS:
            break
    return (same / pixels if pixels else 0.0), windows


def _labels(
    machine: Machine, batch: Batch, window: Rect, rect: Rect, valid: NDArray[np.bool_]
) -> NDArray[np.unsignedinteger[Any]]:
    """Codes (h, w) that a window alone gives the scene's pixels of ``rect``."""
    classes = machine.plan.classes
    values = machine.encode(batch).values
    segments = values.get("segments")
    scores = WindowScores(window, values["reduced"][0], values["cls"][0], None if segments is None else segments[0])
    labeller = Labeller.of(machine.plan, _Nothing(), machine.encoder.logit_scale)
    by_class = rescaled(labeller.blender.blend(rect, [scores]), [spec.scale for spec in classes.classes])
    return class_codes(by_class, valid, classes, labeller.floors)


class _Nothing:
    """No stored windows."""

    def windows(self, item: WorkItem) -> list[WindowScores]:
        """Return none."""
        return []
