"""CLIP checkpoints in all their forms, read safely, with one set of names for what is in them.

Forms: safetensors, a plain state dict, open_clip's trainer file, OpenAI's TorchScript archive, and the folder of a
Hugging Face ``CLIPModel``. Tensors stay on the disk until they are asked for. No code from a file is ever run.
"""

from __future__ import annotations

import logging
import math
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resegeo.checkpoints.checks import SCALE, is_factor, is_safetensors, refuse_long_header, refuse_unsound, why_cut_off
from resegeo.checkpoints.hugging_face import Said, renamed, said_by_config
from resegeo.checkpoints.model_config import is_plain_name
from resegeo.checkpoints.normalisation import Normalisation, normalisation, said_beside
from resegeo.checkpoints.registry import ACTIVATIONS
from resegeo.checkpoints.tensors import Tensors
from resegeo.checkpoints.torchscript import is_torchscript, read_torchscript
from resegeo.checkpoints.zips import open_zip
from resegeo.documents import parse_json, read_json
from resegeo.errors import ResegeoError, notice, shown
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
_REPEATED = 4_000_000_000
"""Bytes that the shapes of tensors may have beyond what is stored of them."""
_LONG = 1_000
"""Letters of a name in a file's metadata at most."""
_VISUAL = "visual.positional_embedding"
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


@dataclass(frozen=True)
class Differences:
    """How the tensors of a checkpoint differ from those of an architecture."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    shapes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """Name, shape in the file, shape in the architecture."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.missing or self.extra or self.shapes)

    def sentence(self) -> str:
        """Say how many there are of each kind, and name the first."""
        parts = []
        if self.missing:
            parts.append(f"{len(self.missing)} parameters are missing (first: {self.missing[0]})")
        if self.extra:
            parts.append(f"{len(self.extra)} are unknown (first: {shown(self.extra[0])})")
        if self.shapes:
            name, found, wanted = self.shapes[0]
            parts.append(
                f"{len(self.shapes)} have another shape (first: {name}, {found} in the file, {wanted} in the "
                "architecture)"
            )
        return "; ".join(parts)


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


def unreadable() -> tuple[type[Exception], ...]:
    """What reading a damaged file of weights raises, or one that was made to do so."""
    from safetensors import SafetensorError

    damage = (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError, StopIteration)
    odd = (AttributeError, AssertionError, OverflowError, MemoryError, RecursionError)  # of pickles made to be so
    return (*damage, *odd, zipfile.BadZipFile, zlib.error, struct.error, SafetensorError)


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


def load_pickle(path: Path, *, mapped: bool = False) -> Any:
    """Read a file of torch.save with weights_only; ``mapped``: tensors of zipped ones stay on the disk.

    Raises
    ------
    ResegeoError, pickle.UnpicklingError, one of :func:`unreadable`:
        When it is packed in another way, would run code, or is damaged.

    """
    import torch

    with path.open("rb") as stream:
        start = stream.read(2)
    zipped = start == b"PK"
    if not zipped and start[:1] != b"\x80":
        raise ValueError("neither zip nor pickle")
    if zipped:
        with open_zip(path) as archive:
            if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
                raise ResegeoError(f"{path} was packed anew by a program that shrinks files; get it as it was made.")
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped and mapped)


def refuse_odd_tensors(state: Mapping[Any, torch.Tensor], path: Path) -> None:
    """Refuse tensors that are no plain ones, or of which next to nothing is stored; see :class:`ResegeoError`."""
    import torch

    plain = (torch.Tensor, torch.nn.Parameter)
    if not all(type(v) in plain and v.layout == torch.strided and not v.is_quantized for v in state.values()):
        raise ResegeoError(f"{path} holds sparse or quantized tensors; save it with plain ones (floating point).")
    # A shape may repeat what is stored, and takes its memory once it is copied; on "meta" nothing is stored at all.
    repeated = sum(max(0, v.numel() * v.element_size() - v.untyped_storage().nbytes()) for v in state.values())
    if repeated > _REPEATED or any(v.is_nested or v.device.type != "cpu" for v in state.values()):
        raise ResegeoError(
            f"{path} is refused: its tensors have shapes of {repeated:,} bytes more than are stored. Save it with "
            "plain tensors."
        )


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


# what an architecture expects


@dataclass(frozen=True)
class Shape:
    """The sizes that tell architectures apart. Heads cannot be told from weights."""

    width: int
    patch: int
    positions: int
    layers: int
    dimension: int
    text_width: int
    text_layers: int
    vocabulary: int
    context: int


def shape_of(tensors: Mapping[str, torch.Tensor]) -> Shape | None:
    """Measure a checkpoint; None where it is not a plain CLIP with a vision transformer."""
    try:
        kernel, token = tensors["visual.conv1.weight"].shape, tensors["token_embedding.weight"].shape
        return Shape(
            width=kernel[0],
            patch=kernel[2],
            positions=tensors[_VISUAL].shape[0] - 1,
            layers=_blocks(tensors, "visual.transformer.resblocks."),
            dimension=tensors["visual.proj"].shape[1],
            text_width=token[1],
            text_layers=_blocks(tensors, "transformer.resblocks."),
            vocabulary=token[0],
            context=tensors["positional_embedding"].shape[0],
        )
    except (KeyError, IndexError):
        return None


def _blocks(tensors: Mapping[str, Any], prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in tensors if name.startswith(prefix)})


def shape_of_config(config: Mapping[str, Any]) -> Shape | None:
    """Measure a model configuration of open_clip; None where it is not a plain CLIP with a vision transformer."""
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    image, patch, layers = (vision.get(key) for key in ("image_size", "patch_size", "layers"))
    if (
        not (isinstance(image, int) and isinstance(patch, int) and isinstance(layers, int))
        or "multimodal_cfg" in config
    ):
        return None
    if "hf_model_name" in text or "timm_model_name" in vision or config.get("custom_text"):
        return None
    return Shape(
        width=vision.get("width", 768),
        patch=patch,
        positions=(image // patch) ** 2,
        layers=layers,
        dimension=config.get("embed_dim", 0),
        text_width=text.get("width", 512),
        text_layers=text.get("layers", 12),
        vocabulary=text.get("vocab_size", 49408),
        context=text.get("context_length", 77),
    )


def bytes_of(path: Path) -> int:
    """Bytes of a checkpoint: of a file, or of all files of a folder."""
    files = path.iterdir() if is_folder(path) else [path]
    return sum(file.stat().st_size for file in files if is_file(file))


@contextmanager
def untouched_logging() -> Iterator[None]:
    """Leave the root logger as it is: open_clip logs by functions that give it a handler where it has none."""
    root = logging.getLogger()
    quiet = logging.NullHandler()
    root.addHandler(quiet)  # with one there, none is added
    try:
        yield
    finally:
        root.removeHandler(quiet)


def compared(tensors: Mapping[str, torch.Tensor], model: torch.nn.Module) -> Differences:
    """Compare names and shapes with those of a model."""
    wanted = model.state_dict()
    common = sorted(wanted.keys() & tensors.keys())
    pairs = ((name, tuple(tensors[name].shape), tuple(wanted[name].shape)) for name in common)
    return Differences(
        tuple(sorted(wanted.keys() - tensors.keys())),
        tuple(sorted(tensors.keys() - wanted.keys())),
        tuple(pair for pair in pairs if pair[1] != pair[2]),
    )


def fill(model: Any, checkpoint: Checkpoint, architecture: str) -> None:
    """Load a checkpoint into a model of open_clip; position embeddings of another grid are interpolated, with a notice.

    Raises
    ------
    ResegeoError:
        When it does not fit, naming how many parameters differ in which way, and the first; when a parameter holds
        values that are no numbers.

    """
    from open_clip.model import resize_pos_embed

    state = dict(checkpoint.tensors)
    found = compared(state, model)
    if any(name == _VISUAL for name, _, _ in found.shapes) and _can_resize(state, model):
        old, new = state[_VISUAL].shape[0] - 1, model.visual.positional_embedding.shape[0] - 1
        state[_VISUAL] = state[_VISUAL].float()  # bicubic interpolation knows no float16 on the CPU
        with untouched_logging():
            resize_pos_embed(state, model)
        notice(
            f"{checkpoint.path} has position embeddings for {_grid(old)} patches, {architecture} takes {_grid(new)}: "
            "they are interpolated, which costs some accuracy.",
        )
        found = compared(state, model)
    if found:
        raise ResegeoError(
            f"{checkpoint.path} does not fit the architecture {architecture}: {found.sentence()}. "
            "Name the architecture it was trained with by [[arch]]."
        )
    for name, tensor in state.items():
        refuse_unsound(str(checkpoint.path), name, tensor)
    told = checkpoint.notice()
    if told is not None:
        notice(told)
    model.load_state_dict(state)


def _can_resize(state: Mapping[str, torch.Tensor], model: Any) -> bool:
    """Whether both position embeddings are square grids of vectors of one width, of patches of one size."""
    old, new = state[_VISUAL], getattr(model.visual, "positional_embedding", None)
    kernel = state.get("visual.conv1.weight")
    if new is None or kernel is None or old.ndim != 2 or old.shape[1] != new.shape[1]:
        return False
    squares = all(round((count - 1) ** 0.5) ** 2 == count - 1 > 0 for count in (old.shape[0], new.shape[0]))
    return squares and kernel.shape == model.visual.conv1.weight.shape


def _grid(count: int) -> str:
    side = round(count**0.5)
    return f"{side} × {side}"
