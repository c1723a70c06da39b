"""``resegeo models``: list, fetch, check, export, import, compose, as a user types them."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from clips import arch_file, clip, nearby
from safetensors.torch import save_file

from resegeo.checkpoints.download import file_sha256, home, kept_path, parts_of
from resegeo.checkpoints.imported import shelf
from resegeo.checkpoints.registry import KNOWN, known_model
from resegeo.checkpoints.sources import facts_for_file, resolve_model, resolve_sam
from resegeo.clip.encoder import load_encoder
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


def test_check_says_in_json_what_is_no_number(tmp_path):
    """JSON knows neither NaN nor infinity."""
    refuse = pytest.fail
    for scale, factor, loads in ((100.0, 100.0, True), (1e4, None, False), (float("nan"), None, False)):
        torch.save({**clip().state_dict(), "logit_scale": torch.tensor(scale)}, tmp_path / "a.pt")
        done = run("check", tmp_path / "a.pt", "--arch", arch_file(tmp_path), "--activation", "gelu", "--json")
        facts = json.loads(done.stdout, parse_constant=refuse)
        assert facts["loads"] is loads
        assert facts["logit_scale"] == (None if factor is None else pytest.approx(factor, rel=1e-4))
        assert ("keeps its logit_scale as the factor" in done.stderr) is loads
        assert ("Error: " in done.stderr) is not loads


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


def other_machine(monkeypatch, tmp_path, name="elsewhere"):
    """Nothing of this one: another cache, another folder."""
    monkeypatch.setenv("RESEGEO_HOME", str(tmp_path / name))
    (tmp_path / f"{name}-work").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / f"{name}-work")


def hub_folder(folder, seed=1):
    """A folder as transformers writes it, with what belongs to no model beside it."""
    from test_checkpoints import hugging_face

    one = {"num_attention_heads": 1}
    path = hugging_face(folder, nearby(clip(), seed), "sharded", one, one)
    (path / "README.md").write_text("read me")
    return path


@pytest.mark.parametrize("kind", ["file", "file that tells nothing", "folder"])
def test_a_model_of_ones_own_is_carried_and_found_by_name(variants, tmp_path, monkeypatch, kind):
    names = {"file": "a.safetensors", "file that tells nothing": "a.pt", "folder": "own"}
    own = hub_folder(tmp_path / "own") if kind == "folder" else tmp_path / names[kind]
    archive, arch = tmp_path / "own.zip", arch_file(tmp_path)
    done = run("export", own, "-o", archive)
    assert done.exit_code == 0, done.stderr
    options = () if kind == "file" else (str(arch), "gelu") if own.suffix == ".pt" else (str(arch),)
    before = resolve_model(str(own), *options)
    other_machine(monkeypatch, tmp_path)
    done = run("import", archive)
    assert done.exit_code == 0, done.stderr
    (path,) = map(Path, done.stdout.splitlines())
    assert path.name == own.name
    assert path.is_relative_to(home())
    found = resolve_model(before.name, *options)
    assert found.path == path
    assert (found.name, found.sha256, found.architecture) == (before.name, before.sha256, before.architecture)
    assert resolve_model(str(path), *options) == found
    assert load_encoder(found, device="cpu").dimension == 32
    assert run("fetch", before.name).stdout.strip() == str(path)
    told = json.loads(run("check", before.name, "--json", *(["--arch", arch] if kind == "folder" else [])).stdout)
    assert told["file"] == str(path)
    assert told["loads"] is (kind != "file that tells nothing")
    (row,) = [row for row in json.loads(run("list", "--json").stdout) if row["name"] == before.name]
    assert (row["cached"], row["notes"]) == (str(path), "imported")
    assert row["architecture"] == ("tiny" if kind == "file" else None)
    (line,) = [line for line in run("list").stdout.splitlines() if line.startswith(f"{before.name} ")]
    assert line.endswith("imported")
    assert run("import", archive).stdout == done.stdout  # once more: it is here
    again = tmp_path / "again.zip"
    assert run("export", before.name, "-o", again).exit_code == 0
    other_machine(monkeypatch, tmp_path, "third")
    assert run("import", again).exit_code == 0
    assert resolve_model(before.name, *options).sha256 == before.sha256


def test_a_scene_is_segmented_by_an_imported_name(variants, tmp_path, monkeypatch, make_raster, picture):
    scene, words = make_raster("scene.tif", picture(40, 40)), tmp_path / "classes.yml"
    words.write_text("classes: [water, road]\n")
    run("export", variants[0], "-o", tmp_path / "own.zip")
    digest = file_sha256(variants[0])
    other_machine(monkeypatch, tmp_path)
    assert run("import", tmp_path / "own.zip").exit_code == 0
    usual = ["segment", scene, "--prompts", words, "--segments", "none", "--vector", "none", "--model", "a", "-o", "o"]
    done = CliRunner().invoke(main, [str(part) for part in usual])
    assert done.exit_code == 0, done.stderr
    assert json.loads(Path("o/scene.json").read_text("utf-8"))["model"]["sha256"] == digest
    done = run("compose", "a", variants[1], "-o", "mean.safetensors")
    assert done.exit_code == 0, done.stderr


def test_a_sam_of_ones_own_is_carried_too(tmp_path, monkeypatch):
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}, tmp_path / "tuned.pth")
    assert run("export", tmp_path / "tuned.pth", "-o", tmp_path / "own.zip").exit_code == 0
    digest = file_sha256(tmp_path / "tuned.pth")
    other_machine(monkeypatch, tmp_path)
    assert run("import", tmp_path / "own.zip").exit_code == 0
    assert resolve_sam("tuned").sha256 == digest
    (row,) = [row for row in json.loads(run("list", "--json").stdout) if row["name"] == "tuned"]
    assert row["architecture"] == "SAM"


def test_two_models_of_one_name_do_not_go_into_one_archive(variants, tmp_path):
    for folder, source in zip("pq", variants, strict=True):
        (tmp_path / folder).mkdir()
        shutil.copy(source, tmp_path / folder / "mine.safetensors")
    paths = [tmp_path / folder / "mine.safetensors" for folder in "pq"]
    done = run("export", *paths, "-o", tmp_path / "two.zip")
    assert done.exit_code == 1
    assert f"{paths[0]} and {paths[1]} are different models that would both be called mine" in done.stderr
    assert not (tmp_path / "two.zip").exists()
    shutil.copy(*paths)
    assert run("export", *paths, "-o", tmp_path / "two.zip").exit_code == 0
    with zipfile.ZipFile(tmp_path / "two.zip") as made:
        assert len(made.namelist()) == 2


def test_an_import_replaces_no_other_model(variants, tmp_path, monkeypatch):
    for folder, source in zip("pq", variants, strict=True):
        (tmp_path / folder).mkdir()
        shutil.copy(source, tmp_path / folder / "mine.safetensors")
        run("export", tmp_path / folder / "mine.safetensors", "-o", tmp_path / f"{folder}.zip")
    other_machine(monkeypatch, tmp_path)
    (first,) = run("import", tmp_path / "p.zip").stdout.splitlines()
    done = run("import", tmp_path / "q.zip")
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"{first} is here already, and is not the mine of {tmp_path / 'q.zip'}" in done.stderr
    assert file_sha256(Path(first)) == file_sha256(variants[0])
    keep("remoteclip-b32", b"theirs")
    run("export", "remoteclip-b32", "-o", tmp_path / "known.zip")
    (home() / "checksums.json").unlink(missing_ok=True)
    path = keep("remoteclip-b32", b"ours")
    done = run("import", tmp_path / "known.zip")
    assert done.exit_code == 1
    assert "is here already, and is not the remoteclip-b32 of" in done.stderr
    assert path.read_bytes() == b"ours"


def test_what_is_exported_can_be_read_and_has_a_name_of_its_own(variants, tmp_path):
    archive = tmp_path / "a.zip"
    (tmp_path / "text.pt").write_text("no weights")
    done = run("export", tmp_path / "text.pt", "-o", archive)
    assert done.exit_code == 1
    assert "text.pt cannot be read as a CLIP checkpoint" in done.stderr
    for name in ("remoteclip-b32", "sam-vit-b", "resegeo-small", "laion2b_e16"):
        shutil.copy(variants[0], tmp_path / f"{name}.safetensors")
        done = run("export", tmp_path / f"{name}.safetensors", "-o", archive)
        assert done.exit_code == 1
        assert f"would be called {name} where it is imported, which already means another model" in done.stderr
    done = run("export", variants[0], "-o", variants[0], "--overwrite")
    assert done.exit_code == 1
    assert "would replace a model that goes into it" in done.stderr
    assert resolve_model(str(variants[0])).architecture == "tiny"
    assert not archive.exists()


def rewritten(archive, target, change=lambda manifest: None, *, compress=zipfile.ZIP_STORED):
    """Copy an archive with a changed manifest, or packed otherwise."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w", compress) as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "resegeo-models.json":
                manifest = json.loads(data)
                data = json.dumps(change(manifest) or manifest)
            new.writestr(name, data)
    return target


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(format=3), "has the format 3, which this resegeo does not know"),
        (lambda m: m.update(files=[]), "holds no models"),
        (lambda m: [m], "is damaged, or no archive"),
        (lambda m: m["files"][0].update(model=7), "is damaged, or no archive"),
        (lambda m: m["files"][0].update(model="b"), "is damaged, or no archive"),
        (lambda m: m["files"][0].update(file="a/../a.safetensors"), "is damaged, or no archive"),
        (lambda m: m["files"][0].update(file="../a.safetensors"), "is damaged, or no archive"),
        (lambda m: m["files"].append({**m["files"][0], "sha256": "0" * 64}), "holds two different files a.safetensors"),
        (lambda m: m["files"][0].pop("member"), "is damaged, or no archive"),
    ],
)
def test_a_manifest_that_says_something_else_is_one_sentence(variants, tmp_path, change, said):
    run("export", variants[0], "-o", tmp_path / "a.zip")
    done = run("import", rewritten(tmp_path / "a.zip", tmp_path / "b.zip", change))
    assert (done.exit_code, done.stdout) == (1, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(home().rglob("*.safetensors"))


def test_an_archive_of_the_first_format_is_understood(variants, tmp_path):
    def first(manifest):
        manifest["format"] = 1
        del manifest["files"][0]["own"]

    run("export", variants[0], "-o", tmp_path / "a.zip")
    done = run("import", rewritten(tmp_path / "a.zip", tmp_path / "b.zip", first))
    assert done.exit_code == 0, done.stderr
    assert resolve_model("a").sha256 == file_sha256(variants[0])


@pytest.mark.parametrize("damage", ["deflated", "password", "packing"])
def test_a_member_that_cannot_be_unpacked_is_one_sentence(variants, tmp_path, damage):
    run("export", variants[0], "-o", tmp_path / "a.zip")
    archive = rewritten(tmp_path / "a.zip", tmp_path / "b.zip", compress=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(archive) as made:
        info = made.infolist()[1]
    data = bytearray(archive.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    if damage == "deflated":
        start = info.header_offset + 30 + len(info.filename)
        data[start : start + 4000] = b"\xff" * 4000
    elif damage == "password":
        data[info.header_offset + 6] |= 1
        data[directory + 8] |= 1
    else:
        data[info.header_offset + 8] = data[directory + 10] = 97
    archive.write_bytes(data)
    done = run("import", archive)
    assert done.exit_code == 1
    said = "packed in a way that is not read" if damage == "packing" else "is damaged, or no archive that"
    assert said in done.stderr
    assert [path for path in home().rglob("*") if not path.name.endswith(".lock") and path.is_file()] == []
    assert not list(home().rglob(".tmp-*"))


def test_a_file_that_is_not_the_published_one_is_told_of_the_archive(tmp_path, monkeypatch):
    keep("sam-vit-b")
    run("export", "sam-vit-b", "-o", tmp_path / "a.zip")
    other_machine(monkeypatch, tmp_path)
    done = run("import", tmp_path / "a.zip")
    assert done.exit_code == 1
    assert f"{tmp_path / 'a.zip'} holds a file sam_vit_b_01ec64.pth that is not the one sam-vit-b names" in done.stderr
    assert "fetch the model anew where the archive was made" in done.stderr
    assert not list(home().rglob("*.pth"))


def test_what_a_killed_import_left_behind_goes_into_no_model(variants, tmp_path):
    archive = tmp_path / "own.zip"
    assert run("export", hub_folder(tmp_path / "own"), "-o", archive).exit_code == 0
    left = shelf(".").with_name(".tmp-own~0123") / "own" / "left.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of an earlier archive")
    done = run("import", archive)
    assert done.exit_code == 0, done.stderr
    assert {path.name for path in Path(done.stdout.strip()).iterdir()} == {
        path.name for path in parts_of(tmp_path / "own")
    }
    assert not left.exists()


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
        (["--weights", "0.5,x0"], "expected uniform, separation, or one number a variant such as 0.5,0.5"),
        (["--weights", "best"], "expected uniform, separation"),
        (["--weights", "0.5,0.6"], "add up to 1.1"),
        (["--weights", "separation", "--temperature", "0"], "temperature"),
        (["--weights", "separation", "--temperature", "nan"], "--temperature nan is not possible"),
    ],
)
def test_compose_refuses_weights_that_cannot_be_meant(variants, tmp_path, more, said):
    done = run("compose", *variants, "-o", tmp_path / "o.safetensors", *more)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "o.safetensors").exists()


def test_an_average_replaces_no_variant_and_needs_a_folder_that_takes_it(variants, tmp_path):
    before = variants[0].read_bytes()
    done = run("compose", *variants, "-o", variants[0], "--overwrite")
    assert done.exit_code == 1
    assert "would replace one of its variants" in done.stderr
    assert variants[0].read_bytes() == before
    done = run("compose", *variants, "-o", variants[0] / "o.safetensors")
    assert done.exit_code == 1
    assert "cannot be written to" in done.stderr


@pytest.mark.parametrize("what", ["nan", "factor"])
def test_no_scene_is_left_unprocessed_by_weights(variants, tmp_path, make_raster, picture, what):
    scene, words = make_raster("scene.tif", picture(40, 40)), tmp_path / "classes.yml"
    words.write_text("classes: [water, road]\n")
    state = nearby(clip(), 1)
    if what == "nan":
        state["visual.proj"][0, 0] = torch.nan
    else:
        state["logit_scale"] = state["logit_scale"].exp()
    path = tmp_path / "other.safetensors"
    save_file(state, path, metadata=facts_for_file(resolve_model(str(variants[0]))))
    usual = ["segment", scene, "--prompts", words, "--segments", "none", "--vector", "none", "--device", "cpu"]
    done = CliRunner().invoke(main, [str(part) for part in (*usual, "--model", path, "-o", tmp_path / "out")])
    if what == "nan":
        assert done.exit_code == 1
        assert "other.safetensors holds visual.proj with values that are no numbers" in done.stderr
        assert not (tmp_path / "out" / "scene.classes.tif").exists()
        return
    assert done.exit_code == 0, done.stderr
    assert "keeps its logit_scale as the factor (14.29)" in done.stderr
    plain = CliRunner().invoke(main, [str(part) for part in (*usual, "--model", variants[0], "-o", tmp_path / "plain")])
    assert plain.exit_code == 0
    ours, theirs = (_labels(tmp_path / folder / "scene.classes.tif") for folder in ("out", "plain"))
    assert (ours == theirs).all()
    assert set(np.unique(ours)) <= {0, 1, 2}


def _labels(path):
    with rasterio.open(path) as raster:
        return raster.read(1)


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
