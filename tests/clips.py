"""Small CLIPs with random weights, for the tests of checkpoints and of their averages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
"""An architecture that open_clip does not know. One head a tower: Hugging Face and open_clip count alike."""


def clip(seed: int = 0, **changes: Any) -> Any:
    """A CLIP with weights large enough that the two activations differ."""
    torch.manual_seed(seed)
    config = {**TINY, **{key: value for key, value in changes.items() if key in ("quick_gelu", "embed_dim")}}
    config["vision_cfg"] = {**TINY["vision_cfg"], **changes.get("vision", {})}
    config["text_cfg"] = {**TINY["text_cfg"], **changes.get("text", {})}
    model = open_clip.model.CLIP(**config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(("c_fc.weight", "c_proj.weight", "in_proj_weight")):
                value.mul_(6.0)
            if name.endswith("bias"):
                value.add_(0.1 * torch.randn_like(value))
    return model.requires_grad_(False)


def arch_file(folder: Path, name: str = "tiny.json", **changes: Any) -> Path:
    """The architecture's configuration as a file for --arch."""
    path = folder / name
    config = {**TINY, **changes, "vision_cfg": {**TINY["vision_cfg"], **changes.get("vision_cfg", {})}}
    path.write_text(json.dumps(config), "utf-8")
    return path


def nearby(model: Any, seed: int, share: float = 0.02) -> dict[str, torch.Tensor]:
    """The state of a model after what might be a short fine-tuning: every parameter a little elsewhere."""
    torch.manual_seed(seed)
    return {
        name: value + share * value.std(unbiased=False) * torch.randn_like(value) if value.ndim else value.clone()
        for name, value in model.state_dict().items()
    }


def features(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a CLIP makes of a fixed picture and of fixed words."""
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(2, 3, 32, 32, generator=generator)
    words = torch.randint(1, 1000, (3, 16), generator=generator)
    words[:, -1] = 49407  # the end of a text, whose token is the embedding
    with torch.inference_mode():
        return model.encode_image(images).numpy(), model.encode_text(words).numpy()
