"""``evaluate --map config.yml``: labels that hold the index of a reference's configuration, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from sklearn.metrics import jaccard_score

import resegeo
from resegeo.classes.class_file import parse_class_list
from resegeo.classes.class_list import ClassList
from resegeo.errors import InputNotice, UsageError

pytestmark = [
    pytest.mark.usefixtures("quick_model"),
    pytest.mark.filterwarnings("ignore::resegeo.errors.ResegeoWarning"),
]

CONFIG = {
    "text_queries": ["a street", "a roof", "trees"],
    "class_mapping": {"0": "Road", "1": "Building", "2": "Trees"},
    "category_to_index": {"Road": 0, "Building": 1, "Trees": 2, "Water": 3},
}


@pytest.fixture
def made(tmp_path, make_raster, picture):
    (tmp_path / "config.yml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    result = resegeo.segment(make_raster("a.tif", picture(64, 80)), tmp_path / "config.yml", tmp_path, vector=())
    return result.raster, result.codes().values


def test_a_config_says_what_labels_mean(tmp_path, make_raster, made):
    raster, codes = made
    real = np.random.default_rng(0).integers(0, 3, codes.shape)
    truth = make_raster("truth.tif", real[None].astype(np.uint8))
    found = resegeo.evaluate([(raster, truth)], legend=str(tmp_path / "config.yml")).accuracy
    rows = [found.names.index(name) for name in ("Road", "Building", "Trees")]
    expected = jaccard_score(real.ravel(), codes.ravel().astype(int) - 1, average=None, labels=[0, 1, 2])
    np.testing.assert_allclose(found.iou[rows], expected)


def test_a_class_that_no_words_lead_to_is_background_there(tmp_path, make_raster, made):
    raster, codes = made
    truth = make_raster("truth.tif", np.full((1, *codes.shape), 3, np.uint8))
    with pytest.warns(InputNotice, match="Water: not among the prediction's classes, so background"):
        found = resegeo.evaluate([(raster, truth)], legend=str(tmp_path / "config.yml")).accuracy
    assert found.counts[found.names.index("background")].sum() == codes.size


def test_labels_with_0_beside_codes_of_a_config_are_refused_without_one(make_raster, made):
    raster, codes = made
    truth = make_raster("truth.tif", (codes[None] - 1).astype(np.uint8))
    with pytest.raises(UsageError, match=r"holds 0, and the codes of .* plus 1: .* Pass legend=\"config.yml\""):
        resegeo.evaluate([(raster, truth)])
    own = make_raster("own.tif", codes[None].astype(np.uint8))
    assert resegeo.evaluate([(raster, own)]).accuracy.overall == 1
    absent = make_raster("absent.tif", np.where(codes == 1, 0, codes)[None].astype(np.uint8), nodata=0)
    assert resegeo.evaluate([(raster, absent)]).accuracy.overall == 1


def test_a_data_sets_file_says_it_too(tmp_path, make_raster, made):
    raster, codes = made
    (tmp_path / "set.yml").write_text("classes: [Road]\nlabels:\n  values: {10: Road, 20: Building, 30: Trees}\n")
    truth = make_raster("truth.tif", (codes[None] * 10).astype(np.uint8))
    assert resegeo.evaluate([(raster, truth)], legend=str(tmp_path / "set.yml")).accuracy.overall == 1


def test_a_class_list_remembers_that_it_came_from_a_config():
    config = parse_class_list(yaml.safe_dump(CONFIG))
    assert ClassList.from_json(config.to_json()).indexed
    plain = parse_class_list("classes: [water, road]")
    assert "indexed" not in plain.to_json()
    assert not ClassList.from_json(plain.to_json()).indexed
