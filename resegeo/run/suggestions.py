"""Points of a scene that are worth labelling next: where the two best classes are close, spread over scene and classes.

In each cell of a grid the closest call of every class stands for it. Of these, classes take turns, the class with the
fewest so far first; a point keeps its distance from those chosen and from the examples that there are, and where too
few are left the distance is halved. There is no chance in it: equal stores give equal points.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from resegeo.classes.class_file import load_class_list
from resegeo.errors import ResegeoError, UsageError, shown
from resegeo.files import writable_folder
from resegeo.outputs.point_forms import write_point_form
from resegeo.progress import Progress, silent
from resegeo.run.corrected import fitted_on
from resegeo.run.execution import ready_for
from resegeo.run.options import Options
from resegeo.run.prepare import settle
from resegeo.run.store import Store
from resegeo.run.store_place import is_store
from resegeo.scene.formats import heard
from resegeo.scene.region import transform_of

MOST = 10_000
"""Points that can be asked for."""
_CELLS = 40
"""Cells along the longer side of the scene at most, or four a point."""


@heard
def suggest(
    store: str | Path,
    classes: str | Path,
    output: str | Path,
    count: int = 20,
    *,
    overwrite: bool = False,
    replace_edited: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> Path:
    """Write a GeoPackage of points worth labelling next: what ``resegeo suggest`` does.

    Its field ``class`` is empty and has a value list in QGIS's form; ``guess`` and ``second`` are the best two classes
    and ``margin`` is what lies between their scores. Labelled, it is a file for ``examples``.

    Parameters
    ----------
    store:
        Of a finished run that kept features, or scores of the same words.
    classes:
        The class file.
    output:
        The GeoPackage.
    count:
        Number of points; fewer where the scene has no room for them.
    overwrite:
        Whether the file may be replaced; one with points that somebody labelled only with ``replace_edited`` too.
    progress:
        See :class:`resegeo.run.options.RunOptions`.
    **options:
        Those of :func:`resegeo.segment` that a store takes, such as ``examples``.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is wrong and how to mend it.

    """
    import geopandas as gpd

    output = Path(output)
    if output.suffix.lower() != ".gpkg":
        raise UsageError(f"[[output={shown(output)}]]: points go into a GeoPackage; its suffix is .gpkg.")
    if os.path.lexists(output) and not overwrite:
        raise ResegeoError(f"{shown(output)} exists; pass [[overwrite=True]] to replace it, or name another file.")
    if os.path.lexists(output) and not replace_edited and _labelled(output):
        raise ResegeoError(
            f"{shown(output)} has points that were labelled already. Name another file, and give this one by "
            "[[examples]], or pass [[overwrite=True]] [[replace_edited=True]] to lose them."
        )
    if not 1 <= count <= MOST:
        raise UsageError(f"[[count={count}]]: expected 1 to {MOST:,} points.")
    if not is_store(str(store)):
        raise UsageError(f"{shown(store)} is no store; give the .store.zarr of a finished run.")
    listed = load_class_list(Path(classes)) if isinstance(classes, str | Path) else classes
    run = settle(str(store), listed, output.parent, Options.of({**options, "progress": progress}))
    # Examples are of the classes, whatever the map merges.
    plan, scene = replace(run.plan, merge=None, scores=True), run.plan.scene
    if len(plan.classes.classes) < 2:
        raise ResegeoError("A list with one class leaves nothing in doubt; add others to the class file.")
    transform = transform_of(scene, "suggest")
    opened = Store.open(run.url)
    assert opened is not None
    ready = ready_for(plan, run.url, opened, run.options)
    found = fitted_on(plan, opened, ready.texts, ready.encoder.logit_scale)
    cell = max(1, math.ceil(max(scene.height, scene.width) / max(_CELLS, math.ceil(4 * math.sqrt(count)))))
    candidates = _Candidates(cell, scene.width, len(plan.classes.classes))
    for block in ready.blocks(plan, opened, found, run.options):
        if block.ranks is not None:
            candidates.add(block.rect.row, block.rect.col, block.ranks, block.valid)
    taken = np.zeros((0, 2))
    if plan.correction is not None and plan.correction.places is not None:
        taken = np.stack([plan.correction.places.rows, plan.correction.places.cols], axis=1).astype(np.float64)
    distance = math.sqrt(scene.height * scene.width / count) / 2
    rows, cols, best, second, margin = candidates.chosen(count, distance, taken)
    if not len(rows):
        raise ResegeoError(f"{shown(store)} has no pixel to suggest: none of it was computed.")
    middle: Any = (cols + 0.5, rows + 0.5)
    x, y = transform @ middle
    names = [spec.name for spec in plan.classes.classes]
    frame = gpd.GeoDataFrame(
        {
            "class": np.array([None] * len(rows), dtype=object),
            "guess": [names[index] for index in best],
            "second": [names[index] for index in second],
            "margin": np.round(margin.astype(np.float64), 4),
        },
        geometry=np.asarray(shapely.points(x, y)),
        crs=None if scene.georeference.crs is None else scene.georeference.crs.to_wkt(),
    )
    with writable_folder(output.parent):
        write_point_form(frame, output, "class", names)
    return output


def _labelled(path: Path) -> bool:
    """Whether a GeoPackage has points with a class."""
    import geopandas as gpd

    try:
        frame = gpd.read_file(path, engine="pyogrio", layer=path.stem)
    except Exception:  # whatever it is, nobody labelled points in it
        return False
    return "class" in frame.columns and bool((frame["class"].fillna("").astype(str).str.strip() != "").any())


class _Candidates:
    """The closest call of every class in every cell of a scene."""

    def __init__(self, cell: int, width: int, classes: int) -> None:
        self._cell, self._across, self._classes = cell, 1 + width // cell, classes
        self._best: dict[int, tuple[float, int, int, int]] = {}

    def add(
        self,
        row: int,
        col: int,
        ranks: tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]], NDArray[np.float32]],
        valid: NDArray[np.bool_],
    ) -> None:
        """Take best class, second class and margin (h, w) of a block."""
        best, second, margin = ranks
        down, across = np.nonzero(valid & np.isfinite(margin))
        if not down.size:
            return
        label, close = best[down, across].astype(np.int64), margin[down, across]
        rows, cols = down + row, across + col
        key = (rows // self._cell * self._across + cols // self._cell) * self._classes + label
        order = np.lexsort((cols, rows, close, key))
        first = order[np.unique(key[order], return_index=True)[1]]
        for index in first.tolist():
            entry = (float(close[index]), int(rows[index]), int(cols[index]), int(second[down[index], across[index]]))
            number = int(key[index])
            if number not in self._best or entry < self._best[number]:
                self._best[number] = entry

    def chosen(
        self, count: int, distance: float, taken: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int], list[int], NDArray[np.float32]]:
        """Choose rows, columns, best and second class and margin of at most ``count`` points."""
        queues: dict[int, list[tuple[float, int, int, int]]] = {}
        for key, entry in self._best.items():
            queues.setdefault(key % self._classes, []).append(entry)
        queues = {label: sorted(entries) for label, entries in sorted(queues.items())}
        chosen: list[tuple[int, tuple[float, int, int, int]]] = []
        spots = [tuple(each) for each in taken.tolist()]
        share = dict.fromkeys(queues, 0)
        while distance >= 1 and len(chosen) < count:
            open_ = dict(queues)
            while open_ and len(chosen) < count:
                label = min(open_, key=lambda each: (share[each], open_[each][:1], each))
                near = np.array(spots).reshape(-1, 2)
                pick = next(
                    (
                        entry
                        for entry in queues[label]
                        if not len(near) or np.hypot(near[:, 0] - entry[1], near[:, 1] - entry[2]).min() >= distance
                    ),
                    None,
                )
                if pick is None:
                    del open_[label]
                    continue
                chosen.append((label, pick))
                spots.append((float(pick[1]), float(pick[2])))
                share[label] += 1
            distance /= 2
        rows = np.array([entry[1] for _, entry in chosen], dtype=np.int64)
        cols = np.array([entry[2] for _, entry in chosen], dtype=np.int64)
        margin = np.array([entry[0] for _, entry in chosen], dtype=np.float32)
        return rows, cols, [label for label, _ in chosen], [entry[3] for _, entry in chosen], margin
