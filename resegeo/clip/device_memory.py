"""Memory of a graphics processor that another program may hold: what is said where there is none left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from resegeo.errors import ResegeoError


class FullDeviceError(ResegeoError):
    """A device that has no memory left; it may have some once another program ends."""


@contextlib.contextmanager
def memory_for(what: str, device: str) -> Iterator[None]:
    """Name what a device has no memory left for.

    Raises
    ------
    FullDeviceError:
        In the place of torch's own errors, which have no type in common.

    """
    try:
        yield
    except RuntimeError as error:
        if not is_full(error):
            raise
        raise FullDeviceError(
            f"The device {device} has no memory left for {what}{_free(device)}; another program may hold it. Run the "
            "same command again once that has ended, or choose another device by [[device]]."
        ) from error


def is_full(error: RuntimeError) -> bool:
    """Whether an error of torch's says that a device has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "CUDA error: out of memory" in f"{error}"


def _free(device: str) -> str:
    if device.startswith("cuda"):
        with contextlib.suppress(Exception):  # a device that is full may answer nothing at all
            free, whole = torch.cuda.mem_get_info(device)
            return f" ({free / 1e9:.1f} of {whole / 1e9:.1f} GB are free)"
    return ""
