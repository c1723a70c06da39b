"""How far variants of one model are apart, block by block: what tells a fine-tune from weights of another origin."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from resegeo.checkpoints.checks import SCALE, refuse_unsound
from resegeo.checkpoints.formats import Checkpoint
from resegeo.errors import ResegeoError
from resegeo.progress import Progress

if TYPE_CHECKING:
    import torch

FAR = 0.7
"""Relative distance of a part of the network from which a variant is no fine-tune of the same weights.

Weights that have nothing to do with each other are √2 apart, whatever their size.
"""

_BLOCK = re.compile(r"^(visual\.)?transformer\.resblocks\.(\d+)\.(\w+)")


def _place(name: str) -> tuple[str, str]:
    """Block and part that a parameter belongs to; the part is empty where its distance says little."""
    found = _BLOCK.match(name)
    if found is not None:
        block = f"{'image' if found[1] else 'text'} block {int(found[2]) + 1}"
        part = {"attn": "attention", "mlp": "MLP"}.get(found[3], "")
        return block, f"{block}, {part}" if part else ""
    tower = "image" if name.startswith("visual.") else "text"
    block = f"{tower} ends"
    weighty = name.endswith(("conv1.weight", "token_embedding.weight", "proj", "text_projection"))
    return block, f"{tower}: {name}" if weighty else ""


def distances(opened: Sequence[Checkpoint], report: Progress) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Measure relative distances from the first: by block, with the whole as ``all``, and by part; one dict a variant.

    Raises
    ------
    ResegeoError:
        When a parameter holds values that are no numbers, or too large to be squared.

    """
    squares: dict[str, float] = {}
    apart: list[dict[str, float]] = [{} for _ in opened]
    names = list(opened[0].tensors)
    for number, name in enumerate(names, 1):
        base = opened[0].tensors[name]
        if not base.is_floating_point():
            refuse_unsound(str(opened[0].path), name, base)
            continue
        size = _square(opened[0], name, base, None)
        base = base.float()
        gaps = [0.0] + [_square(other, name, other.tensors[name], base) for other in opened[1:]]
        for key in filter(None, ("all", *_place(name)) if name != SCALE else ()):
            squares[key] = squares.get(key, 0.0) + size
            for one, gap in zip(apart, gaps, strict=True):
                one[key] = one.get(key, 0.0) + gap
        report("compare", number, len(names))
    relative = [{key: math.sqrt(gap / max(squares[key], 1e-30)) for key, gap in one.items()} for one in apart]
    blocks = {_place(name)[0] for name in names} | {"all"}
    ordered = sorted(squares, key=_sorting)
    return (
        [{key: one[key] for key in ordered if key in blocks} for one in relative],
        [{key: one[key] for key in ordered if key not in blocks} for one in relative],
    )


def _square(checkpoint: Checkpoint, name: str, tensor: torch.Tensor, base: torch.Tensor | None) -> float:
    """Sum of the squares of a parameter, or of what it differs by from ``base``."""
    import torch

    refuse_unsound(str(checkpoint.path), name, tensor)
    gap = tensor.float() if base is None else tensor.float() - base
    total = float(gap.square().sum(dtype=torch.float64))
    if not math.isfinite(total):
        raise ResegeoError(f"{checkpoint.path} holds {name} with values too large to be averaged; get the file anew.")
    return total


def _sorting(key: str) -> tuple[bool, bool, int, str]:
    number = re.search(r"block (\d+)", key)
    return key.startswith("text"), number is None, int(number[1]) if number else 0, key


def refuse_outliers(names: Sequence[str], parts: Sequence[Mapping[str, float]]) -> None:
    """Refuse a variant of which a part is farther than :data:`FAR` from the first; see :class:`ResegeoError`."""
    for variant, found in zip(names, parts, strict=True):
        key = max(found, key=lambda name: found[name])
        if found[key] > FAR:
            raise ResegeoError(
                f"{variant} is no fine-tune of the same weights as {names[0]}: in {key} they are {found[key]:.2f} "
                f"apart (relative L2 distance; {FAR} is allowed, unrelated weights are 1.41 apart). Leave one out, or "
                "pass --allow-outlier."
            )
