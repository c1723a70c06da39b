"""What holds of words and examples whatever they are."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

import resegeo
from resegeo.clip.blending import Blender, Grouping, WindowScores
from resegeo.clip.fitting import Examples, Fitted, choose, fit, probabilities
from resegeo.clip.scores import patch_scores, unit
from resegeo.errors import ResegeoError
from resegeo.run.clicks import refuse_one_class
from resegeo.run.example_features import Places, Words, interpolated
from resegeo.scene.resampling import Canvas
from resegeo.scene.windows import Rect

GRID, SIDE, WIDTH = 4, 16, 6
SCENE = resegeo.open_scene(xr.DataArray(np.zeros((3, SIDE, SIDE + 8), np.uint8), dims=("band", "y", "x")))
SEEDS = st.integers(0, 10_000)
REDUCTIONS = st.sampled_from(["max", "mean", "logsumexp"])


def blended(seed, texts, grouping, residuals=None, added=None):
    """Class probabilities (C, h, w) of a scene of two windows that overlap, whose features are random."""
    random = np.random.default_rng(seed)
    vectors = texts if residuals is None else grouping.corrected_by(texts, residuals, 20.0)
    windows = []
    for col in (0, 8):
        features = random.normal(size=(1, GRID, GRID, WIDTH)).astype(np.float32)
        cls = unit(random.normal(size=WIDTH))
        windows.append(WindowScores(Rect(0, col, SIDE, SIDE), patch_scores(features, vectors)[0], texts @ cls))
    blender = Blender(Canvas(SCENE), grouping, logit_scale=20.0, taper=True, subtract_cls=0.3)
    return blender.blend(Rect(0, 0, SIDE, SIDE + 8), windows, added)


def prompts(seed, owner):
    return unit(np.random.default_rng(seed + 1).normal(size=(len(owner), WIDTH)))


@settings(max_examples=15)
@given(SEEDS, REDUCTIONS, st.lists(st.integers(1, 5), min_size=3, max_size=3))
def test_a_score_does_not_depend_on_how_often_a_word_is_repeated(seed, reduction, times):
    texts = prompts(seed, range(3))
    once = blended(seed, texts, Grouping((0, 1, 2), 3, reduction))
    owner = tuple(np.repeat(np.arange(3), times).tolist())
    often = blended(seed, texts[list(owner)], Grouping(owner, 3, reduction))
    assert np.allclose(once, often, atol=1e-6)
    if reduction == "max":
        assert (once.argmax(0) == often.argmax(0)).all()


@settings(max_examples=15)
@given(SEEDS, REDUCTIONS)
def test_vectors_of_nothing_are_the_words_bit_by_bit(seed, reduction):
    owner = (0, 0, 1, 2)
    texts = prompts(seed, owner)
    words = blended(seed, texts, Grouping(owner, 3, reduction))
    corrected = Grouping(owner, 3, reduction, corrected=True)
    for nothing in (np.zeros((3, 1, 1), np.float32), np.zeros((3, SIDE, SIDE + 8), np.float32)):
        assert (blended(seed, texts, corrected, np.zeros((3, WIDTH), np.float32), nothing) == words).all()


@settings(max_examples=20)
@given(SEEDS, REDUCTIONS, st.sampled_from([(0, 0, 1, 2), (0, 1, 1, 1), (1, 1)]), st.sampled_from([0.0, 0.3]))
def test_residuals_that_joined_the_prompts_say_what_residuals_of_classes_do(seed, reduction, owner, subtract_cls):
    """Pixel by pixel, from the words' logits of the interpolated feature and its products with residuals of classes."""
    random = np.random.default_rng(seed)
    words = Words(prompts(seed, owner), Grouping(owner, 3, reduction, corrected=True), 20.0, subtract_cls)
    features, residuals = (random.normal(size=size).astype(np.float32) for size in ((1, 4, 4, WIDTH), (3, WIDTH)))
    cls, nothing = unit(random.normal(size=WIDTH)), np.zeros(3, np.float32)
    reduced = patch_scores(features, words.corrected(Fitted(5 * residuals, nothing)))[0]
    window = WindowScores(Rect(0, 0, SIDE, SIDE), reduced, words.texts @ cls)
    blender = Blender(Canvas(SCENE), words.grouping, words.logit_scale, taper=True, subtract_cls=subtract_cls)
    found = blender.blend(Rect(0, 0, SIDE, SIDE), [window])
    rows, cols = ((each.ravel() + 0.5) / SIDE for each in np.indices((SIDE, SIDE)))
    u = unit(interpolated(features, np.zeros(SIDE**2, np.int64), rows, cols))
    logits = words.logits(u, cls) + u @ (5 * residuals).T
    expected = softmax(logits.astype(np.float64), axis=1)
    assert np.allclose(found.reshape(3, -1).T, expected, atol=1e-4)


def places(seed, classes=2, count=12):
    """Examples of ``classes`` of three classes, in the order in which they are given."""
    random = np.random.default_rng(seed)
    label = random.permutation(np.arange(count) % classes)
    return Places(random.integers(0, 50, count), random.integers(0, 50, count), label.astype(np.int64))


def seen(given):
    """What a store would say at places: features that follow from row, column and class."""
    angle = (given.rows[:, None] + 1) * np.arange(1, WIDTH + 1) + given.cols[:, None] * 0.7 + 2.0 * given.label[:, None]
    features = unit(np.sin(angle) + np.eye(3, WIDTH)[given.label])
    words = Words(prompts(0, range(3)), Grouping((0, 1, 2), 3), 10.0)
    number = np.arange(len(given))
    return Examples(
        features,
        words.logits(features, unit(np.ones(WIDTH))),
        number,
        np.ones(len(given), np.float32),
        given.label,
        words.wordless,
        (given.rows // 16).astype(np.int64),
    )


@settings(max_examples=4)
@given(SEEDS, SEEDS)
def test_the_order_of_points_and_repeated_points_change_no_bit_of_the_fit(seed, shuffle):
    drawn = places(seed)
    order = np.random.default_rng(shuffle).permutation(len(drawn))
    turned = drawn.part(np.concatenate([order, order[:3]]))
    (one, judged), (two, again) = (choose(seen(each.thinned())) for each in (drawn, turned))
    assert (one.residuals == two.residuals).all()
    assert (one.biases == two.biases).all()
    assert judged is not None
    assert judged.penalty == again.penalty


@settings(max_examples=5)
@given(SEEDS)
def test_examples_lower_the_loss_that_words_leave_on_them(seed):
    drawn = seen(places(seed).thinned())
    label = np.arange(len(drawn.label)), drawn.label
    words, fitted = probabilities(drawn, None)[label], probabilities(drawn, fit(drawn, 0.01))[label]
    weight = 1 / np.bincount(drawn.label, minlength=3)[drawn.label]
    assert -(weight * np.log(fitted)).sum() <= -(weight * np.log(words)).sum() + 1e-9


@settings(max_examples=20)
@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9)))
def test_examples_of_fewer_than_two_classes_are_refused(found):
    if len(found) >= 2:
        refuse_one_class(found, "examples")
        return
    with pytest.raises(ResegeoError, match="expected some of two classes or more"):
        refuse_one_class(found, "examples")
