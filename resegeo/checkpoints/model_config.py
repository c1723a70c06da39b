"""Model configurations of open_clip that come from a file: numbers and known words alone.

open_clip hands some entries of a configuration to libraries that load code or files by name (``hf_tokenizer_name``,
``hf_model_name``, ``tokenizer_kwargs``, ``timm_model_name``). In a configuration of open_clip's own list they are the
library's matter; from a file, whoever wrote it, they are refused. Every way by which such a configuration gets in leads
through :func:`validated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resegeo.errors import ResegeoError, shown

VOCABULARY = 49_408
"""Tokens of CLIP's own tokenizer, which every configuration from a file goes with."""


@dataclass(frozen=True)
class _Number:
    """A number within bounds, both included."""

    low: float
    high: float
    whole: bool = True

    def allows(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.low <= value <= self.high  # False of NaN

    def __str__(self) -> str:
        return f"a {'whole ' if self.whole else ''}number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class _Words:
    """One of a few words, or of true and false."""

    words: tuple[str | bool, ...]

    def allows(self, value: Any) -> bool:
        return any(type(value) is type(word) and value == word for word in self.words)

    def __str__(self) -> str:
        return " or ".join(str(word) for word in self.words)


_Table = Mapping[str, "_Number | _Words | _Table"]

_FLAG = _Words((True, False))
_NO = _Words((False,))
_RATIO = _Number(0.01, 64, whole=False)
_ANY = _Number(-1e6, 1e6, whole=False)
_COMMON: _Table = {
    "width": _Number(1, 16_384),
    "layers": _Number(1, 256),
    "mlp_ratio": _RATIO,
    "ls_init_value": _ANY,
    "output_tokens": _FLAG,
    "act_kwargs": {"approximate": _Words(("none", "tanh"))},
    "norm_kwargs": {"eps": _Number(0, 1, whole=False)},
    "block_type": _Words(("default",)),
    **dict.fromkeys(
        ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"), _NO
    ),
}
_TABLE: _Table = {
    "embed_dim": _Number(1, 16_384),
    "quick_gelu": _FLAG,
    "custom_text": _FLAG,
    "init_logit_scale": _ANY,
    "init_logit_bias": _ANY,
    "nonscalar_logit_scale": _FLAG,
    "vision_cfg": {
        **_COMMON,
        "image_size": _Number(1, 4_096),
        "patch_size": _Number(1, 1_024),
        "head_width": _Number(1, 16_384),
        "patch_dropout": _Number(0, 1, whole=False),
        "no_ln_pre": _FLAG,
        "attentional_pool": _NO,
        "final_ln_after_pool": _FLAG,
        "pos_embed_type": _Words(("learnable", "sin_cos_2d")),
        "pool_type": _Words(("tok", "avg", "none")),
    },
    "text_cfg": {
        **_COMMON,
        "context_length": _Number(3, 4_096),
        "vocab_size": _Number(VOCABULARY, 1_000_000),
        "heads": _Number(1, 1_024),
        "embed_cls": _FLAG,
        "pad_id": _Number(0, 1_000_000),
        "eos_id": _Number(0, 1_000_000),
        "no_causal_mask": _FLAG,
        "final_ln_after_pool": _FLAG,
        "pool_type": _Words(("first", "last", "argmax", "eos", "none")),
        "proj_bias": _FLAG,
        "proj_type": _Words(("linear", "none")),
        "tokenizer_kwargs": {"clean": _Words(("lower", "whitespace", "canonicalize"))},
    },
}
_NEEDED = ("embed_dim", "vision_cfg", "text_cfg")


def is_plain_name(name: str) -> bool:
    """Whether a name from a file may be the name of an architecture: printable, and no path or address."""
    return 0 < len(name) <= 100 and name.isprintable() and not name.startswith(".") and not set(name) & set("/\\:")


def validated(config: Any, whose: str) -> dict[str, Any]:
    """Return a model configuration from a file, of which every entry is known and within bounds.

    Parameters
    ----------
    config:
        What the file says: plain values as JSON has them.
    whose:
        What a sentence begins with, such as the file's name.

    Raises
    ------
    ResegeoError:
        When it says anything else, or sizes that do not go together.

    """
    if not isinstance(config, dict) or any(config.get(key) is None for key in _NEEDED):
        raise ResegeoError(
            f"{whose} is no model configuration of open_clip; expected {', '.join(_NEEDED[:-1])} and {_NEEDED[-1]}."
        )
    found = _checked(config, _TABLE, "", whose)
    vision, text = found["vision_cfg"], found["text_cfg"]
    width, head = vision.get("width", 768), vision.get("head_width", 64)
    text_width, heads = text.get("width", 512), text.get("heads", 8)
    image, patch = vision.get("image_size", 224), vision.get("patch_size", 16)
    if head > width or width % (width // head) or text_width % heads:
        raise ResegeoError(
            f"{whose} has widths that their attention heads do not divide (vision: {width} by heads of {head}; text: "
            f"{text_width} by {heads} heads); correct them."
        )
    if patch > image:
        raise ResegeoError(f"{whose} has patches of {patch} pixels in images of {image}; correct them.")
    return found


def _checked(said: Mapping[Any, Any], table: _Table, place: str, whose: str) -> dict[str, Any]:
    """Check one mapping against its table; entries that are null say nothing."""
    found: dict[str, Any] = {}
    for key, value in said.items():
        expected = table.get(key)
        name = shown(f"{place}{key}")
        if value is None:
            continue
        if expected is None:
            raise ResegeoError(
                f"{whose} has the entry {name}, which a model configuration from a file may not have: it names sizes "
                "and known words alone, and its words are split by CLIP's own tokenizer. Leave it out, or name an "
                "architecture of open_clip's own by --arch."
            )
        if isinstance(expected, Mapping):
            if not isinstance(value, dict):
                raise ResegeoError(f"{whose} has {name} {_said(value)}; expected a mapping.")
            found[key] = _checked(value, expected, f"{place}{key}.", whose)
        elif expected.allows(value):
            found[key] = value
        else:
            raise ResegeoError(f"{whose} has {name} {_said(value)}; expected {expected}.")
    return found


def _said(value: Any) -> str:
    """A value for a sentence; of what is nested, the kind alone."""
    if isinstance(value, dict | list):
        return "that is a mapping" if isinstance(value, dict) else "that is a list"
    if isinstance(value, int) and value.bit_length() > 64:  # str() refuses those of thousands of digits
        return "that is a number beyond all bounds"
    return shown(value)
