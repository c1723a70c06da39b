"""Examples at places of a scene, brought together with what its store remembers of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from resegeo.clip.blending import Grouping, class_logits
from resegeo.clip.fitting import Examples, Fitted
from resegeo.clip.scores import blend_weights, unit
from resegeo.run.quantisation import restore
from resegeo.run.store import ItemResult
from resegeo.scene.resampling import Canvas
from resegeo.scene.windows import WindowGrid

PAIRS = 4096
"""Pairs of a place and a window that are looked at together: memory stays bounded."""
MOST_PLACES = 2000
"""Places of a class that are fitted on; of more, that many are drawn by a fixed rule."""


class StoredItems(Protocol):
    """Answers what the windows of work items left behind."""

    def get(self, index: int) -> ItemResult | None:
        """Return one item; None where it is not done."""
        ...


@dataclass(frozen=True)
class Places:
    """Pixels of the scene whose class is known."""

    rows: NDArray[np.int64]
    """(P,)"""
    cols: NDArray[np.int64]
    """(P,)"""
    label: NDArray[np.int64]
    """(P,) index of the class."""
    colours: NDArray[np.uint8] | None = None
    """(P, 3) red, green and blue as the model sees them, where they were read."""

    def __len__(self) -> int:
        """P."""
        return len(self.label)

    def part(self, kept: NDArray[Any]) -> Places:
        """Keep some places alone, by a mask or by their numbers."""
        colours = None if self.colours is None else self.colours[kept]
        return Places(self.rows[kept], self.cols[kept], self.label[kept], colours)

    def followed_by(self, others: Places) -> Places:
        """Put others behind them; colours are kept where both have them."""
        rows, cols, label = (
            np.concatenate([getattr(self, name), getattr(others, name)]) for name in ("rows", "cols", "label")
        )
        known = self.colours is not None and others.colours is not None
        colours = np.concatenate([self.colours, others.colours]) if known else None
        return Places(rows, cols, label, colours)

    def thinned(self, most: int = MOST_PLACES) -> Places:
        """Sort places, drop repeated ones, and keep at most ``most`` of each class, spread evenly over their order.

        So the order in which they were given, and clicks made twice, change nothing. The order kept is one in which
        neighbours are far apart in the scene: a bit-mixing hash of row and column.
        """
        both = np.unique(np.stack([self.label, self.rows, self.cols]), axis=1)
        label, rows, cols = both
        mixed = (rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ (
            cols.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
        )
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        chosen = []
        for index in np.unique(label):
            own = np.flatnonzero(label == index)
            chosen.append(own[np.argsort(mixed[own], kind="stable")[:most]])
        kept = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
        return Places(rows[kept], cols[kept], label[kept])


@dataclass(frozen=True)
class Words:
    """What the words say: the fixed part of the fit."""

    texts: NDArray[np.float32]
    """(Q, D) prompt embeddings of unit length."""
    grouping: Grouping
    logit_scale: float
    subtract_cls: float = 0.0

    @property
    def wordless(self) -> NDArray[np.bool_]:
        """(C,) classes without a prompt."""
        return np.isin(np.arange(self.grouping.classes), self.grouping.wordless)

    def logits(self, features: NDArray[np.float32], cls: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (S, C) of unit features (S, D) under their window's CLS feature, (S, D) or (D,), of unit length."""
        grouping = self.grouping
        cosines = features @ self.texts.T
        if self.subtract_cls:
            cosines -= np.float32(self.subtract_cls) * (cls @ self.texts.T)
        cosines *= np.float32(self.logit_scale)
        return class_logits(cosines.T, grouping.prompt_class, grouping.classes, reduction=grouping.reduction).T

    def corrected(self, fitted: Fitted) -> NDArray[np.float32]:
        """What the prompts become by what was fitted; see :meth:`resegeo.clip.blending.Grouping.corrected_by`."""
        return self.grouping.corrected_by(self.texts, fitted.residuals, self.logit_scale)


def lattice(height: int, width: int) -> Places:
    """Return pixels spread over a scene: 5 × 5 in each of 8 × 8 parts, so that of a large one few items are read."""

    def spread(size: int) -> NDArray[np.int64]:
        part = size / 8
        reach = min(part, 200.0)
        within = (np.arange(5) + 0.5) / 5 * reach + (part - reach) / 2
        at = (np.arange(8)[:, None] * part + within).ravel()
        return np.unique(np.minimum(at.astype(np.int64), size - 1))

    rows, cols = (each.ravel() for each in np.meshgrid(spread(height), spread(width), indexing="ij"))
    return Places(rows, cols, np.zeros(len(rows), dtype=np.int64))


def gather_with_scene(
    store: StoredItems, canvas: Canvas, grid: WindowGrid, places: Places, scene: Places, words: Words, *, taper: bool
) -> tuple[Examples, Examples, NDArray[np.bool_]]:
    """Do as :func:`gather` for examples and for a sample of the scene at once.

    Returns
    -------
    The examples, the sample, and (P,) which places are among the examples.

    """
    found, kept = gather(store, canvas, grid, places.followed_by(scene), words, taper=taper)
    own = np.arange(len(found.label)) < np.count_nonzero(kept[: len(places)])
    return found.part(own), found.part(~own), kept[: len(places)]


def gather(
    store: StoredItems, canvas: Canvas, grid: WindowGrid, places: Places, words: Words, *, taper: bool
) -> tuple[Examples, NDArray[np.bool_]]:
    """Bring places and stored features together: at a place those that every window over it gives, as in the blending.

    Parameters
    ----------
    store:
        Of features.
    canvas, grid:
        Those of the run that made it.
    places:
        P pixels of the scene.
    words:
        What the words say.
    taper:
        As in the blending.

    Returns
    -------
    The examples, and (P,) which places are among them: no window was computed over the others.

    """
    down = (places.rows + 0.5) / canvas.down  # in canvas pixels
    across = (places.cols + 0.5) / canvas.across
    found: list[tuple[NDArray[Any], ...]] = []
    for item in grid.items():
        bounds = item.bounds
        near = np.flatnonzero(
            (down >= bounds.row) & (down < bounds.bottom) & (across >= bounds.col) & (across < bounds.right)
        )
        stored = store.get(item.index) if near.size else None
        if stored is None or not stored.windows.any():
            continue
        features, cls = restore(stored.values), unit(stored.values["cls"])
        used = [window for window, flag in zip(item.windows, stored.windows, strict=False) if flag]
        first, span = (
            np.array([[getattr(window, name) for window in used] for name in names])[:, :, None]
            for names in (("row", "col"), ("height", "width"))
        )
        at = (np.stack([down[near], across[near]])[:, None] - first) / span  # (2, windows, near), shares of a side
        pairs = np.argwhere(((at >= 0) & (at < 1)).all(axis=0))
        for start in range(0, len(pairs), PAIRS):
            number, one = pairs[start : start + PAIRS].T
            rows, cols = at[:, number, one]
            u = unit(interpolated(features, number, rows, cols))
            share = blend_weights(rows, taper=taper) * blend_weights(cols, taper=taper)
            found.append((u, words.logits(u, cls[number]), near[one], share))
    kept = np.zeros(len(places), dtype=bool)
    if not found:
        width, classes = words.texts.shape[1], words.grouping.classes
        nothing = np.zeros(0, dtype=np.int64)
        return Examples(
            np.zeros((0, width), np.float32), np.zeros((0, classes), np.float32), nothing, np.zeros(0, np.float32),
            nothing, words.wordless, nothing,
        ), kept  # fmt: skip
    features, said, place, share = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(place, kind="stable")
    features, said, place, share = features[order], said[order], place[order], share[order]
    kept[place] = True
    share = share / np.bincount(place, weights=share, minlength=len(places))[place]
    renumbered = np.cumsum(kept) - 1
    some = places.part(kept)
    side = max(1.0, grid.window * max(canvas.down, canvas.across))
    block = (some.rows // side).astype(np.int64) * (1 + int(canvas.scene.width // side)) + (some.cols // side).astype(
        np.int64
    )
    return Examples(
        features,
        said,
        renumbered[place],
        share.astype(np.float32),
        some.label,
        words.wordless,
        block,
        colours=some.colours,
    ), kept


def interpolated(
    patches: NDArray[np.float32], window: NDArray[np.int64], rows: NDArray[np.float64], cols: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Features (S, D) at points of windows, bilinear between their patches (W, g, g, D), edges clamped."""
    grid = patches.shape[1]

    def around(at: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        at = np.clip(at * grid - 0.5, 0, None)
        first = np.minimum(at.astype(np.int64), grid - 1)
        return first, np.minimum(first + 1, grid - 1), (at - first).astype(np.float32)[:, None]

    top, bottom, b = around(rows)
    left, right, d = around(cols)
    upper = (1 - d) * patches[window, top, left] + d * patches[window, top, right]
    lower = (1 - d) * patches[window, bottom, left] + d * patches[window, bottom, right]
    return np.asarray((1 - b) * upper + b * lower, dtype=np.float32)


def counts(label: NDArray[np.int64], names: tuple[str, ...]) -> Mapping[str, int]:
    """Number of places of each class that has any, by name."""
    return {name: int((label == index).sum()) for index, name in enumerate(names) if (label == index).any()}
