"""Every form of a CLIP checkpoint, made here with random weights, loads to the same features; nothing in it is run."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from clips import TINY, arch_file, clip, features, nearby
from safetensors.torch import save_file

import resegeo
from resegeo.checkpoints.formats import read_checkpoint
from resegeo.checkpoints.sources import facts_for_file, resolve_model
from resegeo.checkpoints.torchscript import read_torchscript
from resegeo.clip.encoder import load_encoder
from resegeo.errors import InputNotice, ResegeoError, UsageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESEGEO_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def model():
    return clip(quick_gelu=True)


def traced(model, path, *, half=False):
    """Write a model as OpenAI's archives were made."""
    path.write_bytes(_archived(model, half))
    return path


@lru_cache(maxsize=8)
def _archived(model, half):
    model = copy.deepcopy(model)
    model.register_buffer("input_resolution", torch.tensor(32))  # OpenAI keeps such numbers among the weights
    picture, words = torch.ones(1, 3, 32, 32), torch.zeros(1, 16, dtype=torch.int)
    made = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive = torch.jit.trace_module(
            model, {"forward": (picture, words), "encode_image": (picture,), "encode_text": (words,)}
        )
        torch.jit.save(archive.half() if half else archive, made)
    return made.getvalue()


def hugging_face_state(state):
    """open_clip's names and layout turned into Hugging Face's, as transformers' own conversion script does."""
    found = {"logit_scale": state["logit_scale"]}
    found["text_projection.weight"] = state["text_projection"].T.contiguous()
    found["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    found["vision_model.embeddings.class_embedding"] = state["visual.class_embedding"]
    found["vision_model.embeddings.patch_embedding.weight"] = state["visual.conv1.weight"]
    found["vision_model.embeddings.position_embedding.weight"] = state["visual.positional_embedding"]
    found["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    found["text_model.embeddings.token_embedding.weight"] = state["token_embedding.weight"]
    found["text_model.embeddings.position_embedding.weight"] = state["positional_embedding"]
    for theirs, ours in (
        ("vision_model.pre_layrnorm", "visual.ln_pre"),
        ("vision_model.post_layernorm", "visual.ln_post"),
        ("text_model.final_layer_norm", "ln_final"),
    ):
        for kind in ("weight", "bias"):
            found[f"{theirs}.{kind}"] = state[f"{ours}.{kind}"]
    for tower, prefix in (("vision_model", "visual.transformer"), ("text_model", "transformer")):
        for layer in range(2):
            for kind in ("weight", "bias"):
                own, their = f"{prefix}.resblocks.{layer}", f"{tower}.encoder.layers.{layer}"
                parts = state[f"{own}.attn.in_proj_{kind}"].chunk(3)
                for letter, part in zip("qkv", parts, strict=True):
                    found[f"{their}.self_attn.{letter}_proj.{kind}"] = part.contiguous()
                for theirs, ours in (
                    ("self_attn.out_proj", "attn.out_proj"),
                    ("layer_norm1", "ln_1"),
                    ("layer_norm2", "ln_2"),
                    ("mlp.fc1", "mlp.c_fc"),
                    ("mlp.fc2", "mlp.c_proj"),
                ):
                    found[f"{their}.{theirs}.{kind}"] = state[f"{own}.{ours}.{kind}"]
    return found


def hugging_face(folder, state, form, text=None, vision=None):
    folder.mkdir()
    act = {"hidden_act": "quick_gelu"}
    towers = {"text_config": act | (text or {}), "vision_config": act | (vision or {})}
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", **towers}))
    theirs = hugging_face_state(state)
    if form == "bin":
        torch.save(theirs, folder / "pytorch_model.bin")
    elif form == "safetensors":
        save_file(theirs, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        names = sorted(theirs)
        halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for file, listed in halves.items():
            save_file({name: theirs[name] for name in listed}, folder / file)
        index = {"weight_map": {name: file for file, listed in halves.items() for name in listed}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def written(form, model, folder) -> Path:
    """Write a model in one of the forms."""
    state = model.state_dict()
    path = folder / f"{form.replace(' ', '-')}.pt"
    match form:
        case "safetensors":
            save_file(state, path.with_suffix(".safetensors"))
            return path.with_suffix(".safetensors")
        case "state dict":
            torch.save(state, path)
        case "old pickle":
            torch.save(state, path, _use_new_zipfile_serialization=False)
        case "trainer file":
            wrapped = {f"module.{name}": value for name, value in state.items()}
            optimizer = torch.optim.AdamW(model.parameters()).state_dict()
            torch.save({"epoch": 20, "name": "run", "state_dict": wrapped, "optimizer": optimizer}, path)
        case "compiled trainer file":
            torch.save({"epoch": 1, "state_dict": {f"module._orig_mod.{k}": v for k, v in state.items()}}, path)
        case "archive":
            traced(model, path)
        case _:
            return hugging_face(folder / "folder", state, form.rpartition(" ")[2])
    return path


FORMS = (
    "safetensors",
    "state dict",
    "old pickle",
    "trainer file",
    "compiled trainer file",
    "archive",
    "folder bin",
    "folder safetensors",
    "folder sharded",
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads_to_the_same_features(tmp_path, model, form):
    path = written(form, model, tmp_path)
    tells = form == "archive" or form.startswith("folder")
    source = resolve_model(str(path), str(arch_file(tmp_path)), None if tells else "quickgelu")
    loaded = load_encoder(source, device="cpu")
    assert loaded.activation == "QuickGELU"
    for ours, theirs in zip(features(loaded.model), features(model), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert loaded.sha256 == source.sha256
    assert len(source.sha256) == 64


def test_a_file_of_a_hubs_cache_needs_no_suffix(tmp_path, model):
    """The cache keeps content under its checksum; the name with a suffix is a link to it."""
    blob = written("safetensors", model, tmp_path).rename(tmp_path / "0f3a")
    source = resolve_model(str(blob), str(arch_file(tmp_path)), "quickgelu")
    assert read_checkpoint(blob).form == "safetensors"
    np.testing.assert_array_equal(features(load_encoder(source, device="cpu").model)[0], features(model)[0])
    blob.write_bytes(blob.read_bytes()[:-100])
    with pytest.raises(ResegeoError, match=r"probably cut off \(.* bytes are there\)"):
        read_checkpoint(blob)


@pytest.mark.parametrize("wrap", ["model.", "clip.", "model.clip_model.", "module.model."])
@pytest.mark.parametrize("hub", [False, True])
def test_names_inside_a_wrapper_are_found(tmp_path, model, wrap, hub):
    state = hugging_face_state(model.state_dict()) if hub else model.state_dict()
    torch.save({"state_dict": {wrap + name: value for name, value in state.items()}}, tmp_path / "a.pt")
    source = resolve_model(str(tmp_path / "a.pt"), str(arch_file(tmp_path)), "quickgelu")
    np.testing.assert_array_equal(features(load_encoder(source, device="cpu").model)[0], features(model)[0])


def test_a_file_with_two_models_is_refused(tmp_path, model):
    state = model.state_dict()
    torch.save({**state, **{f"module.{name}": 0 * value for name, value in state.items()}}, tmp_path / "two.pt")
    with pytest.raises(ResegeoError, match=r"holds 2 CLIPs \(\*, module\.\*\), such as a model and its moving average"):
        read_checkpoint(tmp_path / "two.pt")
    part = {f"module.{name}": value for name, value in state.items()} | {"visual.proj": 0 * state["visual.proj"]}
    torch.save(part, tmp_path / "part.pt")
    with pytest.raises(ResegeoError, match=r"holds parameters twice, with module\. and without"):
        read_checkpoint(tmp_path / "part.pt")


def test_what_transformers_itself_writes_loads_to_what_it_computes(tmp_path):
    transformers = pytest.importorskip("transformers", reason="of the extra `test`")
    torch.manual_seed(0)
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
    theirs = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**tower, "vocab_size": 49408, "max_position_embeddings": 16, "eos_token_id": 49407},
            vision_config={**tower, "image_size": 32, "patch_size": 8},
            projection_dim=32,
        )
    ).eval()
    with torch.no_grad():
        for value in theirs.parameters():
            value.add_(0.05 * torch.randn_like(value))
    theirs.save_pretrained(tmp_path / "folder")
    source = resolve_model(str(tmp_path / "folder"), str(arch_file(tmp_path)))
    assert source.activation == "quickgelu"
    ours = features(load_encoder(source, device="cpu").model)
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(2, 3, 32, 32, generator=generator)
    words = torch.randint(1, 1000, (3, 16), generator=generator)
    words[:, -1] = 49407
    with torch.inference_mode():
        answer = theirs(pixel_values=images, input_ids=words)
    for mine, yours in zip(ours, (answer.image_embeds, answer.text_embeds), strict=True):
        unit = mine / np.linalg.norm(mine, axis=1, keepdims=True)
        np.testing.assert_allclose(unit, yours.numpy(), rtol=0, atol=1e-5)


def test_tensors_of_an_archive_are_those_that_torch_reads(tmp_path, model):
    path = traced(model, tmp_path / "clip.pt", half=True)
    expected = torch.jit.load(str(path)).state_dict()
    found, activation = read_torchscript(path)
    assert activation == "quickgelu"
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert found["visual.conv1.weight"].dtype == torch.float16
    _, activation = read_torchscript(traced(clip(), tmp_path / "gelu.pt"))
    assert activation == "gelu"


# nothing in a file is run


class Malicious:
    """Writes a file when it is unpickled by an unpickler that does as it is told."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_the_malicious_object_does_run_where_nobody_watches(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()


def with_data(path, data, target):
    """Copy an archive with another pickle inside."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, data if name.endswith("/data.pkl") else old.read(name))
    return target


@pytest.mark.parametrize("form", ["zipped", "old pickle", "in a wrapper", "archive", "shard"])
def test_a_file_that_would_run_code_is_refused_and_nothing_ran(tmp_path, model, form):
    mark, path = tmp_path / "ran", tmp_path / "clip.pt"
    bad = {"visual.proj": torch.zeros(2), "x": Malicious(mark)}
    if form == "zipped":
        torch.save(bad, path)
    elif form == "old pickle":
        torch.save(bad, path, _use_new_zipfile_serialization=False)
    elif form == "in a wrapper":
        torch.save({"epoch": Malicious(mark), "state_dict": {"visual.proj": torch.zeros(2)}}, path)
    elif form == "archive":
        with_data(traced(model, tmp_path / "good.pt"), pickle.dumps(bad["x"], protocol=2), path)
    else:
        path = tmp_path / "folder"
        path.mkdir()
        torch.save(bad, path / "pytorch_model.bin")
    with pytest.raises(ResegeoError, match=r"is refused: loading it would run code .*Convert it to safetensors"):
        read_checkpoint(path)
    with pytest.raises(ResegeoError, match="is refused"):
        resolve_model(str(path), str(arch_file(tmp_path)), "gelu")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "os.system", "torch.load", "torch.jit._pickle.__loader__.exec"])
def test_an_archive_gets_no_other_function_than_those_of_tensors(tmp_path, model, name):
    module, _, attribute = name.rpartition(".")
    data = b"\x80\x02c" + module.encode() + b"\n" + attribute.encode() + b"\n."
    with pytest.raises(ResegeoError, match="is refused"):
        read_checkpoint(with_data(traced(model, tmp_path / "good.pt"), data, tmp_path / "bad.pt"))


def test_shards_outside_the_folder_are_not_opened(tmp_path, model):
    folder = hugging_face(tmp_path / "folder", model.state_dict(), "sharded")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(ResegeoError, match="cannot be read as a CLIP checkpoint"):
        read_checkpoint(folder)
    index.write_text(json.dumps({"weight_map": {"a": "model-00003-of-00003.safetensors"}}))
    with pytest.raises(ResegeoError, match=r"lacks model-00003-of-00003\.safetensors"):
        read_checkpoint(folder)


def test_damaged_files_are_one_sentence(tmp_path, model):
    good = tmp_path / "good.pt"
    torch.save(model.state_dict(), good)
    archive = traced(model, tmp_path / "archive.pt").read_bytes()
    for number, data in enumerate(
        (b"", b"PK", b"\x80\x02", b"nonsense", good.read_bytes()[:5000], archive[: len(archive) // 2])
    ):
        for suffix in (".pt", ".safetensors"):
            path = tmp_path / f"{number}{suffix}"
            path.write_bytes(data)
            with pytest.raises(ResegeoError, match="cannot be read as a CLIP checkpoint"):
                read_checkpoint(path)
    torch.save({"a": 1}, tmp_path / "numbers.pt")
    with pytest.raises(ResegeoError, match="not all of its entries are tensors"):
        read_checkpoint(tmp_path / "numbers.pt")


@pytest.mark.parametrize("form", ["safetensors", "state dict", "old pickle", "archive", "folder bin", "folder sharded"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_said_to_be(tmp_path, model, form, share):
    path = written(form, model, tmp_path)
    file = (
        path
        if path.is_file()
        else sorted(path.glob("*model*.*s"))[-1]
        if "sharded" in form
        else next(path.glob("*.bin"))
    )
    with file.open("r+b") as stream:
        stream.truncate(int(share * file.stat().st_size))
    named = (
        rf"{path.name} cannot be read as a CLIP checkpoint: it is probably cut off \(.*\)\. Copy or download it anew\."
    )
    with pytest.raises(ResegeoError, match=named):
        read_checkpoint(path)


# values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_a_parameter_that_is_no_number_is_refused_by_name(tmp_path, model, value, kind):
    state = {name: tensor.clone().to(kind) for name, tensor in model.state_dict().items()}
    state["visual.proj"][5, 7] = value
    torch.save(state, tmp_path / "a.pt")
    source = resolve_model(str(tmp_path / "a.pt"), str(arch_file(tmp_path)), "quickgelu")
    with pytest.raises(ResegeoError, match=r"a\.pt holds visual\.proj with values that are no numbers"):
        load_encoder(source, device="cpu")


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool])
def test_whole_numbers_are_no_weights(tmp_path, model, kind):
    state = model.state_dict() | {"visual.proj": model.state_dict()["visual.proj"].to(kind)}
    torch.save(state, tmp_path / "a.pt")
    source = resolve_model(str(tmp_path / "a.pt"), str(arch_file(tmp_path)), "quickgelu")
    with pytest.raises(ResegeoError, match=r"a\.pt holds visual\.proj as whole numbers .* get the file in floating"):
        load_encoder(source, device="cpu")


def test_sparse_tensors_are_one_sentence(tmp_path, model):
    torch.save(model.state_dict() | {"visual.proj": torch.eye(64)[:, :32].to_sparse()}, tmp_path / "a.pt")
    with pytest.raises(ResegeoError, match="holds sparse or quantized tensors"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("form", ["state dict", "folder safetensors"])
@pytest.mark.parametrize("vector", [False, True])
def test_a_logit_scale_that_is_the_factor_is_taken_as_such_with_a_note(tmp_path, model, form, vector):
    changed = copy.deepcopy(model)
    changed.logit_scale.data = torch.tensor([100.0] if vector else 100.0)
    source = resolve_model(str(written(form, changed, tmp_path)), str(arch_file(tmp_path)), "quickgelu")
    with pytest.warns(InputNotice, match=r"keeps its logit_scale as the factor \(100\).* it is taken as 4\.605"):
        loaded = load_encoder(source, device="cpu")
    assert loaded.logit_scale == pytest.approx(100.0, rel=1e-5)
    assert read_checkpoint(source.path).tensors["logit_scale"].shape == ()


@pytest.mark.parametrize("scale", [1e6, -20.0])
def test_a_logit_scale_that_is_neither_factor_nor_logarithm_is_refused(tmp_path, model, scale):
    torch.save({**model.state_dict(), "logit_scale": torch.tensor(scale)}, tmp_path / "a.pt")
    source = resolve_model(str(tmp_path / "a.pt"), str(arch_file(tmp_path)), "quickgelu")
    with pytest.raises(ResegeoError, match=r"neither the factor of CLIP's cosines .* nor its logarithm"):
        load_encoder(source, device="cpu")


def test_a_logit_scale_of_several_numbers_is_named_with_its_shape(tmp_path, model):
    torch.save({**model.state_dict(), "logit_scale": torch.ones(3)}, tmp_path / "a.pt")
    source = resolve_model(str(tmp_path / "a.pt"), str(arch_file(tmp_path)), "quickgelu")
    with pytest.raises(ResegeoError, match=r"another shape \(first: logit_scale, \(3,\) in the file"):
        load_encoder(source, device="cpu")


# the activation


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(96, 96))


def labels(scene, folder, **model):
    result = resegeo.segment(
        scene, ["water", "road", "forest", "roof"], folder, segments="none", vector=(), stride=16, **model
    )
    import rasterio

    with rasterio.open(result.raster) as raster:
        return raster.read(1), json.loads(result.report.read_text("utf-8"))["model"]


def test_the_two_activations_give_different_labels_and_the_declared_one_is_taken(tmp_path, model, scene):
    arch = str(arch_file(tmp_path))
    plain = written("state dict", model, tmp_path)
    quick, facts = labels(scene, tmp_path / "q", model=str(plain), arch=arch, activation="quickgelu")
    assert facts["activation"] == "QuickGELU"
    gelu, facts = labels(scene, tmp_path / "g", model=str(plain), arch=arch, activation="gelu")
    assert facts["activation"] == "GELU"
    assert (quick != gelu).mean() > 0.002  # more than a rounding: whole areas along borders
    for form in ("archive", "folder safetensors"):
        declared, facts = labels(scene, tmp_path / form, model=str(written(form, model, tmp_path)), arch=arch)
        assert facts["activation"] == "QuickGELU"
        assert (declared == quick).all()


def test_an_activation_that_the_file_denies_is_refused(tmp_path, model):
    arch = str(arch_file(tmp_path))
    for form in ("archive", "folder bin"):
        path = written(form, model, tmp_path)
        with pytest.raises(UsageError, match=r"activation=.?gelu.?, but the file says quickgelu"):
            resolve_model(str(path), arch, "gelu")


@pytest.mark.parametrize(
    ("text", "vision"), [({"hidden_act": "gelu"}, {}), ({}, {"hidden_act": "gelu"}), *[({"hidden_act": "relu"},) * 2]]
)
def test_a_configuration_with_an_activation_that_cannot_be_computed_is_refused(tmp_path, model, text, vision):
    folder = hugging_face(tmp_path / "folder", model.state_dict(), "bin", text, vision)
    acts = [tower.get("hidden_act", "quick_gelu") for tower in (text, vision)]
    named = rf"config\.json says hidden_act {acts[0]} of the text tower and {acts[1]} of the vision tower"
    with pytest.raises(ResegeoError, match=named):
        resolve_model(str(folder), str(arch_file(tmp_path)))


def test_an_older_configuration_says_it_in_a_second_place_which_goes_first(tmp_path, model):
    folder = hugging_face(tmp_path / "old", model.state_dict(), "bin")
    config = json.loads((folder / "config.json").read_text())
    for tower in ("text", "vision"):
        config[f"{tower}_config_dict"] = {"hidden_act": "gelu"}
    (folder / "config.json").write_text(json.dumps(config))
    assert read_checkpoint(folder).activation == "gelu"


def test_attention_heads_of_a_configuration_are_those_of_the_architecture(tmp_path, model):
    arch = str(arch_file(tmp_path))
    one = {"num_attention_heads": 1}
    resolve_model(str(hugging_face(tmp_path / "one", model.state_dict(), "bin", one, one)), arch)
    folder = hugging_face(tmp_path / "two", model.state_dict(), "bin", one, {"num_attention_heads": 2})
    with pytest.raises(UsageError, match="2 attention heads in the vision tower, tiny has 1"):
        resolve_model(str(folder), arch)
    other = str(arch_file(tmp_path, "other.json", vision_cfg={"head_width": 32}))
    assert resolve_model(str(folder), other).architecture == "other"


def real(tmp_path, name="clip.pt", arch="ViT-B-32"):
    """Shapes of a real architecture without its weights: all tensors are one zero, repeated."""
    with torch.device("meta"):
        state = open_clip.model.CLIP(**open_clip.get_model_config(arch)).state_dict()
    path = tmp_path / name
    torch.save({key: torch.zeros(()).expand(value.shape) for key, value in state.items()}, path)
    return path


def test_shapes_tell_the_architecture_but_not_the_activation(tmp_path):
    path = real(tmp_path)
    with pytest.raises(UsageError, match=r"does not say its activation.*activation=.?quickgelu.? .*activation=.?gelu"):
        resolve_model(str(path))
    with pytest.raises(UsageError, match="does not say its activation"):
        resolve_model(str(path), "ViT-B-32")
    with pytest.warns(InputNotice, match=r"clip.pt is taken as ViT-B-32 with gelu \(told from its shapes\)"):
        source = resolve_model(str(path), activation="gelu")
    assert (source.architecture, source.activation) == ("ViT-B-32", "gelu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = resolve_model(str(path), "ViT-B-32-quickgelu")
    assert source.activation == "quickgelu"
    with pytest.raises(UsageError, match=r"arch=.?ViT-B-32-quickgelu.? means quickgelu"):
        resolve_model(str(path), "ViT-B-32-quickgelu", "gelu")
    with pytest.raises(UsageError, match=r"activation=.?relu.? does not exist; expected quickgelu or gelu"):
        resolve_model(str(path), "ViT-B-32", "relu")


def test_a_published_name_tells_the_activation_with_a_note(tmp_path):
    path = real(tmp_path, "RemoteCLIP-ViT-B-32.pt")
    with pytest.warns(InputNotice, match=r"published name of remoteclip-b32, though its authors do not document"):
        source = resolve_model(str(path))
    assert (source.architecture, source.activation, source.ancestor) == ("ViT-B-32", "quickgelu", "openai:ViT-B-32")
    with pytest.warns(InputNotice, match="SkyCLIP_ViT_B32_top50pct"):
        source = resolve_model(str(real(tmp_path, "SkyCLIP_ViT_B32_top50pct.pt")))
    assert source.activation == "gelu"


def test_a_copy_of_the_bundled_weights_is_known_by_its_shapes(tmp_path):
    bundled = resolve_model()
    copy = tmp_path / "tuned.safetensors"
    copy.write_bytes(bundled.path.read_bytes())
    with pytest.warns(InputNotice, match="taken as resegeo-small with gelu"):
        source = resolve_model(str(copy))
    assert not source.bundled
    words = [["lake"], ["road"]]
    ours = load_encoder(source, device="cpu").encode_texts(words)
    np.testing.assert_array_equal(ours, load_encoder(bundled, device="cpu").encode_texts(words))


def test_a_file_of_ours_says_everything_itself(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "a.pt")
    first = resolve_model(str(tmp_path / "a.pt"), str(arch_file(tmp_path)), "quickgelu")
    path = tmp_path / "own.safetensors"
    save_file(model.state_dict(), path, metadata=facts_for_file(first, ancestor="somewhere"))
    (tmp_path / "tiny.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = resolve_model(str(path))
    assert (source.architecture, source.activation, source.ancestor) == ("tiny", "quickgelu", "somewhere")
    loaded = load_encoder(source, device="cpu")
    np.testing.assert_allclose(features(loaded.model)[0], features(model)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (
            {"architecture": "ViT-X-99", "activation": "gelu"},
            "of the architecture ViT-X-99, which the open_clip installed",
        ),
        ({"architecture": ["tiny"]}, "cannot be read as a CLIP checkpoint"),
        ({"architecture": "tiny", "config": 7}, "cannot be read as a CLIP checkpoint"),
        ({"activation": "relu"}, "cannot be read as a CLIP checkpoint"),
        ({"composition": 5}, "cannot be read as a CLIP checkpoint"),
        ({"composition": [["a", "b"]]}, "cannot be read as a CLIP checkpoint"),
        ([], "cannot be read as a CLIP checkpoint"),
    ],
)
def test_what_a_file_says_of_itself_is_understood_or_refused(tmp_path, model, said, match):
    save_file(model.state_dict(), tmp_path / "a.safetensors", metadata={"resegeo": json.dumps(said)})
    with pytest.raises(ResegeoError, match=match):
        resolve_model(str(tmp_path / "a.safetensors"))


# sizes


def test_positions_of_another_grid_are_interpolated_with_a_note(tmp_path, model):
    torch.save({name: value.half() for name, value in model.state_dict().items()}, tmp_path / "a.pt")
    arch = arch_file(tmp_path, vision_cfg={"image_size": 64})
    source = resolve_model(str(tmp_path / "a.pt"), str(arch), "quickgelu")
    with pytest.warns(
        InputNotice, match="position embeddings for 4 × 4 patches, tiny takes 8 × 8: they are interpolated"
    ):
        loaded = load_encoder(source, device="cpu")
    assert loaded.grid == 8
    old = model.visual.positional_embedding.detach()
    new = loaded.model.visual.positional_embedding
    torch.testing.assert_close(new[0], old[0].half().float())
    expected = torch.nn.functional.interpolate(
        old[1:].half().float().reshape(1, 4, 4, 64).permute(0, 3, 1, 2),
        size=8,
        mode="bicubic",
        align_corners=False,
        antialias=True,
    )
    torch.testing.assert_close(new[1:], expected.permute(0, 2, 3, 1).reshape(64, 64), atol=1e-5, rtol=0)


def test_what_does_not_fit_names_the_parameters_and_how_they_differ(tmp_path, model):
    arch = str(arch_file(tmp_path))
    state = model.state_dict()
    del state["ln_final.bias"], state["ln_final.weight"]
    state["other"] = torch.zeros(3)
    state["positional_embedding"] = torch.zeros(77, 64)
    state["visual.positional_embedding"] = torch.zeros(16, 64)  # 15 patches are no square
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(
        ResegeoError,
        match=r"2 parameters are missing \(first: ln_final\.bias\); 1 are unknown \(first: other\); "
        r"2 have another shape \(first: positional_embedding, \(77, 64\) in the file, \(16, 64\) in the architecture\)",
    ):
        load_encoder(resolve_model(str(tmp_path / "a.pt"), arch, "gelu"), device="cpu")


def test_a_configuration_that_is_none_is_refused(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "a.pt")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UsageError, match="is no model configuration of open_clip"):
        resolve_model(str(tmp_path / "a.pt"), str(tmp_path / "bad.json"))
    with pytest.raises(UsageError, match="no such file"):
        resolve_model(str(tmp_path / "a.pt"), str(tmp_path / "none.json"))
    with pytest.raises(UsageError, match="bears the name of an architecture of open_clip"):
        resolve_model(str(tmp_path / "a.pt"), str(arch_file(tmp_path, "ViT-B-32.json")))


def test_other_models_of_the_hub_are_refused(tmp_path):
    save_file(
        {"vision_model.embeddings.patch_embedding.weight": torch.zeros(2), "vision_model.head.probe": torch.zeros(2)},
        tmp_path / "siglip.safetensors",
    )
    with pytest.raises(
        ResegeoError, match=r"holds vision_model\.head\.probe, which is no part of a Hugging Face CLIPModel"
    ):
        read_checkpoint(tmp_path / "siglip.safetensors")


def test_tensors_of_large_files_stay_on_the_disk_until_they_are_asked_for(tmp_path):
    path = tmp_path / "large.pt"
    torch.save({"visual.proj": torch.zeros(64_000_000), "b": torch.ones(3)}, path)
    code = (
        "import resource, torch, sys; from resegeo.checkpoints.formats import read_checkpoint\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert float(read_checkpoint(sys.argv[1]).tensors['b'].sum()) == 3\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # KiB; the file has 250,000


def test_nearby_weights_are_near():
    model = clip()
    state = nearby(model, 1)
    gap = sum(float((state[name] - value).square().sum()) for name, value in model.state_dict().items())
    size = sum(float(value.square().sum()) for value in model.state_dict().values())
    assert 0.0 < gap / size < 0.01
    assert TINY["embed_dim"] == 32
