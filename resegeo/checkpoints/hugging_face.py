"""The folder of a Hugging Face ``CLIPModel``: what its config.json says, and its tensors by open_clip's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resegeo.checkpoints.tensors import Tensors
from resegeo.documents import read_json
from resegeo.errors import ResegeoError, shown

if TYPE_CHECKING:
    import torch


ACTIVATIONS = {"quick_gelu": "quickgelu", "gelu": "gelu"}
"""Names of transformers for the activations that open_clip computes."""


@dataclass(frozen=True)
class Said:
    """What a config.json says that the weights beside it do not tell."""

    activation: str | None = None
    """quickgelu or gelu."""
    heads: Mapping[str, int] = field(default_factory=dict)
    """Attention heads of the towers, ``text`` and ``vision``, as far as they are named."""


def said_by_config(folder: Path) -> Said:
    """Read activation and attention heads from config.json; transformers' default activation is quick_gelu.

    Raises
    ------
    ResegeoError:
        When the towers have two activations, or one that open_clip does not compute.

    """
    file = folder / "config.json"
    try:
        config = read_json(file)
    except ResegeoError:
        return Said()
    if not isinstance(config, dict) or config.get("model_type", "clip") != "clip":
        return Said()
    kinds = ("_config", "_config_dict")  # the second, of older files, goes before the first, as in transformers
    said = {tower: [config.get(tower + kind) or {} for kind in kinds] for tower in ("text", "vision")}
    if not all(isinstance(part, dict) for parts in said.values() for part in parts):
        return Said()
    towers = {tower: {**parts[0], **parts[1]} for tower, parts in said.items()}
    acts = {name: _word(tower.get("hidden_act", "quick_gelu")) for name, tower in towers.items()}
    if len(set(acts.values())) > 1 or acts["text"] not in ACTIVATIONS:
        raise ResegeoError(
            f"{file} says hidden_act {shown(acts['text'])} of the text tower and {shown(acts['vision'])} of the "
            "vision tower; only quick_gelu in both, or gelu in both, can be computed. If the file is wrong, correct it."
        )
    heads: dict[str, Any] = {name: tower.get("num_attention_heads") for name, tower in towers.items()}
    return Said(ACTIVATIONS[acts["text"]], {name: count for name, count in heads.items() if _is_count(count)})


def _word(said: object) -> str:
    return said if isinstance(said, str) else f"of the kind {type(said).__name__}"


def _is_count(said: object) -> bool:
    return isinstance(said, int) and not isinstance(said, bool) and 0 < said < 1_000_000


_BLOCK = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_TOP = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}
_TRANSPOSED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
_TOWERS = {"text_model.encoder.layers": "transformer", "vision_model.encoder.layers": "visual.transformer"}
_LAYER = re.compile(r"^(text_model|vision_model)\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$")


def renamed(tensors: Tensors, path: Path) -> Tensors:
    """Give a CLIPModel's tensors open_clip's names and layout: q, k, v in one, projections transposed.

    Raises
    ------
    ResegeoError:
        When there is one that no CLIPModel has.

    """
    import torch

    found: dict[str, Callable[[], torch.Tensor]] = {}

    def stacked(*readers: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        return lambda: torch.cat([reader() for reader in readers])

    def transposed(reader: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        return lambda: reader().T.contiguous()

    for name in tensors:
        layer = _LAYER.match(name)
        if name in _TOP:
            found[_TOP[name]] = tensors.reader(name)
        elif name in _TRANSPOSED:
            found[_TRANSPOSED[name]] = transposed(tensors.reader(name))
        elif layer is None:
            raise ResegeoError(
                f"{path} holds {shown(name)}, which is no part of a Hugging Face CLIPModel; other models of that hub "
                "cannot be read. Give a checkpoint of open_clip's form."
            )
        else:
            tower, number, part, kind = layer.groups()
            block = f"{_TOWERS[f'{tower}.encoder.layers']}.resblocks.{number}"
            if part in _BLOCK:
                found[f"{block}.{_BLOCK[part]}.{kind}"] = tensors.reader(name)
            elif part == "self_attn.q_proj":
                others = [name.replace("q_proj", f"{which}_proj") for which in "kv"]
                if all(other in tensors for other in others):
                    found[f"{block}.attn.in_proj_{kind}"] = stacked(*map(tensors.reader, (name, *others)))
    return Tensors(found)
