"""Error-adjusted areas: the published example, the truth of simulated maps, and plain formulas."""

from __future__ import annotations

import numpy as np
import pytest

from resegeo.evaluation.area_estimation import Sample, allocate, estimate

NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
COUNTS = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])


def sample_of(counts, sizes):
    counts = np.asarray(counts)
    mapped, truth = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    return Sample(mapped, mapped, truth, np.asarray(sizes))


def test_the_worked_example_of_olofsson_and_others():
    """Remote Sensing of Environment 148 (2014), section 6: Landsat pixels of 30 m."""
    found = estimate(sample_of(COUNTS, PIXELS), NAMES, PIXELS)
    deforested = found.area[0]
    assert deforested.value * found.pixels == pytest.approx(235_086, abs=1)
    assert deforested.error == pytest.approx(0.0035, abs=5e-5)
    assert deforested.half_width * found.pixels == pytest.approx(68_418, abs=20)
    assert deforested.value * found.pixels * 0.09 == pytest.approx(21_158, abs=1)  # hectares
    assert deforested.half_width * found.pixels * 0.09 == pytest.approx(6_158, abs=2)
    assert [round(ratio.value, 2) for ratio in found.users] == [0.88, 0.73, 0.93, 0.96]
    assert [round(ratio.half_width, 2) for ratio in found.users] == [0.07, 0.10, 0.04, 0.02]
    assert [round(ratio.value, 2) for ratio in found.producers] == [0.75, 0.85, 0.93, 0.96]
    assert round(found.overall.value, 2) == 0.95
    assert round(found.overall.half_width, 2) == 0.02


def test_with_map_classes_as_strata_the_area_has_olofssons_standard_error():
    """Equation 10, without the correction for finite populations."""
    counts = np.array([[40, 10], [5, 95]])
    sizes = np.array([10_000_000, 40_000_000])
    found = estimate(sample_of(counts, sizes), ("a", "b"), sizes)
    weight, n = sizes / sizes.sum(), counts.sum(axis=1)
    p = counts[:, 0] / n
    assert found.area[0].value == pytest.approx(float(weight @ p))
    assert found.area[0].error == pytest.approx(float(np.sqrt((weight**2 * p * (1 - p) / (n - 1)).sum())), rel=1e-4)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """A map of three classes with known mistakes, sampled 1,500 times."""
    random = np.random.default_rng(0)
    truth = random.choice(3, 40_000, p=[0.05, 0.25, 0.7])
    wrong = random.random(40_000) < 0.15
    mapped = np.where(wrong, random.choice(3, 40_000), truth)
    sizes = np.bincount(mapped, minlength=3)
    pools = [np.flatnonzero(mapped == c) for c in range(3)]
    n = allocate(300, sizes, least=60)
    real = [(truth == c).mean() for c in range(3)]
    overall = (truth == mapped).mean()
    held = np.zeros(4)
    runs = 1500
    for _ in range(runs):
        at = np.concatenate([random.choice(pool, count, replace=False) for pool, count in zip(pools, n, strict=True)])
        found = estimate(Sample(mapped[at], mapped[at], truth[at], sizes), ("a", "b", "c"), sizes)
        for c in range(3):
            held[c] += abs(found.area[c].value - real[c]) <= found.area[c].half_width
        held[3] += abs(found.overall.value - overall) <= found.overall.half_width
    assert ((held / runs > 0.93) & (held / runs < 0.97)).all(), held / runs


def test_every_pixel_labelled_leaves_no_doubt():
    truth = np.array([0, 0, 1, 1, 1, 0])
    mapped = np.array([0, 0, 0, 1, 1, 1])
    found = estimate(Sample(mapped, mapped, truth, np.array([3, 3])), ("a", "b"), np.array([3, 3]))
    assert found.area[0].value == pytest.approx(0.5)
    assert found.area[0].error == 0
    assert found.users[0].value == pytest.approx(2 / 3)


def test_strata_need_not_be_classes():
    """Two strata of confidence with both classes in each: against the plain weighted mean."""
    random = np.random.default_rng(1)
    stratum, mapped, truth = random.integers(0, 2, 80), random.integers(0, 2, 80), random.integers(0, 2, 80)
    sizes = np.array([300, 700])
    found = estimate(Sample(stratum, mapped, truth, sizes), ("a", "b"), np.array([400, 600]))
    expected = sum(size / 1000 * (truth[stratum == h] == 0).mean() for h, size in enumerate(sizes))
    assert found.area[0].value == pytest.approx(expected)


def test_a_stratum_without_a_point_leaves_the_estimate_open():
    found = estimate(
        Sample(np.array([0, 0]), np.array([0, 0]), np.array([0, 1]), np.array([5, 5])), ("a", "b"), np.array([5, 5])
    )
    assert np.isnan(found.area[0].value)
    assert found.as_dict(1.0)["classes"]["a"]["area_ha"]["value"] is None


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (300, [1000, 1000, 98_000], [32, 32, 236]),
        (100, [3, 0, 10_000], [3, 0, 97]),
        (9, [500, 500, 500], [3, 3, 3]),
        (50, [4, 6], [4, 6]),
    ],
)
def test_points_are_shared_out(count, sizes, expected):
    assert allocate(count, np.array(sizes)).tolist() == expected
