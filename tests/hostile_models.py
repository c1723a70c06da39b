"""Models and archives of models as somebody would make them who wishes harm: for the tests, and for long campaigns.

Whatever would run code writes the file :data:`MARK` into the folder that a generator was given.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from clips import TINY, clip
from safetensors.torch import save_file

MARK = "ran"
"""Name of the file that is there once code of a model ran."""

Named = list[tuple[str, Path]]


class Call:
    """Pickled as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


def _calls(folder: Path) -> dict[str, Call]:
    """Ways to leave the mark."""
    import importlib
    import subprocess

    mark = str(folder / MARK)
    code = f"open({mark!r}, 'w').close()"
    return {
        "os.system": Call(os.system, f"touch {mark}"),
        "subprocess": Call(subprocess.call, ["touch", mark]),
        "exec": Call(exec, code),
        "eval": Call(eval, f"open({mark!r}, 'w')"),
        "open": Call(open, mark, "w"),
        "mkdir": Call(os.mkdir, mark),
        "import": Call(importlib.import_module, "this"),
        "nested pickle": Call(pickle.loads, pickle.dumps(Call(exec, code))),
        "torch.load": Call(torch.load, str(folder / "os.system.pt"), None),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
    }


def _torch_zip(path: Path, tree: bytes, *, script: bool = False, packed: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", packed) as out:
        out.writestr("archive/data.pkl", tree)
        out.writestr("archive/version", "3\n")
        out.writestr("archive/byteorder", "little")
        out.writestr("archive/data/0", bytes(4))
        if script:
            out.writestr("archive/constants.pkl", b"\x80\x02).")


def _tensor(key: str, count: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A state dict of one tensor as torch.save pickles it, with any numbers."""

    class _Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, key, "cpu", count) if obj is self else None

    stream = io.BytesIO()
    pickler = _Pickler(stream, 2)
    rebuilt = Call(torch._utils._rebuild_tensor_v2, pickler, 0, shape, stride, False, {})
    pickler.dump({"visual.proj": rebuilt})
    return stream.getvalue()


def _header(said: Any, *, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    header = said if isinstance(said, bytes) else json.dumps(said).encode()
    return struct.pack("<Q", len(header)) + header + data


def _remote_code(folder: Path) -> Path:
    """A tokenizer in a folder that brings code along."""
    place = folder / "tokenizer"
    place.mkdir()
    (place / "evil.py").write_text(
        f"open({str(folder / MARK)!r}, 'w').close()\nfrom transformers import PreTrainedTokenizer\n\n\n"
        "class Evil(PreTrainedTokenizer):\n    pass\n"
    )
    said = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (place / "tokenizer_config.json").write_text(json.dumps(said))
    (place / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}))
    return place


def _config(**changes: Any) -> dict[str, Any]:
    text, vision = changes.pop("text_cfg", {}), changes.pop("vision_cfg", {})
    return {**TINY, **changes, "text_cfg": {**TINY["text_cfg"], **text}, "vision_cfg": {**TINY["vision_cfg"], **vision}}


def hostile_configs(folder: Path) -> dict[str, Any]:
    """Model configurations that would load code, open files, or take any memory; ``folder`` holds what they name."""
    code = str(folder / "tokenizer")
    trust = {"trust_remote_code": True}
    return {
        "tokenizer with code": _config(text_cfg={"hf_tokenizer_name": code, "tokenizer_kwargs": trust}),
        "tokenizer of the hub": _config(text_cfg={"hf_tokenizer_name": "evil/evil"}),
        "text tower with code": _config(text_cfg={"hf_model_name": code, "hf_tokenizer_name": code}),
        "timm": _config(vision_cfg={"timm_model_name": "hf-hub:evil/evil", "timm_model_pretrained": True}),
        "tokenizer_kwargs": _config(text_cfg={"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}),
        "auto_map": _config(auto_map={"AutoModel": "evil.Evil"}),
        "wide": _config(vision_cfg={"width": 2**40}),
        "at all bounds": _config(vision_cfg={"width": 16_384, "layers": 24}),
        "no heads": _config(vision_cfg={"head_width": 0}),
        "uneven heads": _config(text_cfg={"heads": 7}),
        "true": _config(vision_cfg={"layers": True}),
        "text": _config(vision_cfg={"layers": "2; import os"}),
        "no vocabulary": _config(text_cfg={"vocab_size": 3}),
        "no context": _config(text_cfg={"context_length": 2}),
        "infinite": _config(vision_cfg={"mlp_ratio": float("inf")}),
        "escapes": _config(**{"\x1b[2J\x1b[31mfine": 1}),
        "a list": [1, 2],
    }


def hostile_models(folder: Path) -> Named:
    """Write files and folders that would run code, write elsewhere, or take any memory; none is a sound model."""
    found: Named = []

    def path(name: str, suffix: str) -> Path:
        file = folder / f"{name.replace('/', ' ')}{suffix}"
        found.append((name, file))
        return file

    def metadata(name: str, said: Any, **tensors: torch.Tensor) -> None:
        text = said if isinstance(said, str) else json.dumps(said)
        save_file(tensors or {"a": torch.zeros(1)}, path(name, ".safetensors"), metadata={"resegeo": text})

    calls = _calls(folder)
    for name, call in calls.items():
        path(name, ".pt").write_bytes(pickle.dumps({"visual.proj": call}, 2))
    _torch_zip(path("zipped", ".pt"), pickle.dumps({"state_dict": calls["exec"]}, 2))
    _torch_zip(path("script", ".pt"), pickle.dumps(calls["exec"], 2), script=True)

    # pickles that take any memory or time
    _torch_zip(path("script with a far memo", ".pt"), b"\x80\x02Nr\xff\xff\xff\x7f.", script=True)
    _torch_zip(path("script with long bytes", ".pt"), b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.", script=True)
    deep = b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."
    _torch_zip(path("script nested deeply", ".pt"), deep, script=True)
    endless = b"\x80\x02c__torch__\nM\nq\x00)\x81q\x01}q\x02X\x01\x00\x00\x00aq\x03h\x01sb."
    _torch_zip(path("script in itself", ".pt"), endless, script=True)
    _torch_zip(path("repeated", ".pt"), _tensor("0", 1, (2**20, 2**20), (0, 0)))
    _torch_zip(path("more than is there", ".pt"), _tensor("0", 2**40, (2**20, 2**20), (2**20, 1)))
    zeros = pickle.dumps({"a": bytes(70_000_000)}, 4)
    _torch_zip(path("packed zeros", ".pt"), zeros, packed=zipfile.ZIP_DEFLATED)
    _torch_zip(path("packed zeros in a script", ".pt"), zeros, script=True, packed=zipfile.ZIP_DEFLATED)
    far = bytearray(_end_of_zip("x.pkl"))
    far[-10:-6] = struct.pack("<I", 2**32 - 2)  # bytes of the directory
    path("endless directory", ".pt").write_bytes(far)

    # what a file of ours says of itself
    _remote_code(folder)
    configs = hostile_configs(folder)
    metadata(
        "sound but for its tokenizer",
        {"architecture": "tiny", "activation": "gelu", "config": configs["tokenizer with code"]},
        **clip().state_dict(),
    )
    for name, config in configs.items():
        metadata(f"configuration {name}", {"architecture": "tiny", "activation": "gelu", "config": config})
    for number, name in enumerate(
        (f"{folder}/victim", "../victim", "hf-hub:evil/evil", f"local-dir:{folder}", "", "a\x1b[2J", "x" * 5_000)
    ):
        said = {"architecture": name, "activation": "gelu", "config": _config()}
        metadata(f"architecture {number}", said)
    metadata("open_clip's name", {"architecture": "ViT-B-32", "activation": "gelu", "config": _config()})
    metadata("large without weights", {"architecture": "ViT-bigG-14", "activation": "gelu"})
    metadata("nested deeply", "[" * 200_000)
    metadata("a long number", '{"format": ' + "9" * 10_000 + "}")
    metadata("overflow", '{"composition": [["a", 1' + "0" * 400 + "]]}")
    metadata("no pairs", {"composition": [[["a"]], 3]})
    metadata("colours", '{"architecture": "ViT-B-32", "normalisation": {"mean": [1' + "0" * 400 + ",0,0]}}")

    # headers
    path("a header without end", ".safetensors").write_bytes(struct.pack("<Q", 2**63 - 1) + b"{}")
    path("a long header", ".safetensors").write_bytes(_header(b"{" + b" " * 20_000_000 + b"}"))
    absurd = {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}
    path("an absurd shape", ".safetensors").write_bytes(_header(absurd, data=bytes(4)))
    beyond = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    path("beyond the end", ".safetensors").write_bytes(_header(beyond, data=bytes(4)))
    path("nested header", ".safetensors").write_bytes(_header(b'{"a":' * 100_000))

    # folders of Hugging Face
    for name, files in _folders(folder).items():
        place = path(name, "")
        place.mkdir()
        for file, content in files.items():
            (place / file).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    if hasattr(os, "mkfifo"):
        os.mkfifo(path("a pipe", ".pt"))
    return found


def _folders(folder: Path) -> dict[str, dict[str, Any]]:
    weights = {"vision_model.embeddings.class_embedding": torch.zeros(2)}
    plain = folder / "plain.safetensors"
    save_file(weights, plain)
    sound, index = plain.read_bytes(), "model.safetensors.index.json"
    plain.unlink()
    code = {"model_type": "clip", "auto_map": {"AutoModel": "evil.Evil"}, "trust_remote_code": True}
    evil = f"open({str(folder / MARK)!r}, 'w').close()".encode()
    return {
        "folder with code": {"model.safetensors": sound, "config.json": code, "evil.py": evil},
        "folder with a pickle": {"pytorch_model.bin": pickle.dumps(_calls(folder)["exec"], 2), "config.json": code},
        "shards elsewhere": {index: {"weight_map": {"a": "../os.system.pt"}}},
        "shards above": {index: {"weight_map": {"a": ".."}}},
        "shards that are lists": {index: {"weight_map": {"a": ["b"]}}},
        "an index nested deeply": {index: b"[" * 200_000},
        "an index of numbers": {index: b"9" * 10_000},
        "a long activation": {
            "model.safetensors": sound,
            "config.json": {"model_type": "clip", "text_config": {"hidden_act": "\x1b[2J" * 10_000}},
        },
        "colours beyond bounds": {
            "model.safetensors": sound,
            "preprocessor_config.json": b'{"image_mean": [1' + b"0" * 400 + b', 0, 0], "image_std": 3}',
        },
    }


def _end_of_zip(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as out:
        out.writestr(name, b"")
    return stream.getvalue()


# archives

Members = list[tuple[str | zipfile.ZipInfo, bytes]]


def _archive(path: Path, manifest: Any, members: Members, packed: int = zipfile.ZIP_STORED) -> None:
    said = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w", packed) as out:
        out.writestr("resegeo-models.json", said)
        for name, content in members:
            out.writestr(name, content, compress_type=packed)


def hostile_archives(folder: Path) -> Named:
    """Write archives for ``models import`` that would write elsewhere, replace models, or take any memory."""
    found: Named = []
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()

    def path(name: str) -> Path:
        found.append((name, folder / f"{name}.zip"))
        return found[-1][1]

    def entry(model: Any = "m", file: Any = "m.pt", **changes: Any) -> dict[str, Any]:
        return {"model": model, "file": file, "sha256": digest, "member": "0", "own": True, **changes}

    def archive(name: str, *entries: Any, members: Members | None = None, **how: Any) -> None:
        _archive(path(name), {"format": 2, "files": list(entries)}, members or [("0", content)], **how)

    for number, (model, file) in enumerate(
        (
            ("..", "../x.pt"),
            ("..", ".."),
            ("m", "/tmp/m.pt"),
            ("m", "m/../../x.pt"),
            ("m", "m/../m.pt"),
            (".", "./m.pt"),
            ("m", "m/.."),
            ("m", ""),
            ("m\\..\\..", "m\\..\\..\\x.pt"),
            ("m\x00", "m\x00.pt"),
            ("m\x1b[2J", "m\x1b[2J.pt"),
            ("m\udc80", "m\udc80.pt"),
            ("m" * 300, "m" * 300 + ".pt"),
            ("resegeo-small", "resegeo-small.pt"),
            ("remoteclip-l14", "remoteclip-l14.pt"),
            ("laion2b_s34b_b79k", "laion2b_s34b_b79k.pt"),
        )
    ):
        archive(f"name {number}", entry(model, file))
    archive("known above", entry("remoteclip-l14", "..", own=False))
    archive("known and another", entry("openai:ViT-B-32", "ViT-B-32.pt", own=False))
    archive("another checksum", entry(sha256="0" * 64))
    archive("no member", entry(member="1"))
    archive("two of one name", entry(), entry(sha256="0" * 64, member="1"), members=[("0", content), ("1", content)])
    archive("numbers", entry(model=1, file=2))
    archive("nothing")
    archive("no mappings", 1, [2])
    link = zipfile.ZipInfo("0")
    link.external_attr = 0o120777 << 16
    archive("a link", entry(), members=[(link, b"/etc/passwd")])
    archive("a folder", entry(member="0/"), members=[("0/", b"")])
    zeros = bytes(60_000_000)
    bomb = entry(sha256=hashlib.sha256(zeros).hexdigest())
    archive("a bomb", bomb, members=[("0", zeros)], packed=zipfile.ZIP_DEFLATED)
    archive("a bomb of another kind", bomb, members=[("0", zeros)], packed=zipfile.ZIP_BZIP2)
    _archive(path("a manifest without end"), b"[" + b" " * 6_000_000 + b"]", [], zipfile.ZIP_DEFLATED)
    _archive(path("a manifest nested deeply"), b"[" * 200_000, [])
    _archive(path("a manifest of numbers"), b'{"files": [' + b"9" * 10_000 + b"]}", [])
    _archive(path("another format"), {"format": "\x1b[2J" * 1_000, "files": [entry()]}, [("0", content)])
    _archive(path("formats"), {"format": [2], "files": [entry()]}, [("0", content)])
    _archive(path("no list"), {"format": 2, "files": {"a": 1}}, [])
    with zipfile.ZipFile(path("no manifest"), "w") as out:
        out.writestr("0", content)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name twice
        archive("two members of one name", entry(), members=[("0", content), ("0", content + b"!")])
    whole = found[0][1].read_bytes()
    path("cut off").write_bytes(whole[:-30])
    path("empty").write_bytes(b"")
    path("text").write_text("no archive")
    far = bytearray(whole)
    far[-10:-6] = struct.pack("<I", 2**31)
    path("an endless directory").write_bytes(far)
    end = len(whole) - 22
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, 2**50, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    path("an endless directory of 64 bits").write_bytes(whole[:end] + end64 + locator + whole[end:])
    return found
