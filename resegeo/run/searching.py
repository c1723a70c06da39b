"""Places of one finished store that fit words, or examples: scored patch by patch, from its features alone.

A patch is scored by the cosine of its feature with the words, or by the probability that a fit gives the class; windows
that overlap are averaged as labels are. Around each peak a place reaches as far as the score stays above half way
between the peak and the median of the scene, so that patches beside each other are one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from resegeo.clip.fitting import Fitted
from resegeo.clip.scores import blend_weights, softmax, unit
from resegeo.run.example_features import Words
from resegeo.run.quantisation import restore
from resegeo.run.store import Store
from resegeo.run.stored import stored_scene
from resegeo.scene.reader import Scene
from resegeo.scene.resampling import Canvas
from resegeo.scene.windows import BLOCK, WindowGrid, window_grid

Score = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""Scores (S,) of unit features (S, D) under a window's CLS feature (D,) of unit length."""


@dataclass(frozen=True)
class Place:
    """A place that fits."""

    score: float
    """Cosine with the words, or with examples the probability of the class: that of the peak."""
    store: str
    scene: str
    """Name of the scene."""
    row: int
    """Of the peak in the scene, like the next."""
    col: int
    at: tuple[float, float] | None
    """Of the peak, x and y in the scene's CRS; None where the scene has no transform."""
    outline: Any
    """Polygon around its patches in the scene's CRS; None where the scene has no transform."""
    crs: str | None
    """WKT."""


def cosine(text: NDArray[np.float32]) -> Score:
    """Score by the cosine with a prompt (D,) of unit length."""
    return lambda features, _cls: np.asarray(features @ text)


def probability(words: Words, fitted: Fitted, index: int) -> Score:
    """Score by the probability that words and fitted vectors give the class of that index."""

    def score(features: NDArray[np.float32], cls: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = words.logits(features, cls) + features @ fitted.residuals.T + fitted.biases
        return np.asarray(softmax(np.ascontiguousarray(logits.T))[index])

    return score


def opened_scene(store: Store) -> tuple[Scene, Canvas, WindowGrid]:
    """Return the scene of a finished store as it is remembered, and how windows lie over it.

    Raises
    ------
    ResegeoError:
        When the store is damaged.

    """
    header = store.header
    scene = stored_scene(header.scene, store.require("valid"))
    canvas = Canvas(scene, *header.canvas)
    knobs = header.image["settings"]
    grid = window_grid(
        canvas.height,
        canvas.width,
        window=header.layout.side,
        stride=int(knobs["stride"]),
        overhang=knobs["edge"] == "overhang",
    )
    return scene, canvas, grid


def score_map(store: Store, canvas: Canvas, grid: WindowGrid, score: Score, *, taper: bool) -> NDArray[np.float32]:
    """Score the patches of a store on a grid of cells as large as a patch.

    Returns
    -------
    (R, C) float32 over the canvas, NaN where nothing was computed or the middle of a cell is nodata.

    """
    patches = store.header.layout.grid
    cell = store.header.layout.side / patches
    shape = -(-canvas.height // int(cell)), -(-canvas.width // int(cell))
    total, weight = (np.zeros(shape, dtype=np.float32) for _ in range(2))
    middle = (np.arange(patches) + 0.5) / patches
    share = blend_weights(middle, taper=taper)
    for item in grid.items():
        stored = store.get(item.index)
        if stored is None or not stored.windows.any():
            continue
        features, cls = unit(restore(stored.values)), unit(stored.values["cls"])
        used = [window for window, flag in zip(item.windows, stored.windows, strict=False) if flag]
        for number, window in enumerate(used):
            found = score(features[number].reshape(patches**2, -1), cls[number]).reshape(patches, patches)
            rows, cols = (
                ((first + (np.arange(patches) + 0.5) * cell) // cell).astype(np.int64)
                for first in (window.row, window.col)
            )
            down, across = rows < shape[0], cols < shape[1]
            both = np.outer(share, share)
            here, part = np.ix_(rows[down], cols[across]), np.ix_(down, across)
            total[here] += (found * both)[part]
            weight[here] += both[part]
    with np.errstate(invalid="ignore"):
        result = total / weight
    result[~_valid(store, canvas, cell, shape)] = np.nan
    return np.asarray(result, dtype=np.float32)


def _valid(store: Store, canvas: Canvas, cell: float, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether the middles of cells are valid pixels of the scene, (R, C)."""
    valid = store.require("valid")
    rows, cols = (
        np.minimum(((np.arange(count) + 0.5) * cell * factor).astype(np.int64), size - 1)
        for count, factor, size in (
            (shape[0], canvas.down, canvas.scene.height),
            (shape[1], canvas.across, canvas.scene.width),
        )
    )
    result = np.zeros(shape, dtype=bool)
    for top in range(0, canvas.scene.height, BLOCK):
        own = (rows >= top) & (rows < top + BLOCK)
        if own.any():
            result[own] = np.asarray(valid[top : top + BLOCK])[np.ix_(rows[own] - top, cols)] == 1
    return result


@dataclass(frozen=True)
class Peak:
    """A place on a grid of cells."""

    score: float
    row: int
    col: int
    cells: NDArray[np.int64]
    """(N, 2) rows and columns, the peak's among them."""


def peaks(scores: NDArray[np.float32], above: Callable[[], float]) -> Iterator[Peak]:
    """Yield the places of a map of scores (R, C), the best first, while they score more than ``above()``.

    A place is what is connected with its peak (4-connected) and above half way between the peak and the median of the
    map; what a better place holds is no part of it. Equal peaks come by row and column.
    """
    known = np.isfinite(scores)
    if not known.any():
        return
    values = np.where(known, scores, -np.inf)
    median = float(np.median(scores[known]))
    padded = np.pad(values, 1, constant_values=-np.inf)
    around = [
        padded[1 + down : 1 + down + values.shape[0], 1 + across : 1 + across + values.shape[1]]
        for down in (-1, 0, 1)
        for across in (-1, 0, 1)
    ]
    summits = np.flatnonzero(known & (values >= np.max(around, axis=0)))
    taken = ~known
    for flat in summits[np.argsort(-values.ravel()[summits], kind="stable")]:
        row, col = divmod(int(flat), values.shape[1])
        peak = float(values[row, col])
        if peak <= above():
            return
        if taken[row, col]:
            continue
        cells = _flood(values, taken, row, col, (peak + median) / 2)
        yield Peak(peak, row, col, cells)


def _flood(
    values: NDArray[np.float32], taken: NDArray[np.bool_], row: int, col: int, level: float
) -> NDArray[np.int64]:
    """Take the cells that are connected with one and not below ``level``."""
    height, width = values.shape
    waiting, found = [(row, col)], []
    taken[row, col] = True
    while waiting:
        r, c = waiting.pop()
        found.append((r, c))
        for near in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if 0 <= near[0] < height and 0 <= near[1] < width and not taken[near] and values[near] >= level:
                taken[near] = True
                waiting.append(near)
    return np.array(sorted(found), dtype=np.int64)


def places_of(store: Store, score: Score, above: Callable[[], float]) -> Iterator[Place]:
    """Yield the places of a finished store, the best first, while they score more than ``above()``.

    Raises
    ------
    ResegeoError:
        When the store is damaged.

    """
    scene, canvas, grid = opened_scene(store)
    cell = store.header.layout.side / store.header.layout.grid
    scores = score_map(store, canvas, grid, score, taper=bool(store.header.settings.get("taper", True)))
    transform = scene.georeference.transform
    crs = scene.georeference.crs
    for peak in peaks(scores, above):
        row, col = (
            min(int((place + 0.5) * cell * factor), size - 1)
            for place, factor, size in (
                (peak.row, canvas.down, scene.height),
                (peak.col, canvas.across, scene.width),
            )
        )
        at, outline = None, None
        if transform is not None:
            x, y = transform @ (col + 0.5, row + 0.5)
            at, outline = (float(x), float(y)), _outline(peak.cells, cell, canvas)
            outline = shapely.transform(outline, lambda xy: np.column_stack(transform @ tuple(xy.T)))
        yield Place(peak.score, store.url, scene.name, row, col, at, outline, None if crs is None else crs.to_wkt())


def _outline(cells: NDArray[np.int64], cell: float, canvas: Canvas) -> Any:
    """Return the outline of cells in pixels of the scene, x first."""
    down, across = cell * canvas.down, cell * canvas.across
    top, left = cells[:, 0] * down, cells[:, 1] * across
    bottom, right = np.minimum(top + down, canvas.scene.height), np.minimum(left + across, canvas.scene.width)
    return shapely.union_all(shapely.box(left, top, right, bottom))
