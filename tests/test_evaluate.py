"""Predictions against truths of every kind; scikit-learn counts the same pixels by itself."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from sklearn.metrics import confusion_matrix, jaccard_score

import resegeo.scene.windows
from resegeo.classes.class_file import class_list
from resegeo.errors import InputNotice, ResegeoError
from resegeo.evaluation.evaluate import OTHER, SILENT, evaluate, read_pairs
from resegeo.outputs.raster import write_class_raster
from resegeo.scene.source import GeoReference
from resegeo_cli.main import main

NAMES = ["water", "forest", "road"]
PLACE = from_origin(500_000, 5_200_000, 10, 10)


def random_codes(seed, shape=(70, 90), values=(0, 1, 2, 3)):
    """Areas of 5 pixels, so that warping has something to lose."""
    random = np.random.default_rng(seed)
    coarse = random.choice(values, (shape[0] // 5 + 1, shape[1] // 5 + 1))
    return coarse.repeat(5, 0).repeat(5, 1)[: shape[0], : shape[1]].astype(np.uint8)


@pytest.fixture
def predicted(tmp_path):
    def write(codes, name="scene.classes.tif", transform=PLACE, crs="EPSG:32633", names=NAMES):
        path = tmp_path / name
        write_class_raster(
            path,
            [(0, 0, codes)],
            height=codes.shape[0],
            width=codes.shape[1],
            georeference=GeoReference(CRS.from_user_input(crs) if crs else None, transform),
            classes=class_list(names),
            tags={},
        )
        return path

    return write


def labels(names):
    return np.array([0, *range(1, len(names) + 1)])


@pytest.mark.filterwarnings("ignore::resegeo.errors.InputNotice")
def test_a_label_raster_with_the_predictions_codes_is_counted_as_scikit_learn_counts(predicted, make_raster):
    guess, real = random_codes(1), random_codes(2)
    found = evaluate([(predicted(guess), make_raster("truth.tif", real[None]))]).accuracy
    assert found.names == ("water", "forest", "road", "background")
    expected = confusion_matrix(real.ravel(), guess.ravel(), labels=[1, 2, 3, 0])
    assert (found.counts[:, :4] == expected).all()
    assert found.mean_iou == pytest.approx(
        jaccard_score(real.ravel(), guess.ravel(), average="macro", labels=[1, 2, 3])
    )


def test_block_size_does_not_change_the_counts(predicted, make_raster, monkeypatch):
    guess, real = predicted(random_codes(1)), make_raster("truth.tif", random_codes(2)[None])
    whole = evaluate([(guess, real)], legend="1=water,3=road,0=background")
    monkeypatch.setattr(resegeo.scene.windows.blocks, "__defaults__", (16,))
    small = evaluate([(guess, real)], legend="1=water,3=road,0=background")
    assert (whole.accuracy.counts == small.accuracy.counts).all()
    assert whole.unlabelled == small.unlabelled > 0


def test_a_class_raster_brings_its_own_names_whatever_their_codes(predicted):
    codes = random_codes(3, values=(0, 1, 2))
    truth = predicted(codes, "truth.tif", names=["Road", "water"])
    guess = np.array([0, 3, 1], dtype=np.uint8)[codes]
    found = evaluate([(predicted(guess), truth)]).accuracy
    assert found.names == ("water", "road", "background")
    assert found.overall == 1.0
    assert found.iou.tolist() == [1.0, 1.0, 1.0]


def test_values_that_nobody_named_are_not_counted(predicted, make_raster):
    guess, real = random_codes(1), random_codes(2, values=(0, 1, 2, 77))
    result = evaluate([(predicted(guess), make_raster("truth.tif", real[None]))], legend="1=water,2=forest")
    known = np.isin(real, (1, 2))
    assert result.unlabelled == (~known).sum() > 0
    assert result.accuracy.pixels == known.sum()
    expected = confusion_matrix(real[known], guess[known], labels=[1, 2, 3, 0])
    assert (result.accuracy.counts[:, :2] == expected[:2, :2]).all()
    # without background in the truth, another answer is wrong and no class of its own
    assert result.accuracy.extra == (OTHER, SILENT)
    assert (result.accuracy.counts[:, 2] == expected[:2, 2:].sum(axis=1)).all()


def test_classes_that_the_truth_does_not_name_are_its_background(predicted, tmp_path):
    guess, real = random_codes(1), random_codes(2, values=(0, 255))
    Image.fromarray(real).save(tmp_path / "mask.png")
    found = evaluate(
        [(predicted(guess, transform=None, crs=None), tmp_path / "mask.png")], legend="255=road,0=background"
    ).accuracy
    assert found.names == ("road", "background")
    expected = confusion_matrix(real.ravel() == 255, guess.ravel() == 3, labels=[True, False])
    assert (found.counts[:, :2] == expected).all()


def test_a_mask_for_a_prediction_of_one_class_needs_no_map(predicted, tmp_path):
    guess, real = random_codes(1, values=(0, 1)), random_codes(2, values=(0, 3, 200))
    Image.fromarray(real).save(tmp_path / "mask.png")
    path = predicted(guess, names=["road"], transform=None, crs=None)
    with pytest.warns(InputNotice, match="any value but 0 is road"):
        found = evaluate([(path, tmp_path / "mask.png")]).accuracy
    assert (found.counts[:, :2] == confusion_matrix(real.ravel() > 0, guess.ravel() > 0, labels=[True, False])).all()


def test_nonzero_is_any_colour_and_zero_is_then_background(predicted, tmp_path):
    guess, real = random_codes(1), random_codes(2, values=(0, 1, 2))
    colours = np.array([[0, 0, 0], [0, 0, 9], [200, 10, 10]], dtype=np.uint8)[real]
    Image.fromarray(colours).save(tmp_path / "mask.png")
    path = predicted(guess, transform=None, crs=None)
    found = evaluate([(path, tmp_path / "mask.png")], legend="nonzero=road").accuracy
    assert (found.counts[:, :2] == confusion_matrix(real.ravel() > 0, guess.ravel() == 3, labels=[True, False])).all()


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "P"])
def test_colours_of_a_yaml_file_are_found_in_every_kind_of_picture(predicted, tmp_path, kind):
    guess, real = random_codes(1), random_codes(2)
    palette = np.array([[1, 2, 3], [0x3C, 0x10, 0x98], [0, 200, 0], [226, 169, 41]], dtype=np.uint8)
    image = Image.fromarray(palette[real])
    if kind == "P":
        image = Image.fromarray(real, mode=None)
        image.putpalette(palette.ravel().tolist())
        assert image.mode == "P"
    elif kind == "RGBA":
        image.putalpha(Image.fromarray(np.where(real == 1, 0, 255).astype(np.uint8)))
    image.save(tmp_path / "truth.png")
    (tmp_path / "colours.yml").write_text('"#3c1098": water\n"0 200 0": forest\n"226,169,41": road\n')
    path = predicted(guess, transform=None, crs=None)
    result = evaluate([(path, tmp_path / "truth.png")], legend=str(tmp_path / "colours.yml"))
    counted = np.isin(real, (2, 3) if kind == "RGBA" else (1, 2, 3))  # transparent is not labelled
    expected = confusion_matrix(real[counted], guess[counted], labels=[1, 2, 3, 0])[:3]
    assert (result.accuracy.counts[:, :4] == expected).all()
    assert result.accuracy.pixels == counted.sum() < real.size


def test_gray_values_are_found_in_a_picture_of_three_equal_bands(predicted, tmp_path):
    guess, real = random_codes(1), random_codes(2, values=(0, 255))
    Image.fromarray(real).convert("RGB").save(tmp_path / "mask.png")
    path = predicted(guess, transform=None, crs=None)
    found = evaluate([(path, tmp_path / "mask.png")], legend="255=road,0=background").accuracy
    assert found.true.tolist() == [(real == 255).sum(), (real == 0).sum()]


def test_nodata_of_the_prediction_is_missed_or_left_out(predicted, make_raster):
    guess, real = random_codes(1, values=(1, 2, 3, 255, 254)), random_codes(2, values=(1, 2, 3))
    pair = [(predicted(guess), make_raster("truth.tif", real[None]))]
    with pytest.warns(InputNotice, match="count as missed; ignore_nodata"):
        missed = evaluate(pair, legend="1=water,2=forest,3=road")
    ignored = evaluate(pair, legend="1=water,2=forest,3=road", ignore_nodata=True)
    empty, failed = guess == 255, guess == 254
    assert missed.silent == ignored.silent == empty.sum() > 0
    assert missed.accuracy.counts[:, -1].sum() == (empty | failed).sum()
    assert ignored.accuracy.counts[:, -1].sum() == failed.sum() > 0
    assert missed.accuracy.pixels == real.size
    assert ignored.accuracy.pixels == (~empty).sum()
    assert (missed.accuracy.recall < ignored.accuracy.recall).all()
    assert missed.accuracy.precision == pytest.approx(ignored.accuracy.precision)


def test_nodata_of_the_truth_is_not_counted_unless_the_map_names_it(predicted, make_raster):
    guess, real = random_codes(1), random_codes(2)
    path = predicted(guess)
    truth = make_raster("truth.tif", real[None], nodata=0)
    assert evaluate([(path, truth)], legend="nonzero=road,0=background").accuracy.pixels == real.size
    assert evaluate([(path, truth)], legend="1=water,2=forest,3=road").accuracy.pixels == (real > 0).sum()
    holes = np.where(real == 2, np.nan, real).astype(np.float32)
    floats = make_raster("floats.tif", holes[None], nodata=np.nan)
    result = evaluate([(path, floats)], legend="1=water,3=road,0=background")
    assert result.accuracy.pixels == (real != 2).sum()


def test_a_truth_on_another_grid_is_warped_as_gdal_warps_it(predicted, make_raster, tmp_path):
    guess, real = random_codes(1), random_codes(2, (80, 70))
    path = predicted(guess)
    # 7 m pixels in the neighbouring UTM zone, over a part of the prediction only
    with rasterio.open(path) as grid:
        left, _, _, top = rasterio.warp.transform_bounds("EPSG:32633", "EPSG:32632", *grid.bounds)
    truth = make_raster("truth.tif", real[None], crs="EPSG:32632", transform=from_origin(left + 100, top - 60, 7, 7))
    with pytest.warns(InputNotice, match="another grid"):
        result = evaluate([(path, truth)], legend="1=water,2=forest,3=road,0=background")
    warped = np.full(guess.shape, 99, dtype=np.uint8)
    with rasterio.open(truth) as source:
        rasterio.warp.reproject(
            rasterio.band(source, 1),
            warped,
            dst_crs="EPSG:32633",
            dst_transform=PLACE,
            init_dest_nodata=False,
            resampling=Resampling.nearest,
        )
    known = warped != 99
    assert 0 < known.sum() < guess.size
    assert result.unlabelled == (~known).sum()
    expected = confusion_matrix(warped[known], guess[known], labels=[1, 2, 3, 0])
    assert (result.accuracy.counts[:, :4] == expected).all()


def test_polygons_count_the_pixels_whose_centres_they_hold(predicted, tmp_path):
    guess = random_codes(1)
    shapes = [shapely.box(500_101, 5_199_702, 500_344, 5_199_949), shapely.Point(500_600, 5_199_600).buffer(133)]
    frame = gpd.GeoDataFrame({"kind": ["Water", "road"]}, geometry=shapes, crs="EPSG:32633")
    frame.to_crs("EPSG:4326").to_file(tmp_path / "truth.gpkg")
    frame.to_crs("EPSG:4326").to_parquet(tmp_path / "truth.parquet")
    rows, cols = np.indices(guess.shape)
    points = shapely.points(500_000 + (cols + 0.5) * 10, 5_200_000 - (rows + 0.5) * 10)
    real = np.where(shapely.contains(shapes[0], points), 1, 0) + np.where(shapely.contains(shapes[1], points), 3, 0)
    for name in ("truth.gpkg", "truth.parquet"):
        result = evaluate([(predicted(guess), tmp_path / name)], field="kind")
        assert result.accuracy.names == ("water", "road")
        assert result.unlabelled == (real == 0).sum()
        expected = confusion_matrix(real[real > 0], guess[real > 0], labels=[1, 3, 0, 2])
        assert (result.accuracy.counts[:, :2] == expected[:2, :2]).all()
    outside = evaluate([(predicted(guess), tmp_path / "truth.gpkg")], field="kind", legend="outside=background")
    assert outside.unlabelled == 0
    assert outside.accuracy.true.tolist() == [(real == 1).sum(), (real == 3).sum(), (real == 0).sum()]


def test_polygons_of_our_own_agree_with_the_raster_that_they_were_drawn_from(predicted, tmp_path):
    from resegeo.run.commands import vectorize

    path = predicted(random_codes(1), transform=None, crs=None)  # no georeference: both lie in pixels
    result = evaluate([(path, vectorize(path, tmp_path / "own.gpkg"))])
    assert result.accuracy.overall == 1.0
    assert result.accuracy.names == ("water", "forest", "road")


def test_field_values_may_be_numbers_with_a_map(predicted, tmp_path):
    square = [shapely.box(500_000, 5_199_800, 500_200, 5_200_000), shapely.box(500_300, 5_199_800, 500_400, 5_200_000)]
    gpd.GeoDataFrame({"code": [7.0, 12.0]}, geometry=square, crs="EPSG:32633").to_file(tmp_path / "t.gpkg")
    guess = np.full((70, 90), 2, dtype=np.uint8)
    found = evaluate([(predicted(guess), tmp_path / "t.gpkg")], field="code", legend="7=forest,12=background").accuracy
    assert found.names == ("forest", "background")
    assert found.counts[:, :2].tolist() == [[400, 0], [200, 0]]


def test_truth_classes_that_the_prediction_lacks_count_as_background(predicted):
    codes = random_codes(2, values=(1, 2))
    truth = predicted(codes, "truth.tif", names=["water", "urban"])
    guess = np.full(codes.shape, 1, dtype=np.uint8)
    with pytest.warns(InputNotice, match=r"urban of .*truth.tif: not among the prediction's classes"):
        found = evaluate([(predicted(guess), truth)]).accuracy
    assert found.names == ("water", "background")
    assert found.precision[0] == pytest.approx((codes == 1).mean())


def test_a_class_that_is_called_background_is_the_background(predicted, make_raster):
    codes = random_codes(1, values=(0, 1, 2))
    guess = predicted(codes, names=["road", "Background"])
    truth = make_raster("truth.tif", (codes == 1).astype(np.uint8)[None])
    found = evaluate([(guess, truth)], legend="1=road,0=background").accuracy
    assert found.names == ("road", "background")
    assert found.overall == 1.0


def test_pairs_are_summed_into_one_matrix(predicted, make_raster, tmp_path):
    pairs = []
    for seed in (1, 2, 3):
        guess = predicted(random_codes(seed), f"p{seed}.tif")
        pairs.append((guess, make_raster(f"t{seed}.tif", random_codes(seed + 10)[None])))
    legend = "1=water,2=forest,3=road,0=background"
    single = [evaluate([pair], legend=legend).accuracy.counts for pair in pairs]
    (tmp_path / "pairs.csv").write_text("prediction, truth\n" + "".join(f"{p.name}, {t}\n" for p, t in pairs))
    assert read_pairs(tmp_path / "pairs.csv") == [tuple(map(str, pair)) for pair in pairs]
    together = evaluate(read_pairs(tmp_path / "pairs.csv"), legend=legend)
    assert (together.accuracy.counts == sum(single)).all()


def test_classes_of_all_truths_count_in_every_pair(predicted, tmp_path):
    """Polygons of the first scene name water alone; a road predicted there is a wrong road all the same."""
    box = shapely.box(500_000, 5_199_900, 500_100, 5_200_000)
    for name, kind in (("a", "water"), ("b", "road")):
        gpd.GeoDataFrame({"class_name": [kind]}, geometry=[box], crs="EPSG:32633").to_file(tmp_path / f"{name}.gpkg")
    guess = predicted(np.full((70, 90), 3, dtype=np.uint8))
    found = evaluate([(guess, tmp_path / "a.gpkg"), (guess, tmp_path / "b.gpkg")]).accuracy
    assert found.names == ("water", "road")
    assert found.counts[:, :2].tolist() == [[0, 100], [0, 100]]


def test_a_pair_without_labels_is_noted_when_others_have_some(predicted, make_raster):
    guess = predicted(random_codes(1))
    good, bare = (
        make_raster("good.tif", random_codes(2)[None]),
        make_raster("bare.tif", np.full((1, 70, 90), 9, np.uint8)),
    )
    with pytest.warns(InputNotice, match=r"No pixel of .* has a class in .*bare.tif: it holds 9 there"):
        result = evaluate([(guess, good), (guess, bare)], legend="1=water,0=background")
    assert result.accuracy.pixels == np.isin(random_codes(2), (0, 1)).sum()


def test_a_damaged_truth_is_named(predicted, make_raster, tmp_path):
    noise = np.random.default_rng(0).integers(0, 4, (1, 300, 300)).astype(np.uint8)
    whole = make_raster("truth.tif", noise, compress="deflate")
    whole.write_bytes(whole.read_bytes()[:9000])
    with pytest.raises(ResegeoError, match="is damaged: rows 0 to 299"):
        evaluate([(predicted(random_codes(1, (300, 300))), whole)], legend="1=water")


# the command


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def invoke(*args):
        return CliRunner().invoke(main, ["evaluate", *(str(arg) for arg in args)])

    return invoke


def test_the_command_prints_a_table_or_json_and_notes_elsewhere(run, predicted, make_raster):
    guess, real = random_codes(1), random_codes(2)
    predicted(guess)
    make_raster("truth.tif", real[None])
    table = run("scene.classes.tif", "truth.tif")
    assert table.exit_code == 0, table.output
    assert "Note: The values of truth.tif are read as the prediction's own codes" in table.stderr
    rows = {line.split()[0]: line.split() for line in table.stdout.splitlines() if line}
    iou = jaccard_score(real.ravel(), guess.ravel(), average=None, labels=[1, 2, 3])
    assert [rows[name][1] for name in NAMES] == [f"{value:.3f}" for value in iou]
    plain = run("scene.classes.tif", "truth.tif", "--json", "-q")
    assert plain.stderr == ""
    assert json.loads(plain.stdout)["mean_iou"] == pytest.approx(iou.mean())
    assert json.loads(plain.stdout)["pairs"] == [{"prediction": "scene.classes.tif", "truth": "truth.tif"}]


MISTAKES = [
    # arguments, exit code, what the sentence must say
    ([], 2, "needs PREDICTION and TRUTH"),
    (["p.tif"], 2, "needs PREDICTION and TRUTH"),
    (["p.tif", "t.tif", "--pairs", "pairs.csv"], 2, "exclude each other"),
    (["no.tif", "t.tif"], 1, "no.tif: no such file; expected a class raster"),
    (["p.tif", "no.tif"], 1, "no.tif: no such file; expected a truth raster"),
    (["p.tif", "."], 1, "p.tif is no folder; where one is given, both are"),
    (["t.tif", "p.tif"], 1, "is no class raster of resegeo: it has no class list among its tags"),
    (["p.tif", "bad.yml"], 1, "bad.yml cannot be opened as a raster"),
    (["p.tif", "bad.gpkg"], 1, "bad.gpkg cannot be opened as a vector file"),
    (["p.tif", "five.tif"], 1, "five.tif has 5 bands; expected one band of labels or three of colours"),
    (["p.tif", "halves.tif", "--map", "1=road"], 1, "holds fractions"),
    (["p.tif", "complex.tif"], 1, "holds complex64 values"),
    (["p.tif", "small.png", "--map", "1=road"], 1, "has 20 × 20 pixels (rows × columns), p.tif 70 × 90"),
    (["p.tif", "moved.tif", "--map", "1=road"], 1, "lie differently, and not both have a CRS"),
    (["q.tif", "far.tif", "--map", "1=road"], 1, "empty or nodata. Check that both show the same place"),
    (["p.tif", "t.tif", "--map", "9=road"], 1, "it holds 0, 1, 2, 77 there. Say what its values mean by --map"),
    (["p.tif", "t.tif"], 2, "holds the values 77, which are no codes of the prediction"),
    (["p.tif", "rgb.png"], 2, "is a picture of colours; say what they mean by --map"),
    (["p.tif", "t.tif", "--map", "255:road"], 2, "'255:road': found '255:road' alone; expected value=class"),
    (["p.tif", "t.tif", "--map", "1="], 2, "found '1' alone"),
    (["p.tif", "t.tif", "--map", "1=road,1=water"], 2, "names the value 1 twice"),
    (["p.tif", "t.tif", "--map", "1=raod"], 2, "'raod' (did you mean 'road'?); the prediction has water, forest, road"),
    (["p.tif", "t.tif", "--map", "0=background"], 2, "knows background alone"),
    (["p.tif", "t.tif", "--map", "#00FF00=road"], 2, "has no colours, only one band of values"),
    (["p.tif", "rgb.png", "--map", "300=road"], 2, "'300' is no value of a raster"),
    (["p.tif", "rgb.png", "--map", "7=road,#070707=water"], 2, "gives #070707 two classes, road and water"),
    (["p.tif", "t.tif", "--map", "road=1"], 2, "names the class '1'; the prediction has"),
    (["p.tif", "t.tif", "--map", "outside=background,1=road"], 2, "outside is for polygons"),
    (["p.tif", "t.tif", "--map", "no.yml"], 2, "--map no.yml: no such file"),
    (["p.tif", "t.tif", "--map", "bad.yml"], 2, "--map bad.yml, line 2: this is not valid YAML"),
    (["p.tif", "t.tif", "--map", "hash.yml"], 2, "colours in quotes"),
    (["p.tif", "t.tif", "--map", "list.yml"], 2, "list.yml, line 1: found a list or a mapping"),
    (["p.tif", "t.tif", "--field", "kind"], 2, "--field kind is for polygons"),
    (["p.tif", "t.gpkg"], 2, "has no field 'class_name'; its fields are: kind"),
    (["p.tif", "t.gpkg", "--field", "kind"], 1, "has lawn in 'kind', none of which is a class"),
    (["p.tif", "t.gpkg", "--field", "kind", "--map", "nonzero=road"], 2, "nonzero is for rasters"),
    (["p.tif", "far.gpkg", "--field", "kind"], 1, "its polygons lie elsewhere"),
    (["p.tif", "points.gpkg", "--field", "kind"], 1, "holds no polygons"),
    (["--pairs", "no.csv"], 1, "--pairs no.csv: no such file"),
    (["--pairs", "head.csv"], 1, "has the columns image, mask; expected a CSV file"),
    (["--pairs", "short.csv"], 1, "short.csv, line 2: a path is missing"),
    (["--pairs", "none.csv"], 1, "holds no pair"),
    (["--pairs", "p.tif"], 1, "cannot be read as text"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES, ids=[" ".join(m[0])[:60] or "-" for m in MISTAKES])
def test_a_mistake_is_answered_by_one_sentence(run, predicted, make_raster, tmp_path, arguments, code, words):
    write_inputs(predicted, make_raster, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.split())
    assert result.stderr.count("Error: ") == 1
    assert "Traceback" not in result.output
    assert "defect" not in result.output
    assert result.stdout == ""
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def write_inputs(predicted, make_raster, folder: Path) -> None:
    predicted(random_codes(1), "p.tif", crs=None)
    predicted(random_codes(1), "q.tif")
    real = random_codes(2, values=(0, 1, 2, 77))
    make_raster("t.tif", real[None], crs=None)
    make_raster("moved.tif", real[None], crs=None, transform=from_origin(0, 0, 1, 1))
    make_raster("five.tif", np.zeros((5, 70, 90), np.uint8))
    make_raster("halves.tif", np.full((1, 70, 90), 0.5, np.float32), crs=None)
    make_raster("complex.tif", np.zeros((1, 70, 90), np.complex64))
    Image.fromarray(np.ones((20, 20), np.uint8)).save(folder / "small.png")
    Image.fromarray(np.full((70, 90, 3), 7, np.uint8)).save(folder / "rgb.png")
    box, there = shapely.box(500_000, 5_199_800, 500_200, 5_200_000), shapely.box(0, 0, 9, 9)
    gpd.GeoDataFrame({"kind": ["lawn"]}, geometry=[box]).to_file(folder / "t.gpkg")
    gpd.GeoDataFrame({"kind": ["road"]}, geometry=[there]).to_file(folder / "far.gpkg")
    gpd.GeoDataFrame({"kind": ["road"]}, geometry=[box.centroid]).to_file(folder / "points.gpkg")
    (folder / "bad.gpkg").write_text("nothing")
    (folder / "bad.yml").write_text("1: road\n 2 water: [\n")
    (folder / "hash.yml").write_text("#3C1098: road\n")
    (folder / "list.yml").write_text("[60, 16, 152]: road\n")
    (folder / "head.csv").write_text("image,mask\na,b\n")
    (folder / "short.csv").write_text("prediction,truth\np.tif,\n")
    (folder / "none.csv").write_text("prediction,truth\n")
    make_raster("far.tif", real[None], transform=from_origin(0, 0, 1, 1))
