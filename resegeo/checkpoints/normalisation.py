"""By which mean and deviation a model wants its colours: nothing in the weights tells, and wrong ones pass unnoticed.

Most CLIPs take OpenAI's; some of open_clip's tags do not, and files beside the weights may say others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resegeo.documents import read_json
from resegeo.errors import ResegeoError, shown

_FILES = (("preprocessor_config.json", "image_mean", "image_std"), ("open_clip_config.json", "mean", "std"))
"""Of Hugging Face and of open_clip: the file's name, and its keys."""
_MOST = 1e6
"""Beyond this a mean or a deviation is none; NaN and infinity are."""


@dataclass(frozen=True)
class Normalisation:
    """What is subtracted from red, green and blue between 0 and 1, and what the rest is divided by."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def text(self) -> str:
        """The same for a sentence."""
        mean, std = (", ".join(f"{one:g}" for one in said) for said in (self.mean, self.std))
        return f"the mean {mean} and the deviation {std}"

    def as_dict(self) -> dict[str, list[float]]:
        """Return plain values, ready for JSON; :func:`normalisation` takes them back."""
        return {"mean": list(self.mean), "std": list(self.std)}


def normalisation(mean: Any, std: Any, whose: str) -> Normalisation | None:
    """Check what somebody says of the colours; None where it is OpenAI's, or nothing.

    Raises
    ------
    ResegeoError:
        When it is not three numbers each, those of ``std`` above 0; the text begins with ``whose``.

    """
    if mean is None and std is None:
        return None
    means, stds = _three(mean), _three(std)
    if means is None or stds is None or min(stds) <= 0:
        raise ResegeoError(
            f"{whose} says mean {_short(mean)} and std {_short(std)} of the colours; expected three numbers each, "
            "those of std above 0. Correct them, or leave out both for OpenAI's."
        )
    found = Normalisation(means, stds)
    return None if found == usual() else found


def usual() -> Normalisation:
    """OpenAI's, which a model takes of which nothing else is known."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    return Normalisation(tuple(OPENAI_DATASET_MEAN), tuple(OPENAI_DATASET_STD))


def said_of_colours(config: Mapping[str, Any], whose: str) -> Normalisation | None:
    """Read ``preprocess_cfg`` of a model configuration as open_clip publishes it; see :func:`normalisation`."""
    colours = config.get("preprocess_cfg")
    if not isinstance(colours, dict):
        return None
    return normalisation(colours.get("mean"), colours.get("std"), whose)


def said_beside(folder: Path, *, hugging_face: bool) -> Normalisation | None:
    """Read what lies beside weights by the names of Hugging Face's models, or by open_clip's.

    Raises
    ------
    ResegeoError:
        See :func:`normalisation`.

    """
    name, mean, std = _FILES[0 if hugging_face else 1]
    file = folder / name
    try:
        said = read_json(file)
    except ResegeoError:
        return None
    if not isinstance(said, dict):
        return None
    return normalisation(said.get(mean), said.get(std), str(file)) if hugging_face else said_of_colours(said, str(file))


def _short(said: Any) -> str:
    """For a sentence; str() refuses whole numbers of thousands of digits."""
    try:
        return shown(said)
    except ValueError:
        return "beyond all bounds"


def _three(said: Any) -> tuple[float, float, float] | None:
    if not isinstance(said, list | tuple) or len(said) != 3:
        return None
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < _MOST for one in said):
        return None
    return float(said[0]), float(said[1]), float(said[2])
