"""The measure behind ``--weights separation``, against its formula written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resegeo.classes.class_file import class_list
from resegeo.composition.separation import PHRASINGS, TEMPERATURE, phrasings_of, separation, softmax_weights
from resegeo.errors import UsageError


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_cohesion_and_confusion_are_those_of_the_formula():
    random = np.random.default_rng(0)
    vectors = [random.normal(size=(count, 16)) + 2 * random.normal(size=16) for count in (3, 2, 5)]
    cohesion = np.mean([np.mean([cosine(a, b) for a, b in itertools.combinations(rows, 2)]) for rows in vectors])
    means = [np.mean([row / np.linalg.norm(row) for row in rows], axis=0) for rows in vectors]
    confusion = np.mean([max(cosine(means[i], means[j]) for j in range(3) if j != i) for i in range(3)])
    found = separation(vectors)
    assert found.cohesion == pytest.approx(cohesion, abs=1e-12)
    assert found.confusion == pytest.approx(confusion, abs=1e-12)
    assert found.quality == pytest.approx(cohesion - confusion, abs=1e-12)


def test_perfect_words_have_quality_one_and_words_that_are_all_alike_zero():
    axes = np.eye(4)
    assert separation([np.stack([axis, axis]) for axis in axes]).quality == pytest.approx(1.0)
    assert separation([np.ones((2, 4))] * 3).quality == pytest.approx(0.0)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.floats(0.01, 10))
def test_weights_sum_to_one_follow_quality_and_forget_the_order(qualities, temperature):
    weights = softmax_weights(qualities, temperature)
    assert sum(weights) == pytest.approx(1.0)
    for (better, more), (worse, less) in itertools.product(zip(qualities, weights, strict=True), repeat=2):
        assert better < worse or more >= less
    assert softmax_weights(qualities[::-1], temperature) == weights[::-1]


def test_the_temperature_is_the_gain_that_counts_e_times():
    first, second = softmax_weights([0.5, 0.5 + TEMPERATURE])
    assert second / first == pytest.approx(np.e)


def test_phrasings_come_from_the_class_file_and_single_ones_get_more():
    listed = class_list([{"name": "water", "prompts": ["lake", "river"]}, "road", "volcano"])
    found = phrasings_of(listed)
    assert found["water"] == ("lake", "river")
    assert found["road"] == PHRASINGS["road"]
    assert found["volcano"][:2] == ("volcano", "an aerial photo of volcano")
    assert all(len(set(texts)) == len(texts) > 1 for texts in found.values())
    assert phrasings_of(None) == PHRASINGS
    templates = class_list(["water", "road"], templates=["a {}", "the {}"])
    assert phrasings_of(templates)["water"] == ("a water", "the water")
    with pytest.raises(UsageError, match="two or more"):
        phrasings_of(class_list(["water"]))
