from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resegeo.classes import TEMPLATE, ClassList, class_list, load_class_list, parse_class_list
from resegeo.errors import ClassFileError, ResegeoError

REFERENCE = """\
text_queries: ["a street", "a roof", "a house", "trees"]
class_mapping: {"0": "Artificial Surface", "1": "Building", "2": "Building", "3": "Trees"}
category_to_index: {"Artificial Surface": 0, "Building": 1, "Trees": 4}
attention:
  num_initial_layers: 18
  num_neighbor_attention_layers: 2
  num_sam_attention_layers: 4
  sam_param_sets: [{points_per_side: 4}]
input: {dir: "/data"}
model: {img_size: 224}
"""


def test_codes_follow_the_files_order_and_background_takes_none():
    found = parse_class_list("classes: [a, {name: b, background: true}, {name: c, prompts: [x, y]}]")
    assert [(spec.name, spec.code) for spec in found.classes] == [("a", 1), ("b", 0), ("c", 2)]
    assert found.prompt_texts == (("a",), ("b",), ("x",), ("y",))
    assert found.prompt_class == (0, 1, 2, 2)
    assert [spec.name for spec in found.drawn] == ["a", "c"]


def test_a_prompt_without_templates_reaches_the_model_as_written_and_templates_apply_to_all():
    assert parse_class_list('classes: ["Aerial photo of a street"]').prompt_texts == (("Aerial photo of a street",),)
    found = parse_class_list('classes: [a, b]\ntemplates: ["{}", "a photo of {}"]')
    assert found.prompt_texts == (("a", "a photo of a"), ("b", "a photo of b"))


def test_the_template_parses_and_survives_json():
    found = parse_class_list(TEMPLATE)
    assert found.classes[-1].background
    assert ClassList.from_json(found.to_json()) == found


def test_the_references_own_file_leads_through_both_mappings():
    found = parse_class_list(REFERENCE, "config.yml")
    assert [(spec.name, spec.code, spec.prompts) for spec in found.classes] == [
        ("Artificial Surface", 1, ("a street",)),
        ("Building", 2, ("a roof", "a house")),
        ("Trees", 5, ("trees",)),
    ]
    assert found.attention == {"free_layers": 18, "local_layers": 2, "segment_layers": 4}
    assert any("input, model" in notice for notice in found.notices)
    assert any("sam_param_sets" in notice for notice in found.notices)
    with pytest.raises(ClassFileError, match="no entry for query 3"):
        parse_class_list(REFERENCE.replace(', "3": "Trees"', ""), "config.yml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("[a, b]", "line 1: found a list; expected a line 'classes:'"),
        ("classes:\n", "found nothing; expected a list"),
        ("classes: []", "an empty list"),
        ("clases: [a]", "line 1: found the unknown key 'clases'; did you mean 'classes'?"),
        ("classes:\n  - nam: a", "line 2: found the unknown key 'nam'; did you mean 'name'?"),
        ("classes:\n  - prompts: [a]", "line 2: found a class without a name"),
        ("classes: [a, b, A]", "the class 'A' a second time (first in line 1)"),
        ("classes: [a]\nclasses: [b]", "line 2: found 'classes' a second time"),
        ("classes:\n- name: a\n  color: '#12345'", "line 3: found '#12345'; expected a colour"),
        ("classes:\n- name: a\n  color: [1, 2, 300]", "found [1, 2, 300]; expected a colour"),
        ("classes:\n- name: a\n  color: '#11223344'", "without transparency"),
        ("classes:\n- name: a\n  threshold: 50", "line 3: found 50; expected a probability from 0 to 1"),
        ("classes:\n- name: a\n  threshold: .nan", "expected a probability"),
        ("classes: [a]\nthreshold: high", "found 'high'; expected a probability"),
        ("classes: [no, a]", 'write it in quotes: "no"'),
        ("classes: [~]", "found nothing; expected a class name"),
        ("classes: [[a]]", "found a list; expected a class name"),
        ("classes:\n- name: a\n  background: maybe", "found 'maybe'; expected true or false"),
        ("classes: [{name: a, background: true}]", "background classes alone"),
        ("classes: [a]\ntemplates: ['a photo']", "found 'a photo'; expected a template with one {}"),
        ("classes: [a]\ntemplates: ['{} of {}']", "a template with one {}"),
        ("classes: [{name: a, prompts: []}]", "an empty list; expected a prompt"),
        ("classes: [{name: a, prompt: b, prompts: [c]}]", "both 'prompt' and 'prompts'"),
        ("classes:\n - a\n- b", "line 3: this is not valid YAML"),
        ("classes: [a\tb: c", "this is not valid YAML"),
        ("text_queries: [a]", "no mapping 'class_mapping'"),
    ],
)
def test_a_mistake_names_its_line_what_was_found_and_what_is_expected(text, words):
    with pytest.raises(ClassFileError) as caught:
        parse_class_list(text)
    assert words in str(caught.value)
    assert "classes.yml" in str(caught.value)


def test_a_missing_or_unreadable_file_is_one_sentence(tmp_path):
    with pytest.raises(ClassFileError, match="no such file"):
        load_class_list(tmp_path / "none.yml")
    with pytest.raises(ClassFileError, match="cannot be read"):
        load_class_list(tmp_path)
    (tmp_path / "latin.yml").write_bytes("classes: [Straße]".encode("latin-1"))
    with pytest.raises(ClassFileError, match="not UTF-8"):
        load_class_list(tmp_path / "latin.yml")
    (tmp_path / "bom.yml").write_text("\ufeffclasses: [Straße]", "utf-8")
    assert load_class_list(tmp_path / "bom.yml").classes[0].name == "Straße"


@given(st.text(max_size=200))
def test_no_text_raises_anything_but_a_readable_error(text):
    try:
        found = parse_class_list(text)
    except ResegeoError:
        return
    assert found.drawn


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["classes", "templates", "threshold", "text_queries", "class_mapping", "category_to_index"]),
        yaml_values | st.lists(st.dictionaries(st.sampled_from(["name", "prompts", "color"]), yaml_values), max_size=3),
        min_size=1,
    )
)
def test_no_structure_raises_anything_but_a_readable_error(structure):
    import yaml

    try:
        found = parse_class_list(yaml.safe_dump(structure))
    except ResegeoError:
        return
    assert found.drawn


@given(st.integers(1, 300))
def test_colours_are_distinct_however_many_classes(count):
    found = class_list([f"class {number}" for number in range(count)])
    assert len({spec.color for spec in found.classes}) == count


def test_given_colours_stay_and_missing_ones_keep_away_from_them():
    found = class_list([{"name": "a", "color": "#0072b2"}, "b", "c", {"name": "d", "color": "red"}])
    assert found.classes[0].color == (0, 114, 178)
    assert found.classes[3].color == (255, 0, 0)
    for one, two in itertools.combinations([spec.color for spec in found.classes], 2):
        assert sum(abs(a - b) for a, b in zip(one, two, strict=True)) > 60


def test_many_classes_take_sixteen_bits():
    assert class_list([f"c{n}" for n in range(250)]).dtype == "uint8"
    many = class_list([f"c{n}" for n in range(251)])
    assert (many.dtype, many.nodata, many.unprocessed) == ("uint16", 65535, 65534)


def test_names_of_special_codes():
    found = class_list(["a"])
    assert [found.name_of(code) for code in (0, 1, 254, 255)] == ["background", "a", "unprocessed", "nodata"]
