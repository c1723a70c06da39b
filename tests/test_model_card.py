"""The card of a model: read with mistrust, and held against a run in sentences."""

from __future__ import annotations

import json

import pytest

from resegeo.checkpoints.model_card import Look, bundled_card, card_beside, caution, doubts, read_card
from resegeo.checkpoints.sources import vocabulary
from resegeo.errors import ResegeoError


def facts(**changes):
    kinds = {
        "road": {
            "words": ["street"],
            "quality": [{"source": "aerial images of Japan", "gsd": [0.2, 0.2], "iou": 0.25}],
            "confused_with": ["building"],
        },
        "building": {
            "words": ["house"],
            "quality": [
                {"source": "Dubai", "gsd": [0.3, 1.0], "iou": 0.5},
                {"source": "Korea", "gsd": [10, 10], "iou": 0.1},
            ],
            "confused_with": [],
        },
        "ship": {"words": ["boat"], "quality": [], "confused_with": []},
    }
    return {"format": 1, "name": "small", "gsd": [0.1, 30], "default_segments": "none", "kinds": kinds, **changes}


@pytest.fixture
def card(tmp_path):
    def make(**changes):
        (tmp_path / "card.json").write_text(json.dumps(facts(**changes)))
        return read_card(tmp_path / "card.json")

    return make


def test_a_kind_is_found_by_any_of_its_words_and_by_the_plural(card):
    assert card().kind_of(["volcano", "Streets"]).name == "road"
    assert card().kind_of(["volcano"]) is None


def test_a_good_run_has_no_caution(card):
    assert caution(card(), Look(0.5), {"building": ["house"], "volcano": ["volcano"]}) is None
    assert caution(card(), Look(), {"building": ["house"]}) is None


def test_pixels_outside_the_range_are_told_with_the_option_that_helps(card):
    fine, coarse = (caution(card(), Look(gsd), {}) for gsd in (0.02, 250))
    assert (
        fine == "small at pixels of 0.02 m: finer than the 0.1 to 30 m that it is made for. Remedy: pass [[gsd=0.1]]."
    )
    assert "pixels of 250 m: coarser" in coarse
    assert "another model by [[model]]" in coarse


def test_a_weak_kind_is_named_with_its_figure_and_source_at_that_pixel_size(card):
    said = caution(card(), Look(10), {"building": ["house"]})
    assert "weak at building (IoU 0.10 on Korea)" in said
    assert "[[examples]]" in said


def test_what_was_never_measured_is_said(card):
    assert "never measured at boats" in caution(card(), Look(10), {"boats": ["boat"]})


def test_kinds_that_are_taken_for_each_other_are_named_when_both_are_asked_for(card):
    said = caution(card(), Look(), {"tarmac": ["street"], "homes": ["house"]})
    assert said.startswith("small: often takes tarmac for homes. Remedy: ")


def test_two_classes_of_one_kind_are_told(card):
    said = caution(card(), Look(), {"a": ["road"], "b": ["street"]})
    assert said == "small: a and b are one kind to it. Remedy: make one class of words of one kind."


def test_all_cautions_are_one_sentence_that_says_each_remedy_once(card):
    words = {"tarmac": ["street"], "homes": ["house"], "boats": ["boat"]}
    said = caution(card(brightness=[40, 200]), Look(10, 12.0), words)
    assert said.count("Remedy: ") == said.count("[[model]]") == said.count("[[stretch]]") == 1
    assert "darker than what it learned from (mean 12 of 255, there 40 to 200)" in said
    assert "weak at homes" in said
    assert "often takes tarmac for homes" in said


def test_brightness_and_colour_are_told_only_of_a_model_whose_card_knows_them(card):
    assert caution(card(), Look(0.5, 250.0, grey=True), {}) is None
    assert "brighter" in caution(card(brightness=[40, 200]), Look(0.5, 250.0), {})
    assert "grey" in caution(card(brightness=[40, 200]), Look(0.5, 100.0, grey=True), {})


def test_many_weak_classes_are_counted_and_not_listed(card):
    kinds = {
        f"k{n}": {"words": [], "quality": [{"source": "x", "gsd": [1, 1], "iou": 0.1}], "confused_with": []}
        for n in range(9)
    }
    assert "and 6 more" in caution(card(kinds=kinds), Look(1), {name: [name] for name in kinds})


def test_low_scores_are_named_lowest_first():
    said = doubts("scene", {"road": 0.45, "building": 0.2, "ship": 0.9}, {})
    assert "low mean scores of building (0.20) and road (0.45)" in said
    assert "ship" not in said


def test_near_ties_are_named_with_their_share_of_the_class():
    said = doubts("scene", {"road": 0.9}, {"road": ("building", 0.5), "water": ("sea", 0.1)})
    assert "near ties between road and building (in 50% of road)" in said
    assert "water" not in said
    assert doubts("scene", {"road": 0.9}, {"road": ("building", 0.1)}) is None


def test_a_card_lies_beside_its_checkpoint(tmp_path):
    model = tmp_path / "mine.safetensors"
    model.touch()
    assert card_beside(model) is None
    (tmp_path / "mine.card.json").write_text(json.dumps(facts()))
    assert card_beside(model).name == "small"
    (tmp_path / "mine").mkdir()
    assert card_beside(tmp_path / "mine").name == "small"


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"gsd": [0, 1]},
        {"gsd": [3, 1]},
        {"gsd": ["a", "b"]},
        {"gsd": [1, float("nan")]},
        {"default_segments": "sam"},
        {"name": 3},
        {"kinds": []},
        {"kinds": {str(n): {"words": [], "quality": [], "confused_with": []} for n in range(1001)}},
        {"gsd": [True, 2]},
        {"gsd": [1, 10**400]},
        {"brightness": "bright"},
        {"default_segments": ["none"]},
        {"kinds": {"road": {"words": [], "confused_with": []}}},
        {"kinds": {"road": {"words": "street", "quality": [], "confused_with": []}}},
        {"kinds": {"road": {"words": [1], "quality": [], "confused_with": []}}},
        {"kinds": {"road": {"words": [], "quality": [{"source": "x", "gsd": [1, 1], "iou": 2}], "confused_with": []}}},
    ],
)
def test_a_card_that_makes_no_sense_is_refused_in_one_sentence(card, changes):
    with pytest.raises(ResegeoError, match=r"^The model card .* cannot be used: [^\n]*$"):
        card(**changes)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_a_card_that_is_no_json_is_refused(tmp_path, text):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(ResegeoError, match="is no JSON"):
        read_card(tmp_path / "card.json")


def test_the_bundled_card_knows_every_word_of_the_vocabulary_but_the_wide_ones():
    card = bundled_card()
    wide = {word for word in vocabulary() if card.kind_of([word]) is None}
    assert wide == {"vegetation", "plants", "greenery", "green vegetation", "background", "other", "anything else"}
    assert len(card.kinds) >= 18
    assert all(other in {kind.name for kind in card.kinds} for kind in card.kinds for other in kind.confused_with)
