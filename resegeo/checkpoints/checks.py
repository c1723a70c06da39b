"""Whether a file of weights is sound: whole, of numbers throughout, its logit scale the logarithm of a factor."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from resegeo.errors import ResegeoError, shown
from resegeo.files import is_folder

if TYPE_CHECKING:
    import torch

SCALE = "logit_scale"
"""Name of the parameter by whose exponential cosines are multiplied."""
LOGARITHM = 7.0
"""A logit scale beyond this is the factor itself: CLIP's logarithm ends at ln 100 = 4.6, its factor begins at 14.3."""
HEADER = 16_000_000
"""Bytes of a header that are read; that of a large checkpoint takes some 100,000."""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def is_factor(scale: float) -> bool:
    """Whether a logit scale was kept as the factor, not as its logarithm; False for what is neither."""
    return LOGARITHM < scale <= math.exp(LOGARITHM)


def refuse_unsound(whose: str, name: str, tensor: torch.Tensor) -> None:
    """Refuse a parameter with which every score would be no number.

    Raises
    ------
    ResegeoError:
        When it holds NaN, infinite values or whole numbers, or is a logit scale that is neither a factor nor its
        logarithm; the text begins with ``whose``.

    """
    import torch

    if not tensor.is_floating_point() and tensor.ndim:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ResegeoError(
            f"{whose} holds {shown(name)} as whole numbers ({kind}), which are no weights without what they were "
            "quantized by; get the file in floating point."
        )
    if not tensor.is_floating_point() or not tensor.numel():
        return
    wide = tensor.float() if tensor.element_size() == 1 else tensor  # torch knows no extremes of 8-bit numbers
    # The extremes are NaN where any value is; torch.isfinite takes 60 times as long.
    lowest, highest = (float(value) for value in torch.aminmax(wide))
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ResegeoError(
            f"{whose} holds {shown(name)} with values that are no numbers (NaN or infinite); get the file anew."
        )
    if name == SCALE and max(-lowest, highest) > LOGARITHM:
        raise ResegeoError(
            f"{whose} holds a {SCALE} of {highest:.4g}, which is neither the factor of CLIP's cosines (up to "
            f"{math.exp(LOGARITHM):.0f}) nor its logarithm; get the file anew."
        )


def refuse_long_header(path: Path) -> None:
    """Refuse a safetensors file whose header is longer than that of any checkpoint; see :class:`ResegeoError`."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if HEADER < length <= path.stat().st_size:
        raise ResegeoError(
            f"{path} has a header of {length:,} bytes, and {HEADER:,} are the most that is read: it is no checkpoint."
        )


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors does: the length of a header, and JSON."""
    try:
        with path.open("rb") as stream:
            start = stream.read(9)
    except OSError:
        return False
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= HEADER


def why_cut_off(path: Path, error: BaseException) -> str | None:
    """Tell by what a file, or one in a folder, that could not be read seems to be cut off; None where nothing says so.

    ``error`` is what reading it raised: of an old pickle nothing else says that its end is missing.
    """
    if is_folder(path):
        parts = sorted(part for part in path.iterdir() if part.suffix in _WEIGHTS and part.is_file())
        said = ((part, why_cut_off(part, error)) for part in parts)
        return next((f"{part.name}: {why}" for part, why in said if why is not None), None)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(9)
    except OSError:
        return None
    if size < 9:
        return "it is empty" if size == 0 else f"it has {size} bytes" if path.suffix == ".safetensors" else None
    if path.suffix == ".safetensors" or is_safetensors(path):
        return _short_of_its_header(path, start, size)
    if start[:4] == b"PK\x03\x04":
        return None if zipfile.is_zipfile(path) else "the directory at the end of its archive is missing"
    ended = isinstance(error, EOFError | struct.error) or "unexpected EOF" in str(error)
    return "it ends in the middle of a value" if start[:1] == b"\x80" and ended else None


def _short_of_its_header(path: Path, start: bytes, size: int) -> str | None:
    """Compare a safetensors file with the length that its header tells."""
    length = int.from_bytes(start[:8], "little")
    if length > HEADER or start[8:] != b"{":
        return None
    if 8 + length > size:
        return f"{size:,} bytes are there, its header alone has {8 + length:,}"
    with path.open("rb") as stream:
        header = stream.read(8 + length)[8:]
    try:
        entries = [entry for name, entry in json.loads(header).items() if name != "__metadata__"]
        whole = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError):
        return None
    return f"{size:,} of {whole:,} bytes are there" if size < whole else None
