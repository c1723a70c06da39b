"""Class vectors from examples: a convex problem, solved, against scikit-learn and against its own definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from resegeo.clip.fitting import Examples, choose, fit, folds_of, probabilities, with_prevalence


def examples(places=60, classes=3, width=8, seed=0, words=1.0, windows=2, wordless=True):
    """Places of three kinds whose features lie around one axis each; every place is seen by ``windows`` windows."""
    random = np.random.default_rng(seed)
    label = np.arange(places) % classes
    place = np.repeat(np.arange(places), windows)
    f = random.normal(size=(len(place), width)) + 1.5 * np.eye(classes, width)[label[place]] + 1
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    said = words * random.normal(size=(len(place), classes))
    share = np.tile(np.linspace(1, 2, windows), places)
    share /= share.reshape(places, windows).sum(axis=1).repeat(windows)
    block = random.integers(0, 6, places)
    bare = np.full(classes, wordless)
    return Examples(f.astype(np.float32), said.astype(np.float32), place, share.astype(np.float32), label, bare, block)


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_without_words_the_fit_is_scikit_learns_logistic_regression(penalty):
    given = examples(words=0.0, windows=1)
    found = fit(given, penalty)
    centred = given.features - given.features.mean(axis=0)
    x = np.hstack([centred, np.ones((len(centred), 1))])
    oracle = LogisticRegression(C=1 / (2 * penalty), fit_intercept=False, tol=1e-9, max_iter=10_000)
    expected = oracle.fit(x, given.label).predict_proba(x)
    assert np.allclose(probabilities(given, found), expected, atol=2e-4)


def test_a_strong_penalty_leaves_the_words_and_a_weak_one_overrules_them():
    given = examples(words=1.0)
    words = probabilities(given, None)
    assert np.allclose(probabilities(given, fit(given, 1e8)), words, atol=1e-4)
    right = [(probabilities(given, found).argmax(1) == given.label).mean() for found in (None, fit(given, 1e-3))]
    assert right[0] < 0.6
    assert right[1] > 0.85


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_the_order_of_the_examples_does_not_matter(seed):
    given = examples(seed=seed, places=30)
    turned = np.random.default_rng(seed).permutation(30)
    back = np.argsort(turned)
    order = np.argsort(back[given.place], kind="stable")
    other = Examples(
        given.features[order], given.words[order], back[given.place][order], given.share[order],
        given.label[turned], given.wordless, given.block[turned],
    )  # fmt: skip
    one, two = fit(given, 0.1), fit(other, 0.1)
    assert np.allclose(probabilities(given, one), probabilities(given, two), atol=1e-4)


def test_the_solution_is_the_least_of_its_definition():
    """No small step away from it lowers the loss, written out place by place."""
    given, penalty = examples(places=24), 0.3
    found = fit(given, penalty)
    counts = np.bincount(given.label)
    weight = given.share * (24 / (3 * counts))[given.label[given.place]]
    mean = (weight @ given.features.astype(float)) / weight.sum()

    def loss(residuals, centred):
        total = penalty * ((residuals**2).sum() + (centred**2).sum())
        for u, said, place, w in zip(given.features, given.words, given.place, weight, strict=True):
            logits = said + residuals @ (u - mean) + centred
            total -= w * (logits[given.label[place]] - np.log(np.exp(logits).sum()))
        return total

    residuals = found.residuals.astype(float)
    centred = found.biases + residuals @ mean
    least = loss(residuals, centred)
    random = np.random.default_rng(1)
    for _ in range(20):
        step = 0.01 * random.normal(size=residuals.shape)
        assert loss(residuals + step, centred) > least
        assert loss(residuals, centred + 0.01 * random.normal(size=3)) > least


def test_colours_are_further_features_less_their_mean_over_their_spread():
    places = 60
    given = examples(places=places)
    random = np.random.default_rng(2)
    colours = random.integers(0, 256, (places, 3)).astype(np.uint8)
    colours[:, 2] = 90 + random.integers(0, 2, places)  # of hardly any spread
    coloured = replace(given, colours=colours)
    found = fit(coloured, 0.3)
    spread = np.array([*colours[:, :2].std(axis=0), 8.0])
    z = ((colours - colours.mean(axis=0)) / spread / 2)[given.place]
    wider = replace(given, features=np.concatenate([given.features, z], axis=1).astype(np.float32))
    expected = fit(wider, 0.3)
    assert found.colours is not None
    assert np.allclose(found.residuals, expected.residuals[:, :-3], atol=2e-3)
    assert np.allclose(probabilities(coloured, found), probabilities(wider, expected), atol=1e-3)
    black, white = (found.beside(np.full((1, 1, 3), value, np.uint8))[:, 0, 0] for value in (0, 255))
    assert np.allclose(black, found.biases)
    assert np.allclose(white - black, 255 * found.colours.sum(axis=1), atol=1e-3)
    some = coloured.part(np.arange(places) % 2 == 0)
    assert (some.colours == colours[::2]).all()


def test_a_class_with_many_examples_does_not_outweigh_one_with_few():
    given = examples(places=60)
    kept = np.ones(60, dtype=bool)
    kept[np.flatnonzero(given.label == 2)[4:]] = False
    few = given.part(kept)
    found = probabilities(few, fit(few, 1e-3)).argmax(axis=1)
    assert (found[few.label == 2] == 2).all()


def test_lambda_is_chosen_on_places_left_out_whole_block_by_block():
    _fitted, judged = choose(examples(places=90, seed=3))
    assert judged is not None
    assert judged.spatial
    assert judged.places == 90
    assert judged.f1.min() > 0.65
    noise = examples(places=90, seed=3, words=0.0)
    random = np.random.default_rng(0)
    noise = Examples(
        random.permutation(noise.features),
        noise.words,
        noise.place,
        noise.share,
        noise.label,
        noise.wordless,
        noise.block,
    )
    _, judged = choose(noise, least=10)
    assert judged is not None
    assert judged.penalty >= 1
    assert judged.f1.mean() < 0.55


@pytest.mark.parametrize("seed", range(4))
def test_lambda_is_the_smallest_that_is_not_clearly_worse_than_the_best(seed):
    """Against loops over λ and folds, each fitted to the end."""
    given = examples(places=60, seed=seed)
    _, judged = choose(given)
    fold, _ = folds_of(given)
    weight = 20 / np.bincount(given.label)[given.label]  # of 60 places of three classes
    losses = {}
    for penalty in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0):
        p = np.zeros(60)
        for out in (fold == number for number in np.unique(fold)):
            rest = given.part(out)
            p[out] = probabilities(rest, fit(given.part(~out), penalty))[np.arange(out.sum()), rest.label]
        losses[penalty] = -weight * np.log(p)
    best = min(losses.values(), key=np.sum)
    least = best.sum() + np.std(best) * np.sqrt(60) / 4
    assert judged.penalty == next(penalty for penalty, loss in losses.items() if loss.sum() <= least)


def test_one_example_a_class_is_fitted_but_not_judged():
    fitted, judged = choose(examples(places=3))
    assert judged is None
    assert np.isfinite(fitted.residuals).all()


def test_a_class_with_words_keeps_their_word_on_how_common_it_is():
    """Twenty times as many examples of one kind do not make that kind more likely at the mean of all features."""
    given = examples(places=60, wordless=False)
    kept = np.ones(60, dtype=bool)
    kept[np.flatnonzero(given.label == 2)[1:]] = False
    few = given.part(kept)
    found = fit(few, 0.1)
    weight = few.share * np.array([1 / (few.label == n).sum() for n in range(3)])[few.label[few.place]]
    mean = (weight @ few.features.astype(float)) / weight.sum()
    assert np.allclose(found.residuals @ mean + found.biases, 0, atol=1e-5)


def test_a_class_weighs_as_the_root_of_its_share_of_the_scene():
    """A scene of one kind alone: the fit leans to that kind where features leave it open."""
    given = examples(places=60, classes=2, words=0.0)
    one_kind = examples(places=200, classes=2, words=0.0, seed=5)
    one_kind = one_kind.part(one_kind.label == 0)
    told = with_prevalence(given, one_kind)
    assert told.prevalence is not None
    assert told.prevalence[0] > 0.6
    root = np.sqrt(told.prevalence)
    weight = given.share * (60 * root / root.sum() / 30)[given.label[given.place]]
    oracle = LogisticRegression(C=1 / 0.1, fit_intercept=False, tol=1e-9, max_iter=10_000)
    mean = weight @ given.features / weight.sum()
    x = np.hstack([given.features - mean, np.ones((len(given.features), 1))])
    oracle.fit(x, given.label[given.place], sample_weight=weight)
    found = fit(told, 0.1)
    logits = given.features @ found.residuals.T + found.biases
    assert np.allclose(logits[:, 1] - logits[:, 0], oracle.decision_function(x), atol=0.02)
    assert with_prevalence(given, one_kind.part(np.zeros(len(one_kind.label), bool))) is given


def test_what_judges_a_lambda_is_near_what_is_fitted():
    from resegeo.clip.fitting import _Problem

    given = examples(places=60, seed=4)
    problem = _Problem(given)
    _, start = problem.solved(1.0, exact=False)
    rough, _ = problem.solved(0.1, start, exact=False)
    assert np.abs(probabilities(given, rough) - probabilities(given, fit(given, 0.1))).max() < 0.02
