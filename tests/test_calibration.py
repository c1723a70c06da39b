"""Thresholds and scales from labelled tiles: by naive forms, on made-up pixels, and from a store end to end."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import resegeo
from resegeo.classes.class_file import class_list, load_class_list, parse_class_list
from resegeo.clip.blending import rescaled
from resegeo.errors import ClassFileError, ResegeoError, UsageError
from resegeo.evaluation.reliability import BINS, fit_scales, fit_threshold, reliability
from resegeo.run.calibration import Labelled, calibrate, fit
from resegeo_cli.main import main

pytestmark = [
    pytest.mark.usefixtures("quick_model"),
    pytest.mark.filterwarnings("ignore::resegeo.errors.ResegeoWarning"),
]
NAMES = ["water", "forest", "road"]


def random_probabilities(random, count, classes=3, sharp=2.0):
    logits = random.normal(0, sharp, (count, classes))
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


def drawn(random, probabilities):
    """Truth by chance: each class as often as its probability says."""
    return (probabilities.cumsum(axis=1) < random.random((len(probabilities), 1))).sum(axis=1).clip(max=2)


def naive_error(confidence, right):
    total = 0.0
    for low in np.arange(BINS) / BINS:
        inside = (confidence > low) & (confidence <= low + 1 / BINS)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def test_the_calibration_error_is_that_of_the_naive_form():
    random = np.random.default_rng(1)
    confidence, right = random.random(3000) * 0.998 + 0.001, random.random(3000) < 0.6
    found = reliability(confidence, right)
    assert found.error == pytest.approx(naive_error(confidence, right))
    assert found.count.sum() == 3000
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["expected_calibration_error"] == found.error


def test_probabilities_that_are_true_have_next_to_no_error():
    random = np.random.default_rng(2)
    probabilities = random_probabilities(random, 60_000)
    right = probabilities.argmax(axis=1) == drawn(random, probabilities)
    assert reliability(probabilities.max(axis=1), right).error < 0.01


def test_scaling_is_a_power_that_is_normed_and_without_scales_nothing_changes():
    by_class = random_probabilities(np.random.default_rng(3), 50).T.reshape(3, 5, 10)
    assert rescaled(by_class, [None, None, None]) is by_class
    powers = np.array([0.5, 1, 3])[:, None, None]
    expected = by_class**powers / (by_class**powers).sum(axis=0)
    assert rescaled(by_class, [0.5, None, 3]) == pytest.approx(expected, abs=1e-5)
    by_class[:, 0, 0] = np.nan
    assert np.isnan(rescaled(by_class, [0.5, None, 3])[:, 0, 0]).all()


def test_scales_that_made_the_truth_are_found_again():
    random = np.random.default_rng(4)
    probabilities = random_probabilities(random, 40_000)
    wanted = [0.5, 1.0, 2.0]
    truth = drawn(random, rescaled(probabilities.T.copy(), wanted).T)
    assert fit_scales(probabilities, truth, range(3), [True] * 3) == pytest.approx(wanted, rel=0.06)
    assert fit_scales(probabilities, truth, range(3), [True, False, True])[1] == 1


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 30))
def test_the_threshold_is_the_best_of_all(seed, count):
    random = np.random.default_rng(seed)
    scores, right = random.integers(1, 10, count) / 10, random.random(count) < 0.5
    true = int(right.sum()) + int(random.integers(0, 5))

    def iou(least):
        kept = scores >= least
        return (right & kept).sum() / (true + (kept & ~right).sum()) if true + (kept & ~right).sum() else 0

    found, best = fit_threshold(scores, right, true), max(map(iou, [0, *scores]))
    assert iou(0 if found is None else found) == pytest.approx(best)
    assert (found is None) == (not true or best == pytest.approx(iou(0)))


def made_up(seed, scales=(1.0, 1.0, 1.0), background=0.0, count=8000):
    """Pixels in four folds; background where no class is probable, if any."""
    random = np.random.default_rng(seed)
    probabilities = random_probabilities(random, count)
    truth = drawn(random, rescaled(probabilities.T.copy(), scales).T)
    truth[random.random(count) < background * (probabilities.max(axis=1) < 0.6)] = 3
    return Labelled(probabilities, truth, random.integers(0, 4, count))


def test_what_is_known_wrong_is_put_right_on_pixels_that_were_not_fitted_on():
    found = fit(made_up(5, scales=(0.4, 1.0, 0.4)), class_list(NAMES))
    assert found.after.error < found.before.error / 2
    assert [spec.scale for spec in found.classes.classes] == pytest.approx([0.4, 1, 0.4], rel=0.15)
    assert found.iou[1] >= found.iou[0]
    assert any("No background is labelled" in text for text in found.refusals)


def test_thresholds_give_background_what_is_background():
    found = fit(made_up(6, background=0.9), class_list(NAMES))
    floors = [spec.threshold for spec in found.classes.classes]
    assert all(floor is not None and 0.4 < floor < 0.7 for floor in floors)
    assert found.iou[1] > found.iou[0] + 0.01


def test_what_does_not_help_elsewhere_is_not_written():
    """Each fold is distorted in a way of its own, so nothing that others come to holds for it."""
    parts = [made_up(seed, scales=scales, count=3000) for seed, scales in enumerate([(0.2, 1, 5), (5, 1, 0.2)])]
    labelled = Labelled(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.repeat([0, 1], 3000),
    )
    found = fit(labelled, class_list(NAMES))
    assert all(spec.scale is None for spec in found.classes.classes)
    assert any(text.startswith("Scales did not help") for text in found.refusals)


def test_classes_with_few_labels_are_named_and_left_as_they_are():
    labelled = made_up(8)
    few = np.flatnonzero(labelled.truth == 2)[100:]
    keep = np.ones(len(labelled.truth), dtype=bool)
    keep[few] = False
    found = fit(labelled[keep], class_list(NAMES))
    assert found.classes.classes[2].scale is None
    assert found.refusals[0] == "Not fitted, since too little of them is labelled: road."
    with pytest.raises(ResegeoError, match="Too little is labelled"):
        fit(labelled[np.arange(len(labelled.truth)) < 100], class_list(NAMES))


def test_a_class_file_takes_scales_and_lists_without_one_are_as_ever():
    found = parse_class_list("classes: [{name: water, scale: 0.5}, forest]")
    assert [spec.scale for spec in found.classes] == [0.5, None]
    plain = found.to_json()
    assert plain["classes"][0]["scale"] == 0.5
    assert "scale" not in plain["classes"][1]
    assert type(found).from_json(plain) == found
    for value in ("0", "-1", "x", "[1]", "1000", "nan"):
        with pytest.raises(ClassFileError, match="a number above 0"):
            parse_class_list(f"classes: [{{name: water, scale: {value}}}]")


@pytest.fixture
def finished(make_raster, picture, tmp_path):
    """A run, its class file, and two truths that cover a part of the scene each."""
    words = tmp_path / "classes.yml"
    words.write_text("templates: ['a {}']\nthreshold: 0.1\nclasses: [water, {name: forest, color: '#010203'}, road]\n")
    result = resegeo.segment(make_raster("scene.tif", picture(96, 128)), words, tmp_path / "out")
    with rasterio.open(result.raster) as raster:
        codes, profile = raster.read(1), raster.profile
    random = np.random.default_rng(0)
    truth = np.where(random.random((12, 16)).repeat(8, 0).repeat(8, 1) < 0.7, codes, random.integers(0, 4, codes.shape))
    paths = []
    for name, part in (("left", np.s_[:, :50]), ("right", np.s_[:, 70:])):
        labels = np.full(codes.shape, 9, dtype=np.uint8)
        labels[part] = truth[part]
        paths.append(make_raster(f"{name}.tif", labels[None], crs=profile["crs"], transform=profile["transform"]))
    return tmp_path, words, paths, truth


def test_from_a_store_to_a_new_class_file_and_back(finished):
    folder, words, truths, _ = finished
    before = words.read_bytes()
    store, new = folder / "out/scene.store.zarr", folder / "new.yml"
    meaning = "1=water,2=forest,3=road,0=background"
    options = ["--prompts", words, "-o", new, "--map", meaning, "--diagram", folder / "diagram.png"]
    shown = CliRunner().invoke(main, ["calibrate", *map(str, [store, *truths, *options])])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines() == [str(new), str(folder / "diagram.png")]
    assert words.read_bytes() == before
    found = load_class_list(new)
    assert found.templates == ("a {}",)
    assert [(spec.name, spec.code) for spec in found.classes] == [("water", 1), ("forest", 2), ("road", 3)]
    assert found.classes[1].color == (1, 2, 3)
    assert "mean IoU" in new.read_text("utf-8").splitlines()[1]
    with Image.open(folder / "diagram.png") as diagram:
        assert diagram.width > 700
    again = resegeo.segment(store, new, folder / "out")
    assert again.raster.name == "scene.new.classes.tif"


def test_scales_of_a_class_file_reach_the_raster(finished):
    folder, _, _, _ = finished
    store = folder / "out/scene.store.zarr"
    plain = folder / "plain.yml"
    plain.write_text("classes: [water, forest, road]")
    high = folder / "high.yml"
    high.write_text("classes: [water, {name: forest, scale: 0.01}, road]")
    codes = [resegeo.segment(store, path, folder / "out").codes().values for path in (plain, high)]
    assert (codes[1] == 2).mean() > (codes[0] == 2).mean()
    assert (codes[1] == 2).all()  # to the power of nearly 0 its probability is nearly 1 before the norm


def test_codes_of_the_class_file_are_the_values_of_a_plain_raster(finished, make_raster):
    folder, words, truths, truth = finished
    with rasterio.open(truths[0]) as raster:
        profile = raster.profile
    whole = make_raster("whole.tif", truth.astype(np.uint8)[None], crs=profile["crs"], transform=profile["transform"])
    found = calibrate(folder / "out/scene.store.zarr", [whole], words, folder / "new.yml")
    assert (found.pixels, found.folds) == (96 * 128, 4)
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert set(plain["classes"]) == set(NAMES)


def test_mistakes_of_a_calibration(finished):
    folder, words, truths, _ = finished
    store = folder / "out/scene.store.zarr"
    with pytest.raises(ResegeoError, match="stays as it is"):
        calibrate(store, truths, words, words)
    with pytest.raises(UsageError, match="is no store"):
        calibrate(words, truths, words, folder / "new.yml")
    with pytest.raises(UsageError, match="needs a truth"):
        calibrate(store, [], words, folder / "new.yml")
    with pytest.raises(ResegeoError, match="no such file"):
        calibrate(store, ["none.tif"], words, folder / "new.yml")
    with pytest.raises(ResegeoError, match="has a class in"):
        calibrate(store, truths, words, folder / "new.yml", legend="77=water")
    assert not (folder / "new.yml").exists()
