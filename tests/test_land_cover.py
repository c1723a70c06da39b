"""Colours that custom gives, and synonyms that are added on request."""

from __future__ import annotations

import numpy as np
import pytest
from sight import SIGHT, seen_by
from skimage.color import deltaE_ciede2000, rgb2lab

from resegeo.classes.class_file import class_list
from resegeo.classes.land_cover import kind_of, kinds, near_synonyms, synonyms_of


@pytest.mark.parametrize("sight", SIGHT)
def test_customary_colours_are_told_apart_by_colour_blind_people(sight):
    grays = [(235, 235, 235), (120, 120, 120), (0, 0, 0)]
    rgb = np.array([kind.color for kind in kinds()] + grays) / 255
    lab = rgb2lab(seen_by(sight, rgb))
    one, two = np.triu_indices(len(lab), 1)
    kept = one < len(kinds())
    assert deltaE_ciede2000(lab[one[kept]], lab[two[kept]]).min() >= 9


def test_names_find_their_kind_in_any_case_and_number():
    for word, kind in {"Water": "water", "Lakes": "water", "solar_panels": "solar panel", "beaches": "beach"}.items():
        assert kind_of(word).name == kind
    assert kind_of("palm tree") is None
    assert kind_of("submarine") is None


def test_classes_get_customary_colours_and_never_two_the_same():
    by_name = {spec.name: spec.color for spec in class_list(["water", "Forest", "lake", "gizmo", "roads"]).classes}
    customary = {kind.name: kind.color for kind in kinds()}
    assert by_name["water"] == customary["water"]
    assert by_name["Forest"] == customary["forest"]
    assert by_name["roads"] == customary["road"]
    assert len(set(by_name.values())) == 5
    given = class_list([{"name": "gizmo", "color": "#3174cf"}, "water"]).classes
    assert given[1].color != given[0].color


def test_synonyms_are_never_words_of_another_class():
    assert synonyms_of("water", ["water"], []) == ("lake", "river", "water body")
    assert synonyms_of("water", ["water", "lake"], ["River"]) == ("water body",)
    assert synonyms_of("gizmo", ["gizmo"], []) == ()


def test_classes_that_will_split_each_other_are_found():
    assert near_synonyms([("forest", ["forest"]), ("trees", ["trees"]), ("road", ["road"])]) == [
        ("forest", "trees", "forest")
    ]
    assert near_synonyms([("water", ["lake"]), ("road", ["street"])]) == []


def test_every_word_belongs_to_one_kind():
    words = [word for kind in kinds() for word in (kind.name, *kind.also)]
    assert len(words) == len(set(words))
    for kind in kinds():
        assert 0 < len(kind.synonyms) <= 3
        assert all(kind_of(word) is kind for word in kind.synonyms)
