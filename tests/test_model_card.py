"""The card of a model: read with mistrust, and held against a run in sentences."""

from __future__ import annotations

import json

import pytest

from resegeo.checkpoints.model_card import bundled_card, cautions, read_card
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
    assert cautions(card(), 0.5, {"building": ["house"], "volcano": ["volcano"]}, {"building": 0.8}) == []


def test_pixels_outside_the_range_are_told_with_the_option_that_helps(card):
    assert "pass [[gsd=0.1]]" in cautions(card(), 0.02, {})[0]
    assert "Pixels of 250 m are coarser" in cautions(card(), 250, {})[0]
    assert cautions(card(), None, {"building": ["house"]}) == []


def test_a_weak_kind_is_named_with_its_figure_and_source_at_that_pixel_size(card):
    (said,) = cautions(card(), 10, {"building": ["house"]})
    assert "weak at building (IoU 0.10 on Korea)" in said
    assert not any("weak" in text for text in cautions(card(), 0.5, {"building": ["house"]}))


def test_what_was_never_measured_is_said(card):
    (said,) = cautions(card(), 10, {"boats": ["boat"]})
    assert "boats at pixels of 10 m was never measured" in said


def test_kinds_that_are_taken_for_each_other_are_named_when_both_are_asked_for(card):
    said = cautions(card(), None, {"tarmac": ["street"], "homes": ["house"]})
    assert said == ["small often takes tarmac as homes: where both are asked for, look at them before use."]


def test_two_classes_of_one_kind_are_told(card):
    (said,) = cautions(card(), None, {"a": ["road"], "b": ["street"]})
    assert "a and b are words of one kind" in said


def test_low_scores_are_named_lowest_first(card):
    (said,) = cautions(card(), None, {}, {"road": 0.45, "building": 0.2, "ship": 0.9})
    assert "building (0.20) and road (0.45)" in said


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
        {"kinds": {"road": {"words": [], "confused_with": []}}},
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
