"""``resegeo models``: list, fetch, check, export, import, compose, as a user types them."""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest
import torch
from click.testing import CliRunner
from clips import arch_file, clip, nearby
from safetensors.torch import save_file

from resegeo.fetch import file_sha256, home, kept_path
from resegeo.registry import KNOWN, known_model
from resegeo.weights import facts_for_file, resolve_model
from resegeo_cli.main import main


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Nothing of the user's, and no network."""
    monkeypatch.setenv("RESEGEO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


def run(*arguments):
    return CliRunner().invoke(main, ["models", *map(str, arguments)])


@pytest.fixture
def variants(tmp_path):
    """Two files that say themselves what they are, and one that does not."""
    base = clip()
    paths = []
    for seed, name in enumerate("ab", 1):
        torch.save(nearby(base, seed), tmp_path / f"{name}.pt")
        source = resolve_model(str(tmp_path / f"{name}.pt"), str(arch_file(tmp_path)), "gelu")
        path = tmp_path / f"{name}.safetensors"
        save_file(nearby(base, seed), path, metadata=facts_for_file(source))
        paths.append(path)
    return paths


def keep(name, data=b"weights"):
    """Put a file where a fetched model would lie."""
    path = kept_path(known_model(name, sam=name.startswith("sam")).remote)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_list_names_every_model_with_licence_and_contamination():
    done = run("list")
    assert done.exit_code == 0
    for model in KNOWN:
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{model.name} ")]
        assert model.licence in line
        assert model.architecture in line
        assert " no " in line
    assert "resegeo-small" in done.stdout
    assert "quickgelu?" in next(line for line in done.stdout.splitlines() if line.startswith("remoteclip-l14"))
    assert "captions made of the labels of Potsdam" in done.stdout


def test_list_knows_what_is_here():
    path = keep("remoteclip-b32")
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert rows["remoteclip-b32"]["cached"] == str(path)
    assert rows["remoteclip-b32"]["bytes"] == 7
    assert rows["remoteclip-l14"]["cached"] is None
    assert rows["resegeo-small"]["cached"] == "bundled"
    assert rows["openai:ViT-L-14"]["bytes"] > 900e6


def test_fetch_prints_where_it_is_and_refuses_another_file():
    path = keep("remoteclip-b32")
    done = run("fetch", "RemoteCLIP-B32")
    assert (done.exit_code, done.stdout.strip()) == (0, str(path))
    path.write_bytes(b"other")
    done = run("fetch", "remoteclip-b32")
    assert done.exit_code == 1
    assert "is not the file that remoteclip-b32 names" in done.stderr
    keep("sam-vit-b")
    done = run("fetch", "sam-vit-b")
    assert "the one published is ec2df62732614e57" in done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sam-vit-h", "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth"),
        ("georsclip-l14", "Zilun/GeoRSCLIP/ckpt/RS5M_ViT-L-14.pt of Hugging Face"),
        ("skyclip-b32", "SkyCLIP_ViT_B32_top50pct.zip (its member epoch_20.pt)"),
    ],
)
def test_offline_says_which_file_where_it_goes_and_which_command(name, said):
    done = run("fetch", name)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    known = known_model(name, sam=name.startswith("sam"))
    for part in (
        said,
        str(kept_path(known.remote)),
        f"`resegeo models fetch {name}`",
        "bundled model needs no download",
    ):
        assert part in line


def test_fetch_of_a_name_that_is_none_is_one_sentence():
    done = run("fetch", "remoteclip-h14")
    assert done.exit_code == 1
    assert "nor a name of `resegeo models list`" in done.stderr


def test_check_tells_what_a_file_is(variants, tmp_path):
    done = run("check", variants[0])
    assert done.exit_code == 0, done.stderr
    facts = {line[:13].strip(): line[15:] for line in done.stdout.splitlines()}
    assert facts["form"] == "safetensors"
    assert facts["architecture"] == "tiny"
    assert facts["activation"] == "gelu"
    assert facts["sha256"] == file_sha256(variants[0])
    assert facts["loads"] == "yes"
    assert float(facts["logit scale"]) == pytest.approx(14.2857, abs=1e-3)


def test_check_names_every_parameter_that_differs_and_fails(tmp_path):
    state = clip().state_dict()
    del state["ln_final.bias"]
    state["more"] = torch.zeros(2)
    state["text_projection"] = torch.zeros(64, 8)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "a.pt")
    arch = arch_file(tmp_path)
    done = run("check", tmp_path / "a.pt", "--arch", arch, "--activation", "gelu", "--json")
    assert done.exit_code == 1
    facts = json.loads(done.stdout)
    assert facts["form"] == "open_clip trainer file"
    assert facts["missing"] == ["ln_final.bias"]
    assert facts["unknown"] == ["more"]
    assert facts["other_shape"] == ["text_projection: (64, 8) in the file, (64, 32) wanted"]
    assert facts["loads"] is False
    assert "does not fit the architecture tiny" in done.stderr
    done = run("check", tmp_path / "a.pt")
    assert done.exit_code == 1
    assert "loads          no" in done.stdout
    assert "name its open_clip architecture by --arch" in done.stderr
    done = run("check", tmp_path / "none.pt")
    assert done.exit_code == 1
    assert "no such file" in done.stderr


def test_check_knows_sam(tmp_path):
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}, tmp_path / "sam.pth")
    done = run("check", tmp_path / "sam.pth")
    assert done.exit_code == 1
    assert "Segment Anything" in done.stdout
    assert "does not fit vit_b of segment-anything" in done.stderr


def test_export_and_import_carry_models_to_another_machine(tmp_path, monkeypatch):
    wanted = {"remoteclip-b32": b"one", "georsclip-h14": b"two", "clip-rsicd": b"three"}
    for name, data in wanted.items():
        keep(name, data)
    kept_path(known_model("clip-rsicd").remote).with_name("config.json").write_text("{}")
    archive = tmp_path / "models.zip"
    done = run("export", *wanted, "-o", archive)
    assert (done.exit_code, done.stdout.strip()) == (0, str(archive))
    assert run("export", *wanted, "-o", archive).exit_code == 1
    monkeypatch.setenv("RESEGEO_HOME", str(tmp_path / "elsewhere"))
    done = run("import", archive)
    assert done.exit_code == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    for name, data in wanted.items():
        found = run("fetch", name)
        assert found.exit_code == 0, found.stderr
        path = kept_path(known_model(name).remote)
        assert found.stdout.strip() == str(path)
        assert path.is_relative_to(tmp_path / "elsewhere")
        assert path.read_bytes() == data
    assert kept_path(known_model("clip-rsicd").remote).with_name("config.json").exists()


def test_a_damaged_archive_is_refused_and_leaves_nothing(tmp_path):
    keep("remoteclip-b32", b"weights" * 100)
    archive = tmp_path / "models.zip"
    run("export", "remoteclip-b32", "-o", archive)
    with zipfile.ZipFile(archive) as old:
        manifest = old.read("resegeo-models.json")
    shutil.rmtree(home() / "models")
    with zipfile.ZipFile(archive, "w") as new:
        new.writestr("resegeo-models.json", manifest)
        new.writestr("0/RemoteCLIP-ViT-B-32.pt", b"changed")
    for path in (archive, tmp_path / "text.zip"):
        if not path.exists():
            path.write_text("no archive")
        done = run("import", path)
        assert done.exit_code == 1
        assert "is damaged, or no archive that `resegeo models export` wrote" in done.stderr
    assert [p for p in (home() / "models").rglob("*") if p.is_file() and not p.name.endswith(".lock")] == []
    done = run("export", "remoteclip-l14", "-o", tmp_path / "other.zip")
    assert "remoteclip-l14 is not on this machine; run `resegeo models fetch remoteclip-l14` first" in done.stderr


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    archive = tmp_path / "models.zip"
    with zipfile.ZipFile(archive, "w") as new:
        entry = {"model": "../../out", "file": "../../../evil", "member": "m", "sha256": file_sha256(_text(tmp_path))}
        new.writestr("resegeo-models.json", json.dumps({"files": [entry]}))
        new.writestr("m", "text")
    run("import", archive)
    assert not [p for p in tmp_path.rglob("evil") if not p.is_relative_to(home() / "models")]


def _text(folder):
    (folder / "text").write_text("text")
    return folder / "text"


def test_compose_prints_weights_and_distances(variants, tmp_path):
    out = tmp_path / "mean.safetensors"
    done = run("compose", *variants, "--weights", "0.75,0.25", "-o", out)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["variant", "weight", "distance"]
    assert lines[1].split() == ["a", "0.7500", "0.0000"]
    assert lines[2].split()[:2] == ["b", "0.2500"]
    assert any(line.startswith("image block 2") for line in lines)
    assert [weight for _, weight in resolve_model(str(out)).composition].count(0.75) == 1
    done = run("compose", *variants, "-o", out)
    assert done.exit_code == 1
    assert "pass --overwrite" in done.stderr
    done = run("compose", *variants, "-o", out, "--overwrite", "--json", "--weights", "separation", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    assert sum(one["weight"] for one in json.loads(done.stdout)["variants"]) == pytest.approx(1.0)
    assert run("check", out).exit_code == 0
    assert "composition" in run("check", out).stdout


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--weights", "0.5,x0"], "expected numbers such as 0.5,0.3,0.2"),
        (["--weights", "best"], "expected uniform, separation"),
        (["--weights", "0.5,0.6"], "add up to 1.1"),
        (["--weights", "separation", "--temperature", "0"], "temperature"),
    ],
)
def test_compose_refuses_weights_that_cannot_be_meant(variants, tmp_path, more, said):
    done = run("compose", *variants, "-o", tmp_path / "o.safetensors", *more)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "o.safetensors").exists()


def test_what_check_calls_loadable_is_segmented_with(variants, tmp_path, make_raster, picture):
    scene, words = make_raster("scene.tif", picture(40, 40)), tmp_path / "classes.yml"
    words.write_text("classes: [water, road]\n")
    usual = ["segment", scene, "--prompts", words, "--model", variants[0], "--segments", "none", "--vector", "none"]
    done = CliRunner().invoke(main, [str(part) for part in (*usual, "-o", tmp_path / "out", "--device", "cpu")])
    assert done.exit_code == 0, done.stderr
    report = json.loads((tmp_path / "out" / "scene.json").read_text("utf-8"))
    assert report["model"]["activation"] == "GELU"
    assert report["model"]["sha256"] == file_sha256(variants[0])
    done = CliRunner().invoke(main, [str(part) for part in (*usual, "-o", tmp_path, "--activation", "quickgelu")])
    assert done.exit_code == 2
    assert "--activation quickgelu, but the file says gelu" in done.stderr
