"""The published layout rebuilt from labelled images, end to end with the bundled model; figures are scikit-learn's."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, jaccard_score

from resegeo_cli.main import main

COLOURS = {"3C1098": 0, "8429F6": 1, "6EC1E4": 2, "FEDD3A": 3, "E2A929": 4, "9B9B9B": 255}
NAMES = ("Building", "Bare land", "Road", "Vegetation", "Water")
WORDS = [("building", 0), ("rooftop", 0), ("bare soil", 1), ("sand", 1), ("road", 2), ("trees", 3), ("grass", 3)]
WORDS += [("water", 4), ("pond", 4)]
CONFIG = {
    "text_queries": [word for word, _ in WORDS],
    "class_mapping": {str(number): NAMES[index] for number, (_, index) in enumerate(WORDS)},
    "category_to_index": {name: index for index, name in enumerate(NAMES)},
    "input": {"dir": "data", "target_image_name": "R_G_B_IR.png"},
    "output": {"base_dir": "out", "visualizations_subdir": "visualizations"},
    "model": {"clip_checkpoint": "resegeo-small", "img_size": 128, "num_classes": 5},
    "attention": {"max_random_attn": 0.0},
    "labels": {"ignore": [255]},
}
TILES = ("tile2_image_part_002", "tile4_image_part_004", "tile8_image_part_007")
SIDE = 280


def lay(source: Path, folder: Path, side: int = SIDE, tiles: tuple[str, ...] = TILES) -> dict[str, np.ndarray]:
    """Rebuild the layout: a fourth band that is dark in shadow and water, labels as indices; return the labels."""
    labels = {}
    for stem in tiles:
        rgb = np.asarray(Image.open(source / f"{stem}.jpg").convert("RGB"))
        colours = np.asarray(Image.open(source / f"{stem}.png").convert("RGB")).astype(int)
        top, left = ((length - min(side, length)) // 2 for length in rgb.shape[:2])
        rgb, colours = (each[top : top + side, left : left + side] for each in (rgb, colours))
        infrared = np.where(rgb[..., :1] < 70, 0, rgb[..., :1])
        packed = colours @ (65536, 256, 1)
        indices = np.full(packed.shape, 255, np.uint8)
        for colour, index in COLOURS.items():
            indices[packed == int(colour, 16)] = index
        place = folder / "data" / stem.partition("_")[0] / stem
        place.mkdir(parents=True)
        Image.fromarray(np.concatenate([rgb, infrared], axis=2)).save(place / "R_G_B_IR.png")
        Image.fromarray(indices).save(place / "L.png")
        labels[f"{stem.partition('_')[0]}/{stem}"] = indices
    (folder / "config.yml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return labels


def predicted(folder: Path, name: str) -> np.ndarray:
    """What was found, read from the picture alone: colours of the legend's order back to indices."""
    from resegeo.datasets.config import read_dataset

    colors = read_dataset(folder / "config.yml").colors
    shown = np.asarray(Image.open(folder / "out/visualizations" / name / "pred_mask.png")).astype(int)
    return np.argmax([(shown == colors[each]).all(axis=2) for each in NAMES], axis=0)


def test_one_command_gives_the_figures_of_scikit_learn(test_data, tmp_path, monkeypatch):
    labels = lay(test_data / "labelled/dubai_tiles", tmp_path)
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(main, ["dataset", "config.yml", "--segments", "superpixels", "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    lines = [line for line in ran.stderr.splitlines() if " of 3, " in line]
    with Path("out/tiles.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["tile"]: row for row in csv.DictReader(stream)}
    real, found = [], []
    for (name, indices), line in zip(labels.items(), lines, strict=True):
        known = indices != 255
        real.append(indices[known])
        found.append(predicted(tmp_path, name)[known])
        here, so_far = (real[-1], found[-1]), (np.concatenate(real), np.concatenate(found))
        row = rows[name]
        assert int(row["pixels"]) == known.sum()
        assert float(row["accuracy"]) == pytest.approx(accuracy_score(*here), abs=1e-6)
        assert float(row["mean_f1"]) == pytest.approx(f1_score(*here, average="macro"), abs=1e-6)
        assert float(row["mean_iou"]) == pytest.approx(jaccard_score(*here, average="macro"), abs=1e-6)
        there = np.union1d(*here)
        each = jaccard_score(*here, average=None, labels=there)
        assert [float(row[f"iou {NAMES[n]}"]) for n in there] == pytest.approx(each, abs=1e-6)
        assert all(row[f"iou {name}"] == "" for n, name in enumerate(NAMES) if n not in there)
        told = "accuracy {:.4f} (mean of classes {:.4f}), mean F1 {:.4f}, mean IoU {:.4f}".format(
            accuracy_score(*so_far),
            balanced_accuracy_score(*so_far),
            f1_score(*so_far, average="macro"),
            jaccard_score(*so_far, average="macro"),
        )
        assert line.endswith(told)
    kept = json.loads(Path("out/figures.json").read_text("utf-8"))
    table = np.array(kept["confusion"]["pixels"])[:, :5]
    np.testing.assert_array_equal(table, confusion_matrix(*so_far, labels=range(5)))
    assert table.sum() == kept["pixels_compared"]  # no pixel is lost where infrared is 0
    assert kept["mean_iou"] > 0.2
