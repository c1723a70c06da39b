"""A stand-in for the vision transformer: features of a patch from its mean colour, in next to no time."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from resegeo.clip.encoder import Encoder


def colour_features(visual: Any, images: torch.Tensor, masks: Any, *, last: Any = None) -> torch.Tensor:
    """Stand in for :func:`resegeo.clip.encoder.dense_features`: (B, 1 + N, D), deterministic, one row a patch."""
    colours = torch.nn.functional.avg_pool2d(images, visual.patch_size).flatten(2).transpose(1, 2)
    tokens = torch.cat([colours.mean(dim=1, keepdim=True), colours], dim=1)
    random = torch.Generator().manual_seed(0)
    spread = 3 * torch.randn(3, 64, generator=random)
    phase = 6 * torch.rand(64, generator=random)
    onto = torch.randn(64, int(visual.output_dim), generator=random)
    return torch.cos(tokens @ spread + phase) @ onto


@lru_cache(maxsize=4)
def quick(encoder: Encoder) -> Encoder:
    """Return an encoder that embeds words as ever and sees by :func:`colour_features`."""
    return replace(encoder, forward=colour_features)
