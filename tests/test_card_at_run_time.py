"""What a model's card changes in a run: default segments, a sentence before it, one after it, facts in the report."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from rasterio.transform import from_origin
from safetensors.torch import load_file, save_file

import resegeo
from resegeo.checkpoints.model_card import ModelCardNotice, bundled_card
from resegeo.checkpoints.sources import FOLDER, resolve_model
from resegeo.errors import ResegeoError
from resegeo.run.labelling import Doubt
from resegeo_cli.main import main

pytestmark = pytest.mark.usefixtures("quick_model")

WORDS = ["water", "forest"]
OPTIONS = {"vector": (), "discard_store": True}


@pytest.fixture
def card(tmp_path):
    """Facts of a card, and a copy of the bundled model as a user's own beside which they can be laid."""
    shutil.copy(FOLDER / "resegeo-small.safetensors", tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors", json.loads((FOLDER / "card.json").read_text("utf-8"))


def source_of(path):
    return resolve_model(str(path), str(FOLDER / "resegeo-small.json"))


def segments_of(plan):
    return plan.settings.segments


def notices(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, [str(one.message) for one in caught if issubclass(one.category, ModelCardNotice)]


@pytest.mark.filterwarnings("ignore::resegeo.ResegeoWarning")
def test_segments_are_those_that_suit_the_model_unless_the_user_names_some(make_raster, picture):
    scene = make_raster("scene.tif", picture(60, 60))
    assert bundled_card().segments == "none"
    assert segments_of(resegeo.prepare(scene, WORDS).plan) == "none"
    assert segments_of(resegeo.prepare(scene, WORDS, vote_segments=False).plan) == "none"
    assert segments_of(resegeo.prepare(scene, WORDS, segments="superpixels").plan) == "superpixels"


@pytest.mark.filterwarnings("ignore::resegeo.ResegeoWarning")
@pytest.mark.parametrize("given", [{"superpixel_area": (100,)}, {"vote_segments": True}])
def test_an_option_that_needs_segments_implies_superpixels(make_raster, picture, given):
    scene = make_raster("scene.tif", picture(60, 60))
    assert segments_of(resegeo.prepare(scene, WORDS, **given).plan) == "superpixels"


@pytest.mark.filterwarnings("ignore::resegeo.ResegeoWarning")
def test_a_model_without_a_card_has_superpixels_and_one_with_a_card_its_own(make_raster, picture, card):
    model, facts = card
    scene = make_raster("scene.tif", picture(60, 60))
    own = {"model": str(model), "arch": str(FOLDER / "resegeo-small.json"), "activation": "gelu"}
    assert segments_of(resegeo.prepare(scene, WORDS, **own).plan) == "superpixels"
    model.with_name("mine.card.json").write_text(json.dumps(facts))
    assert segments_of(resegeo.prepare(scene, WORDS, **own).plan) == "none"


def test_a_card_in_the_metadata_is_taken_and_one_beside_goes_before_it(card):
    model, facts = card
    state = load_file(model)
    save_file(state, model, metadata={"resegeo": json.dumps({"card": facts | {"name": "inside"}})})
    assert source_of(model).card.name == "inside"
    model.with_name("mine.card.json").write_text(json.dumps(facts | {"name": "beside"}))
    assert source_of(model).card.name == "beside"


@pytest.mark.parametrize("wrong", [{"gsd": "all"}, {"kinds": 3}, {"default_segments": "sam"}])
def test_a_wrong_card_is_refused_with_the_place_where_it_stands(card, wrong):
    model, facts = card
    model.with_name("mine.card.json").write_text(json.dumps(facts | wrong))
    with pytest.raises(ResegeoError, match=r"^The model card .*mine.card.json cannot be used: [^\n]*$"):
        source_of(model)
    model.with_name("mine.card.json").unlink()
    save_file(load_file(model), model, metadata={"resegeo": json.dumps({"card": facts | wrong})})
    with pytest.raises(ResegeoError, match=r"^The model card in the metadata of .* cannot be used: [^\n]*$"):
        source_of(model)


def test_a_run_outside_of_what_the_model_knows_says_so_in_one_sentence(make_raster, picture):
    scene = make_raster("scene.tif", picture(60, 60) // 40, transform=from_origin(500_000, 5_200_000, 0.02, 0.02))
    _, said = notices(lambda: resegeo.prepare(scene, ["ship", "road"]))
    (sentence,) = said
    assert "pixels of 0.02 m: finer than the 0.1 to 30 m" in sentence
    assert "darker than what it learned from" in sentence
    assert "pass gsd=0.1; set the range of values by stretch" in sentence


def test_a_grey_scene_is_told(make_raster, picture):
    scene = make_raster("scene.tif", picture(60, 60)[:1])
    _, said = notices(lambda: resegeo.prepare(scene, WORDS))
    assert "the scene is grey" in said[0]


def test_the_report_names_mean_scores_and_near_ties(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(60, 60))
    result, said = notices(lambda: resegeo.segment(scene, WORDS, tmp_path / "out", **OPTIONS))
    found = json.loads(result.report.read_text("utf-8"))["doubts"]
    assert set(found["mean_scores"]) <= set(WORDS)
    assert all(0.5 <= score <= 1 for score in found["mean_scores"].values())
    for name, tie in found["near_ties"].items():
        assert {name, tie["with"]} == set(WORDS)
        assert 0 < tie["share"] <= 1
    tied = any(tie["share"] >= 1 / 3 for tie in found["near_ties"].values())
    assert any("unsure" in sentence for sentence in said) == tied


def test_doubts_of_a_store_with_new_outputs_are_those_of_the_run(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(60, 60))
    first, _ = notices(lambda: resegeo.segment(scene, WORDS, tmp_path / "out"))
    before = json.loads(first.report.read_text("utf-8"))["doubts"]
    again, _ = notices(lambda: resegeo.segment(scene, WORDS, tmp_path / "out", simplify=1.0, overwrite=True))
    assert json.loads(again.report.read_text("utf-8"))["doubts"] == before


def test_check_shows_what_a_card_says(card):
    model, facts = card
    model.with_name("mine.card.json").write_text(json.dumps(facts))
    done = CliRunner().invoke(main, ["models", "check", str(model), "--arch", "resegeo-small"])
    assert done.exit_code == 0, done.output
    assert f"{'card':13}  25 kinds, 0.1 to 30 m, segments none" in done.stdout


def test_doubts_count_pixels_means_and_ties():
    by_class = np.array([[[0.9, 0.5, np.nan]], [[0.1, 0.45, np.nan]], [[0.0, 0.05, np.nan]]], dtype=np.float32)
    doubt = Doubt.of(by_class, np.ones((1, 3), dtype=bool))
    twice = doubt + doubt
    assert twice.facts(["a", "b", "c"]) == {
        "mean_scores": {"a": 0.7},
        "near_ties": {"a": {"with": "b", "share": 0.5}},
    }


def test_the_remedies_that_it_names_end_the_caution(make_raster, picture):
    scene = make_raster("scene.tif", picture(60, 60) // 40, transform=from_origin(500_000, 5_200_000, 0.02, 0.02))
    _, said = notices(lambda: resegeo.prepare(scene, ["water"], gsd=0.1, stretch=(0, 6)))
    assert not any("made for" in sentence or "learned from" in sentence for sentence in said)
