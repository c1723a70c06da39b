"""Colours are normalised as the model was trained, wherever that is said; nothing in the weights tells it."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
from clips import TINY, arch_file, clip, nearby
from safetensors.torch import save_file

from resegeo.checkpoints.download import kept_path
from resegeo.checkpoints.fit import shape_of_config
from resegeo.checkpoints.formats import read_checkpoint
from resegeo.checkpoints.normalisation import Normalisation, normalisation, usual
from resegeo.checkpoints.pretrained_tags import find_tag
from resegeo.checkpoints.registry import Remote
from resegeo.checkpoints.sources import resolve_model
from resegeo.checkpoints.transfer import export
from resegeo.clip.attention import Schedule
from resegeo.clip.encoder import load_encoder
from resegeo.composition.average import compose
from resegeo.errors import InputNotice, ResegeoError

HALVES = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESEGEO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def model():
    return clip(quick_gelu=True)


def wrapped(folder, **colours):
    """A configuration as open_clip publishes it beside its weights."""
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": {**TINY, "quick_gelu": True}, "preprocess_cfg": {**HALVES, **colours}}))
    return path


def tokens(source):
    """What the encoder makes of a picture, and what open_clip itself makes of its colours between -1 and 1."""
    rgb = np.random.default_rng(3).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    encoder = load_encoder(source, device="cpu")
    valid, levels = np.ones((1, 32, 32), bool), np.zeros((1, 1, 4, 4), np.int32)
    ours = encoder.encode_windows(rgb, valid, levels, Schedule(2, 0, 0))[1]
    images = torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        return ours, encoder.model.encode_image(images).numpy()


def test_colours_of_every_tag_are_open_clips(monkeypatch):
    plain = {name for name in open_clip.list_models() if shape_of_config(open_clip.get_model_config(name))}
    found = {}
    for arch, tag in open_clip.list_pretrained():
        if arch not in plain or tag == "openai":
            continue
        path = kept_path(Remote(f"{arch}:{tag}", "open_clip_model.safetensors"))
        monkeypatch.setattr("resegeo.checkpoints.pretrained_tags._file", lambda name, config, path=path: path)
        colours = find_tag(f"{arch}:{tag}", None, None).colours or usual()
        config = open_clip.get_pretrained_cfg(arch, tag)
        assert (colours.mean, colours.std) == (tuple(config["mean"]), tuple(config["std"]))
        found[f"{arch}:{tag}"] = colours
    assert found["ViT-L-14:laion2b_s32b_b82k"] == HALF
    assert found["ViT-B-32:laion2b_s34b_b79k"] == usual()


def test_colours_of_a_tag_reach_its_model(tmp_path):
    path = kept_path(Remote("ViT-L-14:laion2b_s32b_b82k", "open_clip_model.safetensors"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert resolve_model("ViT-L-14:laion2b_s32b_b82k").colours == HALF


def test_the_encoder_normalises_as_it_is_said(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "a.pt")
    ours, theirs = tokens(resolve_model(str(tmp_path / "a.pt"), str(wrapped(tmp_path))))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    ours, theirs = tokens(resolve_model(str(tmp_path / "a.pt"), str(arch_file(tmp_path)), "quickgelu"))
    assert np.abs(ours - theirs).max() > 0.1


def test_the_folder_of_a_repository_says_it_beside_the_weights(tmp_path, model):
    folder = tmp_path / "own"
    folder.mkdir()
    config = wrapped(folder)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    save_file(model.state_dict(), folder / "other.safetensors")
    arch = str(arch_file(tmp_path))
    said = r"normalised by the mean 0\.5, 0\.5, 0\.5 and the deviation 0\.5, 0\.5, 0\.5, as the JSON file beside"
    for path in (folder, folder / "open_clip_model.safetensors"):
        with pytest.warns(InputNotice, match=said):
            source = resolve_model(str(path), arch, "quickgelu")
        np.testing.assert_allclose(*tokens(source), atol=1e-5)
    assert read_checkpoint(folder / "other.safetensors").colours is None  # it may be anybody's
    with pytest.raises(ResegeoError, match=r"from the JSON file beside it; export the folder .*own instead"):
        export([str(folder / "open_clip_model.safetensors")], tmp_path / "a.zip")
    assert export([str(folder)], tmp_path / "a.zip").exists()
    config.unlink()
    assert read_checkpoint(folder).colours is None


def test_a_folder_of_hugging_face_says_it_in_its_own_file(tmp_path):
    transformers = pytest.importorskip("transformers", reason="of the extra `test`")
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
    config = transformers.CLIPConfig(
        text_config={**tower, "vocab_size": 49408, "max_position_embeddings": 16},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    transformers.CLIPModel(config).save_pretrained(tmp_path / "own")
    said = {"image_mean": HALVES["mean"], "image_std": HALVES["std"]}
    (tmp_path / "own" / "preprocessor_config.json").write_text(json.dumps(said))
    with pytest.warns(InputNotice, match="gets its colours normalised by"):
        source = resolve_model(str(tmp_path / "own"), str(arch_file(tmp_path)))
    assert source.colours == HALF


def test_an_average_keeps_them_and_mixes_no_two(tmp_path, model):
    for seed, name in enumerate("ab"):
        torch.save(nearby(model, seed), tmp_path / f"{name}.pt")
    arch = str(wrapped(tmp_path))
    half = [resolve_model(str(tmp_path / f"{name}.pt"), arch) for name in "ab"]
    made = compose(half, tmp_path / "o.safetensors")
    found = resolve_model(str(made.path))
    assert found.colours == HALF
    np.testing.assert_allclose(*tokens(found), atol=1e-5)
    other = wrapped(tmp_path, mean=list(usual().mean), std=list(usual().std))
    with pytest.raises(ResegeoError, match=r"b and a cannot be averaged: their colours are normalised by other means"):
        compose([half[0], resolve_model(str(tmp_path / "b.pt"), str(other))], tmp_path / "o.safetensors")


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.5, 0.5], [0.5] * 3), ([0.5] * 3, None), ([0.5] * 3, [0.5, 0, 0.5]), ("0.5", [0.5] * 3), ([True] * 3, [1] * 3)],
)
def test_what_is_no_normalisation_is_one_sentence(mean, std):
    with pytest.raises(ResegeoError, match=r"x\.json says mean .* of the colours; expected three numbers each"):
        normalisation(mean, std, "x.json")
