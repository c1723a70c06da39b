"""Files that are there whole or not at all, and folders that can be written to."""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from resegeo.errors import ResegeoError

DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What reading a damaged ZIP archive raises; RuntimeError: a member has a password, or is packed in an unknown way."""


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it gets the name at the end, and goes again if anything fails."""
    beside = path.with_name(f".tmp-{path.name}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def writable_folder(folder: Path) -> Iterator[None]:
    """Create a folder for results; made here and left empty, it goes again.

    Raises
    ------
    ResegeoError:
        When nothing can be written there.

    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ResegeoError(
            f"The output folder {folder} cannot be written to ({error.strerror}); name another one by -o."
        ) from error
    try:
        yield
    finally:
        if new:
            with contextlib.suppress(OSError):  # not empty: what is complete stays
                folder.rmdir()
