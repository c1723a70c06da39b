"""Named tensors that stay in their file until they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Tensors(Mapping[str, "torch.Tensor"]):
    """Named tensors, each read from the file when it is asked for."""

    def __init__(self, readers: Mapping[str, Callable[[], torch.Tensor]]) -> None:
        """Take one function a name."""
        self._readers = dict(readers)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Read one tensor."""
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        """Name after name."""
        return iter(self._readers)

    def __len__(self) -> int:
        """Count of tensors."""
        return len(self._readers)

    def renamed(self, change: Callable[[str], str | None]) -> Tensors:
        """The same under other names; those for which ``change`` gives None are left out."""
        pairs = ((change(name), reader) for name, reader in self._readers.items())
        return Tensors({name: reader for name, reader in pairs if name is not None})

    def reader(self, name: str) -> Callable[[], torch.Tensor]:
        """What reads a tensor."""
        return self._readers[name]
