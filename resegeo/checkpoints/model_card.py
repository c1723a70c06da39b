"""What a model is known to be good and bad at, as data beside its weights, and what a run says of it.

A card is a JSON file of facts that were measured on places which training had not seen: for which pixel sizes the
model is made, how well it found each kind of land cover in each set of pictures, which kinds it mistakes for each
other, and which segments suit it. :func:`cautions` holds a run against them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from resegeo.errors import ResegeoError, shown
from resegeo.files import read_limited

BUNDLED = Path(__file__).parents[1] / "bundled" / "card.json"
FORMAT = 1
_MOST = 1_000_000
_NEAR = 3.0
"""A figure speaks for pixels up to so many times smaller or larger than those that it was measured on."""
WEAK_IOU = 0.4
"""Below it a kind is called weak."""
LOW_SCORE = 0.5
"""Mean probability of a class's own pixels below which the class is named."""


@dataclass(frozen=True)
class Quality:
    """One measured figure."""

    source: str
    """Pictures that it was measured on, in a few words."""
    gsd: tuple[float, float]
    """Their pixel sizes in metres, smallest and largest."""
    iou: float


@dataclass(frozen=True)
class Kind:
    """What is known of one kind of land cover."""

    name: str
    words: frozenset[str]
    """Words and phrases of the kind, in lower case."""
    quality: tuple[Quality, ...]
    """Empty where nothing was measured."""
    confused_with: tuple[str, ...]
    """Names of kinds that its pixels are given to, most often first."""

    def best_near(self, gsd: float) -> Quality | None:
        """The best figure from pictures of about that pixel size."""
        near = [q for q in self.quality if q.gsd[0] / _NEAR <= gsd <= q.gsd[1] * _NEAR]
        return max(near, key=lambda quality: quality.iou, default=None)


@dataclass(frozen=True)
class ModelCard:
    """The facts of one model."""

    name: str
    gsd: tuple[float, float]
    """Pixel sizes in metres that it is made for, smallest and largest."""
    segments: str
    """Segments that suit it: ``none`` or ``superpixels``."""
    kinds: tuple[Kind, ...]

    def kind_of(self, words: Iterable[str]) -> Kind | None:
        """The kind that one of ``words`` names, alone or in the plural."""
        for word in words:
            text = word.strip().lower()
            for kind in self.kinds:
                if text in kind.words or (text.endswith("s") and text[:-1] in kind.words):
                    return kind
        return None


def read_card(path: Path) -> ModelCard:
    """Read and check a card.

    Raises
    ------
    ResegeoError:
        When it cannot be read, is no JSON, or says something that no card says.

    """
    try:
        facts = json.loads(read_limited(path, _MOST))
    except (ValueError, RecursionError) as error:
        raise ResegeoError(f"The model card {shown(path)} is no JSON ({shown(error)}).") from error
    try:
        return _card(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResegeoError(
            f"The model card {shown(path)} cannot be used: {type(error).__name__} {shown(error)}. Write it as "
            "resegeo/bundled/card.json is written, or remove it."
        ) from error


@lru_cache(maxsize=1)
def bundled_card() -> ModelCard:
    """The card of the model that comes with resegeo."""
    return read_card(BUNDLED)


def _card(facts: Any) -> ModelCard:
    if facts["format"] != FORMAT:
        raise ValueError(f"format {facts['format']}, this version knows {FORMAT}")
    segments = facts["default_segments"]
    if segments not in {"none", "superpixels"}:
        raise ValueError(f"default_segments {segments!r}")
    kinds = tuple(
        Kind(
            name=_text(name),
            words=frozenset(_text(word).lower() for word in (name, *entry["words"])),
            quality=tuple(_quality(one) for one in entry["quality"]),
            confused_with=tuple(_text(other) for other in entry["confused_with"]),
        )
        for name, entry in facts["kinds"].items()
    )
    return ModelCard(name=_text(facts["name"]), gsd=_range(facts["gsd"]), segments=segments, kinds=kinds)


def _quality(facts: Any) -> Quality:
    iou = float(facts["iou"])
    if not 0.0 <= iou <= 1.0:
        raise ValueError(f"iou {iou}")
    return Quality(source=_text(facts["source"]), gsd=_range(facts["gsd"]), iou=iou)


def _range(value: Any) -> tuple[float, float]:
    low, high = (float(one) for one in value)
    if not 0.0 < low <= high < math.inf:
        raise ValueError(f"gsd {low} to {high}")
    return low, high


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{value!r} is no text")
    return shown(value.strip())


def cautions(
    card: ModelCard, gsd: float | None, classes: Mapping[str, Sequence[str]], scores: Mapping[str, float] | None = None
) -> list[str]:
    """Say where a run is outside of what the model is known to be good at: one sentence a matter, with a remedy.

    Parameters
    ----------
    card:
        The model's card.
    gsd:
        Pixel size in metres that the model saw; None where the scene does not say.
    classes:
        Name of each class -> its prompts.
    scores:
        Name of a class -> mean probability, from 0 to 1, of the pixels that it was given; None before the run. Classes
        without pixels are left out.

    """
    said = []
    if gsd is not None and math.isfinite(gsd) and gsd > 0:
        said += _of_size(card, gsd)
        said += _of_kinds(card, gsd, classes)
    said += _of_pairs(card, classes)
    if scores:
        low = {name: score for name, score in scores.items() if score < LOW_SCORE}
        if low:
            named = _listed([f"{shown(name)} ({score:.2f})" for name, score in sorted(low.items(), key=lambda i: i[1])])
            said.append(
                f"The model is unsure of its own choice at {named}: mean probability of these pixels, {LOW_SCORE} or "
                "more being usual; look at them before use, give other words, or leave out the class."
            )
    return said


def _of_size(card: ModelCard, gsd: float) -> list[str]:
    low, high = card.gsd
    if low / 1.5 <= gsd <= high * 1.5:
        return []
    if gsd < low:
        return [
            f"Pixels of {gsd:g} m are finer than the {low:g} to {high:g} m that {card.name} is made for: "
            f"pass [[gsd={low:g}]]."
        ]
    return [
        f"Pixels of {gsd:g} m are coarser than the {low:g} to {high:g} m that {card.name} is made for: take a finer "
        "scene, or another model by [[model]]."
    ]


def _of_kinds(card: ModelCard, gsd: float, classes: Mapping[str, Sequence[str]]) -> list[str]:
    weak, unknown = [], []
    for name, prompts in classes.items():
        kind = card.kind_of([*prompts, name])
        if kind is None:
            continue
        best = kind.best_near(gsd)
        if best is None:
            unknown.append(shown(name))
        elif best.iou < WEAK_IOU:
            weak.append(f"{shown(name)} (IoU {best.iou:.2f} on {best.source})")
    said = []
    if weak:
        said.append(
            f"At pixels of {gsd:g} m {card.name} is weak at {_listed(weak)}: look at the result before use, or name a "
            "larger model by [[model]]."
        )
    if unknown:
        said.append(
            f"How well {card.name} finds {_listed(unknown)} at pixels of {gsd:g} m was never measured: look at the "
            "result before use."
        )
    return said


def _of_pairs(card: ModelCard, classes: Mapping[str, Sequence[str]]) -> list[str]:
    kinds = {name: card.kind_of([*prompts, name]) for name, prompts in classes.items()}
    homes: dict[str, str] = {}
    for name, kind in kinds.items():
        if kind is not None:
            homes.setdefault(kind.name, name)
    pairs: list[str] = []
    same: list[str] = []
    for name, kind in kinds.items():
        if kind is None:
            continue
        if homes[kind.name] != name:
            same.append(f"{shown(homes[kind.name])} and {shown(name)}")
        pairs += [f"{shown(name)} as {shown(homes[other])}" for other in kind.confused_with[:2] if other in homes]
    said = []
    if same:
        said.append(
            f"To {card.name} {_listed(same)} are words of one kind, and it cannot tell them apart: make one "
            "class of them."
        )
    if pairs:
        said.append(f"{card.name} often takes {_listed(pairs)}: where both are asked for, look at them before use.")
    return said


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
