"""The script that reproduces published settings, on miniature stand-ins with the folders of the real data."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasters import write_raster

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import reproduce_paper as script
from fakes import quick

import resegeo.run.compute
from resegeo.datasets.config import read_dataset
from resegeo.datasets.cutting import starts
from resegeo.datasets.dataset import _tiles
from resegeo.errors import ResegeoError

pytestmark = [
    pytest.mark.filterwarnings("ignore::resegeo.errors.ResegeoWarning"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path)
        return
    bands = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    write_raster(path, bands, crs=None, transform=None)


def picture(side, seed=0):
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (side // 32 + 1, side // 32 + 1, 3))
    return np.kron(coarse, np.ones((32, 32, 1)))[:side, :side].astype(np.uint8)


def codes(side, count):
    return (np.add.outer(np.arange(side) // 40, np.arange(side) // 40) % count).astype(np.uint8)


COLOURS = np.array(
    [[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0], [255, 0, 0], [0, 0, 0]], np.uint8
)


@pytest.fixture
def potsdam(tmp_path):
    folder = tmp_path / "source"
    for place in ("2_13", "2_10"):
        save(folder / f"2_Ortho_RGB/top_potsdam_{place}_RGB.tif", picture(600))
        save(folder / f"labels/top_potsdam_{place}_label_noBoundary.tif", COLOURS[codes(600, 7)])
    data = tmp_path / "potsdam"
    data.mkdir()
    for name, inside in (("2_Ortho_RGB", "2_Ortho_RGB"), ("5_Labels_all_noBoundary", "labels")):
        with zipfile.ZipFile(data / f"{name}.zip", "w") as archive:
            for path in sorted((folder / inside).iterdir()):
                archive.write(path, path.name if inside == "labels" else f"{inside}/{path.name}")
    return data


@pytest.fixture
def openearthmap(tmp_path):
    data = tmp_path / "OpenEarthMap_wo_xBD"
    for number, name in enumerate(("aachen_1", "aachen_2", "accra_3")):
        region = data / name.partition("_")[0]
        save(region / "images" / f"{name}.tif", picture(200, number))
        save(region / "labels" / f"{name}.tif", codes(200, 9))
    (data / "val.txt").write_text("aachen_1.tif\naccra_3.tif\n")
    (data / "train.txt").write_text("aachen_2.tif\n")
    return data


@pytest.fixture
def loveda(tmp_path):
    data = tmp_path / "loveda"
    for split, place, number in (("Val", "Urban", 1), ("Val", "Rural", 1), ("Train", "Urban", 2)):
        save(data / split / place / "images_png" / f"{number}.png", picture(160, number))
        save(data / split / place / "masks_png" / f"{number}.png", codes(160, 8))
    return data


@pytest.fixture(scope="module", autouse=True)
def fast_model():
    """The order of things counts here, not what the model sees."""
    load = resegeo.run.compute.load_encoder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resegeo.run.compute.load_encoder", lambda source, **options: quick(load(source, **options)))
        yield


def tiles_of(name, data, out):
    dataset = read_dataset(script.DATASETS / f"{name}.yml")
    return _tiles(dataset, script.unpacked(data, out), out, None)


def read(path):
    with rasterio.open(path) as raster:
        return raster.read().transpose(1, 2, 0)


def test_potsdam_is_cut_into_squares_of_512_of_the_validation_places_alone(potsdam, tmp_path):
    tiles = tiles_of("potsdam", potsdam, tmp_path / "out")
    assert [Path(tile.name).name for tile in tiles] == ["0_0", "0_88", "88_0", "88_88"]
    assert all("2_13" in tile.name for tile in tiles)
    np.testing.assert_array_equal(read(tiles[3].image), picture(600)[88:, 88:])
    np.testing.assert_array_equal(read(tiles[3].labels), COLOURS[codes(600, 7)][88:, 88:])


def test_the_full_potsdam_gives_as_many_tiles_as_published():
    """14 places of 6000 × 6000 pixels: 2016 tiles."""
    dataset = read_dataset(script.DATASETS / "potsdam.yml")
    assert len(dataset.only) * len(starts(6000, dataset.tile)) ** 2 == 2016


def test_the_other_sets_take_their_validation_parts(openearthmap, loveda, tmp_path):
    names = [tile.name for tile in tiles_of("openearthmap", openearthmap, tmp_path / "out")]
    assert names == ["aachen/images/aachen_1", "accra/images/accra_3"]
    names = [tile.name for tile in tiles_of("loveda", loveda, tmp_path / "out")]
    assert names == ["Val/Rural/images_png/1", "Val/Urban/images_png/1"]


def test_an_empty_folder_is_said(tmp_path):
    with pytest.raises(ResegeoError, match=r"No file below .* is called Val/\{place\}/images_png/\{number\}.png"):
        run("loveda", tmp_path, tmp_path / "out")


def run(dataset, data, out, *more):
    return script.run(script.parser().parse_args([dataset, "--data", str(data), "--out", str(out), *more]))


SEGEARTH = ("--method", "segearth", "--device", "cpu")


@pytest.mark.parametrize("dataset", ["potsdam", "openearthmap", "loveda"])
def test_one_command_segments_measures_and_goes_on(dataset, request, tmp_path, monkeypatch):
    data, out = request.getfixturevalue(dataset), tmp_path / "out"
    more = (*SEGEARTH, "--limit", "1")
    figures = run(dataset, data, out, *more)
    said = read_dataset(script.DATASETS / f"{dataset}.yml")
    assert set(figures["iou"]) == set(said.categories)
    values = np.array([value for value in figures["iou"].values() if value is not None])
    assert len(values) > len(figures["iou"]) / 2
    assert ((values >= 0) & (values <= 1)).all()
    assert figures["mean_iou"] == pytest.approx(values.mean())
    assert figures["published"] == said.published["segearth"]
    kept = json.loads((out / "results-segearth.json").read_text("utf-8"))
    assert kept["iou"] == figures["iou"]
    table = (out / "results-segearth.md").read_text("utf-8")
    assert f"| mean of all classes | {100 * figures['mean_iou']:.3f} |" in table
    assert f"| difference | {100 * figures['mean_iou'] - figures['published']:.3f} |" in table
    assert "Without SimFeatUp" in table
    assert "Only the first 1 images" in table
    monkeypatch.setattr("resegeo.run.execution.start_machine", None)  # finished tiles are not computed again
    assert run(dataset, data, out, *more)["iou"] == figures["iou"]


def test_the_papers_preset_takes_images_at_their_own_size(loveda, tmp_path):
    more = ("--segments", "superpixels", "--device", "cpu", "--limit", "1")
    figures = run("loveda", loveda, tmp_path / "out", *more)
    report = json.loads((tmp_path / "out/paper/Val/Rural/images_png/1/1.json").read_text("utf-8"))
    settings = report["resegeo"]["settings"]
    assert (settings["logit_scale"], settings["use_thresholds"], settings["edge"]) == (1.0, False, "overhang")
    assert "resize" not in settings
    assert figures["published"] is None
    assert "Without resize, which the data set's file says of another method." in figures["notes"]


def test_settings_are_those_of_the_public_configuration_files(loveda, tmp_path):
    run("loveda", loveda, tmp_path / "out", *SEGEARTH, "--limit", "1")
    report = json.loads((tmp_path / "out/segearth/Val/Rural/images_png/1/1.json").read_text("utf-8"))
    settings = report["resegeo"]["settings"]
    assert (settings["resize"], settings["logit_scale"], settings["average"]) == (448, 50.0, "logits")
    assert report["resegeo"]["classes"]["threshold"] == 0.3
    assert len(report["resegeo"]["classes"]["templates"]) == 80


def test_figures_are_those_of_the_naive_count(openearthmap, tmp_path):
    figures = run("openearthmap", openearthmap, tmp_path / "out", *SEGEARTH)
    names = list(figures["iou"])
    listed = [1, 2, 3, 4, 5, 6, 7, 8, 0]  # background, whose code is 0, has the last line
    counts = np.zeros((9, 9))
    for name in ("aachen_1", "accra_3"):
        place = name.partition("_")[0]
        found = read(tmp_path / f"out/segearth/{place}/images/{name}/{name}.classes.tif")[..., 0]
        for row, real in enumerate(listed):
            for column, said in enumerate(listed):
                counts[row, column] += ((codes(200, 9) == real) & (found == said)).sum()
    expected = {
        name: counts[i, i] / max(1, counts[i].sum() + counts[:, i].sum() - counts[i, i]) for i, name in enumerate(names)
    }
    assert figures["iou"] == pytest.approx(expected)


def test_contamination_is_said():
    def notes(name, model, method):
        return script.notes_of(name, model, method, None, read_dataset(script.DATASETS / f"{name}.yml"))

    assert "no zero-shot" in notes("potsdam", "remoteclip-l14", "segearth")[1]
    assert "no zero-shot" in notes("vaihingen", "compose:rs.yml", "segearth")[1]
    assert len(notes("openearthmap", "remoteclip-l14", "segearth")) == 1
    assert "no zero-shot" in notes("reseg_potsdam", "remoteclip-l14", "paper")[1]


def test_a_data_set_of_ones_own_needs_no_code(loveda, tmp_path):
    text = (
        (script.DATASETS / "loveda.yml")
        .read_text("utf-8")
        .replace("Val/", "Train/")
        .replace("about: LoveDA", "about: My")
    )
    mine = tmp_path / "mine.yml"
    mine.write_text(text, "utf-8")
    figures = run(str(mine), loveda, tmp_path / "out", *SEGEARTH)
    assert (figures["dataset"], figures["tiles"]) == ("My, validation", 1)
