"""The measures against scikit-learn's, which never saw our confusion matrix."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from resegeo.evaluation.evaluate import Evaluation
from resegeo.evaluation.metrics import UNKNOWN, Accuracy, count_pairs
from resegeo_cli.tables import latex, of_evaluation


def table(found: Accuracy) -> str:
    return of_evaluation(Evaluation(found, (), unlabelled=0, silent=0, ignore_nodata=False))


NAMES = ("water", "forest", "road", "background")


def maps(seed, shape=(40, 50), classes=4):
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, shape)
    wrong = random.random(shape) < 0.4
    return truth, np.where(wrong, random.integers(0, classes, shape), truth)


def in_blocks(truth, predicted, size=7):
    for row in range(0, truth.shape[0], size):
        yield truth[row : row + size], predicted[row : row + size]


@given(st.integers(0, 2**31), st.integers(2, 4), st.integers(1, 30), st.integers(1, 30))
def test_blocks_add_up_to_the_confusion_matrix_of_the_whole(seed, classes, height, width):
    truth, predicted = maps(seed, (height, width), classes)
    found = Accuracy.of_blocks(NAMES[:classes], in_blocks(truth, predicted))
    expected = oracle.confusion_matrix(truth.ravel(), predicted.ravel(), labels=range(classes))
    assert (found.counts == expected).all()
    assert found.pixels == truth.size


def test_every_measure_is_that_of_scikit_learn():
    truth, predicted = maps(3)
    found = Accuracy.of_blocks(NAMES, in_blocks(truth, predicted), aside=("background",))
    y, p = truth.ravel(), predicted.ravel()
    assert found.iou == pytest.approx(oracle.jaccard_score(y, p, average=None))
    assert found.f1 == pytest.approx(oracle.f1_score(y, p, average=None))
    assert found.precision == pytest.approx(oracle.precision_score(y, p, average=None))
    assert found.recall == pytest.approx(oracle.recall_score(y, p, average=None))
    assert found.overall == pytest.approx(oracle.accuracy_score(y, p))
    assert found.kappa == pytest.approx(oracle.cohen_kappa_score(y, p))
    assert found.mean_iou == pytest.approx(oracle.jaccard_score(y, p, average="macro", labels=[0, 1, 2]))


def test_means_are_those_of_scikit_learn():
    truth, predicted = (part.ravel() for part in maps(3))
    found = Accuracy.of_blocks(NAMES, [(truth, predicted)])
    assert found.mean_f1 == pytest.approx(oracle.f1_score(truth, predicted, average="macro"))
    assert found.macro_accuracy == pytest.approx(oracle.balanced_accuracy_score(truth, predicted))
    weighted = oracle.jaccard_score(truth, predicted, average="weighted")
    assert found.frequency_weighted_iou == pytest.approx(weighted)
    aside = Accuracy(NAMES, found.counts, aside=("background",))
    assert aside.mean_f1 == pytest.approx(oracle.f1_score(truth, predicted, labels=[0, 1, 2], average="macro"))


def test_the_latex_table_has_a_row_a_class_and_escapes_names():
    truth, predicted = (part.ravel() for part in maps(4, classes=2))
    text = latex(Accuracy.of_blocks(("a_b", "50% & more"), [(truth, predicted)]))
    assert r"a\_b & " in text
    assert r"50\% \& more & " in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 4


def test_the_confusion_table_is_the_matrix():
    truth, predicted = maps(5)
    found = Accuracy.of_blocks(NAMES, [(truth, predicted)])
    head, *rows = found.confusion_rows()
    assert head[1:] == list(NAMES)
    assert [[int(cell) for cell in row[1:]] for row in rows] == oracle.confusion_matrix(
        truth.ravel(), predicted.ravel()
    ).tolist()


def test_answers_that_are_no_class_count_against_recall_and_not_against_precision():
    truth, predicted = maps(4)
    predicted = np.where(np.random.default_rng(0).random(truth.shape) < 0.3, 4, predicted)
    found = Accuracy.of_blocks(NAMES, in_blocks(truth, predicted), extra=("nodata",))
    y, p = truth.ravel(), predicted.ravel()
    labels = [0, 1, 2, 3]
    assert found.recall == pytest.approx(oracle.recall_score(y, p, average=None, labels=labels))
    assert found.precision == pytest.approx(oracle.precision_score(y, p, average=None, labels=labels))
    assert found.overall == pytest.approx(oracle.accuracy_score(y, p))
    assert found.kappa == pytest.approx(oracle.cohen_kappa_score(y, p))


def test_pixels_unknown_to_either_side_are_not_counted():
    truth, predicted = maps(5)
    hidden = np.random.default_rng(1).random(truth.shape)
    truth_known, predicted_known = hidden > 0.3, hidden < 0.9
    both = truth_known & predicted_known
    found = count_pairs(
        np.where(truth_known, truth, UNKNOWN), np.where(predicted_known, predicted, UNKNOWN), rows=4, columns=4
    )
    assert 0 < both.sum() < truth.size
    assert (found == oracle.confusion_matrix(truth[both], predicted[both])).all()


def test_small_index_types_do_not_overflow():
    truth = np.full((10, 10), 120, dtype=np.int8)
    counts = count_pairs(truth, truth, 200, 200)
    assert counts[120, 120] == 100
    assert counts.sum() == 100


def test_a_class_that_occurs_nowhere_has_no_figures_and_leaves_the_mean_alone():
    truth = np.array([[0, 0, 1, 1]])
    found = Accuracy.of_blocks(("water", "forest", "road"), [(truth, np.array([[0, 1, 1, 1]]))])
    assert math.isnan(found.iou[2])
    assert found.mean_iou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found.as_dict()["classes"]["road"]["iou"] is None


def test_a_class_that_is_only_predicted_counts_as_zero():
    found = Accuracy.of_blocks(("water", "forest"), [(np.array([[0, 0, 0]]), np.array([[0, 0, 1]]))])
    assert found.iou.tolist() == pytest.approx([2 / 3, 0])
    assert found.mean_iou == pytest.approx(1 / 3)
    assert math.isnan(found.recall[1])


def test_kappa_of_one_class_alone_is_undefined_as_in_scikit_learn():
    same = np.zeros((3, 3), dtype=int)
    found = Accuracy.of_blocks(("water",), [(same, same)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert math.isnan(oracle.cohen_kappa_score(same.ravel(), same.ravel()))
    assert math.isnan(found.kappa)
    assert found.overall == 1.0


def test_nothing_compared_gives_no_number_at_all():
    found = Accuracy.of_blocks(("water",), [])
    assert math.isnan(found.overall)
    assert math.isnan(found.kappa)
    assert math.isnan(found.mean_iou)
    assert "–" in table(found)


def test_the_table_and_the_json_say_the_same():
    truth, predicted = maps(6)
    found = Accuracy.of_blocks(NAMES, in_blocks(truth, predicted), aside=("background",))
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    lines = {line.split()[0]: line.split()[1:] for line in table(found).splitlines() if line}
    assert list(lines)[1:5] == list(NAMES)
    for name in NAMES:
        facts = plain["classes"][name]
        assert lines[name][:4] == [f"{facts[key]:.3f}" for key in ("iou", "f1", "precision", "recall")]
        assert lines[name][4:] == [f"{facts[key]:,}" for key in ("pixels_truth", "pixels_predicted")]
    for name, key in {"mean IoU": "mean_iou", "mean F1": "mean_f1", "macro accuracy": "macro_accuracy"}.items():
        (line,) = [line for line in table(found).splitlines() if line.startswith(name)]
        assert line.removeprefix(name).split()[0] == f"{plain[key]:.3f}"
    assert "without background" in table(found)
    assert lines["kappa"] == [f"{plain['kappa']:.3f}"]
    assert np.sum(plain["confusion"]["pixels"]) == truth.size
