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

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import reproduce_paper as script

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
    size = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **size) as raster:
        raster.write(bands)


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


def test_potsdam_is_cut_into_squares_of_512_of_the_validation_places_alone(potsdam, tmp_path):
    folders = script.unpacked(potsdam, tmp_path / "out")
    tiles = list(script.tiles_of("potsdam", folders))
    assert [tile.name for tile in tiles] == ["2_13_0_0", "2_13_0_88", "2_13_88_0", "2_13_88_88"]
    scene, labels = script.prepare(tiles[3], tmp_path)
    with rasterio.open(scene) as raster:
        np.testing.assert_array_equal(raster.read().transpose(1, 2, 0), picture(600)[88:, 88:])
    with rasterio.open(labels) as raster:
        np.testing.assert_array_equal(raster.read().transpose(1, 2, 0), COLOURS[codes(600, 7)][88:, 88:])


def test_the_full_potsdam_gives_as_many_tiles_as_published(monkeypatch):
    """14 places of 6000 × 6000 pixels: 2016 tiles."""
    assert len(script.POTSDAM_VALIDATION) * len(script._starts(6000)) ** 2 == 2016


def test_the_other_sets_take_their_validation_parts(openearthmap, loveda):
    assert [t.name for t in script.tiles_of("openearthmap", [openearthmap])] == ["aachen_1", "accra_3"]
    assert [t.name for t in script.tiles_of("loveda", [loveda])] == ["Rural_1", "Urban_1"]


def test_an_empty_folder_is_said(tmp_path):
    with pytest.raises(SystemExit, match="No tiles of loveda below"):
        list(script.tiles_of("loveda", [tmp_path]))


def run(dataset, data, out, *more):
    return script.run(script.parser().parse_args([dataset, "--data", str(data), "--out", str(out), *more]))


@pytest.mark.parametrize("dataset", ["potsdam", "openearthmap", "loveda"])
def test_one_command_prepares_segments_evaluates_and_goes_on(dataset, request, tmp_path, monkeypatch):
    data, out = request.getfixturevalue(dataset), tmp_path / "out"
    more = ("--method", "segearth", "--device", "cpu", "--limit", "1")
    figures = run(dataset, data, out, *more)
    assert set(figures["iou"]) == set(script.DATASETS[dataset].classes)
    values = np.array([value for value in figures["iou"].values() if value is not None])
    assert len(values) > len(figures["iou"]) / 2
    assert ((values >= 0) & (values <= 1)).all()
    assert figures["mean_iou"] == pytest.approx(values.mean())
    kept = json.loads((out / "results-segearth.json").read_text("utf-8"))
    assert kept["iou"] == figures["iou"]
    table = (out / "results-segearth.md").read_text("utf-8")
    assert f"| mean, background included | {100 * figures['mean_iou']:.3f} |" in table
    assert "Without SimFeatUp" in table
    assert "Only the first 1 tiles" in table
    monkeypatch.setattr("resegeo.run.execution.start_machine", None)  # finished tiles are not computed again
    assert run(dataset, data, out, *more)["iou"] == figures["iou"]


def test_the_papers_preset_runs_with_segments_in_sams_place(loveda, tmp_path):
    figures = run("loveda", loveda, tmp_path / "out", "--segments", "superpixels", "--device", "cpu", "--limit", "1")
    report = json.loads((tmp_path / "out" / "reseg" / "Rural_1.json").read_text("utf-8"))
    settings = report["resegeo"]["settings"]
    assert (settings["logit_scale"], settings["use_thresholds"], settings["edge"]) == (1.0, False, "overhang")
    assert figures["published"] is None


def test_figures_are_those_of_the_naive_count(openearthmap, tmp_path):
    figures = run("openearthmap", openearthmap, tmp_path / "out", "--method", "segearth", "--device", "cpu")
    names = list(script.DATASETS["openearthmap"].values.values())
    counts = np.zeros((9, 9))
    for name in ("aachen_1", "accra_3"):
        with rasterio.open(tmp_path / "out" / "segearth" / f"{name}.classes.tif") as raster:
            found = raster.read(1)
        truth = codes(200, 9)
        listed = [0, *range(1, 9)]
        for real in range(9):
            for said in listed:
                counts[real, said] += ((truth == real) & (found == said)).sum()
    expected = {
        name: counts[i, i] / max(1, counts[i].sum() + counts[:, i].sum() - counts[i, i]) for i, name in enumerate(names)
    }
    assert figures["iou"] == pytest.approx(expected)


def test_contamination_is_said():
    assert "no zero-shot" in script.notes_of("potsdam", "remoteclip-l14", "reseg", None)[0]
    assert "no zero-shot" in script.notes_of("loveda", "compose:rs.yml", "reseg", None)[0]
    assert script.notes_of("openearthmap", "remoteclip-l14", "reseg", None) == []
