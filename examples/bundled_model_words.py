"""The words of the bundled model: its text tower, and what that makes of phrases."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from bundled_model_data import CLASSES, GREENS, PARENTS, PHRASES, WIDE_PHRASES
from torch.nn import functional

LOG = logging.getLogger("train")
NAME = "resegeo-small"


TEMPLATES = (
    ("{}", "{}", "an aerial photo of {}", "a satellite image of {}", "a photo of {} from above", "a {}", "the {}")
    + ("an aerial image of {}", "a satellite photo of {}", "an aerial photo of a {}", "a satellite image of a {}")
    + ("a photo of a {}", "an aerial view of {}", "a remote sensing image of {}")
)


PHRASE_SETS = 4


def build(config: Path, weights: Path | None = None) -> Any:
    """The open_clip model of ``config``, with random weights or those of a file."""
    open_clip.add_model_config(config)
    return open_clip.create_model(NAME, pretrained=str(weights) if weights else None)


def class_axes(width: int) -> torch.Tensor:
    """Unit vectors, one a kind: (C, width); orthogonal, but for a kind that is part of another: it leans to that."""
    # Twelve first: those of the first edition, whose weights a training may start from.
    generator = torch.Generator().manual_seed(1)
    noise = torch.cat(
        [torch.randn(width, 12, generator=generator), torch.randn(width, len(CLASSES) - 12, generator=generator)], dim=1
    )
    axes = torch.linalg.qr(noise).Q.T.contiguous()
    for child, parent in PARENTS.items():
        spot = CLASSES.index(child)
        axes[spot] = 0.55 * axes[CLASSES.index(parent)] + math.sqrt(1 - 0.55**2) * axes[spot]
    return axes


def word_bank() -> tuple[list[str], list[tuple[str, ...]]]:
    """Every phrase, plurals too, with the classes that it names."""
    phrases, meant = [], []
    groups = {(name,): words for name, words in PHRASES.items()} | WIDE_PHRASES
    for classes, words in groups.items():
        plurals = [f"{word}s" for word in words if not word.endswith("s")]
        for word in dict.fromkeys([*words, *plurals]):
            phrases.append(word)
            meant.append(classes)
    return phrases, meant


def teach_words(model: Any, tokenizer: Any, axes: torch.Tensor, seed: int, steps: int) -> None:
    """Bring the phrases of each class near its axis, wide ones between theirs; moves the text tower only."""
    phrases, meant = word_bank()
    targets = functional.normalize(
        torch.stack([axes[[CLASSES.index(c) for c in classes]].sum(0) for classes in meant]), dim=1
    )
    parameters = [p for name, p in model.named_parameters() if not name.startswith("visual.") and p.ndim > 0]
    optim = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    near = 0.0
    for step in range(steps):
        rng = np.random.default_rng([seed, 1, step])
        chosen = rng.integers(len(phrases), size=48)
        texts = tokenizer([TEMPLATES[rng.integers(len(TEMPLATES))].format(phrases[i]) for i in chosen])
        cosines = (model.encode_text(texts, normalize=True) * targets[chosen]).sum(-1)
        for group in optim.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 30, (steps - step) / 100)
        optim.zero_grad(set_to_none=True)
        torch.autograd.backward(1.0 - cosines.mean())
        optim.step()
        near += (float(cosines.detach().mean()) - near) * 0.05
        if (step + 1) % 100 == 0:
            LOG.info("words: step %d, mean cosine to the axes %.3f", step + 1, near)


def word_vectors(model: Any, tokenizer: Any) -> list[torch.Tensor]:
    """For each of :data:`WORDS` the unit vectors of its phrases in every template, (phrases · templates, D)."""
    with torch.inference_mode():
        return [
            model.encode_text(tokenizer([t.format(p) for p in words for t in TEMPLATES]), normalize=True).clone()
            for words in (*PHRASES.values(), WIDE_PHRASES[GREENS])
        ]


def draw_words(vectors: list[torch.Tensor], rng: np.random.Generator) -> torch.Tensor:
    """One phrase a class, some sets of them: (PHRASE_SETS, C, D)."""
    return torch.stack([torch.stack([v[rng.integers(len(v))] for v in vectors]) for _ in range(PHRASE_SETS)])


def texts_of(model: Any) -> Callable[[Sequence[str]], torch.Tensor]:
    """:func:`text_vectors` of a model, each list of words computed once."""
    kept = cache(lambda words: text_vectors(model, words))
    return lambda words: kept(tuple(words))


def text_vectors(model: Any, names: Sequence[str]) -> torch.Tensor:
    """One unit vector a name, (C, D): the name in every template, averaged."""
    tokenizer = open_clip.get_tokenizer(NAME)
    rows = []
    for name in names:
        vectors = model.encode_text(tokenizer([t.format(name) for t in TEMPLATES]), normalize=True)
        rows.append(functional.normalize(vectors.mean(0), dim=0))
    return torch.stack(rows)


def write_vocabulary(path: Path) -> None:
    """List every phrase of the training, one a line."""
    lines = ["# Phrases that the bundled model was trained on, by kind; the plural in -s is understood too."]
    for name, phrases in PHRASES.items():
        lines += [f"# {name}", *phrases]
    for classes, phrases in WIDE_PHRASES.items():
        lines += [f"# {', '.join(classes) if len(classes) < 12 else 'no kind in particular'}", *phrases]
    path.write_text("\n".join(lines) + "\n", "utf-8")
