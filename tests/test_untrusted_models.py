"""Models from strangers: nothing in them runs, nothing is written elsewhere, and one sentence says why."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from clips import TINY, arch_file, clip, nearby
from hostile_models import MARK, hostile_archives, hostile_configs, hostile_models
from safetensors.torch import save_file

from resegeo.checkpoints.download import file_sha256, home, kept_path
from resegeo.checkpoints.model_config import validated
from resegeo.checkpoints.registry import known_model
from resegeo.checkpoints.sources import facts_for_file, identity, resolve_model
from resegeo.checkpoints.transfer import export, imported
from resegeo.clip.encoder import load_encoder
from resegeo.composition.average import compose
from resegeo.composition.models import checked
from resegeo.errors import InputNotice, ResegeoError
from resegeo.run.header import StoredModel, StoreHeader
from resegeo.run.options import Method
from resegeo.run.stored import model_of_store
from resegeo.segments.sam import load_sam

MEMORY = 600_000
"""kB that refusing a file may take."""


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("RESEGEO_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return folder, hostile_models(folder)


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def is_a_sentence(text: str) -> bool:
    return text.isprintable() and len(text) < 1_500 and text.endswith((".", "…"))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def told(path: Path) -> str:
    """What is said of a model that does not load."""
    try:
        found = checked(path)
    except ResegeoError as error:
        return str(error)
    assert found.problem is not None, "it loads"
    assert json.dumps(found.as_dict(), allow_nan=False)
    return found.problem


def test_no_hostile_model_runs_writes_or_takes_memory(models):
    folder, found = models
    assert len(found) >= 40
    before, memory = files(folder), peak()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, path in found:
            said = told(path)
            assert is_a_sentence(said), (name, said)
            assert not (folder / MARK).exists(), name
            with pytest.raises(ResegeoError):
                load_encoder(resolve_model(str(path)), device="cpu")
    assert files(folder) == before
    assert peak() - memory < MEMORY


def test_no_hostile_model_is_a_sam(models):
    folder, found = models
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, path in found:
            with pytest.raises(ResegeoError) as error:
                load_sam(path)
            assert is_a_sentence(str(error.value)), (name, str(error.value))
    assert not (folder / MARK).exists()


def test_a_configuration_by_arch_is_held_to_the_same_rules(models, tmp_path):
    folder, _ = models
    torch.save(clip().state_dict(), tmp_path / "a.pt")
    for name, config in hostile_configs(folder).items():
        for wrapped in (config, {"model_cfg": config}):
            (tmp_path / "own.json").write_text(json.dumps(wrapped))
            with pytest.raises(ResegeoError) as error:
                load_encoder(resolve_model(str(tmp_path / "a.pt"), str(tmp_path / "own.json"), "gelu"), device="cpu")
            assert is_a_sentence(str(error.value)), (name, str(error.value))
    assert not (folder / MARK).exists()


def test_a_configuration_that_open_clip_publishes_for_a_plain_clip_is_taken():
    taken = 0
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        text, vision = config["text_cfg"], config["vision_cfg"]
        foreign = {"hf_tokenizer_name", "hf_model_name", "timm_model_name"} & {*text, *vision}
        other = text.get("vocab_size", 49408) < 49408 or isinstance(vision.get("layers"), list)
        if foreign or other or "multimodal_cfg" in config:
            continue
        assert validated(config, name) == config
        taken += 1
    assert taken >= 30


@pytest.mark.parametrize("name", ["victim", "../victim"])
def test_an_architecture_that_is_a_path_overwrites_nothing(tmp_path, name):
    (tmp_path / "in").mkdir()
    victim = tmp_path / "victim.json"
    victim.write_text("mine")
    said = {"architecture": str(tmp_path / "in" / name), "activation": "gelu", "config": TINY}
    save_file(clip().state_dict(), tmp_path / "a.safetensors", metadata={"resegeo": json.dumps(said)})
    with pytest.raises(ResegeoError, match="which cannot be the name of one"):
        load_encoder(resolve_model(str(tmp_path / "a.safetensors")), device="cpu")
    assert victim.read_text() == "mine"


def test_two_configurations_of_one_name_load_in_threads_at_once(tmp_path):
    sources = []
    for number, layers in enumerate((1, 2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        torch.save(clip(vision={"layers": layers}).state_dict(), folder / "a.pt")
        arch = arch_file(folder, vision_cfg={"layers": layers})
        sources.append(resolve_model(str(folder / "a.pt"), str(arch), "gelu"))
    wrong: list[object] = []

    def load(number: int) -> None:
        try:
            if load_encoder(sources[number % 2], device="cpu").depth != number % 2 + 1:
                wrong.append(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert "tiny" not in open_clip.list_models()


def test_loading_leaves_the_callers_logging_as_it_was(monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    logging.disable(logging.ERROR)
    try:
        load_encoder(resolve_model(), device="cpu")
        assert logging.root.manager.disable == logging.ERROR
        assert logging.root.handlers == []
    finally:
        logging.disable(logging.NOTSET)


# archives


def test_no_hostile_archive_writes_anything(tmp_path):
    folder = tmp_path / "archives"
    folder.mkdir()
    found = hostile_archives(folder)
    assert len(found) >= 30
    before, memory = files(tmp_path), peak()
    for name, path in found:
        with pytest.raises(ResegeoError) as error:
            imported(path)
        assert is_a_sentence(str(error.value)), (name, str(error.value))
    new = {path for path in files(tmp_path) - before if path.is_file()}
    assert {path for path in new if path.suffix != ".lock"} == set()
    assert all(home() in path.parents for path in new)
    assert peak() - memory < MEMORY


def test_an_archive_larger_than_the_disk_is_told_before_it_is_unpacked(tmp_path, monkeypatch):
    torch.save(clip().state_dict(), tmp_path / "mine.pt")
    export([str(tmp_path / "mine.pt")], tmp_path / "a.zip")
    from resegeo.checkpoints import transfer as carry

    monkeypatch.setattr(carry.shutil, "disk_usage", lambda _: type("", (), {"free": 1_000_000}))
    with pytest.raises(ResegeoError, match=r"take 1[0-9] MB, but .* has only 1 MB free\. Make room"):
        imported(tmp_path / "a.zip")


def test_a_carried_model_is_never_taken_for_its_publishers(tmp_path):
    known = known_model("remoteclip-b32")
    kept = kept_path(known.remote)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"planted")
    export([known.name], tmp_path / "a.zip")
    kept.unlink()
    imported(tmp_path / "a.zip")
    with pytest.warns(InputNotice, match=r"remoteclip-b32 .* came in an archive, not from its publisher"):
        resolve_model(known.name)
    kept.write_bytes(b"published")  # as fetched later
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputNotice)
        warnings.filterwarnings("ignore", ".*is likely, but not documented.*")
        assert resolve_model(known.name).sha256 == file_sha256(kept)


def killed(run) -> None:
    """Run something in a process of its own that is killed by the machine on its way."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("moment", ["in a file", "between files", "before the name"])
def test_an_import_that_is_killed_leaves_nothing_under_a_name_and_is_made_good(tmp_path, monkeypatch, moment):
    folder = tmp_path / "mine"
    folder.mkdir()
    save_file(clip().state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    export([str(folder)], tmp_path / "a.zip")
    from resegeo.checkpoints import transfer as carry

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def half(source, out, _):
        out.write(source.read(100))
        out.flush()
        die()

    copy = carry._copy
    with monkeypatch.context() as changed:
        if moment == "in a file":
            changed.setattr(carry.shutil, "copyfileobj", half)
        elif moment == "between files":
            changed.setattr(carry, "_copy", lambda *one: (copy(*one), die()))
        else:
            changed.setattr(Path, "replace", die)
        killed(lambda: imported(tmp_path / "a.zip"))
    assert list((home() / "imported").glob("[!.]*")) == []
    (there,) = imported(tmp_path / "a.zip")
    assert file_sha256(there) == file_sha256(folder)
    assert list((home() / "imported").glob(".tmp-*")) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_average_that_is_killed_leaves_nothing_under_its_name(tmp_path, monkeypatch):
    sources = []
    for seed in (0, 1):
        torch.save(nearby(clip(), seed), tmp_path / f"{seed}.pt")
        sources.append(resolve_model(str(tmp_path / f"{seed}.pt"), str(arch_file(tmp_path)), "gelu"))

    def half(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    out = tmp_path / "mean.safetensors"
    with monkeypatch.context() as changed:
        changed.setattr("safetensors.torch.save_file", half)
        killed(lambda: compose(sources, out))
    assert not out.exists()
    compose(sources, out)
    assert resolve_model(str(out)).architecture == "tiny"


# records


def recorded(name: str, **facts: Any) -> StoreHeader:
    """What a store says of the model that it was made with; the rest of its header does not matter here."""
    known = {"architecture": "tiny", "activation": "gelu", **facts}
    image = {"model": {"name": name, **known}}
    return SimpleNamespace(image=image, model=StoredModel(None, "tiny", "gelu"))  # type: ignore[return-value]


def test_a_recorded_model_is_found_by_name_and_checksum_alone(tmp_path, monkeypatch):
    bundled = resolve_model()
    own = recorded("resegeo-small", **identity(bundled))
    assert model_of_store("a.store.zarr", own, Method()) == bundled
    with pytest.raises(ResegeoError, match=r"resegeo-small \(sha256 000000000000…\), not with .*Name that file"):
        model_of_store("a.store.zarr", recorded("resegeo-small", sha256="0" * 64), Method())
    tiny = tmp_path / "mine.safetensors"
    torch.save(clip().state_dict(), tmp_path / "a.pt")
    source = resolve_model(str(tmp_path / "a.pt"), str(arch_file(tmp_path)), "gelu")
    save_file(clip().state_dict(), tiny, metadata=facts_for_file(source))
    digest = file_sha256(tiny)
    monkeypatch.chdir(tmp_path)
    for name in (str(tiny), "mine.safetensors", "mine", "compose:mean.yml", f"local-dir:{tmp_path}", "\x1b[2J"):
        with pytest.raises(ResegeoError, match=r"not with .*resegeo-small.*Name that file by model") as error:
            model_of_store("a.store.zarr", recorded(name, sha256=digest), Method())
        assert is_a_sentence(str(error.value))
    export([str(tiny)], tmp_path / "a.zip")
    (there,) = imported(tmp_path / "a.zip")
    (tmp_path / "mine").write_text("a file of that name in the working folder")
    header = recorded("mine", **identity(resolve_model(str(there))))
    assert model_of_store("a.store.zarr", header, Method()).path == there
