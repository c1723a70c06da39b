"""Results and truths of many images, matched by name."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from resegeo.errors import ResegeoError, escaped, notice
from resegeo.scene.vector_layers import VECTOR_SUFFIXES

RASTERS = (".tif", ".tiff", ".png", ".jp2", ".img", ".vrt", ".bmp", ".gif")
"""Files of a folder of truths that are read as rasters."""

SUFFIXES = {*RASTERS, *VECTOR_SUFFIXES} - {".json"}
"""Files that count as truths there; a .json is more often something else."""

CLASSES = ".classes.tif"

_SAID = 6
"""Names that a note has at most."""


def matched(results: Path, truths: Path) -> list[tuple[str, str]]:
    """Pair the class rasters below a folder with the truths below another.

    ``out/a/x/x.classes.tif`` belongs to ``truth/a/x.tif``, or to the only truth that is called x. Suffixes of truths
    count for nothing. What has no partner is named by a note.

    Returns
    -------
    Prediction and truth of each image, by name.

    Raises
    ------
    ResegeoError:
        When a folder is missing, nothing fits together, or two truths fit one prediction.

    """
    for folder, what in ((results, "class rasters, such as the one of a batch"), (truths, "truths")):
        if not folder.is_dir():
            raise ResegeoError(f"{escaped(folder)} is no folder; where one is given, both are: a folder of {what}.")
    rasters = [path for path in _files(results) if path.name.endswith(CLASSES)]
    if not rasters:
        raise ResegeoError(f"{escaped(results)} holds no class raster (*{CLASSES}); name the folder of a batch.")
    known = _truths(truths)
    by_place, by_name = defaultdict(list), defaultdict(list)
    for path in known:
        place = (*path.relative_to(truths).parent.parts, _stem(path))
        by_place[place].append(path)
        by_name[place[-1]].append(path)
    pairs, lonely, used = [], [], set()
    for raster in rasters:
        above, name = raster.relative_to(results).parent.parts, raster.name.removesuffix(CLASSES)
        places = [(*above, name), *([above] if above and above[-1] == name else [])]
        found = next((by_place[place] for place in places if place in by_place), by_name.get(name, []))
        if len(found) > 1:
            raise ResegeoError(
                f"{escaped(found[0])} and {escaped(found[1])} are both called as {escaped(raster)} is; leave one of "
                "them in the folder, or name the pairs in a CSV file by [[pairs]]."
            )
        if found:
            pairs.append((str(raster), str(found[0])))
            used.add(found[0])
        else:
            lonely.append(name)
    if not pairs:
        raise ResegeoError(
            f"No truth in {escaped(truths)} is called as a class raster in {escaped(results)}: there {_some(lonely)}, "
            f"here {_some([_stem(path) for path in known]) if known else 'nothing'}. Rename the truths, or name the "
            "pairs in a CSV file by [[pairs]]."
        )
    if lonely:
        notice(f"{len(lonely)} without a truth in {escaped(truths)}, not measured: {_some(lonely)}.")
    rest = [path.name for path in known if path not in used]
    if rest:
        notice(f"{len(rest)} without a class raster in {escaped(results)}, not used: {_some(rest)}.")
    return pairs


def _truths(folder: Path) -> list[Path]:
    """Find the truths below a folder; of results of ours the class raster, not what lies beside it."""
    files = list(_files(folder))
    ours = {(path.parent, _stem(path)) for path in files if path.name.endswith(CLASSES)}
    return [
        path
        for path in files
        if path.suffix.lower() in SUFFIXES and (path.name.endswith(CLASSES) or (path.parent, path.stem) not in ours)
    ]


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in a fixed order; what is hidden, and stores, are passed over."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith(".zarr"))
        yield from (Path(here, name) for name in sorted(names) if not name.startswith("."))


def _stem(path: Path) -> str:
    return path.name.removesuffix(CLASSES) if path.name.endswith(CLASSES) else path.stem


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SAID} more" if len(names) > _SAID else ""
    return ", ".join(escaped(name) for name in names[:_SAID]) + more
