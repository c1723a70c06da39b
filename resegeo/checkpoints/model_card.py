"""What a model is known to be good and bad at, as data beside its weights, and what a run says of it.

A card is a JSON file of facts that were measured on places which training had not seen: for which pixel sizes and
pictures the model is made, how well it found each kind of land cover in each set of pictures, which kinds it mistakes
for each other, and which segments suit it. :func:`caution` holds a run against them before it begins,
:func:`doubts` looks at its scores when it has ended.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from resegeo.errors import ResegeoError, ResegeoWarning, shown
from resegeo.files import is_there, read_limited

BUNDLED = Path(__file__).parents[1] / "bundled" / "card.json"
SUFFIX = ".card.json"
"""A card beside a checkpoint has its name without the suffix, and this."""
FORMAT = 1
_MOST = 1_000_000
_KINDS, _ENTRIES = 1_000, 10_000
"""Kinds of a card, and entries of one of its lists, at most."""
_NEAR = 3.0
"""A figure speaks for pixels up to so many times smaller or larger than those that it was measured on."""
_NAMED = 3
"""Classes that a sentence names at most of each matter."""
WEAK_IOU = 0.4
"""Below it a kind is called weak."""
LOW_SCORE = 0.5
"""Mean probability of a class's own pixels below which the class is named."""
TIED = 0.1
"""Difference of the best two probabilities below which a pixel is nearly a tie."""
MANY_TIES = 1 / 3
"""Share of a class's pixels that are nearly ties with one other class, from which on both are named."""


class ModelCardNotice(ResegeoWarning):
    """Where a run is outside of what its model is known to be good at, or its scores speak against its result."""


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
    brightness: tuple[float, float] | None = None
    """Mean brightness, 0 to 255, of pictures that it is made for, least and largest; None: not said."""

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
    return card_of(facts, f"The model card {shown(path)}")


def card_of(facts: Any, what: str) -> ModelCard:
    """Check the facts of a card that were read from somewhere; ``what`` begins the sentence if they are none.

    Raises
    ------
    ResegeoError:
        When they say something that no card says.

    """
    try:
        return _card(facts)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ResegeoError(
            f"{what} cannot be used: {type(error).__name__} {shown(error)}. Write it as "
            "resegeo/bundled/card.json is written, or remove it."
        ) from error


def card_beside(checkpoint: Path) -> ModelCard | None:
    """Read the card that lies beside a checkpoint file or folder, ``model.card.json``; None where there is none.

    Raises
    ------
    ResegeoError:
        As :func:`read_card` does.

    """
    name = checkpoint.name if checkpoint.is_dir() else checkpoint.stem
    path = checkpoint.resolve().with_name(name + SUFFIX) if name else None
    return read_card(path) if path is not None and is_there(path) else None


@lru_cache(maxsize=1)
def bundled_card() -> ModelCard:
    """The card of the model that comes with resegeo."""
    return read_card(BUNDLED)


def _card(facts: Any) -> ModelCard:
    if facts["format"] != FORMAT:
        raise ValueError(f"format {shown(facts['format'])}, this version knows {FORMAT}")
    segments = facts["default_segments"]
    if segments not in {"none", "superpixels"}:
        raise ValueError(f"default_segments {shown(segments)}")
    if len(facts["kinds"]) > _KINDS:
        raise ValueError(f"more than {_KINDS} kinds")
    kinds = tuple(
        Kind(
            name=_text(name),
            words=frozenset(_text(word).lower() for word in (name, *_list(entry["words"]))),
            quality=tuple(_quality(one) for one in _list(entry["quality"])),
            confused_with=tuple(_text(other) for other in _list(entry["confused_with"])),
        )
        for name, entry in facts["kinds"].items()
    )
    brightness = facts.get("brightness")
    return ModelCard(
        name=_text(facts["name"]),
        gsd=_range(facts["gsd"]),
        segments=segments,
        kinds=kinds,
        brightness=None if brightness is None else _range(brightness),
    )


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > _ENTRIES:
        raise TypeError(f"{shown(value)} is no list, or a longer one than any card has")
    return value


def _quality(facts: Any) -> Quality:
    iou = _number(facts["iou"])
    if not 0.0 <= iou <= 1.0:
        raise ValueError(f"iou {iou}")
    return Quality(source=_text(facts["source"]), gsd=_range(facts["gsd"]), iou=iou)


def _range(value: Any) -> tuple[float, float]:
    low, high = (_number(one) for one in _list(value))
    if not 0.0 < low <= high < math.inf:
        raise ValueError(f"the range {low} to {high}")
    return low, high


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{shown(value)} is no number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{shown(value)} is no text")
    return shown(value.strip())


@dataclass(frozen=True)
class Look:
    """What is seen of a scene before it is segmented."""

    gsd: float | None = None
    """Pixel size in metres that the model sees; None where the scene does not say."""
    brightness: float | None = None
    """Mean of its pixels as the model sees them, 0 to 255; None where none was looked at."""
    grey: bool = False
    """Whether one band serves as red, green and blue."""


def caution(card: ModelCard, look: Look, classes: Mapping[str, Sequence[str]]) -> str | None:
    """Say in one sentence, with a remedy, where a run is outside of what its model is known to be good at.

    Parameters
    ----------
    card:
        The model's card.
    look:
        Pixel size and colours of the scene.
    classes:
        Name of each class -> its prompts.

    Returns
    -------
    The sentence, or None where nothing has to be said.

    """
    said: list[str] = []
    remedies: list[str] = []
    size = look.gsd if look.gsd is not None and 0 < look.gsd < math.inf else None
    if size is not None:
        said, remedies = _of_size(card, size)
    for one, remedy in (_of_colours(card, look), *_of_kinds(card, size, classes), *_of_pairs(card, classes)):
        said += [one] if one else []
        remedies += [remedy] if one and remedy not in remedies else []
    if not said:
        return None
    at = "" if size is None else f" at pixels of {size:.4g} m"
    return f"{card.name}{at}: {'; '.join(said)}. Remedy: {'; '.join(remedies)}."


def doubts(scene: str, scores: Mapping[str, float], ties: Mapping[str, tuple[str, float]]) -> str | None:
    """Name in one sentence the classes of a finished run that its own scores speak against; None where there are none.

    Parameters
    ----------
    scene:
        Its name: a batch has many.
    scores:
        Name of a class -> mean probability, 0 to 1, of the pixels that it was given. Classes without pixels are left
        out.
    ties:
        Name of a class -> the class that comes second most often where the two are nearly tied, and the share of the
        class's pixels where that is so.

    """
    low = sorted((score, name) for name, score in scores.items() if score < LOW_SCORE)
    near = sorted(((-share, name, other) for name, (other, share) in ties.items() if share >= MANY_TIES))
    said = []
    if low:
        named = [f"{shown(name)} ({score:.2f})" for score, name in low]
        said.append(f"low mean scores of {_some(named)}")
    if near:
        named = [f"{shown(name)} and {shown(other)} (in {-share:.0%} of {shown(name)})" for share, name, other in near]
        said.append(f"near ties between {_some(named)}")
    if not said:
        return None
    return (
        f"{shown(scene)}: the model is unsure of its own choice, by {' and '.join(said)}. Look at these pixels before "
        "use; give [[examples]] of them, other words, or one class for both."
    )


def _of_size(card: ModelCard, gsd: float) -> tuple[list[str], list[str]]:
    low, high = card.gsd
    if low * 0.99 <= gsd <= high * 1.01:
        return [], []
    if gsd < low:
        return [f"finer than the {low:g} to {high:g} m that it is made for"], [f"pass [[gsd={low:g}]]"]
    return (
        [f"coarser than the {low:g} to {high:g} m that it is made for"],
        ["take a finer scene, or another model by [[model]]"],
    )


def _of_colours(card: ModelCard, look: Look) -> tuple[str, str]:
    if look.grey and card.brightness is not None:
        return "the scene is grey, and it learned from colours", "name three bands by [[bands]] if the scene has them"
    if look.brightness is None or card.brightness is None:
        return "", ""
    low, high = card.brightness
    if low <= look.brightness <= high:
        return "", ""
    how = "darker" if look.brightness < low else "brighter"
    return (
        f"the scene is {how} than what it learned from (mean {look.brightness:.0f} of 255, there {low:.0f} to "
        f"{high:.0f})",
        "set the range of values by [[stretch]]",
    )


_CORRECT = "look at the result, and correct it by [[examples]] or name a larger model by [[model]]"


def _of_kinds(card: ModelCard, gsd: float | None, classes: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    if gsd is None:
        return []
    weak, unknown = [], []
    for name, prompts in classes.items():
        kind = card.kind_of([*prompts, name])
        if kind is None:
            continue
        best = kind.best_near(gsd)
        if best is None:
            unknown.append(shown(name))
        elif best.iou < WEAK_IOU:
            weak.append((best.iou, f"{shown(name)} (IoU {best.iou:.2f} on {best.source})"))
    said = []
    if weak:
        said.append((f"weak at {_some([text for _, text in sorted(weak)])}", _CORRECT))
    if unknown:
        said.append((f"never measured at {_some(unknown)}", _CORRECT))
    return said


def _of_pairs(card: ModelCard, classes: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
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
        pairs += [f"{shown(name)} for {shown(homes[other])}" for other in kind.confused_with[:2] if other in homes]
    said = []
    if same:
        said.append((f"{_some(same)} are one kind to it", "make one class of words of one kind"))
    if pairs:
        said.append((f"often takes {_some(pairs)}", _CORRECT))
    return said


def _some(parts: Sequence[str]) -> str:
    """The first parts as a list in words, and how many more there are."""
    if len(parts) == 1:
        return parts[0]
    if len(parts) <= _NAMED:
        return f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{', '.join(parts[:_NAMED])} and {len(parts) - _NAMED} more"
