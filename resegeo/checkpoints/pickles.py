"""Files of torch.save, read without running what is in them, and what reading a damaged one raises."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resegeo.checkpoints.zips import open_zip
from resegeo.errors import ResegeoError

if TYPE_CHECKING:
    import torch

_REPEATED = 4_000_000_000
"""Bytes that the shapes of tensors may have beyond what is stored of them."""


def unreadable() -> tuple[type[Exception], ...]:
    """What reading a damaged file of weights raises, or one that was made to do so."""
    from safetensors import SafetensorError

    damage = (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError, StopIteration)
    odd = (AttributeError, AssertionError, OverflowError, MemoryError, RecursionError)  # of pickles made to be so
    return (*damage, *odd, zipfile.BadZipFile, zlib.error, struct.error, SafetensorError)


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
