from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

import resegeo
from resegeo.checkpoints.download import kept_path
from resegeo.checkpoints.registry import known_model
from resegeo.checkpoints.sources import file_sha256, geometry, resolve_model, resolve_sam, unknown_words, vocabulary
from resegeo.clip.encoder import load_encoder
from resegeo.errors import InputNotice, ResegeoError, UsageError


def test_the_default_is_the_bundled_model_and_its_geometry_needs_no_loading():
    source = resolve_model()
    assert source.bundled
    assert source.sha256 == file_sha256(source.path)
    size = geometry(source)
    encoder = load_encoder(source, device="cpu")
    assert (size.image_size, size.patch_size, size.depth, size.dimension) == (
        encoder.image_size,
        encoder.patch_size,
        encoder.depth,
        encoder.dimension,
    )


@pytest.mark.slow
def test_a_checkpoint_file_runs_with_its_architecture(tmp_path, make_raster, picture):
    """Random weights of a real architecture, from a file, through the whole line."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None)
    path = tmp_path / "clip.safetensors"
    save_file({key: value.half().contiguous() for key, value in model.state_dict().items()}, path)
    scene = make_raster("scene.tif", picture(230, 250))
    result = resegeo.segment(
        scene, ["lake", "road"], tmp_path / "out", model=str(path), arch="ViT-B-32-quickgelu", vector=()
    )
    report = json.loads(result.report.read_text("utf-8"))
    assert report["model"]["sha256"] == file_sha256(path)
    assert report["model"]["activation"] == "QuickGELU"
    assert report["schedule"] == {"free": 9, "segment": 2, "local": 1, "radius": 0}
    assert report["windows"]["done"] == 4


def small_clip(path, **vision):
    """Random weights whose shapes no architecture of open_clip has."""
    sizes = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, **vision}
    text = {"context_length": 16, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}
    torch.save(open_clip.model.CLIP(32, sizes, text).state_dict(), path)
    return path


def test_a_file_without_an_architecture_and_an_unknown_one_are_refused(tmp_path):
    path = small_clip(tmp_path / "clip.pt")
    with pytest.raises(UsageError, match=r"width 64, patch 8, 2 layers.*name its open_clip architecture by arch"):
        resolve_model(str(path))
    with pytest.raises(UsageError, match=r"did you mean ViT-L-14"):
        resolve_model(str(path), "ViT-L14")
    with pytest.raises(ResegeoError, match=r"is a folder without model\.safetensors"):
        resolve_model(str(tmp_path), "ViT-L-14")
    path.write_bytes(b"PK")
    with pytest.raises(ResegeoError, match="cannot be read as a CLIP checkpoint"):
        resolve_model(str(path), "ViT-L-14")


def test_a_tower_without_patch_tokens_is_refused(tmp_path):
    path = small_clip(tmp_path / "rn50.pt")
    with pytest.raises(ResegeoError, match="not a plain CLIP vision transformer"):
        geometry(resolve_model(str(path), "RN50", "gelu"))


def test_a_tag_needs_its_architecture_and_a_failed_download_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("RESEGEO_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="exists for several architectures; add arch"):
        resolve_model("openai")
    with pytest.raises(UsageError, match="open_clip has no weights laion400m_e31 for ViT-L-14-336"):
        resolve_model("laion400m_e31", "ViT-L-14-336")
    with pytest.raises(UsageError, match="but arch says ViT-B-16"):
        resolve_model("ViT-B-32:laion2b_e16", "ViT-B-16")

    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(ResegeoError, match=r"could not be downloaded \(ConnectionError\).*needs no download"):
        resolve_model("ViT-B-32:laion2b_e16")
    file = tmp_path / "weights.bin"
    file.write_bytes(b"weights")
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *args, **kwargs: str(file))
    source = resolve_model("laion2b_e16", "ViT-B-32")
    assert (source.name, source.architecture, source.path) == ("ViT-B-32:laion2b_e16", "ViT-B-32", file)
    assert (source.activation, source.ancestor) == ("gelu", "laion2b_e16:ViT-B-32")
    # The tag's own activation counts, whatever the architecture's name says.
    source = resolve_model("ViT-B-32:metaclip_400m")
    assert (source.architecture, source.activation) == ("ViT-B-32-quickgelu", "quickgelu")
    with pytest.raises(UsageError, match="was trained with quickgelu, but activation says gelu"):
        resolve_model("ViT-B-32:metaclip_400m", activation="gelu")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ResegeoError, match="weights openai:ViT-B-32 are not on this machine, and the network is"):
        resolve_model("openai", "ViT-B-32-quickgelu")


def kept(monkeypatch, tmp_path, name, data=b"weights"):
    """Put a file where a fetched checkpoint would lie."""
    monkeypatch.setenv("RESEGEO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = kept_path(known_model(name, sam=name.startswith("sam")).remote)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def test_a_known_name_brings_its_activation_and_says_what_is_not_documented(monkeypatch, tmp_path):
    path = kept(monkeypatch, tmp_path, "remoteclip-b32")
    with pytest.warns(InputNotice, match="remoteclip-b32 is taken with quickgelu, which is likely, but not documented"):
        source = resolve_model("RemoteCLIP-B32")
    assert (source.path, source.sha256) == (path, file_sha256(path))
    assert (source.architecture, source.activation) == ("ViT-B-32-quickgelu", "quickgelu")
    assert source.ancestor == "openai:ViT-B-32"
    source = resolve_model("remoteclip-b32", "ViT-B-32", "gelu")
    assert (source.architecture, source.activation) == ("ViT-B-32", "gelu")
    assert open_clip.get_model_config(source.architecture).get("quick_gelu", False) is False
    with pytest.raises(UsageError, match="is a ViT-B-32, but arch says ViT-L-14"):
        resolve_model("remoteclip-b32", "ViT-L-14")
    path.write_bytes(b"another file of the same name")
    with pytest.raises(ResegeoError, match="is not the file that remoteclip-b32 names"):
        resolve_model("remoteclip-b32", activation="quickgelu")


def test_sam_by_name_is_checked_against_its_published_checksum(monkeypatch, tmp_path):
    path = kept(monkeypatch, tmp_path, "sam-vit-l")
    with pytest.raises(ResegeoError, match=r"the one published is 3adcc4315b642a4d"):
        resolve_sam("sam-vit-l")
    known = known_model("sam-vit-l", sam=True)
    own = replace(known, remote=replace(known.remote, sha256=file_sha256(path)))
    monkeypatch.setattr(
        "resegeo.checkpoints.sources.known_model", lambda name, sam: own if name == "sam-vit-l" and sam else None
    )
    found = resolve_sam("sam-vit-l")
    assert (found.path, found.architecture, found.sha256) == (path, "vit_l", file_sha256(path))
    with pytest.raises(ResegeoError, match="one of the names sam-vit-b, sam-vit-l and sam-vit-h"):
        resolve_sam("sam-vit-x")


def test_a_sam_is_no_clip_and_an_empty_name_names_nothing():
    with pytest.raises(UsageError, match=r"model=.?sam-vit-b.? is a Segment Anything Model.*name it by sam_checkpoint"):
        resolve_model("sam-vit-b")
    with pytest.raises(UsageError, match="model '' names nothing; expected a file, or a name"):
        resolve_model("")
    with pytest.raises(UsageError, match="sam_checkpoint '' names nothing"):
        resolve_sam("")


def test_a_known_name_that_is_misspelt_is_answered_with_the_nearest():
    with pytest.raises(ResegeoError, match=r"did you mean remoteclip-l14\?"):
        resolve_model("remotclip-l14")


def test_words_of_the_vocabulary_are_known_inside_longer_prompts():
    assert {"water", "forest", "road", "building"} <= vocabulary()
    assert unknown_words(["an aerial photo of a road", "Lakes", "volcano", "seahorse"]) == ["volcano", "seahorse"]


def test_text_embeddings_of_the_bundled_model_tell_classes_apart():
    encoder = load_encoder(resolve_model(), device="cpu")
    lake, river, road, street = encoder.encode_texts([["lake"], ["river"], ["road"], ["street"]])
    assert lake @ river > lake @ road
    assert road @ street > road @ river
    assert np.isfinite(lake).all()
