"""Many images: folders matched by name, figures of each and of all, intervals, pictures, LaTeX; scikit-learn counts."""

from __future__ import annotations

import csv
import json
import shutil
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn import metrics as oracle
from test_evaluate import predicted, random_codes  # noqa: F401  a fixture

from resegeo.errors import InputNotice, ResegeoError, UsageError
from resegeo.evaluation.evaluate import evaluate, write_confusion
from resegeo.evaluation.folders import matched
from resegeo_cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::resegeo.errors.InputNotice")
IMAGES = ("a", "b", "north/c")


@pytest.fixture
def folders(predicted, make_raster, tmp_path):  # noqa: F811
    """A folder as a batch leaves it, one of truths, and the codes of both by image."""
    out, truths, codes = tmp_path / "out", tmp_path / "truth", {}
    for seed, name in enumerate(IMAGES):
        guess, real = random_codes(seed), random_codes(seed + 50)
        real = np.where(np.random.default_rng(seed).random(real.shape) < 0.6, guess, real)
        stem = name.rpartition("/")[2]
        for folder in (out / name, (truths / name).parent):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.move(predicted(guess, f"{stem}.classes.tif"), out / name)
        shutil.move(make_raster(f"{stem}.tif", real[None]), (truths / name).parent)
        codes[name] = (guess.ravel(), real.ravel())
    return out, truths, codes


def run(*arguments):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def scores(guess, real):
    iou = oracle.jaccard_score(real, guess, average="macro", labels=[1, 2, 3])
    f1 = oracle.f1_score(real, guess, average="macro", labels=[1, 2, 3])
    recall = oracle.recall_score(real, guess, average="macro", labels=[1, 2, 3])
    return iou, f1, recall, oracle.accuracy_score(real, guess)


MEASURES = ("mean_iou", "mean_f1", "macro_accuracy", "overall_accuracy")


def test_each_image_and_the_sum_are_counted_as_scikit_learn_counts(folders):
    out, truths, codes = folders
    plain = json.loads(run(out, truths, "--json").stdout)
    assert [[image[key] for key in MEASURES] for image in plain["images"]] == [
        pytest.approx(scores(*codes[name])) for name in IMAGES
    ]
    both = [np.concatenate(parts) for parts in zip(*codes.values(), strict=True)]
    assert [plain[key] for key in MEASURES] == pytest.approx(scores(*both))


def test_the_table_of_images_is_written_as_csv(folders, tmp_path):
    out, truths, codes = folders
    assert run(out, truths, "--images", tmp_path / "images.csv").exit_code == 0
    with (tmp_path / "images.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["prediction"].rpartition("/")[2] for row in rows[:3]] == [f"{n[-1]}.classes.tif" for n in IMAGES]
    assert float(rows[2]["mean_iou"]) == pytest.approx(scores(*codes["north/c"])[0], abs=1e-6)
    assert (rows[3]["prediction"], len(rows)) == ("all images", 4)
    again = run(out, truths, "--images", tmp_path / "images.csv")
    assert (again.exit_code, "exists" in again.stderr) == (1, True)


def test_what_has_no_partner_is_named(folders):
    out, truths, _ = folders
    (truths / "b.tif").rename(truths / "z.tif")
    with pytest.warns(InputNotice) as given:
        pairs = matched(out, truths)
    assert len(pairs) == 2
    assert [str(one.message).partition(" in ")[0] for one in given] == [
        "1 without a truth",
        "1 without a class raster",
    ]
    assert str(given[0].message).endswith(": b.")
    assert str(given[1].message).endswith(": z.tif.")


def test_places_decide_between_truths_of_one_name_and_else_it_is_a_mistake(folders):
    out, truths, _ = folders
    (truths / "south").mkdir()
    shutil.copy(truths / "north/c.tif", truths / "south/c.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert dict(matched(out, truths))[str(out / "north/c/c.classes.tif")] == str(truths / "north/c.tif")
    (truths / "north").rename(truths / "east")
    with pytest.raises(ResegeoError, match="both called as"):
        matched(out, truths)


def test_results_are_truths_by_their_class_rasters_alone(folders):
    out, truths, _ = folders
    for name in IMAGES:
        stem = name.rpartition("/")[2]
        for suffix in (".png", ".json", ".gpkg"):
            (out / name / f"{stem}{suffix}").write_bytes(b"whatever lies beside a class raster")
    (truths / "report.json").write_text("{}")
    assert len(matched(out, truths)) == 3
    pairs = matched(out, out)
    assert pairs == [(str(out / f"{n}/{n[-1]}.classes.tif"),) * 2 for n in IMAGES]
    assert evaluate(pairs).accuracy.overall == 1


def test_no_partner_at_all_a_missing_folder_and_no_raster_are_mistakes(folders, tmp_path):
    out, truths, _ = folders
    (tmp_path / "empty").mkdir()
    for pair, words in (
        ((out, tmp_path / "empty"), "No truth in"),
        ((out, tmp_path / "none"), "is no folder"),
        ((out, truths / "a.tif"), "is no folder"),
        ((truths, out), "holds no class raster"),
    ):
        result = run(*pair)
        assert (result.exit_code, words in result.stderr, result.stderr.count("\n")) == (1, True, 1), result.stderr


def test_intervals_are_percentiles_of_figures_of_resampled_images(folders):
    out, truths, codes = folders
    pairs = matched(out, truths)
    found = evaluate(pairs, bootstrap=400, seed=7).intervals
    drawn = np.random.default_rng(7).integers(0, 3, (400, 3))
    cases = {}
    for sample in {tuple(sorted(row)) for row in drawn}:
        parts = zip(*(codes[IMAGES[number]] for number in sample), strict=True)
        cases[sample] = scores(*map(np.concatenate, parts))
    expected = np.percentile([cases[tuple(sorted(row))] for row in drawn], [2.5, 97.5], axis=0)
    ends = np.array([found.overall[key] for key in MEASURES]).T
    assert ends == pytest.approx(expected)
    assert evaluate(pairs, bootstrap=400, seed=7).intervals == found
    assert evaluate(pairs, bootstrap=400, seed=8).intervals != found


def test_a_single_image_has_no_interval(folders):
    out, truths, _ = folders
    with pytest.raises(UsageError, match="give a folder"):
        evaluate([(out / "a/a.classes.tif", truths / "a.tif")], bootstrap=100)


def test_the_confusion_picture_darkens_with_the_share_of_the_row(folders, tmp_path):
    out, truths, _ = folders
    found = evaluate(matched(out, truths))
    write_confusion(found, tmp_path / "confusion.png")
    picture = np.asarray(Image.open(tmp_path / "confusion.png").convert("L")).astype(int)
    side, corner = 84, (picture.shape[0] - 24 - 84 * 4, picture.shape[1] - 24 - 84 * 5)
    cells = [[picture[corner[0] + side * r + 6, corner[1] + side * c + 6] for c in range(5)] for r in range(4)]
    shares = found.accuracy.counts / found.accuracy.true[:, None]
    assert (np.argsort(np.ravel(cells)[np.argsort(-shares.ravel(), kind="stable")], kind="stable") == range(20)).all()


def test_latex_has_a_table_for_classes_means_intervals_and_images(folders):
    out, truths, codes = folders
    (out / "a/a.classes.tif").rename(out / "a/a_1.classes.tif")
    (truths / "a.tif").rename(truths / "a_1.tif")
    text = run(out, truths, "--latex", "--bootstrap", "100", "--boundary", "2px").stdout
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 5
    assert rf"a\_1 & {100 * scores(*codes['a'])[0]:.1f} &" in text
    assert "Mean boundary IoU & " in text
    for table in text.split("\n\n"):
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1
