"""How a model splits words into tokens, and what it would lose: a text tower reads so many tokens and no more.

open_clip cuts what is longer without a word; then prompts that differ at their end alone become one, and so do their
classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from resegeo.checkpoints.fit import untouched_logging
from resegeo.checkpoints.sources import ModelSource, configuration
from resegeo.classes.class_list import ClassList
from resegeo.errors import ResegeoError, shown

_CONTEXT = 77
"""Tokens that a text tower of open_clip reads where its configuration does not say."""
_PLAIN = re.compile(r"[A-Za-z0-9 ]*")
"""Texts of which CLIP's own tokenizer makes no more tokens than they have letters: no need to load it."""


def context_of(source: ModelSource) -> int:
    """How many tokens of a text a model reads, the marks of beginning and end included."""
    return int(configuration(source).get("text_cfg", {}).get("context_length", _CONTEXT))


def tokenizer_of(source: ModelSource) -> Any:
    """What splits words for a model: part of open_clip, but for architectures that take one of Hugging Face.

    Raises
    ------
    ResegeoError:
        When one of Hugging Face cannot be had.

    """
    import open_clip

    text = configuration(source).get("text_cfg", {})
    if source.config is not None:  # of a file, whose words are CLIP's whatever its name
        return open_clip.SimpleTokenizer(context_length=context_of(source), **text.get("tokenizer_kwargs", {}))
    try:
        with untouched_logging():
            return open_clip.get_tokenizer(source.architecture)
    except Exception as error:  # hub, HTTP, file system and import errors share no base
        name = text.get("hf_tokenizer_name")
        if name is None:
            raise
        raise ResegeoError(
            f"The architecture {source.architecture} splits words by the tokenizer {name} of Hugging Face, which "
            f"cannot be had here ({type(error).__name__}): it needs the package transformers, and a network on first "
            "use. Use another model, such as ViT-H-14:laion2b_s32b_b79k."
        ) from error


_kept = lru_cache(maxsize=2)(tokenizer_of)


def refuse_cut(texts: Iterable[str], source: ModelSource) -> None:
    """Refuse texts of which a model would read the beginning alone.

    Raises
    ------
    ResegeoError:
        When there is one, with its count of tokens and the model's limit.

    """
    _rows(list(dict.fromkeys(texts)), source)


def check_prompts(classes: ClassList, source: ModelSource) -> None:
    """Refuse classes that a model cannot tell apart, or would read the beginning of alone.

    Raises
    ------
    ResegeoError:
        When a prompt has more tokens than the model reads, or those of two classes are the same tokens.

    """
    texts = classes.prompt_texts
    rows = _rows(list(dict.fromkeys(text for phrasings in texts for text in phrasings)), source)
    seen: dict[tuple[Any, ...], int] = {}
    for prompt, (phrasings, owner) in enumerate(zip(texts, classes.prompt_class, strict=True)):
        first = seen.setdefault(tuple(rows[text] for text in phrasings), prompt)
        other = classes.prompt_class[first]
        if other != owner:
            names = [shown(classes.classes[index].name) for index in (other, owner)]
            said = [shown(texts[index][0]) for index in (first, prompt)]
            both = f"the prompt '{said[0]}'" if said[0] == said[1] else f"the prompts '{said[0]}' and '{said[1]}'"
            raise ResegeoError(
                f"The classes {names[0]} and {names[1]} have {both}, which are the same tokens to the model "
                f"{source.name}: it cannot tell them apart. Give each class words of its own."
            )


def _splits_as_clip(source: ModelSource) -> bool:
    """Whether words are split by CLIP's own tokenizer, in lower case."""
    text = configuration(source).get("text_cfg", {})
    others = "hf_tokenizer_name" in text or "tokenizer_kwargs" in text or "siglip" in source.architecture.lower()
    return not others


def _rows(texts: list[str], source: ModelSource) -> dict[str, tuple[Any, ...]]:
    """What tells texts apart as tokens do, of texts that the model reads whole."""
    most = context_of(source)
    if _splits_as_clip(source) and all(len(text) + 2 <= most and _PLAIN.fullmatch(text) for text in texts):
        return {text: tuple(re.findall("[a-z]+|[0-9]", text.lower())) for text in texts}
    rows = {}
    tokenizer = _kept(source)
    for text in texts:
        # With room to spare, what follows the last token is padding.
        row = tokenizer([text], context_length=4 * len(text.encode("utf-8", "replace")) + 16)[0].tolist()
        count = max((place for place, token in enumerate(row, 1) if token != row[-1]), default=0)
        if count > most:
            raise ResegeoError(
                f"The prompt '{shown(text)}' has {count} tokens, but the model {source.name} reads {most}, and would "
                "leave out its end: shorten it, or name a model with a longer context by [[model]]."
            )
        rows[text] = tuple(row[:count])
    return rows
