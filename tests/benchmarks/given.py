"""What benchmarks share: words, and models with random weights where what they answer does not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = ["water", "forest", "cropland", "building"]
ARCHITECTURES = {"vitb16": "ViT-B-16", "vitl14": "ViT-L-14"}
SAMS = {"sam_vitb": "vit_b", "sam_vith": "vit_h"}


def model(kind: str, folder: Path) -> dict[str, Any]:
    """Options of a run with the model: the bundled one, or one of random weights that go to the folder.

    With SAM, whose segments are drawn tile by tile, the windows go through ViT-B/16.
    """
    if kind == "bundled":
        return {}
    architecture = ARCHITECTURES.get(kind, ARCHITECTURES["vitb16"])
    options: dict[str, Any] = {"model": str(_clip(architecture, folder)), "arch": architecture, "activation": "gelu"}
    if kind in SAMS:
        from sam import LEVELS

        checkpoint = _sam(SAMS[kind], folder)
        options |= {"segments": "sam", "sam_mode": "tile", "sam_checkpoint": str(checkpoint), "sam_levels": LEVELS}
    return options


def _clip(architecture: str, folder: Path) -> Path:
    import open_clip
    import torch
    from safetensors.torch import save_file

    path = folder / f"{architecture}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        state = open_clip.create_model(architecture, pretrained=None).state_dict()
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def _sam(architecture: str, folder: Path) -> Path:
    from safetensors.torch import save_file
    from sam import lively_sam

    path = folder / f"sam_{architecture}.safetensors"
    if not path.exists():
        save_file({key: value.contiguous() for key, value in lively_sam(architecture).state_dict().items()}, path)
    return path
