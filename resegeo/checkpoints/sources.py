"""Where checkpoints come from: the bundled model, a file, a known name, or one of open_clip's pretrained tags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from resegeo.checkpoints.architecture import (
    BUNDLED,
    FOLDER,
    QUICK,
    colours_of,
    config_of,
    inferred,
    known_architecture,
    own_config,
    own_words,
    refuse_other_heads,
    settled,
)
from resegeo.checkpoints.download import fetch, file_sha256, verify
from resegeo.checkpoints.formats import METADATA, read_checkpoint
from resegeo.checkpoints.imported import name_of, on_disk
from resegeo.checkpoints.model_card import ModelCard, bundled_card, card_beside, card_of
from resegeo.checkpoints.normalisation import Normalisation
from resegeo.checkpoints.pretrained_tags import find_tag
from resegeo.checkpoints.registry import ACTIVATIONS, KnownModel, known_file, known_model
from resegeo.errors import ResegeoError, UsageError, notice, shown
from resegeo.files import is_file, is_folder, is_there
from resegeo.progress import Progress


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint on disk and the architecture it belongs to."""

    name: str
    architecture: str
    path: Path
    sha256: str
    config: Path | None = None
    """An open_clip model configuration that open_clip does not know itself: JSON, or a safetensors file of ours."""
    activation: str | None = None
    """quickgelu or gelu; None: the architecture's."""
    ancestor: str | None = None
    """Pre-training that it was fine-tuned from, where known."""
    composition: tuple[tuple[str, float], ...] = ()
    """Of an average: name and sha256 of each variant, and its weight."""
    colours: Normalisation | None = None
    """What colours are normalised by; None: OpenAI's mean and deviation."""
    card: ModelCard | None = None
    """What it is known to be good and bad at, where somebody measured it."""

    @property
    def bundled(self) -> bool:
        """Whether this is the model that travels inside the package."""
        return self.path.parent == FOLDER

    @property
    def stated_architecture(self) -> str | None:
        """What ``arch`` must say with this file to mean the same: a name, a configuration's path, or nothing."""
        if self.config is None or self.config.parent == FOLDER:
            return self.architecture
        return str(self.config.resolve()) if self.config.suffix == ".json" else None


@dataclass(frozen=True)
class SamSource:
    """A checkpoint of Segment Anything on disk."""

    path: Path
    architecture: str | None
    """vit_h, vit_l or vit_b; None: told from the file."""
    sha256: str


@dataclass(frozen=True)
class Geometry:
    """What planning needs to know of a model, without loading it."""

    image_size: int
    patch_size: int
    depth: int
    dimension: int

    @property
    def grid(self) -> int:
        """Patches along one side of a window."""
        return self.image_size // self.patch_size


def resolve_model(
    model: str | None = None,
    architecture: str | None = None,
    activation: str | None = None,
    *,
    progress: Progress | None = None,
) -> ModelSource:
    """Find the checkpoint that ``model``, ``arch`` and ``activation`` name; what is elsewhere is downloaded once.

    Parameters
    ----------
    model:
        None or ``resegeo-small`` (bundled), a checkpoint file or the folder of a Hugging Face CLIPModel, the name of an
        imported one, a name of :data:`resegeo.checkpoints.registry.KNOWN`, or an open_clip pretrained tag, alone with
        ``architecture`` or as ``ARCH:TAG``.
    architecture:
        open_clip architecture, such as ``ViT-L-14-quickgelu``, or the JSON file of an open_clip model configuration;
        needed where a file does not tell.
    activation:
        ``quickgelu`` or ``gelu``; needed where nothing else tells.
    progress:
        Told of a download; see :func:`resegeo.checkpoints.download.fetch`.

    Raises
    ------
    UsageError:
        When the three do not fit together, or do not say enough.
    ResegeoError:
        When a file is missing or unreadable, or a download fails.

    """
    if activation is not None and activation not in ACTIVATIONS:
        raise UsageError(f"[[activation={activation}]] does not exist; expected {' or '.join(ACTIVATIONS)}.")
    if model is None or model == BUNDLED:
        for name, value in (("arch", architecture), ("activation", activation)):
            if value is not None:
                raise UsageError(
                    f"[[{name}={value}]] needs a checkpoint: name its file or tag by [[model]], or leave out "
                    f"[[{name}]]."
                )
        weights = FOLDER / f"{BUNDLED}.safetensors"
        return ModelSource(
            BUNDLED,
            BUNDLED,
            weights,
            file_sha256(weights),
            FOLDER / f"{BUNDLED}.json",
            "gelu",
            ancestor=BUNDLED,
            card=bundled_card(),
        )
    path = on_disk(model)
    if path is not None:
        return _local(path, architecture, activation)
    if Path(model).suffix in {".pt", ".pth", ".bin", ".ckpt", ".safetensors"}:
        raise ResegeoError(f"[[model={model}]]: no such file. Check the path, or leave out [[model]] for {BUNDLED}.")
    known = known_model(model)
    if known is None and architecture is not None:
        known = known_model(f"{architecture}:{model}")
    if known is not None:
        return _known_source(known, architecture, activation, progress)
    if known_model(model, sam=True) is not None:
        raise UsageError(
            f"[[model={model}]] is a Segment Anything Model, which cannot read words; name it by [[sam_checkpoint]], "
            "or "
            f"leave out [[model]] for {BUNDLED}."
        )
    return _tag_source(model, architecture, activation)


def _tag_source(model: str, architecture: str | None, activation: str | None) -> ModelSource:
    tag = find_tag(model, architecture, activation)
    return ModelSource(
        tag.name,
        tag.architecture,
        tag.path,
        file_sha256(tag.path),
        activation=tag.activation,
        ancestor=tag.ancestor,
        colours=tag.colours,
    )


def resolve_sam(
    checkpoint: str | None, architecture: str | None = None, *, progress: Progress | None = None
) -> SamSource:
    """Find the checkpoint that ``sam_checkpoint`` and ``sam_arch`` name: a file, sam-vit-b, -l or -h, or an import.

    Raises
    ------
    UsageError:
        When none is named.
    ResegeoError:
        When the file is missing.

    """
    if checkpoint is None:
        raise UsageError(
            "Segments from SAM ([[preset=paper]] implies them) need its weights: give [[sam_checkpoint=sam-vit-b]], "
            "or a "
            "file such as sam_vit_b_01ec64.pth, or choose [[segments=superpixels]], none or a file of your own."
        )
    path = on_disk(checkpoint, "[[sam_checkpoint]]") or Path(checkpoint)
    known = None if is_there(path) else known_model(checkpoint, sam=True)
    if known is not None:
        path = fetch(known.remote, progress)
        digest = file_sha256(path)
        verify(known.remote, path, digest)
        return SamSource(path, architecture or known.architecture, digest)
    if not is_file(path):
        found = "is a folder, not a file" if is_folder(path) else "there is no such file"
        raise ResegeoError(
            f"[[sam_checkpoint={checkpoint}]]: {found}. Expected a checkpoint of segment-anything, such as "
            "sam_vit_b_01ec64.pth, or one of the names sam-vit-b, sam-vit-l and sam-vit-h."
        )
    return SamSource(path, architecture, file_sha256(path))


def configuration(source: ModelSource) -> dict[str, Any]:
    """open_clip's configuration of a model's architecture, with the activation that its weights want."""
    config = config_of(source.architecture, source.config)
    if source.activation is not None:
        config["quick_gelu"] = source.activation == "quickgelu"
    return config


def identity(source: ModelSource) -> dict[str, Any]:
    """Everything that features and words depend on of a model, as plain values; free of its name and place."""
    return {
        "architecture": source.architecture,
        "sha256": source.sha256,
        "activation": source.activation,
        # A user's own configuration may be edited in its file; open_clip's stay what they are.
        "config": None if source.config is None or source.bundled else configuration(source),
        "normalisation": None if source.colours is None else source.colours.as_dict(),
    }


def geometry(source: ModelSource) -> Geometry:
    """Read window, patch, depth and feature size from the architecture's configuration."""
    config = configuration(source)
    vision = config.get("vision_cfg", {})
    image, patch, depth = (vision.get(key) for key in ("image_size", "patch_size", "layers"))
    if not (isinstance(image, int) and isinstance(patch, int) and isinstance(depth, int)):
        raise ResegeoError(
            f"The architecture {source.architecture} cannot be segmented with: its vision tower is not a plain "
            "CLIP vision transformer. Use one such as ViT-B-16, ViT-L-14 or ViT-H-14."
        )
    return Geometry(image, patch, depth, int(config.get("embed_dim", 0)))


def vocabulary_text() -> str:
    """The bundled model's list of words: one a line, under a line "# kind" for each kind."""
    return (FOLDER / "vocabulary.txt").read_text("utf-8")


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """Words and phrases that the bundled model was trained on, in lower case."""
    lines = vocabulary_text().splitlines()
    return frozenset(line.strip().lower() for line in lines if line.strip() and not line.startswith("#"))


def unknown_words(prompts: Iterable[str]) -> list[str]:
    """Prompts in which no phrase of the bundled model's vocabulary occurs."""
    known = re.compile(r"\b(" + "|".join(re.escape(word) for word in sorted(vocabulary())) + r")s?\b")
    return [prompt for prompt in prompts if not known.search(prompt.lower())]


_COMMON = frozenset(["a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with"])
"""Words that need not be known."""


def half_known(prompts: Iterable[str]) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Prompts of which the bundled model knows a phrase and not the rest: prompt, known phrases, unknown words."""
    known = re.compile(
        r"\b(" + "|".join(re.escape(word) for word in sorted(vocabulary(), key=len, reverse=True)) + r")s?\b"
    )
    found = []
    for prompt in prompts:
        phrases = tuple(match.group(1) for match in known.finditer(prompt.lower()))
        rest = re.findall(r"[^\W\d_]+", known.sub(" ", prompt.lower()))
        strange = tuple(word for word in dict.fromkeys(rest) if word not in _COMMON)
        if phrases and strange:
            found.append((prompt, phrases, strange))
    return found


def facts_for_file(source: ModelSource, **more: Any) -> dict[str, str]:
    """The metadata of a safetensors file from which :func:`resolve_model` needs no further word."""
    facts = {
        "architecture": source.architecture,
        "activation": source.activation,
        "ancestor": source.ancestor,
        "config": None if source.config is None else configuration(source),
        "normalisation": None if source.colours is None else source.colours.as_dict(),
        **more,
    }
    kept = {name: value for name, value in facts.items() if value is not None}
    # One key alone: safetensors writes several in any order, and equal averages shall be equal bytes.
    return {METADATA: json.dumps(kept, sort_keys=True)}


def _local(path: Path, architecture: str | None, activation: str | None) -> ModelSource:
    """Settle what a file is: from its own words, from the user's, from its shapes, or from its published name."""
    config: Path | None = None
    colours = None
    if architecture is not None and Path(architecture).suffix == ".json":
        colours = colours_of(Path(architecture))
        architecture, config = own_config(Path(architecture))
    elif architecture is not None and architecture != BUNDLED:
        known_architecture(architecture)
    checkpoint = read_checkpoint(path)
    facts = checkpoint.facts
    if architecture is None and "architecture" in facts:
        architecture, config = own_words(checkpoint)
        told = ""
    elif architecture is None:
        architecture, config = inferred(checkpoint)
        told = "told from its shapes"
    else:
        config = FOLDER / f"{BUNDLED}.json" if architecture == BUNDLED else config
        told = ""
    published = known_file(path.name)
    act, why = settled(checkpoint, architecture, config, activation, published)
    refuse_other_heads(checkpoint, architecture, config)
    if told or (why and not facts):
        said = "; ".join(dict.fromkeys(text for text in (told, why) if text))
        notice(f"{path} is taken as {architecture} with {act} ({said}).")
    if checkpoint.colours is not None and colours is None and not facts:
        by = checkpoint.colours.text
        notice(
            f"{path} gets its colours normalised by {by}, as the JSON file beside the weights says.",
        )
    ancestor = facts.get("ancestor") or (published.ancestor if published else None)
    if config is not None and config.parent == FOLDER:
        ancestor = ancestor or BUNDLED
    return ModelSource(
        name_of(path),
        architecture,
        path,
        file_sha256(path),
        config,
        act,
        ancestor,
        tuple((str(name), float(weight)) for name, weight in facts.get("composition", [])),
        colours or checkpoint.colours,
        _card(path, facts),
    )


def _card(path: Path, facts: Mapping[str, Any]) -> ModelCard | None:
    """The card of a user's checkpoint: one beside it goes before one in its metadata."""
    beside = card_beside(path)
    if beside is not None or "card" not in facts:
        return beside
    return card_of(facts["card"], f"The model card in the metadata of {shown(path)}")


def _known_source(
    known: KnownModel, architecture: str | None, activation: str | None, progress: Progress | None = None
) -> ModelSource:
    """Find, or download, a checkpoint of the registry."""
    bare = known.architecture.removesuffix(QUICK)
    if architecture is not None and architecture.removesuffix(QUICK) != bare:
        raise UsageError(f"[[model={known.name}]] is a {bare}, but [[arch]] says {architecture}. Leave out [[arch]].")
    if activation not in (None, known.activation) and known.certain:
        raise UsageError(
            f"[[model={known.name}]] was trained with {known.activation}, but [[activation]] says {activation}. Leave "
            "that "
            "out."
        )
    if activation is None and not known.certain:
        notice(
            f"{known.name} is taken with {known.activation}, which is likely, but not documented; [[activation]] says "
            "otherwise.",
        )
    act = activation or known.activation
    path = fetch(known.remote, progress)
    digest = file_sha256(path)
    verify(known.remote, path, digest)
    return ModelSource(
        known.name,
        bare + (QUICK if act == "quickgelu" else ""),
        path,
        digest,
        activation=act,
        ancestor=known.ancestor,
    )
