"""Class vectors from examples: multinomial logistic regression on unit features, with the words as a fixed offset.

The logit of class c at a unit feature u is what its words say, plus ⟨r_c, u⟩ + b_c, where the residual r_c and the bias
b_c minimise

    Σ_i w_i · CE_i + λ Σ_c (|r_c|² + b'_c²)

over the examples i; b'_c is the bias at the mean feature of the examples, b_c = b'_c − ⟨r_c, mean⟩, so that directions
that all features share are no way around the penalty. A class that has words keeps b'_c = 0: how common it is in the
scene is not what a handful of clicks says, which are as many for a rare class as for a common one (tried: a free bias
costs 0.02 to 0.06 of IoU with 5 to 100 clicks a class). A class weighs in the sum as the square root of its share of
the scene, which a first fit tells, where all weigh the same: half way between clicks, as many for a rare class as for a
common one, and the scene, where every false find of a rare class costs (tried on 15 pictures of the model's training:
0.01 to 0.03 of mean IoU). The problem is convex. Without examples r and b are 0: the words alone; few
examples correct them, many overrule them.

Where the colours of the examples' pixels are known, ⟨s_c, z⟩ is added, z being half of red, green and blue, less their
mean over the examples, over their spread, under the same penalty: patches are many pixels wide, and colours tell where
between them a class ends. λ is the smallest that tells left-out examples not clearly worse than the best does, since
log loss, by which that is judged, wants a larger one than the map does. Both were tried on 17 held-out pictures other
than those of the published figures, with 5, 25 and 100 clicks a class; tried without gain were squares and products of
colours, colours of neighbours, and features of the scene at twice its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""λ that are tried where there are enough examples to judge them."""
USUAL_PENALTY = 0.1
"""λ for fewer examples. Where the words are wrong 0.01 is better; but where they are right a dozen points at uncertain
places, all of which say what the map says, would change a third of it, and with this one a twentieth."""
LEEWAY = 0.25
"""Standard errors of the least log loss by which that of a smaller λ may be larger. Twice as many are a little better
where the words are wrong, but points that agree with a good map then change a tenth of it instead of a twentieth."""
CURVATURE = 0.05
"""Of the loss of an example along its logit, about: p (1 - p) where it is nearly right. It changes the pace alone."""
FOLDS = 5
TONE = 0.5
"""Factor of the standardised colours."""
LEAST_SPREAD = 8.0
"""Spread that each colour of the examples is taken to have at least, in steps of 255: clicks may all be of one."""
LEAST_SHARE = 0.02
"""Share of the scene that every class is taken to have: of a rarer one a first fit tells nothing."""


@dataclass(frozen=True)
class Examples:
    """What is known at some places: S samples, each the feature that one window gives one of P places."""

    features: NDArray[np.float32]
    """(S, D) of unit length."""
    words: NDArray[np.float32]
    """(S, C) logits that the words give the classes."""
    place: NDArray[np.int64]
    """(S,) which of the P places a sample belongs to; a place has a sample for each window that covers it."""
    share: NDArray[np.float32]
    """(S,) weight of the sample's window at its place, as in the blending; those of a place sum to 1."""
    label: NDArray[np.int64]
    """(P,) index of the class of each place."""
    wordless: NDArray[np.bool_]
    """(C,) classes that no word says anything of: they have a bias of their own."""
    block: NDArray[np.int64]
    """(P,) number of the part of the scene that a place lies in: parts are left out whole when judging."""
    prevalence: NDArray[np.float64] | None = None
    """(C,) share of the scene that each class has; None: nothing is known of it, and all weigh the same."""
    colours: NDArray[np.uint8] | None = None
    """(P, 3) red, green and blue at the places; None: nothing is known of them."""

    @property
    def classes(self) -> int:
        """C."""
        return int(self.words.shape[1])

    def part(self, places: NDArray[np.bool_]) -> Examples:
        """Keep some places (P,) alone."""
        number = np.cumsum(places) - 1
        kept = places[self.place]
        return replace(
            self,
            features=self.features[kept],
            words=self.words[kept],
            place=number[self.place[kept]],
            share=self.share[kept],
            label=self.label[places],
            block=self.block[places],
            colours=None if self.colours is None else self.colours[places],
        )


@dataclass(frozen=True)
class Fitted:
    """What examples add to the logits of classes."""

    residuals: NDArray[np.float32]
    """(C, D)"""
    biases: NDArray[np.float32]
    """(C,)"""
    colours: NDArray[np.float32] | None = None
    """(C, 3) what a step of red, green and blue adds, 0 being black; None: colours say nothing."""

    def beside(self, rgb: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Return what is added beside features: (C, ...) for pixels (..., 3), or (C,) where colours say nothing."""
        if self.colours is None:
            return self.biases
        assert rgb is not None
        added = self.colours @ rgb.reshape(-1, 3).T.astype(np.float32)
        added += self.biases[:, None]
        return np.asarray(added.reshape(-1, *rgb.shape[:-1]))


def fit(examples: Examples, penalty: float) -> Fitted:
    """Solve the problem of the module's head for one λ, by L-BFGS in float64: the same bits for the same examples.

    Parameters
    ----------
    examples:
        Of two classes or more.
    penalty:
        λ, above 0.

    """
    return _Problem(examples).solved(penalty)[0]


class _Problem:
    """The problem of the module's head for some examples, whatever λ is.

    It is solved along the principal axes of the features, each in steps that match its curvature: the same minimum,
    since the penalty knows no direction, in a third of the iterations.
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self._label = examples.label[examples.place]
        self._weight = examples.share * _class_weights(examples)[self._label]
        features = examples.features.astype(np.float64)
        spread = np.ones(features.shape[1])
        if examples.colours is not None:
            colours = examples.colours.astype(np.float64)
            tone = np.maximum(colours.std(axis=0), LEAST_SPREAD) / TONE
            features = np.concatenate([features, (colours / tone)[examples.place]], axis=1)
            spread = np.concatenate([spread, tone])
        self._spread = spread
        self._mean = (self._weight @ features) / self._weight.sum()
        centred = features - self._mean
        squares, self._axes = np.linalg.eigh((centred.T * self._weight) @ centred)
        self._x = np.concatenate([centred @ self._axes, np.ones((len(centred), 1))], axis=1)  # (S, D + 1)
        self._squares = np.append(np.maximum(squares, 0.0), self._weight.sum())
        self._free = np.ones((examples.classes, self._x.shape[1]))
        self._free[:, -1] = examples.wordless

    def solved(
        self, penalty: float, start: NDArray[np.float64] | None = None, *, exact: bool = True
    ) -> tuple[Fitted, NDArray[np.float64]]:
        """Fit, and return what another λ can start from; not ``exact`` is enough to judge a λ."""
        from scipy.optimize import minimize

        examples, label, weight, free = self._examples, self._label, self._weight, self._free
        step = 1 / np.sqrt(CURVATURE * self._squares + 2 * penalty)
        x = self._x * step
        words = examples.words.astype(np.float64)
        truth = np.eye(examples.classes)[label]
        own = np.arange(len(x)), label

        def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            r = at.reshape(examples.classes, -1) * free
            logits = words + x @ r.T
            logits -= logits.max(axis=1, keepdims=True)
            p = np.exp(logits)
            total = p.sum(axis=1)
            value = float(weight @ (np.log(total) - logits[own])) + penalty * float(((r * step) ** 2).sum())
            p /= total[:, None]
            slope = (((p - truth) * weight[:, None]).T @ x + 2 * penalty * r * step**2) * free
            return value, slope.ravel()

        begin = np.zeros(examples.classes * x.shape[1]) if start is None else (start / step).ravel()
        most, least, flat = (500, 1e-12, 1e-7) if exact else (100, 1e-4, 1e-2)
        options = {"maxiter": most, "ftol": least, "gtol": flat}
        found = minimize(loss, begin, jac=True, method="L-BFGS-B", options=options)
        along = found.x.reshape(examples.classes, -1) * step  # the axes
        solved, centred = along[:, :-1] @ self._axes.T, along[:, -1]
        added, biases = (solved / self._spread).astype(np.float32), centred - solved @ self._mean
        size = examples.features.shape[1]
        steps = None if examples.colours is None else np.ascontiguousarray(added[:, size:])
        return Fitted(np.ascontiguousarray(added[:, :size]), biases.astype(np.float32), steps), along


def _class_weights(examples: Examples) -> NDArray[np.float64]:
    """Weight of the places of each class (C,), all together P; see the module's head."""
    counts = np.bincount(examples.label, minlength=examples.classes)
    share = np.ones(examples.classes) if examples.prevalence is None else np.sqrt(examples.prevalence)
    share = np.where(counts > 0, share, 0.0)
    return np.asarray(share / share.sum() * len(examples.label) / np.maximum(counts, 1))


def with_prevalence(examples: Examples, scene: Examples) -> Examples:
    """Tell examples what share of the scene each class has, as a first fit sees a sample of it.

    Parameters
    ----------
    examples:
        Of two classes or more.
    scene:
        Places spread over the scene; their labels mean nothing.

    """
    if not len(scene.label):
        return examples
    first, _ = _Problem(examples).solved(USUAL_PENALTY, exact=False)
    return replace(examples, prevalence=np.maximum(probabilities(scene, first).mean(axis=0), LEAST_SHARE))


def probabilities(examples: Examples, fitted: Fitted | None) -> NDArray[np.float64]:
    """Class probabilities (P, C) at the places: those of the windows, averaged as the blending does."""
    from scipy.special import softmax

    logits = examples.words.astype(np.float64)
    if fitted is not None:
        added = fitted.beside(examples.colours).T
        logits = logits + examples.features @ fitted.residuals.T + (added[examples.place] if added.ndim == 2 else added)
    total = np.zeros((len(examples.label), examples.classes))
    np.add.at(total, examples.place, softmax(logits, axis=1) * examples.share[:, None])
    return total


@dataclass(frozen=True)
class Judged:
    """How well fits on a part of the examples tell the classes of the rest."""

    penalty: float
    names: tuple[int, ...]
    """Indices of the classes that have examples."""
    iou: NDArray[np.float64]
    """Of each of them, every place weighing as its class does in the fit."""
    f1: NDArray[np.float64]
    places: int
    folds: int
    spatial: bool
    """Whether folds are parts of the scene; else places beside each other were told apart, which flatters."""


def folds_of(examples: Examples, folds: int = FOLDS) -> tuple[NDArray[np.int64], bool]:
    """Number the fold of each place (P,): whole blocks where every class has them, else places; and which it was."""
    label, block = examples.label, examples.block
    blocks = min(len(np.unique(block[label == index])) for index in np.unique(label))
    if blocks >= 2:
        order = np.unique(block)
        return np.searchsorted(order, block) % min(folds, blocks), True
    rank = np.zeros(len(label), dtype=np.int64)
    for index in np.unique(label):
        own = np.flatnonzero(label == index)
        rank[own] = np.arange(len(own))
    return rank % folds, False


def choose(
    examples: Examples, penalties: Sequence[float] = PENALTIES, *, least: int = 10
) -> tuple[Fitted, Judged | None]:
    """Fit with a λ that tells left-out examples well, see the module's head; with few examples by the usual λ.

    Parameters
    ----------
    examples:
        Of two classes or more.
    penalties:
        The λ to try.
    least:
        Places that every class with examples must have for λ to be chosen; with fewer than 2 nothing is judged.

    """
    names = np.unique(examples.label)
    fewest = int(np.bincount(examples.label)[names].min())
    if fewest < 2:
        return fit(examples, USUAL_PENALTY), None
    tried = tuple(penalties) if fewest >= least else (USUAL_PENALTY,)
    fold, spatial = folds_of(examples)
    weight = _class_weights(examples)[examples.label]
    said = {penalty: np.zeros((len(examples.label), examples.classes)) for penalty in tried}
    for number in np.unique(fold):
        out = fold == number
        kept, rest, found, start = examples.part(~out), examples.part(out), None, None
        problem = _Problem(kept) if len(np.unique(kept.label)) > 1 else None
        for penalty in sorted(tried, reverse=True):  # the weaker goes on from the stronger
            if problem is not None:
                found, start = problem.solved(penalty, start, exact=False)
            said[penalty][out] = probabilities(rest, found)
    place = np.arange(len(examples.label)), examples.label
    losses = {each: -weight * np.log(np.maximum(said[each][place], 1e-12)) for each in tried}
    best = min(tried, key=lambda each: (losses[each].sum(), -each))
    most = losses[best].sum() + LEEWAY * losses[best].std() * np.sqrt(len(examples.label))
    penalty = min(each for each in tried if losses[each].sum() <= most)
    guess = said[penalty].argmax(axis=1)
    hit = np.array([weight[(guess == n) & (examples.label == n)].sum() for n in names])
    true = np.array([weight[examples.label == n].sum() for n in names])
    claimed = np.array([weight[guess == n].sum() for n in names])
    judged = Judged(
        penalty,
        tuple(int(n) for n in names),
        hit / (true + claimed - hit),
        2 * hit / (true + claimed),
        len(examples.label),
        len(np.unique(fold)),
        spatial,
    )
    return fit(examples, penalty), judged
