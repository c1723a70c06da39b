from __future__ import annotations

import itertools
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sight import SIGHT, seen_by
from skimage.color import deltaE_ciede2000, rgb2lab

from resegeo.classes.class_file import TEMPLATE, class_list, load_class_list, parse_class_list
from resegeo.classes.class_list import ClassList
from resegeo.errors import ClassFileError, ResegeoError
from resegeo.outputs.styles import qml_vector, rat_xml, sld_vector

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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_files_as_windows_writes_them_are_read(tmp_path, encoding, newline):
    path = tmp_path / "classes.yml"
    path.write_bytes((TEMPLATE + "  - Wälder\n").replace("\n", newline).encode(encoding))
    assert load_class_list(path).classes[-1].name == "Wälder"
    path.write_bytes(f"classes:{newline}  - nam: a{newline}".encode(encoding))
    with pytest.raises(ClassFileError, match="line 2: found the unknown key 'nam'"):
        load_class_list(path)


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
        ("clases: [a]", "line 1: found the unknown key 'clases' (did you mean 'classes'?); expected one of"),
        ("classes:\n  - nam: a", "line 2: found the unknown key 'nam' (did you mean 'name'?); expected one of"),
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
        (
            "text_queries: [a]\nclass_mapping: {'0': A, '00': B}\ncategory_to_index: {}",
            "line 2: found query 00 a second",
        ),
        (
            "text_queries: [a]\nclass_mapping: {'0': A}\ncategory_to_index:\n  A: 0\n  A: 1",
            "line 5: found the class 'A' a second time",
        ),
        ("classes:\n- name: a\n  color: rgb(999,0,0)", "line 3: found 'rgb(999,0,0)'; expected a colour"),
        ("classes:\n- name: a\n  color: hsl(0,999%,50%)", "line 3: found 'hsl(0,999%,50%)'; expected a colour"),
        (
            "classes:\n- name: a\n  color: #ff0000",
            "line 3: found nothing (YAML takes # for a comment); expected a colour such as",
        ),
        ("classes:\n- a\n- b\x07", "line 3: this is not valid YAML (the character U+0007"),
        ('classes: ["\\UFFFFFFFF"]', "beyond 10FFFF"),
        ('"\\ud800": [a]', "line 1: found '\\ud800'; expected a key of printable characters"),
        ("classes: [a]\nthreshold: " + "z" * 500, "zzz...; expected a probability"),
        ("classes: " + "[" * 5000, "nested too deeply"),
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
    with pytest.raises(ClassFileError, match="is a folder; expected a class file in YAML"):
        load_class_list(tmp_path)
    with pytest.raises(ClassFileError, match="cannot be read"):
        load_class_list("a\0b")
    (tmp_path / "latin.yml").write_bytes("classes: [Straße]".encode("latin-1"))
    with pytest.raises(ClassFileError, match="not UTF-8"):
        load_class_list(tmp_path / "latin.yml")
    (tmp_path / "bom.yml").write_text("\ufeffclasses: [Straße]", "utf-8")
    assert load_class_list(tmp_path / "bom.yml").classes[0].name == "Straße"


def outcome(text: str) -> ClassList | None:
    """Parse; None stands for a readable error, and anything else that is raised fails the test."""
    try:
        found = parse_class_list(text)
    except ResegeoError as error:
        message = str(error)
        message.encode("utf-8")
        assert "\n" not in message
        return None
    assert found.drawn
    assert ClassList.from_json(found.to_json()).classes == found.classes
    assert all(0 <= channel <= 255 for spec in found.classes for channel in spec.color)
    for text in (rat_xml(found, {}), qml_vector(found), sld_vector(found, "layer")):
        ET.fromstring(text.split("\n", 1)[1] if text.startswith("<!DOCTYPE") else text)
    return found


@given(st.text(max_size=200))
def test_no_text_raises_anything_but_a_readable_error(text):
    outcome(text)


# characters and words that mean something to YAML or to a class file, so that more than the first line is reached
tokens = st.sampled_from(
    [
        *"[]{},:-?&*!|>'\"%@`#~\n\t \\",
        "\n  ",
        "\n- ",
        "&a ",
        "*a",
        "<<: ",
        "!!bool ",
        "!!str ",
        "---\n",
        "...",
        "\\U",
        "classes:",
        "templates:",
        "threshold:",
        "name:",
        "prompts:",
        "color:",
        "background:",
        "text_queries:",
        "class_mapping:",
        "category_to_index:",
        "attention:",
        "no",
        "0",
        "1e999",
        "red",
        "rgb(1,2,3)",
        "{}",
        "\u200d",
    ]
)


@given(st.sampled_from([TEMPLATE, REFERENCE]), st.data())
def test_a_damaged_file_raises_nothing_but_a_readable_error(text, data):
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(tokens | st.text(max_size=3)) + text[at + data.draw(st.integers(0, 12)) :]
    outcome(text)


@given(st.lists(tokens, max_size=30).map("".join))
def test_no_heap_of_yaml_raises_anything_but_a_readable_error(text):
    outcome(text)


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
entry_keys = st.sampled_from(["name", "prompts", "prompt", "color", "threshold", "background"])
entries = st.lists(st.dictionaries(entry_keys, yaml_values) | yaml_values, max_size=3)


@given(
    st.dictionaries(
        st.sampled_from(
            ["classes", "templates", "threshold", "text_queries", "class_mapping", "category_to_index", "attention"]
        ),
        yaml_values | entries,
        min_size=1,
    )
)
def test_no_structure_raises_anything_but_a_readable_error(structure):
    outcome(yaml.safe_dump(structure))


@given(entries | yaml_values)
def test_no_python_value_raises_anything_but_a_readable_error(value):
    try:
        found = class_list(value)
    except ResegeoError:
        return
    assert found.drawn


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5, unique_by=str.casefold))
def test_names_from_python_arrive_as_they_are(names):
    try:
        found = class_list(names)
    except ResegeoError:
        return
    assert [spec.name for spec in found.classes] == [" ".join(name.split()) for name in names]


@given(st.integers(1, 300))
def test_colours_are_distinct_however_many_classes(count):
    found = class_list([f"class {number}" for number in range(count)])
    assert len({spec.color for spec in found.classes}) == count


def test_given_colours_stay_and_missing_ones_keep_away_from_them():
    found = class_list([{"name": "a", "color": "#0072b2"}, "b", "c", {"name": "d", "color": "red"}])
    assert found.classes[0].color == (0, 114, 178)
    assert found.classes[3].color == (255, 0, 0)
    colors = rgb2lab(np.array([spec.color for spec in found.classes], float) / 255)
    for one, two in itertools.combinations(colors, 2):
        assert deltaE_ciede2000(one, two) > 10


def test_a_missing_colour_is_not_a_blue_beside_a_given_blue():
    found = class_list([{"name": "water", "color": "#2b83ba"}, "gizmo"])  # the palette begins with #0072b2
    assert found.classes[1].color == (230, 159, 0)


def test_many_classes_take_sixteen_bits():
    assert class_list([f"c{n}" for n in range(250)]).dtype == "uint8"
    many = class_list([f"c{n}" for n in range(251)])
    assert (many.dtype, many.nodata, many.unprocessed) == ("uint16", 65535, 65534)


def test_names_of_special_codes():
    found = class_list(["a"])
    assert [found.name_of(code) for code in (0, 1, 254, 255)] == ["background", "a", "unprocessed", "nodata"]


def test_a_code_of_no_class_is_answered_in_a_sentence():
    with pytest.raises(ResegeoError, match=r"code 77 is none of the class list's codes \(1 to 1"):
        class_list(["a"]).name_of(77)


@pytest.mark.parametrize("wrong", ["water", b"water", {"water": ["lake"]}, 5, None])
def test_a_list_in_python_must_be_a_list(wrong):
    with pytest.raises(ClassFileError, match="expected a list of names or mappings"):
        class_list(wrong)


def test_a_mistake_in_python_names_the_entry_not_a_line():
    with pytest.raises(ClassFileError, match="classes, entry 2: found 'bluu'"):
        class_list(["a", {"name": "b", "color": "bluu"}])
    with pytest.raises(ClassFileError, match=r"classes, entry 3: .*\(first in entry 1\)"):
        class_list(["a", "b", "A"])
    with pytest.raises(ClassFileError, match=r"^classes: found 2; expected a probability"):
        class_list(["a"], threshold=2)
    nested: list = []
    nested.append(nested)
    with pytest.raises(ClassFileError, match="neither text, numbers nor lists"):
        class_list([{"name": "a", "prompts": nested}])


def test_python_values_keep_their_meaning():
    found = class_list(
        ["no", "1", {"name": "b", "color": (1, 2, 3), "threshold": np.float64(0.5), "background": True}, np.str_("c")],
        templates=("{}!",),
    )
    assert [(spec.name, spec.code) for spec in found.classes] == [("no", 1), ("1", 2), ("b", 0), ("c", 3)]
    assert (found.classes[2].color, found.classes[2].threshold) == ((1, 2, 3), 0.5)
    assert found.prompt_texts[0] == ("no!",)


@pytest.mark.parametrize("name", ["می\u200cخواهم", "👩\u200d🌾", "Straße & <b>", "水"])
def test_names_of_all_scripts_are_taken(name):
    assert parse_class_list(f"classes: ['{name}']").classes[0].name == name


def test_more_prompts_than_anybody_can_wait_for_are_refused():
    with pytest.raises(ClassFileError, match="line 1: found 5,001 prompts; expected at most 5,000"):
        parse_class_list(f"classes: [{','.join(map(str, range(5_001)))}]")
    many = "classes: [{name: a, prompts: [" + "b," * 3000 + "]}]\ntemplates: [" + "'{}'," * 3000 + "]"
    found = "line 1: found 3,000 prompts, with 3,000 templates 9,000,000 texts for the model; expected at most 20,000"
    with pytest.raises(ClassFileError, match=found):
        parse_class_list(many)
    with pytest.raises(ClassFileError, match="line 1: found 5,001 prompts"):
        parse_class_list(f"text_queries: [{'a,' * 5001}]\nclass_mapping: {{}}\ncategory_to_index: {{}}")


def test_long_names_and_prompts_are_refused_and_said_shortened():
    assert len(parse_class_list(f"classes: [{'x' * 200}]").classes[0].name) == 200
    with pytest.raises(
        ClassFileError, match=r"found 'x{76}\\.\\.\\.; expected a class name of at most 200 characters, not 201"
    ):
        parse_class_list(f"classes: [{'x' * 201}]")
    with pytest.raises(ClassFileError, match="expected a prompt of at most 2,000 characters, not 2,001"):
        parse_class_list(f"classes: [{{name: a, prompts: [{'x' * 2001}]}}]")


def test_what_is_no_class_file_is_not_shown():
    with pytest.raises(ClassFileError) as caught:
        parse_class_list("root secret /root", "shadow")
    assert str(caught.value) == "shadow, line 1: found a text; expected a line 'classes:' and the classes below it."


@pytest.mark.parametrize(
    "change",
    [
        {"name": 5},
        {"name": ""},
        {"name": "x" * 201},
        {"code": True},
        {"code": 0},
        {"code": 70_000},
        {"code": "1"},
        {"prompts": "ab"},
        {"prompts": [1]},
        {"color": [1, 2]},
        {"color": [1, 2, 256]},
        {"color": [1, 2, 2.5]},
        {"threshold": "high"},
        {"threshold": 2},
        {"background": 1},
        {"background": True},
        {"other": 1},
    ],
)
def test_a_stored_list_with_values_that_none_can_have_is_refused(change):
    plain = class_list(["a", "b"]).to_json()
    assert ClassList.from_json(plain) == class_list(["a", "b"])
    plain["classes"][1].update(change)
    with pytest.raises(ValueError, match="no class list"):
        ClassList.from_json(plain)


@pytest.mark.parametrize("plain", [None, [], {}, {"classes": []}, {"classes": 5}, {"classes": [5]}])
def test_what_is_no_stored_list_is_refused(plain):
    with pytest.raises(ValueError, match="no class list"):
        ClassList.from_json(plain)


@pytest.mark.parametrize("sight", SIGHT)
def test_sixteen_colours_are_told_apart_by_colour_blind_people(sight):
    rgb = np.array([spec.color for spec in class_list([f"c{n}" for n in range(16)]).classes]) / 255
    lab = rgb2lab(seen_by(sight, rgb))
    one, two = np.triu_indices(len(lab), 1)
    assert deltaE_ciede2000(lab[one], lab[two]).min() >= 10
