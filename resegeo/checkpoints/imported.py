"""Models of the user's own that an archive brought here: each a file or folder as it was, found by its name."""

from __future__ import annotations

from pathlib import Path

from resegeo.checkpoints.download import home, safe_name
from resegeo.errors import UsageError
from resegeo.files import is_folder, is_there


def name_of(path: Path) -> str:
    """Name of a checkpoint of the user's own: a file's without its suffix, or a folder's."""
    return path.resolve().name if is_folder(path) else path.stem


def shelf(name: str) -> Path:
    """Folder in which an imported model of this name lies alone."""
    return home() / "imported" / (safe_name(name) or "_")


def imported_path(name: str) -> Path | None:
    """Find an imported model; None where there is none of this name."""
    return _in(shelf(name), name)


def imported_models() -> dict[str, Path]:
    """All imported models by their names."""
    folders = sorted(shelf("").parent.glob("[!.]*"))
    found = {name_of(path): path for folder in folders if folder.is_dir() for path in folder.iterdir()}
    return {name: path for name, path in found.items() if imported_path(name) == path}


def on_disk(name: str, option: str = "[[model]]") -> Path | None:
    """Find what a name means on this disk: a file or folder, or an imported model; None where it is neither.

    Raises
    ------
    UsageError:
        When the name is empty; the text begins with ``option``.

    """
    if not name.strip():
        raise UsageError(f"{option} '' names nothing; expected a file, or a name of `resegeo models list`.")
    return Path(name) if is_there(name) else imported_path(name)


def _in(folder: Path, name: str) -> Path | None:
    """The one model in a folder, if it has the name."""
    found = list(folder.iterdir()) if is_folder(folder) else []
    return found[0] if len(found) == 1 and name_of(found[0]) == name else None
