"""Which scenes a batch is asked for, and where the results of each one go."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from resegeo.batches.manifest import Row, is_manifest, read_manifest
from resegeo.batches.mosaic import is_mosaic
from resegeo.errors import ResegeoError, UsageError, escaped, shown
from resegeo.files import is_folder, is_there
from resegeo.run.store_place import is_store
from resegeo.scene.source import is_local, stem_of

SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".vrt", ".img", ".ntf", ".nitf"})
"""Files that count as scenes where a folder is named."""


def gather(sources: Sequence[str], output: Path, asset: str | None = None) -> tuple[list[Row], tuple[str, ...] | None]:
    """Find the scenes that patterns, folders, files and manifests name.

    Of patterns and folders, results are left out: files below ``output``, class rasters, mosaics that a batch made.

    Returns
    -------
    The scenes, and the parts of the local folder that their places in ``output`` count from.

    Raises
    ------
    ResegeoError:
        When something names no scene.

    """
    rows: list[Row] = []
    bases: list[tuple[str, ...]] = []
    for source in sources:
        found, base = _found(source, _here(output), asset)
        rows += found
        if base is not None:
            bases.append(base)
    if not rows:
        raise UsageError("batch needs scenes: patterns such as 'scenes/*.tif', folders, files, or a manifest.")
    return rows, _common(bases) if bases else None


def is_batch(sources: Sequence[str]) -> bool:
    """Whether arguments name several scenes, or may: a pattern, a folder or a manifest."""
    if len(sources) != 1:
        return True
    source = sources[0]
    if not is_local(source):
        return False
    folder = is_folder(Path(source)) and not is_store(source)
    return folder or is_manifest(source) or (glob.has_magic(source) and not is_there(source))


def store_below(store: Any, part: Path) -> str | None:
    """Name the place of a scene's store below the one that is named for all; ``part``: its folder of results."""
    return None if store is None else f"{str(store).rstrip('/')}/{part.as_posix()}"


def _here(path: str | Path) -> tuple[str, ...]:
    """Return the parts of a local path from the root on; links stay as they are."""
    return Path(os.path.normpath(Path(path).absolute())).parts


def _found(source: str, output: tuple[str, ...], asset: str | None) -> tuple[list[Row], tuple[str, ...] | None]:
    """Scenes of one argument, and the parts of the local folder that it speaks of."""
    if not is_local(source):
        if is_manifest(source):
            raise UsageError(f"{escaped(source)}: a manifest is read from a file here; download it first.")
        return [Row(source, {}, source)], None
    path = Path(source)
    if is_manifest(source):
        rows = read_manifest(path, asset=asset)
        return rows, _common([_here(path.parent), *(_here(row.scene)[:-1] for row in rows if is_local(row.scene))])
    if is_folder(path) and not is_store(source):
        below = (file for file in _matching(path, ("**", "*"), output) if file.suffix.lower() in SUFFIXES)
        files = sorted(file for file in below if os.path.isfile(file))  # noqa: PTH113  Path's raises
        what, base = (
            f"{escaped(source)}: no raster lies in this folder; expected {', '.join(sorted(SUFFIXES))}.",
            _here(path),
        )
    elif glob.has_magic(source) and not is_there(path):
        start, pattern = _fixed(source)
        files = sorted(_matching(start, pattern, output), key=str)
        what, base = f"{escaped(source)}: no file matches this pattern. Check the folder and the suffix.", _here(start)
    elif is_there(path):
        return [Row(source, {}, source)], _here(path)[:-1]
    else:
        raise ResegeoError(f"{escaped(source)}: no such file. Check the path of the scene, or of the manifest.")
    rows = [Row(str(file), {}, source) for file in files if not (file.name.endswith(".classes.tif") or is_mosaic(file))]
    if not rows:
        raise ResegeoError(what)
    return rows, base


def _fixed(pattern: str) -> tuple[Path, tuple[str, ...]]:
    """Split a pattern into the folder before its first wildcard and the parts from there on."""
    parts = Path(pattern).parts
    count = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:count]), parts[count:]


def _matching(
    folder: Path, pattern: Sequence[str], output: tuple[str, ...], at: Iterable[int] = (0,)
) -> Iterator[Path]:
    """Yield what a pattern matches below a folder; ``**`` stands for any folders within each other.

    What is hidden, and what macOS puts into archives (``._a.tif``, ``__MACOSX``), no wildcard matches; the folder of
    the results and Zarr stores are not entered. Folders that are links are entered by ``*`` unless they lead to where
    the walk is or above, and not by ``**``: links in a circle have no end.

    Parameters
    ----------
    folder:
        Where the walk is.
    pattern:
        Parts of the pattern.
    output:
        Parts of the folder of the results.
    at:
        Which parts may match here.

    """
    at = _with_next(at, pattern)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # what may not be read holds nothing, as for a shell
        return
    for entry in entries:
        fit = [number for number in at if number < len(pattern) and _fits(entry.name, pattern[number])]
        path = folder / entry.name
        within = entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(path))  # noqa: PTH112  Path's raises
        if not fit or (within and _here(path) == output):
            continue
        if len(pattern) in _with_next(_after(fit, pattern), pattern):
            yield path
        if not within or entry.name.lower().endswith(".zarr"):
            continue
        if entry.is_symlink():
            up = _leads_up(path)
            fit = [n for n in fit if not glob.has_magic(pattern[n]) or (pattern[n] != "**" and not up)]
        after = [number for number in _after(fit, pattern) if number < len(pattern)]
        if after:
            yield from _matching(path, pattern, output, after)


def _after(fit: Iterable[int], pattern: Sequence[str]) -> set[int]:
    return {number if pattern[number] == "**" else number + 1 for number in fit}


def _with_next(at: Iterable[int], pattern: Sequence[str]) -> set[int]:
    """Add the parts after ``**``, which stands for no folder too."""
    found = set(at)
    for number, part in enumerate(pattern):
        if part == "**" and number in found:
            found.add(number + 1)
    return found


def _fits(name: str, part: str) -> bool:
    if not glob.has_magic(part):
        return os.path.normcase(name) == os.path.normcase(part)
    if (name.startswith(".") and not part.startswith(".")) or name == "__MACOSX":
        return False
    return part == "**" or fnmatch.fnmatch(name, part)


def _leads_up(link: Path) -> bool:
    """Whether a link to a folder leads to the one where it lies, or above."""
    there, here = os.path.realpath(link), os.path.realpath(link.parent)
    return os.path.commonpath([there, here]) == there


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Parts that all paths begin with."""
    first, last = min(paths), max(paths)
    count = next((number for number, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None)
    return first[: min(len(first), len(last)) if count is None else count]


def result_folders(rows: Sequence[Row], base: tuple[str, ...] | None = None) -> list[Path]:
    """Name the folder of each scene's results, relative to that of the batch.

    Parameters
    ----------
    rows:
        The scenes.
    base:
        Parts of the folder that local scenes' places count from; URLs count from what they have in common.

    Raises
    ------
    ResegeoError:
        When two scenes would write to the same place.

    """
    parts = [_parts(row.scene) for row in rows]
    here = [is_local(row.scene) for row in rows]
    common = {
        True: base or (),
        False: _common([part[:-1] for part, local in zip(parts, here, strict=True) if not local] or [()]),
    }
    folders, users = [], defaultdict(list)
    for row, part, local in zip(rows, parts, here, strict=True):
        folder = Path(*map(_plain, part[len(common[local]) : -1]))
        own = folder / _plain(stem_of(row.scene))
        folders.append(folder if is_store(row.scene) else own)  # a store lies where its scene's results do
        users[str(own).casefold()].append(row.scene)  # folders of Windows and macOS know no case
    for scenes in users.values():
        if len(scenes) > 1:
            if len(set(map(_here, scenes))) == 1:
                raise ResegeoError(f"{escaped(scenes[0])} is named {len(scenes)} times; name each scene once.")
            raise ResegeoError(
                f"{escaped(scenes[0])} and {escaped(scenes[1])} have the same name up to the suffix, and so would have "
                "the same results; rename one, or segment it into another folder."
            )
    return folders


def _plain(name: str) -> str:
    """Make the name of one folder of a part of a path or a URL: whatever it says, it leads nowhere else."""
    plain = re.sub(r'[\x00-\x1f\x7f\\/?*:|<>"]', "_", name)
    return "_" * len(plain) if plain in (".", "..") else plain


def _parts(scene: str) -> tuple[str, ...]:
    if is_local(scene):
        return _here(scene)
    try:
        address = urlsplit(scene)
    except ValueError as error:
        raise ResegeoError(f"{shown(scene)} is no address ({shown(error)}). Check it.") from error
    return tuple(part for part in (address.netloc, *address.path.split("/")) if part) or (scene,)
