"""``resegeo dataset``: the reference's folders and config in one command, its pictures, figures and resume."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from click.testing import CliRunner
from fakes import quick
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, jaccard_score

import resegeo.run.compute
from resegeo.datasets.config import read_dataset
from resegeo.datasets.dataset import _options as joined
from resegeo.datasets.dataset import segment_dataset
from resegeo.errors import IgnoredSettingWarning, Interrupted, ResegeoError, ResegeoWarning, UsageError
from resegeo.run.options import Options
from resegeo.run.prepare import choose
from resegeo.segments.sam_levels import SamLevel
from resegeo_cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::resegeo.errors.IgnoredSettingWarning")

CONFIG = {
    "text_queries": ["a street", "a roof", "a house", "trees"],
    "class_mapping": {"0": "Road", "1": "Building", "2": "Building", "3": "Trees"},
    "category_to_index": {"Road": 0, "Building": 1, "Trees": 2},
    "input": {"dir": "data", "target_image_name": "R_G_B_IR.png"},
    "output": {"base_dir": "out", "visualizations_subdir": "shown"},
    "model": {"clip_model_name": "ViT-L/14", "clip_checkpoint": "clip.pt", "sam_checkpoint": "sam.pth"},
    "attention": {
        "num_initial_layers": 18,
        "num_neighbor_attention_layers": 2,
        "num_sam_attention_layers": 1,
        "max_random_attn": 0.0,
        "sam_param_sets": [{"points_per_side": 4, "pred_iou_thresh": 0.5}],
    },
}
NAMES = ("Road", "Building", "Trees")
FLAGS = {"model": "resegeo-small", "segments": "superpixels", "device": "cpu"}
SIZE = (70, 90)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def truth(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 3, SIZE).astype(np.uint8)


def lay(folder: Path, tiles: dict[str, bool], **changes: Any) -> Path:
    """Write the reference's layout: RGB-IR images, with labels where the flag says so, and its config."""
    for number, (name, labelled) in enumerate(tiles.items()):
        random = np.random.default_rng(100 + number)
        coarse = random.integers(0, 255, (2, 3, 4)).repeat(40, axis=0).repeat(40, axis=1)[: SIZE[0], : SIZE[1]]
        image = np.clip(coarse + random.normal(0, 9, coarse.shape), 0, 255).astype(np.uint8)
        image[:30, :, 3] = 0  # dark in infrared
        save(folder / "data" / name / "R_G_B_IR.png", image)
        if labelled:
            save(folder / "data" / name / "L.png", truth(number))
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}, sort_keys=False))
    return path


@pytest.fixture(scope="module", autouse=True)
def fast_model() -> Iterator[None]:
    load = resegeo.run.compute.load_encoder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resegeo.run.compute.load_encoder", lambda source, **options: quick(load(source, **options)))
        yield


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[str]]:
    """A data set after one run: its folder, what came of it, and what was told."""
    folder = tmp_path_factory.mktemp("dataset")
    config = lay(folder, {"a/deep/er": True, "b": False, "c": True})
    lines: list[str] = []
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        result = segment_dataset(config, told=lines.append, **FLAGS)
    said = [str(each.message) for each in given if issubclass(each.category, ResegeoWarning)]
    assert not [text for text in said if "CRS" in text or "alpha" in text]
    return folder, result, lines


def codes_of(folder: Path, name: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(folder / "out" / name / f"{Path(name).name}.classes.tif") as raster:
            return raster.read(1)


def test_the_figures_are_those_of_scikit_learn_tile_by_tile_and_together(ran):
    folder, result, lines = ran
    real, found, so_far = [], [], []
    for number, name in ((0, "a/deep/er"), (2, "c")):
        codes = codes_of(folder, name)
        assert codes.min() >= 1  # infrared of 0 is no nodata
        real.append(truth(number).ravel())
        found.append(codes.ravel().astype(int) - 1)
        (tile,) = [each for each in result.tiles if each.name == name]
        np.testing.assert_allclose(tile.accuracy.iou, jaccard_score(real[-1], found[-1], average=None))
        np.testing.assert_allclose(tile.accuracy.f1, f1_score(real[-1], found[-1], average=None))
        so_far.append((np.concatenate(real), np.concatenate(found)))
    for line, (y, p) in zip((lines[0], lines[2]), so_far, strict=True):
        figures = (
            accuracy_score(y, p),
            balanced_accuracy_score(y, p),
            f1_score(y, p, average="macro"),
            jaccard_score(y, p, average="macro"),
        )
        told = "accuracy {:.4f} (mean of classes {:.4f}), mean F1 {:.4f}, mean IoU {:.4f}".format(*figures)
        assert line.endswith(told)
    assert lines[1].startswith("2 of 3, b has no labels: ")
    assert result.accuracy.mean_iou == pytest.approx(jaccard_score(*so_far[-1], average="macro"))
    with result.table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["tile"] for row in rows] == ["a/deep/er", "b", "c"]
    assert float(rows[2]["iou Building"]) == pytest.approx(result.tiles[2].accuracy.iou[1], abs=1e-6)
    assert rows[1]["mean_iou"] == "" == rows[1]["reason"]
    kept = json.loads((folder / "out" / "figures.json").read_text())
    assert (kept["tiles"], kept["tiles_measured"]) == (3, 2)
    assert kept["mean_iou"] == result.accuracy.mean_iou


def test_every_tile_has_its_pictures_at_its_own_size_in_the_colours_of_the_classes(ran):
    folder, result, _ = ran
    assert result.pictures == folder / "out" / "shown"
    there = {path.relative_to(result.pictures).as_posix() for path in result.pictures.rglob("*.png")}
    both = ("pred_mask.png", "pred_overlay.png", "gt_mask.png", "gt_overlay.png")
    assert there == {
        *(f"{name}/{each}" for name in ("a/deep/er", "c") for each in both),
        *(f"b/{each}" for each in both[:2]),
        "legend.png",
    }
    colors = np.array([spec.color for spec in read_dataset(folder / "config.yml").classes.drawn])
    shown = {each: np.asarray(Image.open(result.pictures / "c" / each)) for each in both}
    np.testing.assert_array_equal(shown["pred_mask.png"], colors[codes_of(folder, "c") - 1])
    np.testing.assert_array_equal(shown["gt_mask.png"], colors[truth(2)])
    image = np.asarray(Image.open(folder / "data/c/R_G_B_IR.png"))[..., :3].astype(float)
    np.testing.assert_allclose(shown["gt_overlay.png"], (image + shown["gt_mask.png"]) / 2, atol=0.5)
    assert not list(folder.rglob("out/**/R_G_B_IR*"))
    assert not list(folder.rglob("out/**/*.gpkg"))  # these images lie nowhere


def test_the_same_command_again_computes_nothing_and_tells_the_same(ran, monkeypatch):
    folder, result, lines = ran
    before = {path: path.stat().st_mtime_ns for path in result.pictures.rglob("*.png")}
    monkeypatch.setattr("resegeo.batches.batch.segmented", None)  # nor is an image opened for it
    told: list[str] = []
    again = segment_dataset(folder / "config.yml", told=told.append, **FLAGS)
    assert [tile.state for tile in again.tiles] == ["skipped"] * 3
    assert told == lines
    assert {path: path.stat().st_mtime_ns for path in result.pictures.rglob("*.png")} == before


def test_flags_go_before_the_file_and_the_files_method_is_the_papers(ran):
    folder, _, _ = ran
    settings = json.loads((folder / "out/c/c.json").read_text())["resegeo"]["settings"]
    assert settings["segments"] == "superpixels"
    assert (settings["edge"], settings["logit_scale"], settings["softmax_over"]) == ("overhang", 1.0, "prompts")
    said = read_dataset(folder / "config.yml").options
    assert (said["arch"], said["activation"]) == ("ViT-L-14-quickgelu", "quickgelu")
    assert said["model"] == str(folder / "clip.pt")
    assert [said["sam_levels"][0].crop_n_layers, said["sam_levels"][0].min_mask_region_area] == [1, 100]


def test_model_sam_and_attention_are_those_of_the_file(tmp_path):
    sets = [
        {"points_per_side": 4, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.5, "min_mask_region_area": 500},
        {"points_per_side": 2, "crop_n_layers": 0, "crop_n_points_downscale_factor": 1},
    ]
    attention = {"num_initial_layers": 5, "num_sam_attention_layers": 2, "num_neighbor_attention_layers": 1}
    model = {"clip_checkpoint": "resegeo-small", "sam_checkpoint": "sam.pth", "img_size": 128, "num_classes": 3}
    (tmp_path / "sam.pth").write_bytes(b"weights")
    config = lay(tmp_path, {"a": True}, model=model, attention={**attention, "sam_param_sets": sets})
    dataset = read_dataset(config)
    source, settings, sam = choose(dataset.classes, Options.of(joined(dataset, {})).method)
    assert (source.name, sam.path) == ("resegeo-small", tmp_path / "sam.pth")
    assert (settings.segments, settings.sam_mode) == ("sam", "exact")
    assert settings.sam_levels == (SamLevel(4, 0.5, 0.5, 500), SamLevel(2, 0.4, 0.4, 100, 0, 1))
    schedule = settings.schedule(8)
    assert (schedule.free, schedule.segment, schedule.local) == (5, 2, 1)
    dataset.check_model(source)
    assert Options.of(joined(dataset, {})).view.alpha == "ignore"
    other = joined(dataset, {"segments": "none", "alpha": "use", "stride": 32})
    _, settings, sam = choose(dataset.classes, Options.of(other).method)
    assert (settings.segments, settings.stride, sam) == ("none", 32, None)
    assert Options.of(other).view.alpha == "use"
    (tmp_path / "data/a/R_G_B_IR.png").write_bytes(b"damaged")
    with pytest.warns(IgnoredSettingWarning, match=r"sam_mode=.?tile.? takes no crops"):
        segment_dataset(config, sam_mode="tile", device="cpu")


def test_a_damaged_tile_and_labels_of_another_size_are_named_and_the_rest_is_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay(tmp_path, {"a": True, "b": True, "c": True})
    image = tmp_path / "data/a/R_G_B_IR.png"
    image.write_bytes(image.read_bytes()[:900])
    save(tmp_path / "data/b/L.png", truth(1)[:-1])
    flags = ["--model", "resegeo-small", "--segments", "superpixels", "--latex"]
    ran = CliRunner().invoke(main, ["dataset", "config.yml", *flags])
    assert ran.exit_code == 3
    assert "\\begin{tabular}" in ran.output
    assert "a: data/a/R_G_B_IR.png is damaged" in ran.output or "a/R_G_B_IR.png is damaged" in ran.output
    assert "b/L.png has 69 × 90 pixels (rows × columns), its image 70 × 90" in ran.output
    assert "3 images, 1 compared with labels, 2 failed" in ran.output
    assert (tmp_path / "out/shown/b/pred_mask.png").exists()
    assert not (tmp_path / "out/shown/b/gt_mask.png").exists()
    with (tmp_path / "out/tiles.csv").open(newline="") as stream:
        assert [row["state"] for row in csv.DictReader(stream)] == ["failed", "done", "done"]


def test_a_label_value_without_a_class_stops_before_anything_is_computed_and_can_be_ignored(tmp_path):
    config = lay(tmp_path, {"a": True})
    labels = truth(0)
    labels[:2] = 255
    save(tmp_path / "data/a/L.png", labels)
    with pytest.raises(ResegeoError, match=r"L.png holds the label values 255, which have no class; .* 0: Road"):
        segment_dataset(config, **FLAGS)
    assert not (tmp_path / "out").exists()
    config.write_text(yaml.safe_dump({**CONFIG, "labels": {"ignore": [255]}}))
    result = segment_dataset(config, **FLAGS)
    assert result.accuracy.pixels == labels.size - 180
    shown = np.asarray(Image.open(result.pictures / "a/gt_mask.png"))
    assert (shown[:2] == 0).all()


def test_a_class_that_no_words_lead_to_counts_as_missed(tmp_path):
    categories = {**CONFIG["category_to_index"], "Water": 3}
    config = lay(tmp_path, {"a": True}, category_to_index=categories)
    save(tmp_path / "data/a/L.png", np.full(SIZE, 3, np.uint8))
    with pytest.warns(ResegeoWarning, match="no text query leads to Water"):
        result = segment_dataset(config, **FLAGS)
    assert result.accuracy.names == (*NAMES, "Water")
    assert result.accuracy.mean_iou == 0


def test_georeferenced_images_get_the_usual_results_too(tmp_path, make_raster, picture):
    config = lay(tmp_path, {"a": True}, input={"dir": "data", "target_image_name": "scene.tif"})
    make_raster("data/a/scene.tif", picture(*SIZE))
    result = segment_dataset(config, **FLAGS)
    assert (tmp_path / "out/a/a.gpkg").exists()
    assert result.accuracy.pixels == SIZE[0] * SIZE[1]


def test_a_picture_that_the_user_edited_is_not_replaced(tmp_path):
    config = lay(tmp_path, {"a": True})
    mine = tmp_path / "out/shown/a/pred_mask.png"
    save(mine, np.zeros((4, 4, 3), np.uint8))
    result = segment_dataset(config, **FLAGS)
    assert "pred_mask.png is none of ours, or was edited" in result.tiles[0].reason
    assert result.failed == 1
    assert size_of(mine) == (4, 4)
    assert segment_dataset(config, overwrite=True, **FLAGS).failed == 0
    assert size_of(mine) == SIZE[::-1]


def test_our_own_keys_name_images_and_labels_by_parts_that_differ(tmp_path):
    for place, number in (("Urban", 1), ("Rural", 7), ("Rural", 8)):
        save(tmp_path / f"data/{place}/images/{number}.png", np.full((*SIZE, 3), 80, np.uint8))
        save(tmp_path / f"data/{place}/masks/{number}_m.png", truth(number) + 1)
    config = tmp_path / "mine.yml"
    words = {
        "classes": [{"name": "background", "background": True}, "road", "tree"],
        "input": {"dir": "data", "target_image_name": "images/{n}.png", "only": [1, 8]},
        "labels": {"name": "masks/{n}_m.png", "values": {1: "background", 2: "road", 3: "tree"}},
        "settings": {"preset": "default", "stride": 112},
    }
    config.write_text(yaml.safe_dump(words))
    result = segment_dataset(config, tmp_path / "out", model="resegeo-small", device="cpu", overlap=0.0)
    assert [tile.name for tile in result.tiles] == ["Rural/images/8", "Urban/images/1"]
    assert result.accuracy.names == ("road", "tree", "background")
    assert result.accuracy.pixels == 2 * SIZE[0] * SIZE[1]
    assert (result.pictures / "Urban/images/1/gt_mask.png").exists()
    assert result.pictures == tmp_path / "out/visualizations"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"input": {"dir": "nowhere"}}, r"nowhere, does not exist. Correct input.dir in config.yml"),
        ({"input": {"dir": "data", "target_image_name": "X.png"}}, "No file below .* is called X.png"),
        ({"input": {"dir": 3}}, r"line \d+: input.dir is 3; expected a text"),
        ({"category_to_index": {"Road": 0, "Building": 1}}, "found the class 'Trees'; expected a name that category"),
        ({"model": {"num_classes": 6}}, r"num_classes is 6; expected 3, as many as category_to_index lists"),
        ({"model": {"clip_model_name": "RN50"}}, "clip_model_name is 'RN50'; expected one of ViT-B/32"),
        ({"attention": {"max_random_attn": 0.1}}, "max_random_attn is 0.1; expected 0: attention drawn at random"),
        (
            {"attention": {"num_sam_attention_layers": 4, "sam_param_sets": [{}]}},
            "num_sam_attention_layers is 4; expected 1, as many as there are sam_param_sets",
        ),
        ({"attention": {"sam_param_sets": [{"points": 4}]}}, "set 1 has 'points'; expected one of points_per_side"),
        ({"output": {"visualizations_subdir": "../x"}}, "expected the name of a folder in base_dir"),
        ({"input": {"dir": "data", "target_image_name": "{a.png"}}, "target_image_name is '{a.png'; expected the name"),
        ({"input": {"dir": "data", "target_image_name": "../{a}.png"}}, "expected the name of a file"),
        ({"input": {"dir": "data", "only": "../val.txt"}}, "input.only is '../val.txt'; expected a list of names"),
        ({"labels": {"values": {"red": "Road"}}}, "'red' is no value of a raster"),
        ({"output": {}}, "names no folder for the results"),
        ({"labels": {"values": {7: "lake"}}}, "the label value 7 stands for 'lake', which is no class"),
        ({"labels": {"ignore": [0]}}, "the label value 0 has a class already"),
        ({"settings": {"overwrite": True}}, "'overwrite' in settings; expected a knob of the method"),
        ({"model": {"img_size": 448}}, r"says img_size: 448 in model, but resegeo-small has \d+"),
    ],
)
def test_every_mistake_in_the_file_is_answered(tmp_path, changes, expected):
    config = lay(tmp_path, {"a": True}, **changes)
    flags = {name: value for name, value in FLAGS.items() if name != "model" or "img_size" not in str(changes)}
    with pytest.raises(ResegeoError, match=expected):
        segment_dataset(config, **flags)


def test_an_interrupted_run_keeps_what_is_there_and_goes_on(tmp_path):
    config = lay(tmp_path, {"a": True, "b": True})

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="1 of 2 scenes are finished"):
        segment_dataset(config, told=stop, **FLAGS)
    with (tmp_path / "out/tiles.csv").open(newline="") as stream:
        assert [row["state"] for row in csv.DictReader(stream)] == ["done", "waiting"]
    result = segment_dataset(config, **FLAGS)
    assert [tile.state for tile in result.tiles] == ["skipped", "done"]
    assert result.accuracy.pixels == 2 * SIZE[0] * SIZE[1]


def test_two_images_never_share_their_results(tmp_path):
    config = lay(tmp_path, {"tile": False, "Tile": False})
    with pytest.raises(ResegeoError, match="would have the same results"):
        segment_dataset(config, **FLAGS)


def test_results_never_lie_among_the_images(tmp_path):
    with pytest.raises(UsageError, match="would lie among the images"):
        segment_dataset(lay(tmp_path, {"a": True}), tmp_path / "data", **FLAGS)


def test_an_unknown_key_is_named(tmp_path):
    config = lay(tmp_path, {"a": False}, input={"dir": "data", "target_image": "L.png"})
    with pytest.warns(ResegeoWarning, match="'target_image' in input is no key .* Did you mean 'target_image_name'"):
        read_dataset(config)
