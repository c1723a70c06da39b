"""Features × words: exact scores at every pixel from a few numbers a patch.

The feature at a pixel is the bilinear interpolation of the patch features f (align_corners = False,
edges clamped), and its score for a prompt is the cosine with the prompt's embedding t:

    score(p, q) = ⟨Σ w_i f_i, t_q⟩ / |Σ w_i f_i|

Interpolating f itself is not needed: the numerator is the interpolation of ⟨f_i, t_q⟩, and
|Σ w_i f_i|² = Σ_ij w_i w_j ⟨f_i, f_j⟩ needs the inner products of neighbouring patches alone. Since
bilinear weights are products of a row weight and a column weight, both diagonal pairs carry the same
weight, so that their sum suffices: Q + 4 numbers a patch (Q dot products, the patch's product with
itself, its right and its lower neighbour, and the sum of the two diagonals) give every pixel exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

EXTRA = 4
"""Numbers a patch beside the Q dot products: itself, right, lower, both diagonals together."""

_TINY = np.float32(1e-12)


def patch_scores(features: NDArray[np.floating], texts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reduce dense features to what their scores need.

    Parameters
    ----------
    features:
        (B, g, g, D) patch features, not normalised.
    texts:
        (Q, D) prompt embeddings of unit length; any other vectors may follow.

    Returns
    -------
    (B, Q + 4, g, g) float32.

    """
    f = features.astype(np.float32, copy=False)

    def dot(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(np.einsum("brcd,brcd->brc", a, b))

    own = dot(f, f)
    # Neighbours are clamped at the last row and column, as the interpolation is: there a patch is its own neighbour.
    right, lower, diagonals = own.copy(), own.copy(), np.empty_like(own)
    right[:, :, :-1] = dot(f[:, :, :-1], f[:, :, 1:])
    lower[:, :-1] = dot(f[:, :-1], f[:, 1:])
    diagonals[:, :-1, :-1] = dot(f[:, :-1, :-1], f[:, 1:, 1:]) + dot(f[:, :-1, 1:], f[:, 1:, :-1])
    diagonals[:, :, -1] = 2 * lower[:, :, -1]
    diagonals[:, -1] = 2 * right[:, -1]
    dots = np.moveaxis(f @ texts.T, -1, 1)  # (B, g, g, Q) -> (B, Q, g, g)
    return np.concatenate([dots, np.stack([own, right, lower, diagonals], axis=1)], axis=1, dtype=np.float32)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale vectors (..., D) to unit length, in float32."""
    v = vectors.astype(np.float32)
    return np.asarray(v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), _TINY))


@dataclass(frozen=True)
class AxisWeights:
    """Bilinear interpolation from ``g`` patches to ``n`` points along one axis, as matrices (n, g).

    ``linear`` interpolates values; ``square`` and ``cross`` interpolate products of a patch with
    itself and with its next neighbour.
    """

    linear: NDArray[np.float32]
    square: NDArray[np.float32]
    cross: NDArray[np.float32]

    @cached_property
    def both(self) -> NDArray[np.float32]:
        """``square`` and ``cross`` side by side, (n, 2 g)."""
        return np.hstack([self.square, self.cross])

    def rows(self, begin: int, end: int) -> AxisWeights:
        """Keep the pixels ``begin`` … ``end`` - 1 alone."""
        return AxisWeights(self.linear[begin:end], self.square[begin:end], self.cross[begin:end])


def axis_weights(patches: int, at: NDArray[np.float64]) -> AxisWeights:
    """Build the weights of :class:`AxisWeights` for points along an axis that is cut into ``patches``.

    Parameters
    ----------
    patches:
        g, the patches along the axis.
    at:
        (n,) where the points lie, as shares of the window's side, in 0 … 1: any points, not only pixel centres.

    """
    return _axis_weights(patches, np.ascontiguousarray(at, dtype=np.float64).tobytes())


@lru_cache(maxsize=128)
def _axis_weights(patches: int, points: bytes) -> AxisWeights:
    """Do so; windows of a regular grid ask for the same few again and again."""
    at = np.frombuffer(points, dtype=np.float64)
    at = np.clip(at * patches - 0.5, 0, None)
    first = np.minimum(at.astype(np.int64), patches - 1)
    second = np.minimum(first + 1, patches - 1)
    b = at - first
    a = 1 - b
    linear, square, cross = (np.zeros((len(at), patches)) for _ in range(3))
    point = np.arange(len(at))
    np.add.at(linear, (point, first), a)
    np.add.at(linear, (point, second), b)
    np.add.at(square, (point, first), a * a)
    np.add.at(square, (point, second), b * b)
    np.add.at(cross, (point, first), a * b)
    return AxisWeights(linear.astype(np.float32), square.astype(np.float32), cross.astype(np.float32))


def pixel_cosines(
    reduced: NDArray[np.float32],
    vertical: AxisWeights,
    horizontal: AxisWeights,
    *,
    cosines: bool = True,
    interpolate: str = "features",
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Evaluate the cosine scores at pixels from what :func:`patch_scores` left of one window.

    Parameters
    ----------
    reduced:
        (Q + 4, g, g).
    vertical, horizontal:
        Interpolation to the wanted pixel rows (h) and columns (w).
    cosines:
        Whether the Q vectors have unit length; products with others are no cosines, and not kept within [-1, 1].
    interpolate:
        ``features``: cosines of the interpolated feature. ``scores``: interpolated cosines of the patches.
    out:
        (Q, h, w) where the result goes, if given.

    Returns
    -------
    (Q, h, w) float32: products of the unit feature with each vector, in [-1, 1] where they are cosines.

    """
    own, right, lower, diagonals = reduced[-EXTRA:]
    dots = reduced[:-EXTRA]
    if interpolate == "scores":
        dots = dots / np.sqrt(np.maximum(own, _TINY))
    across = (dots.reshape(-1, dots.shape[-1]) @ horizontal.linear.T).reshape(*dots.shape[:2], -1)
    products = np.matmul(vertical.linear, across, out=out)  # (h, g) @ (Q, g, w)
    if interpolate == "features":
        # |Σ w_i f_i|² as one product: (h, 2g) @ (2g, 2g) @ (2g, w); off the diagonal every pair counts twice.
        patches = len(own)
        pairs = np.empty((2 * patches, 2 * patches), dtype=np.float32)
        pairs[:patches, :patches], pairs[:patches, patches:] = own, 2 * right
        pairs[patches:, :patches], pairs[patches:, patches:] = 2 * lower, 2 * diagonals
        square = vertical.both @ pairs @ horizontal.both.T
        np.maximum(square, _TINY, out=square)
        np.sqrt(square, out=square)
        products *= np.divide(np.float32(1), square, out=square)
    if cosines:
        np.clip(products, -1, 1, out=products)
    return np.asarray(products, dtype=np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the first axis, computed in place on ``logits``."""
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits


def blend_weights(at: NDArray[np.float64], *, taper: bool) -> NDArray[np.float32]:
    """Weight of points of a window along one axis, in (0, 1]; ``at`` as in :func:`axis_weights`.

    Uniform as in the paper, or a Hann window (raised by a little, so that no pixel has weight 0),
    which lets a window's middle, where patches see context on all sides, outweigh its border.
    """
    return _blend_weights(np.ascontiguousarray(at, dtype=np.float64).tobytes(), taper=taper)


@lru_cache(maxsize=128)
def _blend_weights(points: bytes, *, taper: bool) -> NDArray[np.float32]:
    """Do so; windows of a regular grid ask for the same few again and again."""
    at = np.frombuffer(points, dtype=np.float64)
    weights = (0.02 + 0.98 * np.sin(np.pi * at) ** 2 if taper else np.ones(len(at))).astype(np.float32)
    weights.setflags(write=False)
    return weights
