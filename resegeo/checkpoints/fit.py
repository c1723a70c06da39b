"""Whether a checkpoint fits an architecture: sizes that tell architectures apart, differences, and filling a model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resegeo.checkpoints.checks import refuse_unsound
from resegeo.checkpoints.formats import Checkpoint
from resegeo.errors import ResegeoError, notice, shown

if TYPE_CHECKING:
    import torch

_VISUAL = "visual.positional_embedding"


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
