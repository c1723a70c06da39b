"""Attack resegeo: damaged and hostile inputs, full disks, kills, planted links; every case in the right output or told.

    python tests/attack.py [--quick] [--only KIND[,KIND...]] [--seed N] [--jobs N] [--minutes M] [--list]

Each case ends in the right output or in one sentence (exit code 0, 1, 2, 3 or 130, no traceback, no "defect of
resegeo"), within limits of time and memory, nothing of the user's touched (a folder of canaries is compared before and
after), and nothing under a final name that is not whole. A table of kinds is printed at the end; exits with 1 if
anything was violated. ``--quick`` takes about two minutes, all of it some 15 on two free cores. The same seed gives the
same cases; moments of kills are as the machine runs. What ``--minutes`` do not allow is left out, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import inspect
import json
import os
import pkgutil
import random
import resource
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from damaged_rasters import damaged_rasters
from guarded import (
    GIGABYTE,
    Answer,
    Case,
    Dead,
    Verdict,
    apart,
    command,
    command_here,
    each,
    fault_of,
    libraries,
    together,
    tried,
    warm,
)
from hostile_models import hostile_archives, hostile_models
from mutations import mutate
from same_bytes import CLASSES, OTHER, left, picture, write
from test_dataset import lay

FORMATS = ("gpkg", "shp", "geojson", "fgb", "parquet", "kml")


# the ground on which cases stand


def reference(make: Callable[[Ground], Any]) -> Any:
    """What cases are compared with: made once, when a kind is set out, since what a trial makes is lost with it."""

    def made(ground: Ground) -> Any:
        if os.getpid() != ground.owner:
            raise RuntimeError(f"{make.__name__} was not made before the trials began")
        return make(ground)

    return functools.cached_property(functools.wraps(make)(made))


class Ground:
    """A folder with inputs, references and canaries. Made once; a case works in a folder of its own."""

    def __init__(self, root: Path, seed: int, *, quick: bool) -> None:
        self.root, self.seed, self.quick, self.owner = root, seed, quick, os.getpid()
        self.inputs = root / "inputs"
        self.canaries = root / "user"
        self.servers: list[subprocess.Popen[bytes]] = []
        self.scratch = root / "cases"
        for folder in (self.inputs, self.canaries / "folder", self.scratch):
            folder.mkdir(parents=True)
        os.environ.update(
            RESEGEO_HOME=str(root / "home"),
            HF_HOME=str(root / "hub"),
            HF_HUB_OFFLINE="1",
            TMPDIR=str(root / "tmp"),
            OGR_CURRENT_DATE="2026-01-01T00:00:00Z",
        )
        (root / "tmp").mkdir()
        tempfile.tempdir = None
        for name in ("thesis.txt", "folder/notes.md", "scene.tif", "data.gpkg", "empty"):
            (self.canaries / name).write_bytes(b"" if name == "empty" else b"the user's own: " + name.encode() * 50)
        self.canary = self.look(self.canaries)
        apart(self._make, seconds=120)

    def _make(self) -> None:
        os.chdir(self.inputs)
        bands = picture(150, 170)
        bands[:, 40:70, 50:110] = 0
        write("scene.tif", bands, nodata=0)
        write("second.tif", picture(140, 130, seed=5))
        write("tiny.tif", picture(64, 64, seed=3))
        Path("classes.yml").write_text(CLASSES, "utf-8")
        Path("other.yml").write_text(OTHER, "utf-8")
        import torch
        from clips import arch_file, clip, nearby

        for seed, name in enumerate("ab", 1):  # two fine-tunes that tell themselves what they are
            torch.save(nearby(clip(), seed), f"{name}.pt")
        arch_file(Path())

    def look(self, folder: Path, *, inside: bool = True) -> dict[str, tuple[Any, ...]]:
        """All that can be seen of a folder; without what is inside its files that costs little."""
        found: dict[str, tuple[Any, ...]] = {}
        for path in sorted(folder.rglob("*")):
            state = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if inside and path.is_file() else ""
            found[str(path.relative_to(folder))] = (
                state.st_size if path.is_file() else 0,
                state.st_mtime_ns,
                state.st_ino,
                content,
            )
        return found

    def touched(self) -> str | None:
        """Say what of the user's was touched."""
        now = self.look(self.canaries)
        names = sorted(name for name in now.keys() | self.canary.keys() if now.get(name) != self.canary.get(name))
        return f"THE USER'S FILES WERE TOUCHED: {', '.join(names)}" if names else None

    def place(self) -> Path:
        """A new folder for one case."""
        return Path(tempfile.mkdtemp(dir=self.scratch))

    def count(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def chance(self, *what: object) -> random.Random:
        return random.Random(f"{self.seed} {what}")

    # references, each made when it is first asked for, in the process that sets out a kind

    @property
    def segment_words(self) -> tuple[object, ...]:
        prompts = ("--prompts", self.inputs / "classes.yml")
        return ("segment", self.inputs / "scene.tif", *prompts, "-q", "--stride", "32", "--vector", ",".join(FORMATS))

    @reference
    def finished(self) -> Path:
        """A folder with finished results of the scene, store and features included."""
        out = self.root / "finished"
        sure(command(*self.segment_words, "-o", out, "--keep-features", cwd=self.root))
        return out

    @reference
    def relabelled(self) -> Path:
        """What other words make of it."""
        out = self.root / "relabelled"
        words = ("segment", self.finished / "scene.store.zarr", "--prompts", self.inputs / "other.yml", "-q", "-o", out)
        sure(command(*words, cwd=self.root))
        return out

    @property
    def batch_words(self) -> tuple[object, ...]:
        scenes = (self.inputs / "scene.tif", self.inputs / "second.tif")
        return ("batch", *scenes, "--prompts", self.inputs / "classes.yml", "-q")

    @reference
    def batched(self) -> Path:
        out = self.root / "batched"
        sure(command(*self.batch_words, "-o", out, cwd=self.root))
        return out

    @reference
    def composed(self) -> Path:
        out = self.root / "composed"
        out.mkdir()
        sure(command(*self.compose_words, "-o", out / "ab.safetensors", cwd=self.root))
        return out

    @property
    def compose_words(self) -> tuple[object, ...]:
        return ("models", "compose", self.inputs / "a.pt", self.inputs / "b.pt", "--arch", self.inputs / "tiny.json",
                "--activation", "gelu", "-q")  # fmt: skip

    @reference
    def archive(self) -> Path:
        """An archive of models as `models export` writes it."""
        out = self.root / "models.zip"
        sure(command("models", "export", self.composed / "ab.safetensors", "-o", out, "-q", cwd=self.root))
        return out


def sure(answer: Answer) -> None:
    """A reference has to be."""
    if answer.code != 0:
        raise SystemExit(f"A reference could not be made (exit code {answer.code}): {answer.err}")


def not_whole(folder: Path) -> str | None:
    """Say which file under a final name is not whole."""
    try:
        found = apart(lambda: _not_whole(folder), seconds=60)
    except Dead as dead:
        return f"a result cannot be read: {dead}"
    return f"NOT WHOLE under a final name: {'; '.join(found)}" if found else None


def _not_whole(folder: Path) -> list[str]:
    warnings.simplefilter("ignore")
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith((".", "tmp")) or part.endswith((".zarr", ".lock")) for part in parts)
        if path.is_file() and not path.is_symlink() and not hidden:
            try:
                _read(path)
            except Exception as error:
                found.append(f"{'/'.join(parts)} ({path.stat().st_size} bytes, {type(error).__name__}: {error})"[:200])
    return found


def _read(path: Path) -> None:
    """Read a result to its end with what others read it by; raise where that cannot be done."""
    suffix = path.suffix
    if suffix == ".tif":
        import rasterio

        with rasterio.open(path) as raster:
            raster.read()
    elif suffix == ".gpkg":
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
            assert base.execute("pragma integrity_check").fetchone() == ("ok",)
            assert base.execute("select count(*) from gpkg_contents").fetchone()[0] >= 1
    elif suffix in (".geojson", ".json"):
        json.loads(path.read_text("utf-8"))
    elif suffix in (".shp", ".fgb"):
        import pyogrio

        told = pyogrio.read_info(path)["features"]
        assert len(pyogrio.read_dataframe(path)) == told
        if suffix == ".shp":
            assert struct.unpack(">i", path.read_bytes()[24:28])[0] * 2 == path.stat().st_size
            assert struct.unpack(">i", path.with_suffix(".shx").read_bytes()[24:28])[0] * 2 == (
                path.with_suffix(".shx").stat().st_size
            )
    elif suffix == ".parquet":
        import geopandas

        geopandas.read_parquet(path)
    elif suffix == ".kml":
        from resegeo.outputs.kml import read_kml

        assert sum(len(codes) for codes, _ in read_kml(path))
    elif suffix == ".png":
        from PIL import Image

        with Image.open(path) as image:
            image.load()
    elif suffix in (".qml", ".xml"):
        from xml.etree import ElementTree

        ElementTree.parse(path)
    elif suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                file.get_tensor(name)
    else:
        assert path.stat().st_size > 0, "empty"


def unlike(folder: Path, reference: Path) -> str | None:
    """Say which results differ from the reference's, lists and dates apart."""

    def names(there: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, (digest, *_) in left(there, deep=False).items():
            if name.endswith(".zip"):  # which keeps the time of its making
                with zipfile.ZipFile(there / name) as archive:
                    found[name] = [(one.filename, one.CRC) for one in archive.infolist()]
            elif name.endswith("points.gpkg"):  # whose form keeps the day of its making
                with contextlib.closing(sqlite3.connect(there / name)) as base:
                    tables = base.execute("select table_name from gpkg_contents").fetchall()
                    found[name] = [
                        base.execute(f'select * from "{table}"').fetchall()
                        for (table,) in tables
                        if table != "layer_styles"
                    ]
            elif name == "tiles.csv":  # which says of images that were finished before that they are skipped
                found[name] = (there / name).read_text("utf-8").replace(",skipped,", ",done,")
            elif not name.startswith("tmp"):
                found[name] = digest
        return found

    one, two = names(folder), names(reference)
    wrong = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    return f"other bytes than the reference's: {', '.join(wrong)}" if wrong else None


def settled(ground: Ground, answer: Answer, folder: Path, reference: Path | None) -> Verdict:
    """Judge a command by how it ended, its results, and the canaries."""
    wrong = unlike(folder, reference) if answer.code == 0 and reference is not None else None
    verdict = Verdict.of(answer, ground.touched(), not_whole(folder), wrong)
    if not verdict.faults:
        shutil.rmtree(folder, ignore_errors=True)
    return verdict


# parsers


def found(name: str) -> Callable[..., Any]:
    """A public function of the library, wherever it lives."""
    import resegeo

    for module in pkgutil.walk_packages(resegeo.__path__, "resegeo."):
        with contextlib.suppress(ImportError):
            function = getattr(import_module(module.name), name, None)
            if inspect.isfunction(function) and function.__module__ == module.name:
                return function
    raise SystemExit(f"There is no function {name} in resegeo; has it another name now?")


CONFIG = b"""\
text_queries: [road, house, tree]
class_mapping: {0: road, 1: building, 2: tree}
category_to_index: {background: 0, road: 1, building: 2, tree: 3}
attention:
  num_initial_layers: 6
  num_sam_attention_layers: 4
  num_neighbor_attention_layers: 2
input: images/
model: {name: ViT-L-14, pretrained: openai}
"""
SETTINGS = b"""\
stride: 64
segments: superpixels
superpixel_area: [256, 1024]
segment_layers: 2
threshold: 0.2
taper: false
vector: [gpkg, geojson]
reduction: mean
logit_scale: 40.0
"""
CSV = b"""scene,gsd,bands,stretch,prompts,segments,only,bbox,keep_background
scene.tif,0.5,"3,2,1",10:200,classes.yml,none,"water,road","500000,5190000,501000,5191000",yes
"second.tif",,,,,,,,
"""
PAIRS = b"prediction,truth\nout/scene.classes.tif,truth.tif\nb.tif,b.gpkg\n"
GEOJSON = json.dumps(
    {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "id": "north",
                "geometry": {"type": "Point", "coordinates": [14, 47]},
                "properties": {"scene": "scene.tif", "gsd": 0.5, "resegeo:bands": [3, 2, 1], "stretch": "10:200"},
            },
            {"type": "Feature", "geometry": None, "properties": {"location": "second.tif", "min_area": 4}},
        ],
    }
).encode()
STAC = json.dumps(
    {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": "S2A_1",
                "geometry": None,
                "properties": {"datetime": "2026-01-01T00:00:00Z", "gsd": 10, "resegeo:stretch": [100, 3000]},
                "assets": {"visual": {"href": "scene.tif", "type": "image/tiff; application=geotiff"}},
            },
        ],
    }
).encode()


def told_by(call: Callable[[Path], Any], suffix: str, folder: Path, ground: Ground) -> Callable[[bytes], str | None]:
    """Write an input to a file and read it; the sentence is checked."""
    from resegeo.errors import ResegeoError

    path = folder / f"input{suffix}"

    def tell(data: bytes) -> str | None:
        path.write_bytes(data)
        try:
            call(path)
        except ResegeoError as error:
            said = str(error)
            if len(said) > 2500 or not all(sign.isprintable() for sign in said):
                raise AssertionError(f"no readable sentence ({len(said)} characters): {said[:200]!r}") from error
            return said
        return None

    return tell


def parsed(
    ground: Ground, call: Callable[[Path], Any], suffix: str, source: bytes, *, memory: int = GIGABYTE
) -> list[Case]:
    """Cases for a reader: mutations of a good file, fifty in a case."""
    total, share = ground.count(2000, 150), 50

    def try_some(number: int) -> Verdict:
        chance = ground.chance("parser", suffix, source[:40], number)
        inputs = [mutate(source, chance) for _ in range(min(share, total - number * share))]
        folder = ground.place()
        for name in ("scene.tif", "second.tif", "classes.yml"):
            shutil.copy(ground.inputs / name, folder / name)
        verdict = Verdict()
        for index, kind, text in each(inputs, told_by(call, suffix, folder, ground), seconds=10, memory=memory):
            if kind == "fault":
                verdict.faults.append(f"{text} for {inputs[index][:300]!r} (input {index})")
            verdict.right += kind == "right"
            verdict.told += kind == "told"
        if touched := ground.touched():
            verdict.faults.append(touched)
        shutil.rmtree(folder, ignore_errors=True)
        return verdict

    return [(f"inputs {number * share}…", functools.partial(try_some, number)) for number in range(-(-total // share))]


def class_files(ground: Ground) -> list[Case]:
    """Class files in YAML."""
    import resegeo

    return parsed(ground, resegeo.load_class_list, ".yml", CLASSES.encode())


def config_files(ground: Ground) -> list[Case]:
    """The reference implementation's config.yml."""
    import resegeo

    return parsed(ground, resegeo.load_class_list, ".yml", CONFIG)


def settings_files(ground: Ground) -> list[Case]:
    """Settings in YAML."""
    resolve = found("resolve_settings")
    return parsed(ground, lambda path: resolve({}, file=path), ".yml", SETTINGS)


def manifests_csv(ground: Ground) -> list[Case]:
    """Manifests of scenes as CSV."""
    return parsed(ground, found("read_manifest"), ".csv", CSV)


def manifests_geojson(ground: Ground) -> list[Case]:
    """Manifests of scenes as GeoJSON."""
    return parsed(ground, found("read_manifest"), ".geojson", GEOJSON)


def manifests_stac(ground: Ground) -> list[Case]:
    """Manifests of scenes as a STAC ItemCollection."""
    return parsed(ground, found("read_manifest"), ".json", STAC)


def pairs(ground: Ground) -> list[Case]:
    """Tables of predictions and truths."""
    return parsed(ground, found("read_pairs"), ".csv", PAIRS)


def recipes(ground: Ground) -> list[Case]:
    """Composition files in YAML."""
    source = (
        b"models: [a.pt, {model: b.pt, arch: tiny.json, activation: gelu}]\nweights: [0.5, 0.5]\ntemperature: 0.1\n"
    )
    return parsed(ground, found("read_recipe"), ".yml", source)


def model_metadata(ground: Ground) -> list[Case]:
    """Metadata of a .safetensors file, as `models check` reads it."""
    data = (ground.composed / "ab.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    facts = json.dumps(head.pop("__metadata__")).encode()
    tensors, rest = json.dumps(head)[1:].encode(), data[8 + length :]

    def check(path: Path) -> None:
        header = b'{"__metadata__":' + path.read_bytes() + b"," + tensors
        target = path.with_suffix(".safetensors")
        target.write_bytes(struct.pack("<Q", len(header)) + header + rest)
        command_here("models", "check", target)

    return parsed(ground, check, ".txt", facts, memory=4 * GIGABYTE)


def model_manifests(ground: Ground) -> list[Case]:
    """The list in an archive of models, as `models import` reads it."""
    with zipfile.ZipFile(ground.archive) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in members if name.endswith(".json")]

    def take(path: Path) -> None:
        target, home = path.with_suffix(".zip"), path.parent / "home"
        with zipfile.ZipFile(target, "w") as out:
            for member, content in members.items():
                out.writestr(member, path.read_bytes() if member == name else content)
        os.environ["RESEGEO_HOME"] = str(home)
        others = {entry.name for entry in path.parent.iterdir()} | {"home", "hub"}
        before = ground.look(ground.inputs)
        try:
            command_here("models", "import", target)
        finally:
            fresh = {entry.name for entry in path.parent.iterdir()} - others
            if fresh or ground.look(ground.inputs) != before:
                raise AssertionError(f"written outside: {fresh}")
            shutil.rmtree(home, ignore_errors=True)

    return parsed(ground, take, ".txt", members[name], memory=2 * GIGABYTE)


def store_headers(ground: Ground) -> list[Case]:
    """Headers of a store that somebody passes on, as new words read them."""
    store = ground.finished / "scene.store.zarr"
    reference = ground.relabelled
    header = (store / "zarr.json").read_bytes()

    def relabel(path: Path) -> None:
        there, out = path.parent / "scene.store.zarr", path.parent / "out"
        if not there.exists():
            shutil.copytree(store, there)
        (there / "zarr.json").write_bytes(path.read_bytes())
        others = {entry.name for entry in path.parent.iterdir()} | {"out"}
        try:
            command_here(
                "segment", there, "--prompts", ground.inputs / "other.yml", "-o", out, "-q", "--vector", "none"
            )
            fresh = {entry.name for entry in path.parent.iterdir()} - others
            if fresh:
                raise AssertionError(f"written outside -o: {fresh}")
            (raster,) = out.glob("*.classes.tif")
            _same_labels(raster, reference / "scene.other.classes.tif")
        finally:
            shutil.rmtree(out, ignore_errors=True)

    return parsed(ground, relabel, ".txt", header, memory=8 * GIGABYTE)


def _same_labels(one: Path, two: Path) -> None:
    """Two class rasters agree in pixels and place, whatever their tags say."""
    import rasterio

    with rasterio.open(one) as a, rasterio.open(two) as b:
        if a.shape != b.shape or not (a.read() == b.read()).all():
            raise AssertionError("other labels with exit code 0")
        if a.transform != b.transform or a.crs != b.crs:
            raise AssertionError("another place with exit code 0")


# files from strangers


def listed(made: Any) -> list[tuple[str, Path]]:
    """What a generator gives: (name, path) or paths."""
    return [(str(one[0]), Path(one[1])) if isinstance(one, tuple) else (Path(one).name, Path(one)) for one in made]


def rasters(ground: Ground) -> list[Case]:
    """Damaged rasters: what they are, and what segment makes of them."""
    folder = ground.root / "rasters"
    folder.mkdir(exist_ok=True)
    count = ground.count(300, 30)

    def make() -> list[tuple[str, Path]]:
        made = []
        for number, (name, path) in enumerate(damaged_rasters(folder, count, ground.seed)):
            kept = folder / f"{number}{path.suffix}"  # beside the sound ones, which a VRT names
            shutil.copy(path, kept)
            made.append((name, kept))
        return made

    made = apart(make, seconds=300)

    def attack(path: Path) -> Verdict:
        case = ground.place()
        first = command("info", path, cwd=case, seconds=30, memory=2 * GIGABYTE)
        if fault := fault_of(first):
            return Verdict(faults=[f"info: {fault}"])
        words = (
            "segment",
            path,
            "--prompts",
            ground.inputs / "classes.yml",
            "--segments",
            "none",
            "-q",
            "-o",
            case / "out",
        )
        (case / "out").mkdir()
        return settled(ground, command(*words, cwd=case, seconds=90), case / "out", None)

    return [(name, functools.partial(attack, path)) for name, path in made]


def hostile(ground: Ground, make: Callable[[Path], Any]) -> tuple[Path, list[tuple[str, Path]]]:
    """Files made by tests/hostile_models.py, in a folder in which nothing may appear."""
    folder = ground.root / make.__name__
    folder.mkdir()
    return folder, listed(apart(lambda: listed(make(folder)), seconds=300))


def changed(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """Say what appeared, changed or went in a folder in which nothing may happen."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return f"APPEARED OR CHANGED BESIDE IT: {', '.join(names)}" if names else None


def models(ground: Ground) -> list[Case]:
    """Checkpoints that would run code, name paths, lie about their size."""
    folder, made = hostile(ground, hostile_models)
    if ground.quick:
        made = ground.chance("models").sample(made, min(20, len(made)))

    def attack(path: Path) -> Verdict:
        total = Verdict()
        case = ground.place()
        words = (
            "segment",
            ground.inputs / "tiny.tif",
            "--prompts",
            ground.inputs / "classes.yml",
            "-q",
            "--model",
            path,
        )
        for said in (("models", "check", path), (*words, "-o", case / "out")):
            before = ground.look(folder, inside=False)
            answer = command(*said, cwd=case, seconds=30, memory=4 * GIGABYTE, env={"RESEGEO_HOME": str(case / "home")})
            ran = changed(before, ground.look(folder, inside=False))
            total += Verdict.of(answer, ground.touched(), ran)
        shutil.rmtree(case, ignore_errors=True)
        return total

    return [(name, functools.partial(attack, path)) for name, path in made]


def archives(ground: Ground) -> list[Case]:
    """Archives of models that write elsewhere, or unpack without end."""
    folder, made = hostile(ground, hostile_archives)

    def attack(path: Path) -> Verdict:
        case = ground.place()
        home = case / "in/side/home"
        before = ground.look(folder, inside=False)
        answer = command("models", "import", path, cwd=case, seconds=60, memory=2 * GIGABYTE,
                         env={"RESEGEO_HOME": str(home), "HF_HOME": str(case / "in/side/hub")})  # fmt: skip
        outside = [str(one) for one in case.rglob("*") if one.is_file() and not one.is_relative_to(case / "in/side")]
        appeared = f"WRITTEN OUTSIDE: {outside}" if outside else changed(before, ground.look(folder, inside=False))
        held = sum(one.stat().st_size for one in case.rglob("*") if one.is_file())
        much = f"{held:,} bytes are left of it" if answer.code and held > 10_000_000 else None
        shutil.rmtree(case, ignore_errors=True)
        return Verdict.of(answer, ground.touched(), appeared, much)

    return [(name, functools.partial(attack, path)) for name, path in made]


# disks that are full


def can_mount() -> bool:
    """Whether small disks can be made here."""
    if os.name == "nt" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as name:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", name], capture_output=True).returncode:
            return False
        subprocess.run(["umount", name], check=True)
    return True


@contextlib.contextmanager
def disk(folder: Path, kilobytes: int) -> Any:
    """A disk of so many kilobytes."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], check=True)
    try:
        yield lambda more: subprocess.run(["mount", "-o", f"remount,size={more}k", folder], check=True)
    finally:
        if subprocess.run(["umount", folder], capture_output=True).returncode:
            subprocess.run(["umount", "-l", folder], check=True)


def disk_cases(
    ground: Ground,
    name: str,
    words: Callable[[Path], Sequence[object]],
    reference: Path,
    *,
    env: bool = False,
    full: int = 50,
) -> list[Case]:
    """Sizes from nothing to a little more than a command needs; afterwards the disk grows and the command goes on."""

    def variables(there: Path) -> dict[str, str]:
        return {"RESEGEO_HOME": str(there / "out")} if env else {}

    def most() -> int:
        case = ground.place()
        with disk(case / "disk", 400_000):
            (case / "disk/out").mkdir()
            sure(command(*words(case / "disk/out"), cwd=case, env=variables(case / "disk")))
            held = shutil.disk_usage(case / "disk").used
        return held // 1024

    need = apart(most, seconds=120)
    count = ground.count(full, 3)

    def attack(kilobytes: int) -> Verdict:
        case = ground.place()
        with disk(case / "disk", kilobytes) as grow:
            out = case / "disk/out"
            out.mkdir()
            answer = command(*words(out), cwd=case, env=variables(case / "disk"))
            wrong = unlike(out, reference) if answer.code == 0 else None
            verdict = Verdict.of(answer, ground.touched(), not_whole(out), wrong)
            if not verdict.faults and answer.code != 0:
                grow(400_000)
                again = command(*words(out), cwd=case, env=variables(case / "disk"))
                wrong = f"with room again: {again.err.strip()[-300:]}" if again.code != 0 else unlike(out, reference)
                if wrong:
                    verdict = Verdict(faults=[wrong])
        shutil.rmtree(case, ignore_errors=True)
        return verdict

    chance = ground.chance("disk", name)
    # Most of them where results are written, at the end; tmpfs counts pages of 4 KiB.
    sizes = [max(8, round(need * (step + chance.random()) / count * 1.1)) for step in range(count)]
    return [(f"{name}, {size} KiB of {need}", functools.partial(attack, size)) for size in sizes]


def full_disks(ground: Ground) -> list[Case]:
    """A disk that gets full, at many sizes, for each command and format."""
    if not can_mount():
        print("full disks: left out, since no small disk can be mounted here", flush=True)
        return []
    finished, cases = ground.finished, []
    cases += disk_cases(ground, "segment", lambda out: (*ground.segment_words, "-o", out), finished)
    cases += disk_cases(ground, "batch", lambda out: (*ground.batch_words, "-o", out), ground.batched)
    cases += disk_cases(
        ground, "models compose", lambda out: (*ground.compose_words, "-o", out / "ab.safetensors"), ground.composed
    )
    cases += disk_cases(
        ground, "models import", lambda out: ("models", "import", ground.archive, "-q"), imported(ground), env=True
    )
    for name, making in smaller_commands(ground).items():
        undisturbed = ground.root / f"undisturbed-{name.replace(' ', '-')}"
        undisturbed.mkdir()
        sure(command(*making(undisturbed), cwd=ground.root))
        cases += disk_cases(ground, name, making, undisturbed)
    return cases


def smaller_commands(ground: Ground) -> dict[str, Making]:
    """Commands that write files from what others have finished."""
    finished, relabelled, composed, classes = (
        ground.finished,
        ground.relabelled,
        ground.composed,
        ground.inputs / "classes.yml",
    )
    raster, store = finished / "scene.classes.tif", finished / "scene.store.zarr"
    config = apart(lambda: lay(ground.root / "images", {"a": True, "b": False}))
    images = ("--model", "resegeo-small", "--segments", "superpixels", "--device", "cpu")
    found: dict[str, Making] = {
        f"vectorize to {suffix}": functools.partial(vectorize_words, finished, suffix) for suffix in FORMATS
    }
    found |= {
        "models export": lambda out: ("models", "export", composed / "ab.safetensors", "-o", out / "m.zip", "-q"),
        "report": lambda out: ("report", finished, "-o", out / "page.html", "-q"),
        "compare": lambda out: ("compare", raster, relabelled / "scene.other.classes.tif", "-o", out, "-q"),
        "try": lambda out: ("try", ground.inputs / "scene.tif", "--prompts", classes, "-o", out / "sheet.png", "-q"),
        "suggest": lambda out: ("suggest", store, "--prompts", classes, "-n", "9", "-o", out / "points.gpkg", "-q"),
        "sample": lambda out: ("sample", raster, "-n", "90", "--least", "2", "-o", out / "points.gpkg", "-q"),
        "find": lambda out: ("find", store, "water", "-n", "9", "-o", out / "places.gpkg", "-q"),
        "evaluate": lambda out: ("evaluate", raster, raster, "--confusion", out / "matrix.png", "-q"),
        "calibrate": lambda out: (
            *("calibrate", store, raster, "--prompts", classes, "-q"),
            *("-o", out / "calibrated.yml", "--diagram", out / "diagram.png"),
        ),
        "dataset": lambda out: ("dataset", config, "-o", out, *images, "-q"),
    }
    return found


def vectorize_words(finished: Path, suffix: str, out: Path) -> tuple[object, ...]:
    return ("vectorize", finished / "scene.classes.tif", "-o", out / f"scene.{suffix}", "--simplify", "1", "-q")


def imported(ground: Ground) -> Path:
    """Where the archive's models lie, after an import that nothing disturbed."""
    home = ground.root / "imported-home"
    if not home.exists():
        home.mkdir()
        sure(command("models", "import", ground.archive, cwd=ground.root, env={"RESEGEO_HOME": str(home)}))
    return home


# kills, and runs beside one another


Making = Callable[[Path], Sequence[object]]


def disturbed(ground: Ground, name: str) -> tuple[dict[str, tuple[Making, Path]], dict[str, float]]:
    """Commands that are disturbed, the results that they come to, and the seconds that they take undisturbed."""
    vectors = ground.root / f"vectors-{name}"
    vectors.mkdir()
    words: dict[str, tuple[Making, Path]] = {
        "batch": (lambda out: (*ground.batch_words, "-o", out), ground.batched),
        "segment": (lambda out: (*ground.segment_words, "-o", out), ground.finished),
        "vectorize": (lambda out: vectorize_words(ground.finished, "gpkg", out), vectors),
        "models compose": (lambda out: (*ground.compose_words, "-o", out / "ab.safetensors"), ground.composed),
        "models import": (lambda out: ("models", "import", ground.archive, "-q"), imported(ground)),
    }
    sure(command(*words["vectorize"][0](vectors), cwd=ground.root))

    def took(name: str) -> float:
        case = ground.place()
        out = case / "out"
        out.mkdir()
        answer = command(*words[name][0](out), cwd=case, env=home_of(name, out))
        shutil.rmtree(case)
        return answer.seconds

    return words, {name: apart(functools.partial(took, name), seconds=120) for name in words}


def home_of(name: str, out: Path) -> dict[str, str]:
    """Where models are imported to: what is looked at as the folder of results."""
    return {"RESEGEO_HOME": str(out)} if name == "models import" else {}


def goes_on(ground: Ground, making: Making, name: str, out: Path, reference: Path) -> Verdict:
    """Give a disturbed command again, which has to come to the undisturbed one's results."""
    again = command(*making(out), cwd=out.parent, env=home_of(name, out))
    if again.code == 1 and "exists" in again.err and unlike(out, reference) is None:  # it was disturbed too late
        again = Answer(0, "", "", 0)
    verdict = settled(ground, again, out, reference)
    if not verdict.faults and again.code != 0:
        table = out / "batch.csv"
        rows = table.read_text("utf-8", "replace")[-600:] if table.exists() else ""
        return Verdict(faults=[f"the same command does not go on: {again.err.strip()[-300:]} {rows}"])
    return verdict


def kills(ground: Ground) -> list[Case]:
    """SIGKILL at random moments of batch, vectorize, models import and models compose; then the same again."""
    words, seconds = disturbed(ground, "killed")

    def attack(name: str, number: int) -> Verdict:
        making, reference = words[name]
        case = ground.place()
        out = case / "out"
        out.mkdir()
        chance = ground.chance("kill", name, number)
        for _ in range(chance.choice((1, 1, 2))):
            moment = chance.uniform(0.02, seconds[name])
            answer = command(*making(out), cwd=case, env=home_of(name, out), kill_after=moment)
            if not answer.killed and (fault := fault_of(answer)):
                return Verdict(faults=[fault])
            if wrong := not_whole(out):
                return Verdict(faults=[f"after a kill: {wrong}"])
        return goes_on(ground, making, name, out, reference)

    count = ground.count(25, 3)
    return [(f"{name} {number}", functools.partial(attack, name, number)) for number in range(count) for name in words]


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Any:
    """An ext4 disk that is a file; it writes to it as late as it may."""
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop,commit=300", image, folder], check=True, capture_output=True)
    try:
        yield
    finally:
        if subprocess.run(["umount", folder], capture_output=True).returncode:
            subprocess.run(["umount", "-l", folder], check=True)


def can_lose_power() -> bool:
    """Whether disks that are files can be made here."""
    if os.name == "nt" or os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        return False
    with tempfile.TemporaryDirectory() as name:
        try:
            new_disk(Path(name) / "image")
            with mounted(Path(name) / "image", Path(name) / "disk"):
                return True
        except subprocess.CalledProcessError:
            return False


def new_disk(image: Path) -> None:
    with image.open("wb") as stream:
        stream.truncate(96 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^resize_inode", image], check=True, capture_output=True)


def power_cuts(ground: Ground) -> list[Case]:
    """A disk that loses what was not synced, at random moments and right after exit code 0; then the same again."""
    if not can_lose_power():
        print("power cuts: left out, since no disk can be made of a file here", flush=True)
        return []
    words, seconds = disturbed(ground, "cut")

    def attack(name: str, number: int) -> Verdict:
        making, reference = words[name]
        case = ground.place()
        image = case / "image"
        new_disk(image)
        chance = ground.chance("power", name, number)
        moment = None if number % 3 == 0 else chance.uniform(0.02, 1.1 * seconds[name])
        with mounted(image, case / "before"):
            out = case / "before/out"
            out.mkdir()
            subprocess.run(["sync", "-f", out], check=True)
            # Paths are noted by what is written, so both disks get the same place.
            answer = command(*making(out), cwd=case, env=home_of(name, out), kill_after=moment)
            subprocess.run(["cp", "--sparse=always", image, case / "image2"], check=True)
        if not answer.killed and (fault := fault_of(answer)):
            return Verdict(faults=[fault])
        (case / "before").rmdir()
        with mounted(case / "image2", case / "before"):
            lost = not_whole(out) or unlike(out, reference) if answer.code == 0 else None
            if lost:
                verdict = Verdict(faults=[f"LOST AFTER EXIT CODE 0: {lost}"])
            else:
                verdict = goes_on(ground, making, name, out, reference)
        if not verdict.faults:
            shutil.rmtree(case, ignore_errors=True)
        return verdict

    count = ground.count(12, 3)
    return [(f"{name} {number}", functools.partial(attack, name, number)) for number in range(count) for name in words]


def two_runs(ground: Ground) -> list[Case]:
    """Two commands at the same time in one folder."""
    finished = ground.finished
    vectors = ground.root / "vectors-two"
    vectors.mkdir()
    sure(command(*vectorize_words(finished, "gpkg", vectors), cwd=ground.root))
    words: dict[str, tuple[Callable[[Path], Sequence[object]], Path]] = {
        "segment": (lambda out: (*ground.segment_words, "-o", out), finished),
        "batch": (lambda out: (*ground.batch_words, "-o", out), ground.batched),
        "vectorize": (lambda out: (*vectorize_words(finished, "gpkg", out), "--overwrite"), vectors),
        "models compose": (
            lambda out: (*ground.compose_words, "-o", out / "ab.safetensors", "--overwrite"),
            ground.composed,
        ),
    }

    def attack(name: str, number: int) -> Verdict:
        making, reference = words[name]
        case = ground.place()
        out = case / "out"
        out.mkdir()
        total = Verdict()
        answers = together(making(out), making(out), cwd=case)
        for answer in answers:
            total += Verdict.of(answer)
        if total.right == 0:
            total += Verdict(faults=[f"neither of the two did it: {[answer.err.strip()[-200:] for answer in answers]}"])
        wrong = [fault for fault in (ground.touched(), not_whole(out), unlike(out, reference)) if fault]
        table = out / "batch.csv"
        if name == "batch" and total.right and "failed" in table.read_text("utf-8"):
            wrong.append("batch.csv says failed of scenes that are done")
        if wrong:
            total.faults.append("; ".join(wrong))
        shutil.rmtree(case, ignore_errors=True)
        return total

    count = ground.count(10, 2)
    return [(f"{name} {number}", functools.partial(attack, name, number)) for number in range(count) for name in words]


# damage after the fact


def stores(ground: Ground) -> list[Case]:
    """A finished store with flipped bits, zeroed pages, swapped, cut or lost files; new words, and then the remedy."""
    reference, finished = ground.relabelled, ground.finished

    def attack(number: int) -> Verdict:
        chance = ground.chance("store", number)
        case = ground.place()
        shutil.copytree(finished, case / "out")
        store = case / "out/scene.store.zarr"
        what = damage(store, chance)
        words = ("segment", store, "--prompts", ground.inputs / "other.yml", "-q", "-o", case / "new")
        (case / "new").mkdir()
        answer = command(*words, cwd=case)
        wrong = unlike(case / "new", reference) if answer.code == 0 else None
        verdict = Verdict.of(answer, ground.touched(), not_whole(case / "new"), wrong)
        verdict.faults = [f"{what}: {fault}" for fault in verdict.faults]
        if not verdict.faults and answer.code != 0:  # what the sentence asks for, with the options it was made with
            making = (*ground.segment_words, "-o", case / "out", "--keep-features")
            first = command(*making, cwd=case)
            mended = command(*words, cwd=case)
            if mended.code != 0 and "--overwrite" in answer.err + first.err:
                command(*making, "--overwrite", cwd=case)
                mended = command(*words, cwd=case)
            wrong = unlike(case / "new", reference) if mended.code == 0 else mended.err.strip()[-300:]
            if wrong:
                said = f"{answer.err.strip()[-300:]!r}, {first.err.strip()[-300:]!r}"
                verdict = Verdict(faults=[f"{what}: no way out of {said}: {wrong}"])
        shutil.rmtree(case, ignore_errors=True)
        return verdict

    return [(f"store {number}", functools.partial(attack, number)) for number in range(ground.count(150, 15))]


def damage(store: Path, chance: random.Random) -> str:
    """Do something to a file of a store, and say what."""
    files = sorted(path for path in store.rglob("*") if path.is_file())
    kinds = {
        "chunk": [path for path in files if "/c/" in path.as_posix()],
        "mark": [path for path in files if "marks" in path.parts],
        "header": [path for path in files if path.name == "zarr.json"],
    }
    kind = chance.choice(("chunk", "chunk", "mark", "header"))
    path = chance.choice(kinds[kind] or files)
    data = bytearray(path.read_bytes())
    act = chance.choice(("flip", "flip", "flip", "zero", "cut", "empty", "lose", "swap"))
    at = chance.randrange(max(1, len(data)))
    if act == "flip" and data:
        data[at] ^= 1 << chance.randrange(8)
    elif act == "zero":
        data[at : at + 4096] = bytes(len(data[at : at + 4096]))
    elif act == "cut":
        del data[at:]
    elif act == "empty":
        data = bytearray()
    if act == "lose":
        path.unlink()
    elif act == "swap":
        other = chance.choice(kinds[kind] or files)
        one, two = path.read_bytes(), other.read_bytes()
        path.write_bytes(two)
        other.write_bytes(one)
        return f"{path.relative_to(store)} and {other.relative_to(store)} swapped"
    else:
        path.write_bytes(bytes(data))
    return f"{path.relative_to(store)}, {act} at {at}"


def replaced_scenes(ground: Ground) -> list[Case]:
    """A scene that is rewritten in place, or replaced, while it is read."""
    made = ground.root / "versions"
    made.mkdir()

    def draw() -> None:
        os.chdir(made)
        for number in (0, 1):
            write(f"{number}.tif", picture(256, 416, seed=20 + number))

    apart(draw)

    def words(scene: Path, out: Path) -> tuple[object, ...]:
        prompts = ("--prompts", ground.inputs / "classes.yml")
        return ("segment", scene, *prompts, "-q", "--stride", "32", "--segments", "none", "--vector", "none", "-o", out)

    references = []
    for number in (0, 1):
        (made / f"out{number}").mkdir()
        shutil.copy(made / f"{number}.tif", made / "scene.tif")
        sure(command(*words(made / "scene.tif", made / f"out{number}"), cwd=made))
        references.append(made / f"out{number}/scene.classes.tif")
    took = apart(lambda: timed(words(made / "scene.tif", ground.place())), seconds=90)

    def attack(number: int) -> Verdict:
        chance = ground.chance("replaced", number)
        case = ground.place()
        scene = case / "scene.tif"
        shutil.copy(made / "0.tif", scene)
        changer = os.fork()
        if changer == 0:
            time.sleep(chance.uniform(0.05, took))
            if chance.random() < 0.5:
                scene.write_bytes((made / "1.tif").read_bytes())  # in place
            else:
                shutil.copy(made / "1.tif", case / "next.tif")
                (case / "next.tif").replace(scene)
            os._exit(0)
        answer = command(*words(scene, case / "out"), cwd=case)
        os.waitpid(changer, 0)
        wrong = None
        if answer.code == 0:
            wrong = apart(lambda: _like_one_of(case / "out/scene.classes.tif", references))
        verdict = Verdict.of(answer, ground.touched(), wrong)
        shutil.rmtree(case, ignore_errors=True)
        return verdict

    return [(f"moment {number}", functools.partial(attack, number)) for number in range(ground.count(40, 4))]


def timed(words: Sequence[object]) -> float:
    return command(*words, cwd=Path.cwd()).seconds


def _like_one_of(raster: Path, references: Sequence[Path]) -> str | None:
    for reference in references:
        with contextlib.suppress(AssertionError):
            _same_labels(raster, reference)
            return None
    return "LABELS OF BOTH VERSIONS MIXED with exit code 0"


# an object store that refuses now and then


def serve(port: int) -> None:
    """Be an S3 server that answers 503 to a share of a bucket's requests, which PUT /refusals/BUCKET/SHARE sets."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple
    from werkzeug.wrappers import Response

    inner = DomainDispatcherApplication(create_backend_app)
    shares: dict[str, float] = {}
    chance = random.Random(0)

    def application(environ: dict[str, Any], start: Any) -> Any:
        parts = environ["PATH_INFO"].split("/")
        if parts[1] == "refusals":
            shares[parts[2]] = float(parts[3])
            return Response("")(environ, start)
        if chance.random() < shares.get(parts[1], 0.0):
            body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            return Response(body, 503, content_type="application/xml")(environ, start)
        return inner(environ, start)

    run_simple("127.0.0.1", port, application, threaded=True)


def object_stores(ground: Ground) -> list[Case]:
    """A store on S3 that answers 503 at random; then, without refusals, the same command again."""
    import urllib.request

    try:
        import moto.server  # noqa: F401
        import s3fs
    except ImportError:
        print("object stores: left out, since moto or s3fs is not installed", flush=True)
        return []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (ground.root / "s3.log").open("w")
    server = subprocess.Popen([sys.executable, __file__, "--serve", str(port)], stdout=log, stderr=log)
    ground.servers.append(server)
    address = f"http://127.0.0.1:{port}"
    env = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
           "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip

    def refuse(bucket: str, share: float) -> None:
        request = urllib.request.Request(f"{address}/refusals/{bucket}/{share}", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    for _ in range(300):
        with contextlib.suppress(OSError):
            refuse("none", 0)
            break
        time.sleep(0.1)
    reference = ground.finished

    def make_bucket(name: str) -> None:
        os.environ.update(env)
        s3fs.S3FileSystem(endpoint_url=address).mkdir(name)

    def attack(number: int) -> Verdict:
        case, bucket = ground.place(), f"bucket{number}"
        apart(functools.partial(make_bucket, bucket))
        words = (*ground.segment_words, "-o", case / "out", "--store", f"s3://{bucket}/work")
        (case / "out").mkdir()
        refuse(bucket, ground.chance("s3", number).choice((0.02, 0.1, 0.3)))
        answer = command(*words, cwd=case, env=env, seconds=300)
        refuse(bucket, 0)
        wrong = unlike(case / "out", reference) if answer.code == 0 else None
        verdict = Verdict.of(answer, ground.touched(), not_whole(case / "out"), wrong)
        if not verdict.faults:
            again = command(*words, cwd=case, env=env, seconds=120)
            wrong = f"without refusals: {again.err.strip()[-300:]}" if again.code else unlike(case / "out", reference)
            if wrong:
                verdict = Verdict(faults=[wrong])
        shutil.rmtree(case, ignore_errors=True)
        return verdict

    return [(f"S3 {number}", functools.partial(attack, number)) for number in range(ground.count(12, 2))]


# what is the user's


def written(folder: Path) -> list[str]:
    """Names that a run leaves in its folder."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def own_commands(ground: Ground) -> dict[str, tuple[Callable[[Path], Sequence[object]], list[str]]]:
    """Commands that write into a folder, and the names that they write there."""
    finished, composed = ground.finished, ground.composed
    return {
        "segment": (lambda out: (*ground.segment_words, "-o", out), written(finished)),
        "vectorize": (lambda out: vectorize_words(finished, "gpkg", out), ["scene.gpkg"]),
        "vectorize to shp": (
            lambda out: vectorize_words(finished, "shp", out),
            ["scene.shp", "scene.shx", "scene.dbf", "scene.prj", "scene.cpg", "scene.qml"],
        ),
        "models compose": (lambda out: (*ground.compose_words, "-o", out / "ab.safetensors"), ["ab.safetensors"]),
        "models export": (
            lambda out: ("models", "export", composed / "ab.safetensors", "-o", out / "m.zip", "-q"),
            ["m.zip"],
        ),
        "batch": (lambda out: (*ground.batch_words, "-o", out), ["batch.csv", "scene", "second", ".batch.jsonl"]),
    }


def links(ground: Ground) -> list[Case]:
    """Symbolic links to the user's files, planted at names of results and of temporary files."""

    def attack(making: Callable[[Path], Sequence[object]], name: str, target: str) -> Verdict:
        case = ground.place()
        user, out = case / "user", case / "out"
        shutil.copytree(ground.canaries, user)
        before = ground.look(user)
        out.mkdir()
        (out / name).symlink_to(user / target)
        answer = command(*making(out), cwd=case)
        verdict = Verdict.of(answer, changed(before, ground.look(user)))
        shutil.rmtree(case, ignore_errors=True)
        return verdict

    cases = []
    for command_name, (making, names) in own_commands(ground).items():
        for name in names:
            beside = [name, f".tmp-{name}", f".tmp-plain-{name}", f".tmp-cog-{name}", f".{name}.lock", f"{name}.tmp",
                      f"{name}.partial"]  # fmt: skip
            for planted in beside[: ground.count(7, 3)]:
                for target in ("thesis.txt", "folder", "nothing/there"):
                    act = functools.partial(attack, making, planted, target)
                    cases.append((f"{command_name}: {planted} -> {target}", act))
    return ground.chance("links").sample(cases, min(ground.count(200, 16), len(cases)))


def own_files(ground: Ground) -> list[Case]:
    """Files and folders of the user's at the names of results."""

    def attack(making: Callable[[Path], Sequence[object]], name: str, folder: bool, overwrite: bool) -> Verdict:
        case = ground.place()
        out = case / "out"
        out.mkdir()
        mine = out / name
        if folder:
            (mine / "deep").mkdir(parents=True)
            (mine / "deep/letter.txt").write_text("mine")
            (mine / "zarr.json").write_text('{"attributes": {}}')
        else:
            mine.write_text("mine")
        before = ground.look(out)
        answer = command(*making(out), *(["--overwrite"] if overwrite else []), cwd=case)
        now = ground.look(out)
        lost = [name for name, facts in before.items() if (name not in now or now[name][3] != facts[3])]
        fault = f"THE USER'S {', '.join(lost)} WAS REPLACED OR REMOVED" if lost and (folder or not overwrite) else None
        verdict = Verdict.of(answer, ground.touched(), fault)
        shutil.rmtree(case, ignore_errors=True)
        return verdict

    cases = []
    for command_name, (making, names) in own_commands(ground).items():
        for name in names:
            for folder in (False, True):
                for overwrite in (False, True):
                    if command_name == "batch" and name in ("scene", "second") and folder:
                        continue  # folders of results may be there
                    what = f"{command_name}: {'folder' if folder else 'file'} {name}{', --overwrite' * overwrite}"
                    cases.append((what, functools.partial(attack, making, name, folder, overwrite)))
    return ground.chance("own files").sample(cases, min(ground.count(120, 16), len(cases)))


KINDS: dict[str, Callable[[Ground], list[Case]]] = {
    "links": links,
    "own-files": own_files,
    "archives": archives,
    "models": models,
    "model-metadata": model_metadata,
    "model-manifests": model_manifests,
    "store-headers": store_headers,
    "object-stores": object_stores,
    "replaced-scenes": replaced_scenes,
    "rasters": rasters,
    "stores": stores,
    "kills": kills,
    "power-cuts": power_cuts,
    "two-runs": two_runs,
    "full-disks": full_disks,
    "classes": class_files,
    "config": config_files,
    "settings": settings_files,
    "manifest-csv": manifests_csv,
    "manifest-geojson": manifests_geojson,
    "manifest-stac": manifests_stac,
    "pairs": pairs,
    "recipes": recipes,
}


def learn(ground: Ground) -> None:
    """Run what shows all that commands need, in this very process."""
    for module in pkgutil.walk_packages(import_module("resegeo").__path__, "resegeo."):
        with contextlib.suppress(ImportError):
            import_module(module.name)
    out = ground.place()
    command_here(*ground.segment_words, "-o", out)
    for scene, words in (("tiny.tif", "classes.yml"), ("tiny.tif", "other.yml")):
        command_here("segment", ground.inputs / scene, "--prompts", ground.inputs / words, "-q", "-o", out / words)
    command_here("vectorize", out / "scene.classes.tif", "-o", out / "again.gpkg", "--simplify", "1", "-q")
    with contextlib.suppress(ImportError):
        import_module("moto.server")
    shutil.rmtree(out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cases of each kind, about two minutes")
    parser.add_argument("--only", default="", metavar="KINDS", help="kinds, separated by commas; see --list")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes at a time")
    parser.add_argument("--minutes", type=float, default=0, help="for all kinds  [default: unlimited]")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the cases")
    parser.add_argument("--list", action="store_true", help="print the kinds")
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def computed() -> float:
    """Seconds of a processor that all that was forked has taken so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    asked = arguments()
    if asked.serve:
        serve(asked.serve)
        return 0
    if asked.list:
        for name, kind in KINDS.items():
            print(f"{name:18} {kind.__doc__}")
        return 0
    names = [name for name in asked.only.split(",") if name] or list(KINDS)
    if unknown := [name for name in names if name not in KINDS]:
        print(f"unknown kinds: {', '.join(unknown)}; --list prints them")
        return 2
    warnings.simplefilter("ignore")
    libraries()
    minutes = asked.minutes or float("inf")
    end = time.monotonic() + 60 * minutes
    root = Path(tempfile.mkdtemp(prefix="attack-"))
    rows: list[tuple[str, Verdict, float, float]] = []
    ground = Ground(root, asked.seed, quick=asked.quick)
    warm(functools.partial(learn, ground))
    try:
        for number, name in enumerate(names):
            began, spent = time.monotonic(), computed()
            share = (end - began) / (len(names) - number)  # what a kind does not need is left to those after it
            try:
                cases = KINDS[name](ground)
                random.Random(asked.seed).shuffle(cases)
                verdict = tried(cases, asked.jobs, began + share)
            except (Exception, SystemExit) as error:
                verdict = Verdict(faults=[f"the cases could not be set out: {type(error).__name__}: {error}"])
            ground.canary = ground.look(ground.canaries)  # what one kind did is not held against the next
            rows.append((name, verdict, time.monotonic() - began, computed() - spent))
            for fault in verdict.faults:
                print(f"VIOLATION in {name}: {fault}", flush=True)
            took, work = rows[-1][2:]
            said = f"{name}: {verdict.cases} cases, {len(verdict.faults)} violations, {took:.0f} s, {work:.0f} computed"
            print(
                said + (f"; {verdict.left_out} trials left out for want of time" if verdict.left_out else ""),
                flush=True,
            )
    finally:
        for server in ground.servers:
            server.terminate()
            server.wait()
        if not asked.keep:
            shutil.rmtree(root, ignore_errors=True)
    print(f"\n{'kind':18} {'cases':>7} {'right':>7} {'told':>7} {'violations':>11} {'seconds':>8} {'computed':>8}")
    total = Verdict()
    for name, verdict, seconds, work in rows:
        total += verdict
        counts = f"{verdict.cases:7,} {verdict.right:7,} {verdict.told:7,} {len(verdict.faults):11,}"
        print(f"{name:18} {counts} {seconds:8.0f} {work:8.0f}")
    print(f"{'all':18} {total.cases:7,} {total.right:7,} {total.told:7,} {len(total.faults):11,}")
    return 1 if total.faults else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a kind's cases may raise does not end the campaign
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
