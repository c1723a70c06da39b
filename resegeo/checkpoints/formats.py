"""CLIP checkpoints in all their forms, read safely, with one set of names for what is in them.

Forms: safetensors, a plain state dict, open_clip's trainer file, OpenAI's TorchScript archive, and the folder of a
Hugging Face ``CLIPModel``. Tensors stay on the disk until they are asked for. No code from a file is ever run.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resegeo.checkpoints.checks import SCALE, is_factor, is_safetensors, refuse_long_header, why_cut_off
from resegeo.checkpoints.hugging_face import Said, renamed, said_by_config
from resegeo.checkpoints.model_config import is_plain_name
from resegeo.checkpoints.normalisation import Normalisation, normalisation, said_beside
from resegeo.checkpoints.pickles import load_pickle, refuse_odd_tensors, unreadable
from resegeo.checkpoints.registry import ACTIVATIONS
from resegeo.checkpoints.tensors import Tensors
from resegeo.checkpoints.torchscript import is_torchscript, read_torchscript
from resegeo.documents import parse_json, read_json
from resegeo.errors import ResegeoError, shown
from resegeo.files import is_file, is_folder, is_there

if TYPE_CHECKING:
    import torch

METADATA = "resegeo"
"""Key of our JSON among the metadata of a safetensors file: architecture, activation, ancestor, config, recipe."""

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_MARKS = ("visual.class_embedding", "vision_model.embeddings.class_embedding")
"""A parameter that every CLIP has, by open_clip's name and by Hugging Face's; what is before it, wrappers put there."""
_NO_PARAMETERS = re.compile(r"(^|\.)(position_ids|attn_mask|input_resolution|context_length|vocab_size)$")
"""Entries of some checkpoints that no computation needs."""
_LONG = 1_000
"""Letters of a name in a file's metadata at most."""
_FOLDER_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""Weights in the folder of a repository, the first that is there; the last two with open_clip's own names."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was opened."""

    path: Path
    form: str
    tensors: Tensors = field(repr=False)
    """By open_clip's names."""
    activation: str | None = None
    """quickgelu or gelu, where the file itself tells."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What resegeo wrote into the file's metadata: architecture, activation, ancestor, config, recipe."""
    heads: Mapping[str, int] = field(default_factory=dict)
    """Attention heads of the towers, ``text`` and ``vision``, as far as a config.json beside the weights names them."""
    factor: float | None = None
    """The logit scale that the file keeps, where that is the factor itself; ``tensors`` has its logarithm."""
    colours: Normalisation | None = None
    """What the file, or one beside it, says of the colours; None: nothing, or OpenAI's."""

    def notice(self) -> str | None:
        """Say what was changed in reading; None where nothing was."""
        if self.factor is None:
            return None
        return (
            f"{self.path} keeps its {SCALE} as the factor ({self.factor:.4g}), not as its logarithm: it is taken as "
            f"{math.log(self.factor):.4g}."
        )


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Open a checkpoint in any of the forms that this module names.

    Raises
    ------
    ResegeoError:
        When it cannot be read, would run code, or holds no CLIP.

    """
    path = Path(path)
    if is_there(path) and not (is_file(path) or is_folder(path)):
        raise ResegeoError(f"{shown(path)} is neither a file nor a folder; expected a CLIP checkpoint.")
    try:
        form, tensors, activation, facts = _folder(path) if is_folder(path) else _file(path)
    except pickle.UnpicklingError as error:
        raise ResegeoError(
            f"{path} is refused: loading it would run code stored in the file. Convert it to safetensors "
            "on a machine you trust, or get the weights in that format."
        ) from error
    except unreadable() as error:
        cut = why_cut_off(path, error)
        if cut is not None:
            raise ResegeoError(
                f"{path} cannot be read as a CLIP checkpoint: it is probably cut off ({cut}). Copy or download it anew."
            ) from error
        raise ResegeoError(
            f"{path} cannot be read as a CLIP checkpoint; expected a state dict in .safetensors or .pt, plain or as "
            "open_clip's trainer writes it, OpenAI's archive, or the folder of a Hugging Face CLIPModel."
        ) from error
    tensors = _unwrapped(tensors, path)
    said, folder = Said(), path if is_folder(path) else path.parent
    hugging_face = any(name.startswith("vision_model.") for name in tensors)
    if hugging_face:
        tensors, form = renamed(tensors, path), "Hugging Face CLIPModel"
        said = said_by_config(folder)
    if facts:
        colours = _colours_of(facts, path)
    elif hugging_face or is_folder(path) or path.name in _FOLDER_FILES:  # another name's may be anybody's
        colours = said_beside(folder, hugging_face=hugging_face)
    else:
        colours = None
    tensors, factor = _with_logarithm(tensors)
    told = activation or said.activation or facts.get("activation")
    return Checkpoint(path, form, tensors, told, facts, said.heads, factor, colours)


def _colours_of(facts: Mapping[str, Any], path: Path) -> Normalisation | None:
    """What a file of resegeo says of the colours: nothing, where they are OpenAI's."""
    said = facts.get("normalisation")
    return normalisation(said.get("mean"), said.get("std"), str(path)) if isinstance(said, dict) else None


def _with_logarithm(tensors: Tensors) -> tuple[Tensors, float | None]:
    """Give the logit scale as one number, the logarithm; also return the factor, where the file keeps that instead."""
    import torch

    # Of another shape or kind: named with what else does not fit.
    if SCALE not in tensors or tensors[SCALE].numel() != 1 or not tensors[SCALE].is_floating_point():
        return tensors, None
    kept = tensors[SCALE].reshape(())  # some files keep it as a vector of one number
    factor = float(kept) if is_factor(float(kept)) else None
    scale = kept if factor is None else torch.tensor(math.log(factor), dtype=torch.float32)
    readers = {name: tensors.reader(name) for name in tensors}
    return Tensors({**readers, SCALE: lambda: scale}), factor


def _file(path: Path) -> tuple[str, Tensors, str | None, Mapping[str, Any]]:
    """Open one file by its content: in the cache of a hub it has no name that tells."""
    if path.suffix == ".safetensors" or is_safetensors(path):
        tensors, facts = _safetensors(path)
        return "safetensors", tensors, None, facts
    if is_torchscript(path):
        found, activation = read_torchscript(path)
        return "TorchScript archive", _held(found, path), activation, {}
    form, tensors = _pickled(path)
    return form, tensors, None, {}


def _safetensors(path: Path) -> tuple[Tensors, Mapping[str, Any]]:
    from safetensors import safe_open

    refuse_long_header(path)
    with safe_open(path, framework="pt") as opened:
        names, metadata = list(opened.keys()), opened.metadata() or {}
    facts = parse_json(metadata.get(METADATA, "{}"), f"{path}: what its metadata says under {METADATA}")
    _refuse_odd(facts, path)

    def reader(name: str) -> Callable[[], torch.Tensor]:
        def read() -> torch.Tensor:
            with safe_open(path, framework="pt") as opened:  # opened anew, so that nothing stays mapped
                tensor: torch.Tensor = opened.get_tensor(name)
                return tensor

        return read

    return Tensors({name: reader(name) for name in names}), facts


def _refuse_odd(facts: Any, path: Path) -> None:
    """Refuse what resegeo would not have written into a file: ValueError, or :class:`ResegeoError`."""
    if not isinstance(facts, dict):
        raise ValueError("no facts")
    kinds = {"architecture": str, "activation": str, "ancestor": str, "config": dict, "normalisation": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(facts.get(name, kind()), kind)]
    if wrong or facts.get("activation", "gelu") not in ACTIVATIONS:
        raise ValueError("facts of another kind")
    if not is_plain_name(facts.get("architecture", "any")):
        raise ResegeoError(
            f"{path} says that its architecture is {shown(repr(facts['architecture']))}, which cannot be the name of "
            "one; get the file anew from whoever made it."
        )
    ancestor = facts.get("ancestor", "any")
    if len(ancestor) > _LONG or not ancestor.isprintable():
        raise ValueError("an ancestor that is none")
    for name, weight in facts.get("composition", []):
        if not (isinstance(name, str) and len(name) <= _LONG and isinstance(weight, int | float) and abs(weight) < 1e6):
            raise ValueError("no composition")


def _pickled(path: Path) -> tuple[str, Tensors]:
    """Open a file of torch.save."""
    loaded = load_pickle(path, mapped=True)
    form = "state dict"
    if isinstance(loaded, dict):
        inner = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), dict)), None)
        if inner is not None:
            form, loaded = "open_clip trainer file" if "epoch" in loaded else "wrapped state dict", inner
    return form, _held(loaded, path)


def _held(state: Any, path: Path) -> Tensors:
    """Check a state dict and wrap it."""
    import torch

    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ResegeoError(f"{path} holds no CLIP state dict: not all of its entries are tensors.")
    refuse_odd_tensors(state, path)
    return Tensors({str(name): lambda value=value: value for name, value in state.items()})  # type: ignore[misc]


def _unwrapped(tensors: Tensors, path: Path) -> Tensors:
    """Strip what wrappers (DDP, torch.compile, Lightning) put before the names; leave out what is no parameter.

    Raises
    ------
    ResegeoError:
        When there is more than one CLIP, and nobody knows which is meant.

    """
    wraps = {name[: -len(mark)] for name in tensors for mark in _MARKS if name == mark or name.endswith(f".{mark}")}
    if len(wraps) > 1:
        named = shown(", ".join(f"{wrap}*" for wrap in sorted(wraps)[:9]))
        raise ResegeoError(
            f"{path} holds {len(wraps)} CLIPs ({named}), such as a model and its moving average; save the parameters "
            "of one alone."
        )
    wrap = wraps.pop() if wraps else ""
    bare = tensors.renamed(lambda name: None if _NO_PARAMETERS.search(name) else name)
    if any(name.startswith(wrap) and wrap and name[len(wrap) :] in bare for name in bare):
        raise ResegeoError(
            f"{path} holds parameters twice, with {shown(wrap)} and without; save those of one CLIP alone."
        )
    return bare.renamed(lambda name: name.removeprefix(wrap))


# Hugging Face


def _folder(path: Path) -> tuple[str, Tensors, str | None, Mapping[str, Any]]:
    """Open the folder of a Hugging Face model, in one file or several."""
    for name in _FOLDER_FILES:
        index = path / f"{name}.index.json"
        if is_file(index):
            shards = sorted(set(read_json(index)["weight_map"].values()))
            if any(Path(shard).name != shard for shard in shards):
                raise ValueError("a shard outside the folder")
            lacking = [shard for shard in shards if not is_file(path / shard)]
            if lacking:
                raise ResegeoError(f"{path} lacks {shown(lacking[0])}, one of the {len(shards)} files of its weights.")
            parts = [_file(path / shard)[1] for shard in shards]
            merged = {name: part.reader(name) for part in parts for name in part}
            return "Hugging Face CLIPModel", Tensors(merged), None, {}
        if is_file(path / name):
            form, tensors, activation, facts = _file(path / name)
            return form, tensors, activation, facts
    raise ResegeoError(
        f"{path} is a folder without model.safetensors or pytorch_model.bin; expected a checkpoint file, or the folder "
        "of a Hugging Face CLIPModel or of an open_clip repository."
    )


def bytes_of(path: Path) -> int:
    """Bytes of a checkpoint: of a file, or of all files of a folder."""
    files = path.iterdir() if is_folder(path) else [path]
    return sum(file.stat().st_size for file in files if is_file(file))
