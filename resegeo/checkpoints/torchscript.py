"""The tensors of a TorchScript archive, read without running what else is in it.

OpenAI published CLIP in this form. ``torch.jit.load`` compiles the code inside, and runs its ``__setstate__`` methods;
here only the pickled tree of objects is read, by an unpickler that knows tensors and empty stand-ins for the rest.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from resegeo.checkpoints.zips import open_zip

if TYPE_CHECKING:
    import torch

_STORAGES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "DoubleStorage": "float64",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_TEXT_LIMIT = 20_000_000
"""Bytes of code that are looked through for the activation."""

_DEPTH, _MODULES = 50, 100_000
"""How deep modules lie in each other, and how many there are, at most."""


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with open_zip(path) as archive:
        return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())


def read_torchscript(path: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    """Read the tensors of a TorchScript archive and the activation that its code uses.

    Returns
    -------
    Tensors by their dotted names, mapped from the file, and ``quickgelu``, ``gelu`` or None.

    Raises
    ------
    pickle.UnpicklingError:
        When the archive asks for anything but tensors and modules.
    ValueError, KeyError, EOFError, zipfile.BadZipFile:
        When it is damaged.

    """
    with open_zip(path) as archive:
        (name,) = [n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl" and n.count("/") == 1]
        folder = name.rpartition("/")[0]
        with archive.open(name) as stream:
            root = _Unpickler(stream, path, archive, f"{folder}/data").load()
        activation = _activation(archive, folder)
    found: dict[str, torch.Tensor] = {}
    _collect(root, found)
    return found, activation


class _Module:
    """Stands in for any TorchScript class: holds its attributes, does nothing."""

    attributes: dict[str, Any]

    def __new__(cls, *_: Any) -> _Module:
        made = super().__new__(cls)
        made.attributes = {}
        return made

    def __init__(self, *_: Any) -> None:
        """Take any arguments."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.attributes = state


def _same(value: Any, *_: Any) -> Any:
    """Stand in for torch.jit._pickle's builders of typed lists."""
    return value


class _Unpickler(pickle._Unpickler):
    """Knows tensors, ordered dictionaries and :class:`_Module`; refuses everything else.

    It is pickle's own in Python: the one in C takes as much memory as a number in the file says.
    """

    def __init__(self, stream: IO[bytes], path: Path, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(stream)
        self._path, self._archive, self._folder = path, archive, folder

    def find_class(self, module: str, name: str) -> Any:
        """Answer for a global of the pickle."""
        if module.startswith("__torch__"):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return name
        if module == "torch.jit._pickle" and (name.startswith("build_") or name == "restore_type_tag"):
            return _same
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a checkpoint")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """Map the storage that a tensor refers to: ("storage", type, key, device, number of elements)."""
        import torch

        kind, name, key, _, count = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"a reference of the kind {kind!r} is no part of a checkpoint")
        dtype: torch.dtype = getattr(torch, _STORAGES[name])
        if not count:
            return torch.empty(0, dtype=dtype)
        info = self._archive.getinfo(f"{self._folder}/{key}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size < count * dtype.itemsize:
            raise ValueError(f"{info.filename} is damaged")
        with self._path.open("rb") as stream:
            stream.seek(info.header_offset + 26)  # lengths of name and extra field, which end the local header
            lengths = int.from_bytes(stream.read(2), "little") + int.from_bytes(stream.read(2), "little")
        start = info.header_offset + 30 + lengths
        data = np.memmap(self._path, dtype=np.uint8, mode="c", offset=start, shape=(count * dtype.itemsize,))
        return torch.from_numpy(data).view(dtype)


def _rebuild(storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Any:
    """Lay a tensor over its storage; torch checks that it lies inside."""
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _collect(root: Any, found: dict[str, torch.Tensor]) -> None:
    """Gather the tensors below a module; ValueError where modules lie in each other without end."""
    import torch

    waiting, seen = [(root, "", 0)], 0
    while waiting:
        node, prefix, depth = waiting.pop()
        seen += 1
        if depth > _DEPTH or seen > _MODULES:
            raise ValueError("modules without end")
        for name, value in getattr(node, "attributes", {}).items():
            if isinstance(value, torch.Tensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, _Module):
                waiting.append((value, f"{prefix}{name}.", depth + 1))


def _activation(archive: zipfile.ZipFile, folder: str) -> str | None:
    """Look in the code, as text, for QuickGELU's factor or a call of gelu."""
    names = [n for n in archive.namelist() if n.startswith(f"{folder}/code/") and n.endswith(".py")]
    text, size = [], 0
    for name in names:
        size += archive.getinfo(name).file_size
        if size > _TEXT_LIMIT:
            return None
        text.append(archive.read(name).decode("utf-8", "replace"))
    code = "\n".join(text)
    # The factor stands in the code as a literal, or its rounding to half precision as a constant beside it.
    quick, plain = "1.702" in code or "sigmoid" in code, "torch.gelu(" in code
    if quick == plain:
        return None
    return "quickgelu" if quick else "gelu"
