"""How well a CLIP variant tells classes apart by their words alone, and the weights that follow.

ReSeg-CLIP (arXiv 2602.23869) weights its variants by "representational quality using varying text prompts"; its
formula is not public, and this one is resegeo's own. With several phrasings a class, cohesion is the mean cosine
between phrasings of one class, confusion the mean over classes of the highest cosine between a class's mean embedding
and another's, and quality = cohesion − confusion. Weights are softmax(quality / temperature).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from resegeo.errors import UsageError

if TYPE_CHECKING:
    from resegeo.classes.class_list import ClassList

TEMPERATURE = 0.05
"""A variant whose quality is 0.05 higher counts e times as much."""

TEMPLATES = ("{}", "an aerial photo of {}", "a satellite image of {}", "{} seen from above")
"""Put around a class's name where the class file has one phrasing only."""

PHRASINGS: Mapping[str, tuple[str, ...]] = {
    "building": ("building", "house", "roof of a building", "an aerial photo of buildings"),
    "road": ("road", "street", "paved road", "an aerial photo of a road"),
    "tree": ("trees", "forest", "woodland", "an aerial photo of trees"),
    "low vegetation": ("grass", "meadow", "lawn", "an aerial photo of grassland"),
    "water": ("water", "lake", "river", "an aerial photo of open water"),
    "bare soil": ("bare soil", "sand", "bare ground", "an aerial photo of bare land"),
    "cropland": ("cropland", "agricultural field", "farmland", "an aerial photo of crop fields"),
    "car": ("car", "vehicle", "parked car", "an aerial photo of cars"),
    "solar panel": ("solar panel", "photovoltaic panels", "solar farm", "an aerial photo of solar panels"),
    "wetland": ("wetland", "marsh", "swamp", "an aerial photo of a wetland"),
}
"""Classes of land cover for when no class file is given."""


@dataclass(frozen=True)
class Separation:
    """What a variant's words say of it."""

    cohesion: float
    """Mean cosine between phrasings of one class."""
    confusion: float
    """Mean over classes of the highest cosine with another class."""

    @property
    def quality(self) -> float:
        """Cohesion less confusion."""
        return self.cohesion - self.confusion


def phrasings_of(classes: ClassList | None) -> dict[str, tuple[str, ...]]:
    """Phrasings of each class: prompts in all templates; for a class with one phrasing, of a list built in.

    Raises
    ------
    UsageError:
        When there are fewer than two classes.

    """
    if classes is None:
        return dict(PHRASINGS)
    found: dict[str, list[str]] = {spec.name: [] for spec in classes.classes}
    for texts, index in zip(classes.prompt_texts, classes.prompt_class, strict=True):
        found[classes.classes[index].name].extend(texts)
    if len(found) < 2:
        raise UsageError("--weights separation tells classes apart, so the class file needs two or more.")
    return {name: _several(name, tuple(dict.fromkeys(texts))) for name, texts in found.items()}


def _several(name: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    if len(texts) > 1:
        return texts
    if name.casefold() in PHRASINGS:
        return tuple(dict.fromkeys((*texts, *PHRASINGS[name.casefold()])))
    return tuple(template.replace("{}", texts[0]) for template in TEMPLATES)


def separation(vectors: Sequence[NDArray[np.floating]]) -> Separation:
    """Measure embeddings: one array (phrasings, D) a class, of any length; at least two classes of two phrasings.

    NaN where a vector is zero.
    """
    with np.errstate(invalid="ignore"):
        return _measured(vectors)


def _measured(vectors: Sequence[NDArray[np.floating]]) -> Separation:
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (np.asarray(v, np.float64) for v in vectors)]
    pairs = [(rows @ rows.T)[np.triu_indices(len(rows), 1)].mean() for rows in unit]
    means = np.stack([rows.mean(axis=0) for rows in unit])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = means @ means.T
    np.fill_diagonal(cosines, -np.inf)
    return Separation(float(np.mean(pairs)), float(cosines.max(axis=1).mean()))


def softmax_weights(qualities: Sequence[float], temperature: float = TEMPERATURE) -> tuple[float, ...]:
    """Weights that sum to 1; see the module."""
    found = np.asarray(qualities, np.float64)
    with np.errstate(over="ignore"):  # at a temperature near 0 all weight is the best one's
        shares = np.exp((found - found.max()) / temperature)
    # Summed by size, so that the order in which variants are named leaves no trace in the last bit.
    return tuple(float(share) for share in shares / np.sort(shares).sum())
