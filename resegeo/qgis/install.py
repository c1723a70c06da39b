"""Put the plugin where QGIS looks for it, or into a ZIP that QGIS installs."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

from resegeo.errors import ResegeoError
from resegeo.files import whole

PLUGIN = Path(__file__).parent / "resegeo_plugin"
NAME = "resegeo_plugin"
_NOTE = "environment.txt"
"""Beside the plugin's code: the Python that has resegeo."""


def _sources() -> list[Path]:
    return sorted(path for path in PLUGIN.iterdir() if path.suffix in (".py", ".txt"))


def profile_folder(profile: str = "default") -> Path:
    """Where a profile of QGIS 3 keeps its plugins on this machine; QGIS 4's, where that alone is there."""
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA", Path.home() / "AppData/Roaming")) / "QGIS"
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Application Support/QGIS"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "QGIS"
    version = "QGIS4" if (base / "QGIS4").is_dir() and not (base / "QGIS3").is_dir() else "QGIS3"
    return base / version / "profiles" / profile / "python" / "plugins"


def install(folder: Path | None = None, *, profile: str = "default") -> Path:
    """Copy the plugin into a folder of plugins and note this environment's Python beside it.

    Parameters
    ----------
    folder:
        The folder of plugins; None: that of the ``profile``.
    profile:
        Name of QGIS's user profile.

    Returns
    -------
    The plugin's own folder.

    Raises
    ------
    ResegeoError:
        When a folder of that name is there which is no plugin of ours, or nothing can be written.

    """
    target = (folder or profile_folder(profile)) / NAME
    if target.exists() and not _is_ours(target):
        raise ResegeoError(f"{target} is there and is no plugin of resegeo; move it away, or name another folder.")
    try:
        target.mkdir(parents=True, exist_ok=True)
        for source in _sources():
            with whole(target / source.name) as beside:
                beside.write_bytes(source.read_bytes())
        with whole(target / _NOTE) as beside:
            beside.write_text(f"{sys.executable}\n", "utf-8")
    except OSError as error:
        raise ResegeoError(f"The plugin cannot be written to {target} ({error.strerror}).") from error
    return target


def package(path: Path, *, overwrite: bool = False) -> Path:
    """Write the plugin as a ZIP for "Install from ZIP" in QGIS; this environment's Python is noted in it.

    Raises
    ------
    ResegeoError:
        When the file exists, or cannot be written.

    """
    if path.exists() and not overwrite:
        raise ResegeoError(f"{path} exists; pass [[overwrite=True]] to replace it, or name another file.")
    try:
        with whole(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            for source in _sources():
                archive.writestr(_entry(source.name), source.read_bytes())
            archive.writestr(_entry(_NOTE), f"{sys.executable}\n")
    except OSError as error:
        raise ResegeoError(f"{path} cannot be written ({error.strerror}).") from error
    return path


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{NAME}/{name}")  # of a fixed date: equal plugins are equal bytes
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _is_ours(folder: Path) -> bool:
    try:
        return "name=resegeo\n" in (folder / "metadata.txt").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False
