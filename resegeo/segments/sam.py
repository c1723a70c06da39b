"""Segment Anything: the loading of checkpoints.

What runs the model is :mod:`resegeo.segments.sam_masks`. Nothing here imports torch before a checkpoint is loaded.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resegeo.checkpoints.checks import refuse_long_header, refuse_unsound, why_cut_off
from resegeo.checkpoints.pickles import load_pickle, refuse_odd_tensors, unreadable
from resegeo.errors import ResegeoError, UsageError, shown

if TYPE_CHECKING:
    import torch

ARCHITECTURES = ("vit_h", "vit_l", "vit_b")
"""Names of SAM's image encoders, largest first."""

_WIDTHS = {1280: "vit_h", 1024: "vit_l", 768: "vit_b"}
_WIDTH_KEY = "image_encoder.pos_embed"


def load_sam(checkpoint: str | Path, architecture: str | None = None, *, device: str = "cpu") -> Any:
    """Load a SAM checkpoint in evaluation mode and float32.

    Parameters
    ----------
    checkpoint:
        State dict as the authors publish it (``.pth``), or the same as ``.safetensors``.
    architecture:
        One of :data:`ARCHITECTURES`; None: told from the width of the image encoder.
    device:
        Where the model shall compute.

    Returns
    -------
    A ``segment_anything.modeling.Sam``.

    Raises
    ------
    UsageError:
        When there is no such architecture, or the checkpoint belongs to another one.
    ResegeoError:
        When the file is missing, unreadable, would run code, or holds no SAM.

    """
    path = Path(checkpoint)
    if architecture is not None and architecture not in ARCHITECTURES:
        raise UsageError(f"[[sam_arch={architecture}]] does not exist; expected one of {', '.join(ARCHITECTURES)}.")
    if not path.is_file():
        found = "a folder, not a file" if path.is_dir() else "no such file"
        raise ResegeoError(
            f"[[sam_checkpoint={path}]]: {found}. Expected a SAM checkpoint such as sam_vit_b_01ec64.pth."
        )
    state = _read(path)
    inferred = _architecture_of(state, path)
    if architecture not in (None, inferred):
        raise UsageError(
            f"[[sam_arch={architecture}]] does not fit [[sam_checkpoint={path}]], which holds a {inferred}. "
            "Leave out [[sam_arch]]: it is told from the file."
        )
    return _filled(inferred, state, path).to(device)


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict; whatever is wrong with the file becomes one sentence."""
    import torch
    from safetensors.torch import load_file

    cannot = (
        f"[[sam_checkpoint={path}]] cannot be read; expected a state dict of segment-anything in .pth or .safetensors."
    )
    try:
        if path.suffix == ".safetensors":
            refuse_long_header(path)
            return dict(load_file(path))
        state = load_pickle(path)
    except pickle.UnpicklingError as error:
        raise ResegeoError(
            f"[[sam_checkpoint={path}]] is refused: loading it would run code stored in the file. Convert it to "
            "safetensors on a machine you trust, or get the authors' own file."
        ) from error
    except unreadable() as error:
        cut = why_cut_off(path, error)
        if cut is not None:
            raise ResegeoError(
                f"[[sam_checkpoint={path}]] cannot be read: it is probably cut off ({cut}). Copy or download it anew."
            ) from error
        raise ResegeoError(cannot) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ResegeoError(f"[[sam_checkpoint={path}]] holds no state dict: not all of its entries are tensors.")
    refuse_odd_tensors(state, path)
    return state


def _architecture_of(state: dict[str, torch.Tensor], path: Path) -> str:
    """Tell the architecture from the width of the image encoder."""
    position = state.get(_WIDTH_KEY)
    if position is None or position.ndim == 0:
        first = min(map(str, state)) if state else "none"
        raise ResegeoError(
            f"[[sam_checkpoint={path}]] is no SAM checkpoint: it has no {_WIDTH_KEY} of SAM's shape "
            f"(first parameter: {shown(first)}). Expected the weights as segment-anything publishes them."
        )
    width = int(position.shape[-1])
    if width not in _WIDTHS:
        known = ", ".join(f"{width} ({name})" for width, name in _WIDTHS.items())
        raise ResegeoError(f"[[sam_checkpoint={path}]] has an image encoder of width {width}; expected one of {known}.")
    return _WIDTHS[width]


def _filled(architecture: str, state: dict[str, torch.Tensor], path: Path) -> Any:
    """Build the architecture around the tensors of ``state``."""
    import torch
    from segment_anything import sam_model_registry

    with torch.device("meta"):  # no random start values, which would cost seconds and twice the memory
        model = sam_model_registry[architecture](None)
    wanted = model.state_dict()
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(map(str, state.keys() - wanted.keys()))
    shapes = sorted(key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape)
    if missing or extra or shapes:
        parts = []
        if missing:
            parts.append(f"{len(missing)} parameters are missing (first: {missing[0]})")
        if extra:
            parts.append(f"{len(extra)} are unknown (first: {shown(extra[0])})")
        if shapes:
            parts.append(f"{len(shapes)} have another shape (first: {shapes[0]})")
        raise ResegeoError(
            f"[[sam_checkpoint={path}]] does not fit {architecture} of segment-anything: {'; '.join(parts)}."
        )
    for name, tensor in state.items():
        refuse_unsound(f"[[sam_checkpoint={path}]]", name, tensor)
    model.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    return model.eval().requires_grad_(False)
