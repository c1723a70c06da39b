"""Which scenes a batch is asked for, and where the results of each one go."""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from resegeo.errors import ResegeoError, UsageError
from resegeo.features import is_store
from resegeo.manifest import Row, is_manifest, read_manifest
from resegeo.mosaic import is_mosaic
from resegeo.sources import is_local, stem_of

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


def _here(path: str | Path) -> tuple[str, ...]:
    """Return the parts of a local path from the root on; links stay as they are."""
    return Path(os.path.normpath(Path(path).absolute())).parts


def _found(source: str, output: tuple[str, ...], asset: str | None) -> tuple[list[Row], tuple[str, ...] | None]:
    """Scenes of one argument, and the parts of the local folder that it speaks of."""
    if not is_local(source):
        if is_manifest(source):
            raise UsageError(f"{source}: a manifest is read from a file here; download it first.")
        return [Row(source, {}, source)], None
    path = Path(source)
    if is_manifest(source):
        rows = read_manifest(path, asset=asset)
        return rows, _common([_here(path.parent), *(_here(row.scene)[:-1] for row in rows if is_local(row.scene))])
    if path.is_dir() and not is_store(source):
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        what, base = f"{source}: no raster lies in this folder; expected {', '.join(sorted(SUFFIXES))}.", _here(path)
    elif glob.has_magic(source) and not path.exists():
        files = [Path(name) for name in sorted(glob.glob(source, recursive=True))]  # noqa: PTH207  Path's knows no absolute ones
        what, base = f"{source}: no file matches this pattern. Check the folder and the suffix.", _fixed(source)
    elif path.exists():
        return [Row(source, {}, source)], _here(path)[:-1]
    else:
        raise ResegeoError(f"{source}: no such file. Check the path of the scene, or of the manifest.")
    inside = len(output) > len(base) and output[: len(base)] == base
    rows = [
        Row(str(file), {}, source)
        for file in files
        if not (file.name.endswith(".classes.tif") or is_mosaic(file))
        and not (inside and _here(file)[: len(output)] == output)
    ]
    if not rows:
        raise ResegeoError(what)
    return rows, base


def _fixed(pattern: str) -> tuple[str, ...]:
    """Return the parts of the folder before a pattern's first wildcard."""
    parts = Path(pattern).parts
    count = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return _here(Path(*parts[:count]))


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
        inside = part[len(common[local]) : -1]
        folder = Path(*(re.sub(r'[\\/?*:|<>"]', "_", name) for name in inside))
        own = folder / stem_of(row.scene)
        folders.append(folder if is_store(row.scene) else own)  # a store lies where its scene's results do
        users[str(own).casefold()].append(row.scene)  # folders of Windows and macOS know no case
    for scenes in users.values():
        if len(scenes) > 1:
            if len(set(map(_here, scenes))) == 1:
                raise ResegeoError(f"{scenes[0]} is named {len(scenes)} times; name each scene once.")
            raise ResegeoError(
                f"{scenes[0]} and {scenes[1]} have the same name up to the suffix, and so would have the same results; "
                "rename one, or segment it into another folder."
            )
    return folders


def _parts(scene: str) -> tuple[str, ...]:
    if is_local(scene):
        return _here(scene)
    address = urlsplit(scene)
    return tuple(part for part in (address.netloc, *address.path.split("/")) if part) or (scene,)
