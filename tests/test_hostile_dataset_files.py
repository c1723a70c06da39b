"""Whatever stands in a data set's file, it is read or answered by one sentence."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from resegeo.datasets.config import read_dataset
from resegeo.errors import ResegeoError

pytestmark = pytest.mark.filterwarnings("ignore::resegeo.errors.ResegeoWarning")

REFERENCE = {
    "text_queries": ["a street", "a roof"],
    "class_mapping": {"0": "Road", "1": "Building"},
    "category_to_index": {"Road": 0, "Building": 1},
    "input": {"dir": "data", "target_image_name": "R_G_B_IR.png", "only": ["a"], "tile": 512},
    "labels": {"name": "L.png", "values": {0: "Road", 1: "Building"}, "ignore": [255]},
    "output": {"base_dir": "out", "visualizations_subdir": "shown"},
    "model": {
        "clip_model_name": "ViT-L/14",
        "clip_checkpoint": "clip.pt",
        "sam_checkpoint": "sam.pth",
        "img_size": 224,
        "patch_size": 14,
        "num_classes": 2,
    },
    "attention": {
        "num_initial_layers": 18,
        "num_neighbor_attention_layers": 2,
        "num_sam_attention_layers": 1,
        "max_random_attn": 0.0,
        "sam_param_sets": [{"points_per_side": 4, "pred_iou_thresh": 0.5}],
    },
    "settings": {"preset": "paper", "stride": 64, "segments": "none"},
    "published": {"segearth": 40.0},
    "about": "a set",
}
OURS = {key: value for key, value in REFERENCE.items() if key not in ("text_queries", "class_mapping")}
OURS |= {"category_to_index": None, "classes": [{"name": "Road"}, {"name": "Building", "background": True}]}
OURS.pop("category_to_index")
STRANGE = [None, True, -1, 2.5, 10**30, "", " ", "x\x07", "../x", "/etc/passwd", "{", "a" * 5000, [], [[]], [{}], {}]
STRANGE += [{"a": {"b": 1}}, {1: 2}, [None], [True], float("nan")]


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if before:
        yield before
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from paths(inner, (*before, key))


@pytest.mark.parametrize("document", [REFERENCE, OURS], ids=["reference", "ours"])
def test_any_value_anywhere_is_read_or_refused_in_one_sentence(tmp_path, document):
    path = tmp_path / "set.yml"
    refused = []
    for number, place in enumerate(paths(document)):
        for value in STRANGE[number % 3 :: 3]:
            changed: Any = copy.deepcopy(document)
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            path.write_text(yaml.safe_dump(changed, sort_keys=False), "utf-8")
            try:
                read_dataset(path)
            except ResegeoError as error:
                refused.append(str(error))
    assert len(refused) > 100
    assert all(len(said) < 1500 and "\n" not in said and "\x07" not in said for said in refused)


@pytest.mark.parametrize("text", ["", "[]", "a", "input: &a [*a]", "input:\n\t- b", "? [a]\n: b", "1: 2", "null: 1"])
def test_what_is_no_such_file_is_said(tmp_path, text):
    path = tmp_path / "set.yml"
    path.write_text(text)
    with pytest.raises(ResegeoError):
        read_dataset(path)
