"""Prompts and the tokens that a model reads of them: none is cut, and no two classes are the same."""

from __future__ import annotations

import open_clip
import pytest
import torch
from click.testing import CliRunner
from clips import arch_file, clip

import resegeo
from resegeo.checkpoints.sources import resolve_model
from resegeo.classes.class_file import class_list
from resegeo.clip.tokens import check_prompts, context_of
from resegeo.composition.average import compose
from resegeo.errors import ResegeoError
from resegeo_cli.main import main

LONG = "a very long prompt " * 20


def test_a_prompt_that_the_model_would_cut_is_told_with_its_tokens():
    bundled = resolve_model()
    assert context_of(bundled) == 32
    check_prompts(class_list(["water", {"name": "x", "prompts": ["a " * 30]}]), bundled)  # 30 and two marks
    with pytest.raises(ResegeoError, match=r"The prompt 'a a a.* has 33 tokens, .*resegeo-small reads 32"):
        check_prompts(class_list(["water", {"name": "x", "prompts": ["a " * 31]}]), bundled)
    with pytest.raises(ResegeoError, match="has 82 tokens"):
        check_prompts(class_list(["water", {"name": "x", "prompts": [LONG]}]), bundled)


def test_templates_count_among_the_tokens():
    words = class_list(["water", "forest"], templates=["a " * 29 + "{}"])
    check_prompts(words, resolve_model())
    with pytest.raises(ResegeoError, match="has 33 tokens"):
        check_prompts(class_list(["water", "forest"], templates=["a " * 30 + "{}"]), resolve_model())


@pytest.mark.parametrize(
    ("first", "second"), [("water", "Water  "), ("water", "WATER"), ("b747", "b 7 4 7"), ("a-b", "a - b"), ("é", "É")]
)
def test_classes_of_the_same_tokens_are_refused(first, second):
    words = class_list([{"name": "one", "prompts": [first]}, {"name": "two", "prompts": ["lake", second]}])
    with pytest.raises(ResegeoError, match=r"The classes one and two have .* same tokens"):
        check_prompts(words, resolve_model())


def test_the_same_prompt_twice_in_one_class_is_no_matter():
    check_prompts(class_list([{"name": "one", "prompts": ["water", "Water"]}, "forest"]), resolve_model())


def test_what_plain_words_are_told_apart_by_are_their_tokens():
    tokenizer = open_clip.SimpleTokenizer(context_length=32)
    texts = ["foot ball", "football", "b747", "b 747", "B 7 4 7", "road1", "road 1", "roads", "a road", "aroad"]
    rows = [tuple(tokenizer([text])[0].tolist()) for text in texts]
    for number, text in enumerate(texts):
        for other in range(number):
            words = class_list([{"name": "one", "prompts": [text]}, {"name": "two", "prompts": [texts[other]]}])
            if rows[number] == rows[other]:
                with pytest.raises(ResegeoError, match="same tokens"):
                    check_prompts(words, resolve_model())
            else:
                check_prompts(words, resolve_model())


CUT = "classes:\n  - name: water\n  - name: field\n    prompts: ['" + "a field of wheat and barley " * 7 + "']\n"
SAME = "classes:\n  - name: water\n  - name: lake\n    prompts: [Water]\n"


@pytest.mark.parametrize(
    ("text", "said"), [(CUT, "has 44 tokens"), (SAME, "which are the same tokens")], ids=["cut", "same"]
)
def test_every_command_that_reads_prompts_says_so(tmp_path, make_raster, picture, text, said):
    scene, words = make_raster("scene.tif", picture(64, 64)), tmp_path / "classes.yml"
    words.write_text(text)
    (tmp_path / "scenes.csv").write_text(f"scene\n{scene}\n")
    for command in (
        ["classes", "check", words],
        ["segment", scene, "--prompts", words, "-o", tmp_path / "o"],
        ["plan", scene, "--prompts", words, "-o", tmp_path / "o"],
        ["batch", tmp_path / "scenes.csv", "--prompts", words, "-o", tmp_path / "b"],
    ):
        done = CliRunner().invoke(main, [str(part) for part in command])
        assert done.exit_code in (1, 3), command
        assert said in done.stderr, command
    assert not (tmp_path / "o").exists()
    with pytest.raises(ResegeoError, match=said):
        resegeo.segment(scene, words)


def test_a_class_file_is_checked_for_the_model_that_shall_read_it(tmp_path):
    words = tmp_path / "classes.yml"
    words.write_text("classes: [water, 'a field of wheat and barley']\n")
    torch.save(clip(text={"context_length": 5}).state_dict(), tmp_path / "a.pt")
    arch = arch_file(tmp_path, text_cfg={**clip_text(), "context_length": 5})
    check = ["classes", "check", str(words)]
    assert CliRunner().invoke(main, check).exit_code == 0
    done = CliRunner().invoke(main, [*check, "--model", str(tmp_path / "a.pt"), "--arch", str(arch)])
    assert done.exit_code == 1
    assert "has 8 tokens, but the model a reads 5" in done.stderr


def clip_text():
    return {"vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}


def test_phrasings_of_an_average_are_not_cut_either(tmp_path):
    sources = []
    for name in "ab":
        torch.save(clip(text={"context_length": 5}).state_dict(), tmp_path / f"{name}.pt")
        arch = arch_file(tmp_path, text_cfg={**clip_text(), "context_length": 5})
        sources.append(resolve_model(str(tmp_path / f"{name}.pt"), str(arch), "gelu"))
    with pytest.raises(ResegeoError, match="tokens, but the model a reads 5"):
        compose(sources, tmp_path / "mean.safetensors", weights="separation", device="cpu")
