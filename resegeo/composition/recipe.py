"""Composition files: ``model compose:FILE`` averages variants as a small YAML file says, once, and keeps the result.

models: [openai:ViT-L-14, remoteclip-l14, {model: mine.pt, activation: quickgelu}]
weights: separation        # or uniform, or numbers such as [0.5, 0.3, 0.2]
classes: classes.yml       # whose phrasings separation takes; optional
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resegeo.checkpoints.download import home, locked
from resegeo.checkpoints.formats import read_checkpoint
from resegeo.checkpoints.sources import ModelSource, facts_for_file, resolve_model
from resegeo.classes.class_file import load_class_list
from resegeo.classes.class_list import ClassList
from resegeo.composition.average import FORMAT, compose, read_weights
from resegeo.composition.separation import TEMPERATURE
from resegeo.documents import read_yaml
from resegeo.errors import ResegeoError, UsageError, escaped, notice, shown
from resegeo.files import is_file, is_there
from resegeo.progress import Progress

PREFIX = "compose:"
"""What ``model`` begins with to mean a composition file."""

_KEYS = ("models", "weights", "classes", "temperature", "allow_outlier")
_MOST = 1_000_000
"""Bytes of a composition file at most."""
_FAR = 1e9
"""Numbers in a composition file are smaller than this."""
_MODEL_KEYS = ("model", "arch", "activation")


@dataclass(frozen=True)
class Recipe:
    """What a composition file says."""

    models: tuple[tuple[str, str | None, str | None], ...]
    """Model, architecture and activation of each variant, as :func:`resegeo.checkpoints.sources.resolve_model` takes
    them."""
    weights: str | tuple[float, ...] = "uniform"
    classes: ClassList | None = None
    temperature: float = TEMPERATURE
    allow_outlier: bool = False


def find_model(
    model: str | None = None,
    architecture: str | None = None,
    activation: str | None = None,
    *,
    progress: Progress | None = None,
) -> ModelSource:
    """Do what :func:`resegeo.checkpoints.sources.resolve_model` does, and understand ``compose:FILE`` too.

    Raises
    ------
    UsageError:
        When the three do not fit together, or the composition file is wrong.
    ResegeoError:
        When a file is missing or unreadable, a download fails, or the variants cannot be averaged.

    """
    if model is None or not model.startswith(PREFIX):
        return resolve_model(model, architecture, activation, progress=progress)
    if not model.removeprefix(PREFIX).strip():
        raise UsageError(
            f"[[model={model}]] names no file; expected {PREFIX} and a composition file, {PREFIX}mean.yml."
        )
    path = Path(model.removeprefix(PREFIX))
    for name, value in (("arch", architecture), ("activation", activation)):
        if value is not None:
            raise UsageError(
                f"[[{name}={value}]] does not go with [[model={model}]]; say it in that file, variant by variant."
            )
    recipe = read_recipe(path)
    sources = [_resolved(given, path, progress) for given in recipe.models]
    target = home() / "composed" / f"{_key(recipe, sources)}.safetensors"
    with locked(target):
        if not _readable(target):
            made = compose(
                sources,
                target,
                weights=recipe.weights,
                classes=recipe.classes,
                temperature=recipe.temperature,
                allow_outlier=recipe.allow_outlier,
                progress=progress,
            )
            shares = ", ".join(f"{variant.source.name} {variant.weight:.3f}" for variant in made.variants)
            notice(f"{path} is averaged ({shares}) and kept as {target}.")
    return replace(resolve_model(str(target)), name=f"{PREFIX}{path.stem}")


def read_recipe(path: Path) -> Recipe:
    """Read a composition file; paths in it count from its folder.

    Raises
    ------
    UsageError:
        When it is missing or says something else than expected.

    """
    said = f"[[model={PREFIX}{escaped(path)}]]"
    found = read_yaml(path, said, expected="a YAML file with a list 'models'", error=UsageError)
    if not isinstance(found, dict) or not isinstance(found.get("models"), list):
        raise UsageError(f"{said} has no list of variants; expected a line such as 'models: [a.pt, b.pt]'.")
    for key in found:
        if key not in _KEYS:
            raise UsageError(f"{said}: there is no key {shown(repr(key))}; known are {', '.join(_KEYS)}.")
    weights: Any = found.get("weights", "uniform")
    if isinstance(weights, list):
        if not all(isinstance(number, int | float) and abs(number) < _FAR for number in weights):
            raise UsageError(f"{said}: weights is {_said(weights)}; expected uniform, separation, or numbers.")
        weights = tuple(float(number) for number in weights)
    elif not isinstance(weights, str):
        raise UsageError(f"{said}: weights is {_said(weights)}; expected uniform, separation, or numbers.")
    else:
        weights = read_weights(weights)
    temperature = found.get("temperature", TEMPERATURE)
    if not isinstance(temperature, int | float) or isinstance(temperature, bool) or not 0 < temperature < _FAR:
        raise UsageError(f"{said}: temperature is {_said(temperature)}; expected a number above 0.")
    classes = found.get("classes")
    return Recipe(
        tuple(_variant(entry, path, said) for entry in found["models"]),
        weights,
        None if classes is None else load_class_list(path.parent / str(classes)),
        float(temperature),
        found.get("allow_outlier") is True,
    )


def _said(value: object) -> str:
    """A value of the file for a sentence."""
    try:
        return shown(repr(value))
    except ValueError:  # of a whole number of thousands of digits
        return "a number beyond all bounds"


def _variant(entry: Any, path: Path, said: str) -> tuple[str, str | None, str | None]:
    """Read one entry of ``models``."""
    given: Mapping[str, Any] = entry if isinstance(entry, dict) else {"model": entry}
    unknown = [key for key in given if key not in _MODEL_KEYS]
    if unknown or not isinstance(given.get("model"), str):
        raise UsageError(
            f"{said}: models has the entry {_said(entry)}; expected a name or file, or a mapping of "
            f"{', '.join(_MODEL_KEYS)}."
        )
    model, arch, activation = (None if given.get(key) is None else str(given[key]) for key in _MODEL_KEYS)
    return _from(path, str(model)), None if arch is None else _from(path, arch), activation


def _resolved(given: tuple[str, str | None, str | None], path: Path, progress: Progress | None) -> ModelSource:
    """Find a variant; options that it lacks are said in the file."""
    try:
        return resolve_model(*given, progress=progress)
    except UsageError as error:
        if "[[arch" not in error.text and "[[activation" not in error.text:
            raise
        shown = f"{{model: {Path(given[0]).name}, arch: …, activation: …}}"
        raise UsageError(f"{error.text} In {path} these options are words beside the model: {shown}.") from error


def _readable(path: Path) -> bool:
    """Whether an average is there; one that was damaged on the disk is made anew."""
    try:
        return is_file(path) and bool(read_checkpoint(path).tensors)
    except ResegeoError:
        return False


def _from(path: Path, name: str) -> str:
    """A file beside the composition file, or the name as it stands."""
    return str(path.parent / name) if is_there(path.parent / name) else name


def _key(recipe: Recipe, sources: list[ModelSource]) -> str:
    """Name of the result in the cache: what it depends on, whatever the order of the variants."""
    numbers = recipe.weights if isinstance(recipe.weights, tuple) else (0.0,) * len(sources)
    if len(numbers) != len(sources):
        numbers = (0.0,) * len(sources)  # refused later, with a sentence
    said = {
        "format": FORMAT,
        "variants": sorted(
            [source.sha256, json.dumps(facts_for_file(source), sort_keys=True), number]
            for source, number in zip(sources, numbers, strict=True)
        ),
        "rule": recipe.weights if isinstance(recipe.weights, str) else "numbers",
        "temperature": recipe.temperature,
        "classes": None if recipe.classes is None else recipe.classes.to_json(),
        "allow_outlier": recipe.allow_outlier,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
