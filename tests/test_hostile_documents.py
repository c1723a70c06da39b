"""Class files, settings, pairs and control points from anybody: the readers of each end in values or one sentence."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from mutations import mutate
from rasterio.control import GroundControlPoint

from resegeo.classes.class_file import TEMPLATE, load_class_list
from resegeo.composition.recipe import read_recipe
from resegeo.errors import ClassFileError, InputNotice, ResegeoError, UsageError
from resegeo.evaluation.evaluate import read_pairs
from resegeo.evaluation.legend import Legend
from resegeo.scene.gcps import fit_affine, mapped
from resegeo.settings import resolve_settings

SETTINGS = "stride: 64\nsegments: none\nsuperpixel_area: [256, 1024]\nthreshold: 0.25\nvector: gpkg\ntaper: yes\n"
RECIPE = "models: [a.pt, {model: b.pt, arch: ViT-B-32}]\nweights: [0.5, 0.5]\ntemperature: 0.07\n"


def settings(path: Path) -> Any:
    return resolve_settings(file=path)


def legend(path: Path) -> Any:
    return Legend.parse(str(path))


READERS: list[tuple[Callable[[Path], Any], str]] = [
    (load_class_list, TEMPLATE),
    (settings, SETTINGS),
    (read_recipe, RECIPE),
    (legend, "255: road\n'#3C1098': forest\n60 16 152: water\nnonzero: grass\n"),
    (read_pairs, "prediction,truth\na.tif,b.tif\nc.tif,d.tif\n"),
]


@pytest.mark.parametrize(("read", "seed"), READERS, ids=["classes", "settings", "composition", "legend", "pairs"])
def test_damaged_files_are_values_or_one_sentence(tmp_path, read, seed):
    random, path = Random(3), tmp_path / "file.yml"
    for _ in range(60):
        path.write_bytes(mutate(seed.encode(), random))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(path)
            except ResegeoError as error:
                said = str(error)
                assert "\n" not in said


@pytest.mark.parametrize(("read", "_"), READERS, ids=["classes", "settings", "composition", "legend", "pairs"])
def test_a_pipe_is_no_file_and_is_not_waited_for(tmp_path, read, _):
    os.mkfifo(tmp_path / "pipe.yml")
    with pytest.raises(ResegeoError, match="is no ordinary file"):
        read(tmp_path / "pipe.yml")


def test_a_settings_file_of_nested_aliases_is_one_short_sentence(tmp_path):
    lines = [
        "a: &a [1,1,1,1,1,1,1,1,1]",
        *(f"{b}: &{b} [{','.join(['*' + a] * 9)}]" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
    ]
    (tmp_path / "s.yml").write_text("\n".join(lines))
    with pytest.raises(UsageError, match=r"line \d: this YAML cannot be taken: its aliases stand for") as caught:
        resolve_settings(file=tmp_path / "s.yml")
    assert len(str(caught.value)) < len(str(tmp_path)) + 200


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("comma", [",", ";", "\t"])
def test_pairs_are_read_as_spreadsheets_write_them(tmp_path, encoding, comma):
    text = f"truth{comma}prediction\r\nWälder.tif{comma}a.tif\r\n"
    (tmp_path / "pairs.csv").write_bytes(text.encode(encoding))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputNotice)
        assert read_pairs(tmp_path / "pairs.csv") == [(tmp_path / "a.tif", tmp_path / "Wälder.tif")]


def test_a_class_file_that_is_too_large_is_told_before_it_is_read(tmp_path):
    (tmp_path / "c.yml").touch()
    os.truncate(tmp_path / "c.yml", 1 << 40)
    with pytest.raises(ClassFileError, match="is larger than 1,048,576 bytes"):
        load_class_list(tmp_path / "c.yml")


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan, 1e308, -1.7e308])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_control_points_at_infinity_settle_nothing(wrong, count):
    places = [(0.0, 0.0), (10.0, 0.5), (0.5, 10.0), (10.0, 10.0)][:count]
    points = [GroundControlPoint(row, col, col, row) for col, row in places]
    points[-1].x = wrong
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        affine = fit_affine(points)
    if affine is None:
        with pytest.raises(ValueError, match="settle no transform"):
            mapped(points, np.zeros((1, 2)))
    else:
        assert np.isfinite(affine[:6]).all()
