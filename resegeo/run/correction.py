"""What corrects the words of a run: examples of its scene, or a file that an earlier run has fitted.

The file ``<stem>.fitted.safetensors`` is data: two arrays, three more that go with the colours of the scene that they
were fitted on, and a text of JSON that says what they belong to. Nothing of it is taken but shapes, finite numbers and
names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resegeo.checkpoints.sources import ModelSource, identity
from resegeo.classes.class_list import ClassList
from resegeo.clip.fitting import Fitted
from resegeo.documents import parse_json
from resegeo.errors import ResegeoError, UsageError, escaped, shown
from resegeo.files import checksum, is_file, is_there, read_limited
from resegeo.run.clicks import extended_by, is_fitted, read_clicks
from resegeo.run.example_features import Places
from resegeo.scene.reader import Scene
from resegeo.scene.region import Region
from resegeo.settings import Settings

KEY = "resegeo_fitted"
"""Under which a file of fitted vectors says what they belong to."""
FORMAT = 1
_MOST = 256 * 2**20
"""Bytes of a file of fitted vectors that are read at most."""
_MOST_HEADER = 8 * 2**20
_LARGEST = 1e6
"""Of what is fitted; larger numbers would overflow in the sums of logits."""
_WORDS = ("reduction", "softmax_over", "logit_scale", "subtract_cls")
"""Knobs that say how words become the logits that the vectors add to."""


@dataclass(frozen=True)
class Correction:
    """What corrects the words of a run, before it is fitted."""

    name: str
    """Of the file, for messages."""
    sha256: str
    counts: Mapping[str, int]
    """Places of each class, by name."""
    column: str | None = None
    """Field that names the classes."""
    kind: str = "places"
    """``places`` in this very scene, or ``fitted`` by an earlier run."""
    coloured: bool = False
    """Whether the colours of pixels count: where they are known, and no segment votes as a whole."""
    places: Places | None = field(default=None, repr=False)
    """Of examples of this very scene; None where only what became of them is known."""
    sample: Places | None = field(default=None, repr=False)
    """Pixels spread over the scene, of no class; there where ``places`` are."""
    fitted: Fitted | None = field(default=None, repr=False)
    """Of a file that an earlier run has fitted."""

    def facts(self) -> dict[str, Any]:
        """Return what the results depend on, as plain values."""
        facts = {"kind": self.kind, "sha256": self.sha256, "field": self.column, "counts": dict(self.counts)}
        return facts | {"colours": self.coloured}


def correction_known(facts: Mapping[str, Any]) -> Correction:
    """Return the correction of a finished run from what its report says of it; see :meth:`Correction.facts`."""
    coloured = facts.get("colours") is True
    return Correction("the examples", facts["sha256"], dict(facts["counts"]), facts["field"], facts["kind"], coloured)


def correction_of(
    path: str | Path,
    field_: str | None,
    classes: ClassList,
    settings: Settings,
    source: ModelSource,
    scene: Scene,
    region: Region | None,
) -> tuple[Correction, ClassList]:
    """Read what ``examples`` names, and the class list that it leads to.

    Raises
    ------
    UsageError:
        When the method knows no examples, or there is no such field.
    ResegeoError:
        When the file can't be read, or does not fit scene, words or model.

    """
    name = escaped(path)
    if settings.softmax_over != "classes":
        raise UsageError(
            f"[[examples={name}]] corrects the scores of classes, and [[softmax_over={settings.softmax_over}]] (of "
            "presets such as paper) compares prompts first; leave that out."
        )
    if is_fitted(path):
        return _read_fitted(Path(path), classes, settings, source, scene)
    if not is_there(path) and "://" not in str(path) and not str(path).startswith("/vsi"):
        raise ResegeoError(f"[[examples={name}]]: no such file. Check the path.")
    clicks = read_clicks(str(path), field_, scene, region, classes)
    said = checksum(Path(path)) if is_file(path) else ""
    coloured = clicks.places.colours is not None and not settings.vote_segments
    name = Path(path).name
    places, sample = clicks.places, clicks.sample
    found = Correction(name, said, clicks.counts, clicks.field, coloured=coloured, places=places, sample=sample)
    return found, clicks.classes


def words_of(settings: Settings) -> dict[str, Any]:
    """Return the knobs by which words become logits."""
    return {name: value for name, value in settings.as_dict().items() if name in _WORDS}


def identity_of(source: ModelSource) -> dict[str, Any]:
    """Return the identity of a model as JSON gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(identity(source)))
    return plain


def split(arrays: Mapping[str, NDArray[Any]]) -> tuple[Fitted, Fitted | None]:
    """Return what a file holds for any scene, and for the one that it was fitted on where that has colours."""
    there = None
    if "scene_colours" in arrays:
        there = Fitted(*(arrays[f"scene_{name}"] for name in ("residuals", "biases", "colours")))
    return Fitted(arrays["residuals"], arrays["biases"]), there


def stretch_of(scene: Scene) -> Any:
    """Return how a scene is stretched as JSON gives it back: the same file under another has other colours."""
    found = scene.stretch
    return None if found is None else [[float(value) for value in part] for part in (found.low, found.high)]


@dataclass(frozen=True)
class FittedFile:
    """What a file of fitted vectors says."""

    what: str
    """How messages call it."""
    classes: ClassList
    """Those with words first; behind them those that examples added."""
    model: Mapping[str, Any]
    """Identity of the model."""
    words: Mapping[str, Any]
    """See :func:`words_of`."""
    counts: Mapping[str, int]
    """Places that it was fitted on, by class."""
    fitted: Fitted = field(repr=False)
    """For any scene."""
    scene: str = ""
    """Fingerprint of the scene that it was fitted on."""
    stretch: Any = None
    """How that was stretched, see :func:`stretch_of`."""
    there: Fitted | None = field(default=None, repr=False)
    """For that scene, with its colours, if they were known."""

    def serving(self, scene: Scene, settings: Settings) -> Fitted:
        """Return what serves a scene: where that is the one it was fitted on the same labels come out again."""
        own = scene.fingerprint == self.scene and stretch_of(scene) == self.stretch
        usable = own and scene.coloured and not settings.vote_segments
        return self.there if usable and self.there is not None else self.fitted

    def refuse_other_model(self, source: ModelSource) -> None:
        """Refuse a model that it was not fitted with; see :class:`ResegeoError`."""
        wanted = identity_of(source)
        same = {name: self.model.get(name) for name in wanted} == wanted
        if not same or self.fitted.residuals.shape[1] != _dimension(source):
            raise ResegeoError(
                f"{self.what} was fitted with the model {shown(self.model.get('name'))} (sha256 "
                f"{shown(self.model.get('sha256'), 12)}…), not with {shown(source.name)} (sha256 "
                f"{source.sha256[:12]}…). Name that model by [[model]]."
            )


def read_fitted(path: Path) -> FittedFile:
    """Read a file of fitted vectors, of which nothing is trusted but shapes, finite numbers and names.

    Raises
    ------
    ResegeoError:
        When it is none, or damaged, or of another version.

    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    what = f"[[examples={escaped(path)}]]"
    if not is_file(path):
        raise ResegeoError(f"{what}: no such file. Check the path.")
    content = read_limited(path, _MOST)
    damaged = f"{what} is damaged, or no file of fitted vectors that a run with [[examples]] wrote."
    try:
        size = int.from_bytes(content[:8], "little")
        if not 0 < size <= min(_MOST_HEADER, len(content) - 8):
            raise ValueError("no header")
        said = parse_json(content[8 : 8 + size], what)["__metadata__"][KEY]
        said = parse_json(str(said).encode(), what)
        if said["format"] != FORMAT:
            raise ResegeoError(
                f"{what} has the format {shown(repr(said['format']))}, which this resegeo does not know ({FORMAT}); "
                "install the version that wrote it."
            )
        its = ClassList.from_json(said["classes"])
        model, words, told = dict(said["model"]), dict(said["words"]), dict(said["fitted_on"]["counts"])
        if not all(isinstance(name, str) and type(count) is int for name, count in told.items()):
            raise ValueError("no counts")
        arrays = load(content)
        fitted, there = split(arrays)
        scene, stretch = str(said.get("scene", "")), said.get("stretch")
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ResegeoError(damaged) from error
    wanted = {"residuals": (len(its.classes), -1), "biases": (len(its.classes),), "colours": (len(its.classes), 3)}
    for each in (fitted, there):
        if each is not None and not all(
            array is None or _sound(array, wanted[name]) for name, array in vars(each).items()
        ):
            raise ResegeoError(damaged)
    if there is not None and there.residuals.shape != fitted.residuals.shape:
        raise ResegeoError(damaged)
    return FittedFile(what, its, model, words, told, fitted, scene, stretch, there)


def _sound(array: NDArray[Any], shape: tuple[int, ...]) -> bool:
    """Whether an array holds finite float32 in such a shape; -1 stands for any size."""
    return (
        array.dtype == np.float32
        and array.ndim == len(shape)
        and all(size in (-1, own) for size, own in zip(shape, array.shape, strict=True))
        and bool((np.abs(array) <= _LARGEST).all())  # which NaN is not either
    )


def _read_fitted(
    path: Path, classes: ClassList, settings: Settings, source: ModelSource, scene: Scene
) -> tuple[Correction, ClassList]:
    """Read fitted vectors, and see that they were fitted to the same words and model."""
    read = read_fitted(path)
    its, what = read.classes, read.what
    read.refuse_other_model(source)
    own = len(classes.classes)
    same = [(spec.name, spec.prompts) for spec in classes.classes] == [
        (spec.name, spec.prompts) for spec in its.classes[:own]
    ]
    if not same or classes.templates != its.templates or any(spec.prompts for spec in its.classes[own:]):
        listed = ", ".join(spec.name for spec in its.classes)
        raise ResegeoError(
            f"{what} corrects the words of another class file, with the classes {shown(listed, 200)}; take the class "
            "file that it was fitted with by [[prompts]], or fit anew on the points."
        )
    changed = [name for name, value in words_of(settings).items() if read.words.get(name) != value]
    if changed:
        flag = changed[0].replace("_", "-")
        raise ResegeoError(
            f"{what} was fitted with --{flag} {shown(read.words.get(changed[0]))}, not "
            f"{shown(getattr(settings, changed[0]))}; take the settings that it was fitted with."
        )
    extended = extended_by(classes, [spec.name for spec in its.classes[own:]])
    fitted = read.serving(scene, settings)
    coloured = fitted.colours is not None
    found = Correction(path.name, checksum(path), read.counts, kind="fitted", coloured=coloured, fitted=fitted)
    return found, extended


def _dimension(source: ModelSource) -> int:
    from resegeo.checkpoints.sources import geometry

    return geometry(source).dimension
