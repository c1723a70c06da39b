"""Synonyms are added where they are asked for, and a class file is checked for words that split each other."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from resegeo.checkpoints.sources import half_known
from resegeo.classes.class_file import added_synonyms, load_class_list, parse_class_list, with_synonyms
from resegeo.classes.land_cover import kinds, near_synonyms
from resegeo.errors import ClassFileError
from resegeo_cli.main import main

FILE = (
    "templates: ['a {}']\nthreshold: 0.2\nclasses:\n- building\n- name: water\n  prompts: [lake]\n  background: true\n"
)


def run(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_nothing_is_added_unasked():
    assert [spec.prompts for spec in parse_class_list(FILE).classes] == [("building",), ("lake",)]
    assert parse_class_list(f"synonyms: false\n{FILE}") == parse_class_list(FILE)
    with pytest.raises(ClassFileError, match="found 'maybe'; expected true or false"):
        parse_class_list(f"synonyms: maybe\n{FILE}")


def test_asked_for_they_follow_the_words_of_the_file_and_none_is_there_twice():
    plain, more = parse_class_list(FILE), parse_class_list(f"synonyms: true\n{FILE}")
    added = added_synonyms([(spec.name, spec.prompts) for spec in plain.classes])
    assert all(added)
    for before, after, words in zip(plain.classes, more.classes, added, strict=True):
        assert after.prompts == (*before.prompts, *words)
        assert (after.name, after.code, after.color) == (before.name, before.code, before.color)
    everything = [word for words in added_synonyms([(kind.name, (kind.name,)) for kind in kinds()]) for word in words]
    assert len(everything) == len(set(everything))


def test_the_printed_file_is_the_list_with_synonyms(tmp_path):
    (tmp_path / "classes.yml").write_text(FILE)
    result = run("classes", "synonyms", tmp_path / "classes.yml")
    assert result.exit_code == 0
    (tmp_path / "more.yml").write_text(result.stdout)
    assert load_class_list(tmp_path / "more.yml") == parse_class_list(f"synonyms: true\n{FILE}")
    assert with_synonyms(parse_class_list("classes: [strange thing]")).count("strange thing") == 2


def test_the_check_shows_what_would_be_added_and_warns(tmp_path):
    (tmp_path / "classes.yml").write_text("classes: [forest, tree, road]")
    result = run("classes", "check", tmp_path / "classes.yml")
    assert result.exit_code == 0
    assert "`synonyms: true` would add to road" in result.stderr
    assert "forest and tree both have words for" in result.stderr
    (tmp_path / "one.yml").write_text("classes: [road]")
    assert "road is the only class" in run("classes", "check", tmp_path / "one.yml").stderr


def test_words_that_the_model_knows_in_part_or_not_at_all_are_told(tmp_path):
    (tmp_path / "classes.yml").write_text("classes: [palm tree, roof of a house, zebras, paved roads, solar panels]")
    said = run("classes", "check", tmp_path / "classes.yml").stderr
    assert "of 'palm tree' the bundled model was taught tree and never palm, so that it may find any tree." in said
    assert "the bundled model was never taught zebras;" in said
    assert said.count("of '") == 1  # whole phrases, plurals and little words are known
    assert half_known(["Water of the harbour", "water"]) == []
    assert half_known(["frozen water, bright"]) == [("frozen water, bright", ("water",), ("frozen", "bright"))]


def test_a_word_in_singular_and_plural_in_two_classes_is_told():
    assert near_synonyms([("yacht", ["yacht"]), ("Yachts", ["Yachts"]), ("mast", ["mast"])]) == [
        ("yacht", "Yachts", "yacht")
    ]
    assert near_synonyms([("bus", ["bus"]), ("gas", ["gas"])]) == []
