"""Averages of CLIP variants: exact where they must be, linear, the same in any order, refused where meaningless."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import arch_file, clip, features, nearby
from limits import largest_file, posix_only
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import resegeo
from resegeo.checkpoints.download import home
from resegeo.checkpoints.formats import METADATA
from resegeo.checkpoints.sources import resolve_model
from resegeo.classes.class_file import class_list
from resegeo.clip.encoder import load_encoder
from resegeo.composition.average import compose
from resegeo.composition.distances import FAR
from resegeo.composition.recipe import find_model, read_recipe
from resegeo.composition.separation import phrasings_of, separation
from resegeo.errors import InputNotice, ResegeoError, UsageError
from resegeo_cli.tables import of_composition


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESEGEO_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def base():
    return clip()


@pytest.fixture
def source(tmp_path):
    """Write a state as a checkpoint and resolve it."""

    def write(name, state, activation="gelu", arch=None):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file({key: value.contiguous() for key, value in state.items()}, path)
        else:
            torch.save(state, path)
        return resolve_model(str(path), arch or str(arch_file(tmp_path)), activation)

    return write


@pytest.fixture
def three(base, source):
    return [source(f"{name}.pt", nearby(base, seed)) for seed, name in enumerate("abc", 1)]


def bits(path):
    return {name: value.numpy().view(np.int32) for name, value in load_file(path).items()}


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("weights", ["uniform", "numbers", "separation"])
def test_the_average_of_a_model_with_itself_is_itself_to_the_bit(tmp_path, base, source, count, weights):
    state = {name: value.clone() for name, value in base.state_dict().items()}
    state["visual.proj"][0, :3] = torch.tensor([-0.0, 0.0, 1e-40])
    sources = [source(f"{number}.pt", state) for number in range(count)]
    numbers = [0.1] * (count - 1) + [1 - 0.1 * (count - 1)] if weights == "numbers" else weights
    made = compose(sources, tmp_path / "o.safetensors", weights=numbers, device="cpu")
    found = bits(made.path)
    assert found.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value.numpy().view(np.int32))
    assert all(variant.distance == 0 for variant in made.variants)


def test_half_precision_with_itself_is_its_exact_value(tmp_path, base, source):
    state = {name: value.half() for name, value in base.state_dict().items()}
    made = compose([source("a.pt", state), source("b.safetensors", state)], tmp_path / "o.safetensors")
    for name, value in load_file(made.path).items():
        assert torch.equal(value, state[name].float())


@pytest.mark.parametrize("weights", ["uniform", "separation"])
def test_the_order_in_which_variants_are_named_changes_no_byte_of_the_file(tmp_path, three, weights):
    files = set()
    for number, order in enumerate(itertools.permutations(three)):
        made = compose(order, tmp_path / f"{number}.safetensors", weights=weights, device="cpu")
        files.add(made.path.read_bytes())
    assert len(files) == 1


def test_numbers_follow_their_variants_in_any_order(tmp_path, three):
    first = compose(three, tmp_path / "1.safetensors", weights=[0.5, 0.3, 0.2])
    other = compose(three[::-1], tmp_path / "2.safetensors", weights=[0.2, 0.3, 0.5])
    assert first.path.read_bytes() == other.path.read_bytes()


def test_averages_are_the_weighted_sum(tmp_path, three):
    weights = [0.5, 0.3, 0.2]
    found = load_file(compose(three, tmp_path / "o.safetensors", weights=weights).path)
    states = [torch.load(one.path, weights_only=True) for one in three]
    for name, value in found.items():
        expected = sum(w * state[name].double() for w, state in zip(weights, states, strict=True))
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=3e-6 * float(expected.abs().max() + 1))


def test_averages_are_linear(tmp_path, three):
    """An average of averages is the average with the products of the weights."""
    a, b, c = three
    inner = compose([a, b], tmp_path / "ab.safetensors", weights=[0.25, 0.75])
    outer = compose([resolve_model(str(inner.path)), c], tmp_path / "abc.safetensors", weights=[0.6, 0.4])
    direct = compose(three, tmp_path / "direct.safetensors", weights=[0.15, 0.45, 0.4])
    for name, value in load_file(outer.path).items():
        other = load_file(direct.path)[name]
        torch.testing.assert_close(value, other, rtol=0, atol=3e-6 * float(other.abs().max() + 1))


def test_all_weight_on_one_variant_is_that_variant(tmp_path, base, three):
    made = compose(three, tmp_path / "o.safetensors", weights=[0.0, 1.0, 0.0])
    loaded = load_encoder(resolve_model(str(made.path)), device="cpu")
    alone = load_encoder(three[1], device="cpu")
    for ours, theirs in zip(features(loaded.model), features(alone.model), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-3)
    other = load_encoder(three[0], device="cpu")
    assert np.abs(features(other.model)[0] - features(alone.model)[0]).max() > 0.02


def test_the_result_is_a_normal_checkpoint_with_its_recipe_inside(tmp_path, three):
    made = compose(three, tmp_path / "o.safetensors", weights=[0.5, 0.3, 0.2])
    found = resolve_model(str(made.path))
    assert (found.architecture, found.activation) == ("tiny", "gelu")
    assert found.stated_architecture is None  # a store that is given new words later needs the file alone
    assert dict(found.composition) == {
        f"{one.name} sha256:{one.sha256}": weight for one, weight in zip(three, (0.5, 0.3, 0.2), strict=True)
    }
    with safe_open(made.path, "pt") as opened:
        recipe = json.loads(opened.metadata()[METADATA])["recipe"]
    assert recipe["rule"] == "numbers"
    assert {one["sha256"] for one in recipe["variants"]} == {one.sha256 for one in three}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_separation_weighs_by_the_formula_and_keeps_its_table(tmp_path, three):
    words = class_list(
        [{"name": "water", "prompts": ["lake", "river"]}, {"name": "road", "prompts": ["road", "street"]}]
    )
    made = compose(
        three, tmp_path / "o.safetensors", weights="separation", classes=words, temperature=0.1, device="cpu"
    )
    qualities = []
    for one, variant in zip(three, made.variants, strict=True):
        encoder = load_encoder(one, device="cpu")
        said = separation([encoder.encode_texts([[t] for t in texts]) for texts in phrasings_of(words).values()])
        assert variant.separation == said
        qualities.append(said.quality)
    shares = np.exp(np.array(qualities) / 0.1)
    np.testing.assert_allclose([v.weight for v in made.variants], shares / shares.sum(), rtol=1e-9)
    assert "cohesion  confusion  quality  weight" in of_composition(made)
    with safe_open(made.path, "pt") as opened:
        recipe = json.loads(opened.metadata()[METADATA])["recipe"]
    assert recipe["temperature"] == 0.1
    assert recipe["phrasings"]["water"] == ["lake", "river"]
    assert sorted(one["quality"] for one in recipe["variants"]) == sorted(qualities)


# what is refused


def permuted(state):
    """The same function with the hidden units of one MLP in another order."""
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    name = "visual.transformer.resblocks.1.mlp"
    return {
        **state,
        f"{name}.c_fc.weight": state[f"{name}.c_fc.weight"][order],
        f"{name}.c_fc.bias": state[f"{name}.c_fc.bias"][order],
        f"{name}.c_proj.weight": state[f"{name}.c_proj.weight"][:, order],
    }


def test_a_permuted_variant_is_refused_although_it_computes_the_same(tmp_path, base, source):
    state = base.state_dict()
    sources = [source("a.pt", state), source("b.pt", permuted(state))]
    ours, theirs = (features(load_encoder(one, device="cpu").model)[0] for one in sources)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    with pytest.raises(
        ResegeoError, match=r"b is no fine-tune of the same weights as a: in image block 2, MLP they are"
    ):
        compose(sources, tmp_path / "o.safetensors")
    assert not (tmp_path / "o.safetensors").exists()
    made = compose(sources, tmp_path / "o.safetensors", allow_outlier=True)
    assert made.variants[1].blocks["image block 2"] > FAR
    assert made.variants[1].blocks["image block 1"] == made.variants[1].blocks["text block 1"] == 0


def test_a_foreign_variant_is_refused_in_any_order(tmp_path, base, three, source):
    sources = [*three, source("foreign.pt", clip(seed=99).state_dict())]
    for order in (sources, sources[::-1]):
        with pytest.raises(ResegeoError, match=r"foreign.*Leave one out, or pass allow_outlier"):
            compose(order, tmp_path / "o.safetensors")


def test_distances_are_those_of_the_formula(tmp_path, three):
    made = compose(three, tmp_path / "o.safetensors")
    first, second = (torch.load(one.path, weights_only=True) for one in three[:2])

    def relative(names):
        gap = sum(float((first[n] - second[n]).double().square().sum()) for n in names)
        return (gap / sum(float(first[n].double().square().sum()) for n in names)) ** 0.5

    everything = [name for name in first if name != "logit_scale"]
    assert made.variants[1].distance == pytest.approx(relative(everything), rel=1e-6)
    block = [name for name in everything if name.startswith("transformer.resblocks.0.")]
    assert made.variants[1].blocks["text block 1"] == pytest.approx(relative(block), rel=1e-6)
    assert list(made.variants[1].blocks) == [
        *("image block 1", "image block 2", "image ends", "text block 1", "text block 2", "text ends")
    ]


def test_strangers_are_refused_by_name_and_reason(tmp_path, base, three, source):
    out, first = tmp_path / "o.safetensors", three[0]

    def refused(other, match):
        with pytest.raises(ResegeoError, match=match):
            compose([first, other], out)

    deeper = clip(vision={"layers": 3})
    arch = str(arch_file(tmp_path, "deep.json", vision_cfg={"layers": 3}))
    refused(
        source("deep.pt", deeper.state_dict(), arch=arch), "deep and a cannot be averaged: their architectures differ"
    )
    quick = source("quick.pt", nearby(base, 5), "quickgelu")
    refused(quick, r"quick and a cannot be averaged: their activations differ \(quickgelu, gelu\)")
    words = clip(text={"vocab_size": 100}).state_dict()
    refused(source("words.pt", words), r"their vocabularies differ \(100 words and texts of 16, 49408 and 16\)")
    with pytest.raises(ResegeoError, match=r"fine-tuned from different weights \(laion, openai\)"):
        compose([replace(first, ancestor="openai"), replace(three[1], ancestor="laion")], out)
    state = nearby(base, 7)
    state["visual.proj"][0, 0] = torch.nan
    refused(source("nan.pt", state), r"nan\.pt holds visual\.proj with values that are no numbers")
    state = nearby(base, 8)
    del state["ln_final.bias"]
    refused(source("less.pt", state), r"1 parameters are in one alone \(first: ln_final\.bias\)")
    assert not out.exists()


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ("best", "weights=.?best.? is not known; expected uniform, separation, or one number a variant"),
        ([0.5, 0.5], "has 2 numbers for 3 variants"),
        ([0.5, 0.5, 0.5], "add up to 1.5; expected"),
        ([1.000002, 0.0, 0.0], r"weights=.?1\.000002,0,0.? add up to 1\.000002; expected"),
        ([1.5, -0.5, 0.0], r"weights=.?1\.5,-0\.5,0.? holds -0\.5; expected numbers of 0 or more"),
        ([float("nan"), 0.5, 0.5], "holds nan; expected numbers of 0 or more"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(tmp_path, three, weights, match):
    with pytest.raises(UsageError, match=match):
        compose(three, tmp_path / "o.safetensors", weights=weights)


@pytest.mark.parametrize("temperature", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_temperature_that_is_no_number_above_zero_is_refused(tmp_path, three, temperature):
    with pytest.raises(UsageError, match=rf"temperature=.?{temperature:g}.? is not possible; expected a number"):
        compose(three, tmp_path / "o.safetensors", weights="separation", temperature=temperature)
    assert not (tmp_path / "o.safetensors").exists()


def test_at_a_temperature_near_zero_the_best_variant_has_all_weight(tmp_path, three):
    made = compose(three, tmp_path / "o.safetensors", weights="separation", temperature=5e-324, device="cpu")
    assert sorted(variant.weight for variant in made.variants) == [0.0, 0.0, 1.0]


def test_a_variant_without_words_has_no_separation(tmp_path, base, source):
    mute = {**base.state_dict(), "text_projection": torch.zeros(64, 32)}
    with pytest.raises(ResegeoError, match="b tells no words apart: its text embeddings are all zero"):
        compose(
            [source("a.pt", base.state_dict()), source("b.pt", mute)],
            tmp_path / "o.safetensors",
            weights="separation",
            allow_outlier=True,
            device="cpu",
        )
    assert not (tmp_path / "o.safetensors").exists()


def test_a_variant_that_keeps_the_factor_of_its_logit_scale_is_averaged_by_the_logarithm(tmp_path, base, source):
    logarithm = {**nearby(base, 1), "logit_scale": torch.tensor(100.0).log()}
    other = source("other.pt", {**nearby(base, 2), "logit_scale": torch.tensor(50.0).log()})
    factor = source("factor.pt", {**logarithm, "logit_scale": torch.tensor(100.0)})
    with pytest.warns(InputNotice, match=r"factor\.pt keeps its logit_scale as the factor \(100\)"):
        made = compose([factor, other], tmp_path / "a.safetensors")
    plain = compose([source("plain.pt", logarithm), other], tmp_path / "b.safetensors")
    ours, theirs = load_file(made.path), load_file(plain.path)
    assert float(ours["logit_scale"].exp()) == pytest.approx((100 * 50) ** 0.5, rel=1e-5)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-6)


def test_one_variant_and_another_suffix_are_refused(tmp_path, three):
    with pytest.raises(UsageError, match="needs two variants or more; given: 1"):
        compose(three[:1], tmp_path / "o.safetensors")
    with pytest.raises(UsageError, match=r"is written as \.safetensors"):
        compose(three, tmp_path / "o.pt")


# composition files


def recipe(folder, **changes):
    path = folder / "mean.yml"
    arch = str(folder / "tiny.json")
    models = [{"model": f"{name}.pt", "arch": arch, "activation": "gelu"} for name in "abc"]
    path.write_text(json.dumps({"models": models, **changes}), "utf-8")
    return path


def test_a_composition_file_is_averaged_once_and_kept(tmp_path, three, monkeypatch):
    path = recipe(tmp_path, weights=[0.5, 0.3, 0.2])
    with pytest.warns(InputNotice, match=r"mean.yml is averaged \(a 0\.500, b 0\.300, c 0\.200\) and kept as"):
        found = find_model(f"compose:{path}")
    assert found.name == "compose:mean"
    assert found.path.is_relative_to(home())
    direct = compose(three, tmp_path / "o.safetensors", weights=[0.5, 0.3, 0.2])
    assert found.path.read_bytes() == direct.path.read_bytes()
    monkeypatch.setattr("resegeo.composition.recipe.compose", None)  # not asked again
    assert find_model(f"compose:{path}") == found
    listed = json.loads(path.read_text())
    listed["models"], listed["weights"] = listed["models"][::-1], listed["weights"][::-1]
    path.write_text(json.dumps(listed))
    assert find_model(f"compose:{path}") == found


def test_a_changed_variant_or_rule_is_another_average(tmp_path, base, three):
    path = recipe(tmp_path)
    with pytest.warns(InputNotice):
        first = find_model(f"compose:{path}")
    torch.save(nearby(base, 17), tmp_path / "c.pt")
    with pytest.warns(InputNotice):
        second = find_model(f"compose:{path}")
    recipe(tmp_path, weights="separation", temperature=0.2)
    with pytest.warns(InputNotice):
        third = find_model(f"compose:{path}")
    assert len({first.sha256, second.sha256, third.sha256}) == 3


def test_numbers_in_one_line_are_those_of_a_list_and_stay_with_their_variants(tmp_path, three):
    path = recipe(tmp_path, weights="0.5,0.3, 0.2")
    assert read_recipe(path).weights == (0.5, 0.3, 0.2)
    with pytest.warns(InputNotice, match=r"averaged \(a 0\.500, b 0\.300, c 0\.200\)"):
        found = find_model(f"compose:{path}")
    assert found == find_model(f"compose:{recipe(tmp_path, weights=[0.5, 0.3, 0.2])}")
    made = compose(three, tmp_path / "o.safetensors", weights="0.5,0.3,0.2")
    assert (made.rule, made.path.read_bytes()) == ("numbers", found.path.read_bytes())


def test_another_architecture_under_the_same_name_is_another_average(tmp_path, three):
    path = recipe(tmp_path)
    with pytest.warns(InputNotice, match="is averaged"):
        first = find_model(f"compose:{path}")
    arch_file(tmp_path, vision_cfg={"head_width": 32})  # two heads: no shape differs
    with pytest.warns(InputNotice, match="is averaged"):
        second = find_model(f"compose:{path}")
    heads = [load_encoder(found, device="cpu").model.visual.transformer.resblocks[0].attn for found in (first, second)]
    assert [one.num_heads for one in heads] == [1, 2]


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_an_average_that_was_damaged_on_the_disk_is_made_anew(tmp_path, three, damage):
    path = recipe(tmp_path)
    with pytest.warns(InputNotice, match="is averaged"):
        found = find_model(f"compose:{path}")
    good = found.path.read_bytes()
    found.path.write_bytes(good[: len(good) // 2] if damage is None else damage)
    with pytest.warns(InputNotice, match="is averaged"):
        assert find_model(f"compose:{path}").sha256 == found.sha256
    assert found.path.read_bytes() == good


def test_a_variant_that_does_not_tell_what_it_is_is_said_in_the_file(tmp_path, three):
    path = tmp_path / "mean.yml"
    path.write_text("models: [a.pt, b.pt]\n")
    said = r"name its open_clip architecture by arch.* In .*mean\.yml .*\{model: a\.pt, arch: …, activation: …\}"
    with pytest.raises(UsageError, match=said):
        find_model(f"compose:{path}")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("models: a.pt\n", "has no list of variants"),
        ("- a.pt\n", "has no list of variants"),
        ("models: [a.pt, 7]\n", "models has the entry 7"),
        ("models: [{file: a.pt}]\n", "expected a name or file, or a mapping of model, arch, activation"),
        ("models: [a.pt]\nweight: uniform\n", "there is no key 'weight'"),
        ("models: [a.pt]\nweights: {a: 1}\n", "weights is {'a': 1}"),
        ("models: [a.pt]\nweights: [a]\n", r"weights is \['a'\]"),
        ("models: [a.pt]\ntemperature: 0\n", "temperature is 0; expected a number above 0"),
        ("models: [a.pt]\ntemperature: .inf\n", "line 2: .*a number that is not finite"),
        ("models: [a.pt\n", "line 2: this is not valid YAML"),
    ],
)
def test_a_composition_file_that_says_something_else_is_one_sentence(tmp_path, text, match):
    path = tmp_path / "mean.yml"
    path.write_text(text)
    with pytest.raises(UsageError, match=match):
        read_recipe(path)


def test_options_and_paths_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"arch=.?ViT-B-32.? does not go with model=.?compose:mean\.yml"):
        find_model("compose:mean.yml", "ViT-B-32")
    with pytest.raises(UsageError, match=r"compose:none\.yml.?: no such file"):
        find_model("compose:none.yml")
    with pytest.raises(UsageError, match=r"model=.?compose:.? names no file"):
        find_model("compose:")
    with pytest.raises(UsageError, match=r"is a folder; expected a YAML file"):
        find_model(f"compose:{tmp_path}")


def test_a_scene_is_segmented_by_a_composition_and_its_weights_are_recorded(tmp_path, three, make_raster, picture):
    scene = make_raster("scene.tif", picture(64, 64))
    path = recipe(tmp_path, weights=[0.5, 0.3, 0.2])
    words = ["water", "road", "roof"]
    result = resegeo.segment(
        scene, words, tmp_path / "out", model=f"compose:{path}", segments="none", vector=(), device="cpu"
    )
    model = json.loads(result.report.read_text("utf-8"))["model"]
    assert model["name"] == "compose:mean"
    assert model["activation"] == "GELU"
    assert {one["variant"].partition(" ")[0]: one["weight"] for one in model["composition"]} == {
        "a": 0.5,
        "b": 0.3,
        "c": 0.2,
    }
    direct = compose(three, tmp_path / "o.safetensors", weights=[0.5, 0.3, 0.2])
    other = resegeo.segment(
        scene, words, tmp_path / "o", model=str(direct.path), segments="none", vector=(), device="cpu"
    )
    import rasterio

    with rasterio.open(result.raster) as ours, rasterio.open(other.raster) as theirs:
        assert (ours.read(1) == theirs.read(1)).all()
    store = tmp_path / "out" / "scene.store.zarr"
    with pytest.raises(ResegeoError, match="was made with compose:mean"):  # no path in a store is followed
        resegeo.segment(store, ["lake", "street"], tmp_path / "again", vector=(), device="cpu")
    again = resegeo.segment(
        store, ["lake", "street"], tmp_path / "again", model=f"compose:{path}", vector=(), device="cpu"
    )
    assert again.raster.exists()


def test_an_average_that_breaks_off_leaves_nothing(tmp_path, three, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ResegeoError, match="cannot be written \\(No space left on device\\)"):
        compose(three, tmp_path / "o.safetensors")
    assert not list(tmp_path.glob("*o.safetensors*"))


@posix_only
def test_a_disk_that_is_full_is_one_sentence_and_leaves_nothing(tmp_path, three):
    sources = [resolve_model(str(tmp_path / f"{name}.pt"), str(tmp_path / "tiny.json"), "gelu") for name in "ab"]
    message = r"o\.safetensors cannot be written \(.*Check free space and permissions\."
    with pytest.raises(ResegeoError, match=message), largest_file(100_000):
        compose(sources, tmp_path / "out/o.safetensors")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_variant_whose_name_no_file_can_have_is_one_sentence(tmp_path):
    path = tmp_path / "mean.yml"
    path.write_text(f"models: [a.pt, {'b' * 3000}.pt]\n")
    assert read_recipe(path).models[1][0] == f"{'b' * 3000}.pt"
    with pytest.raises(ResegeoError, match="no such file"):
        find_model(f"compose:{path}")
