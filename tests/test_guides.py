"""README and guides show commands that exist: all parse, and what is quick runs in the order in which it stands."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
import yaml
from affine import Affine
from click.testing import CliRunner
from PIL import Image
from rasterio.transform import array_bounds
from rasterio.windows import Window

from resegeo_cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "examples/guide").glob("*.md"))]
ELSEWHERE = re.compile(r"s3:|tcp:|remoteclip|sam-vit|ViT-|mine\.|recipe|--cluster|models (fetch|compose)|qgis|\.zip")
"""What takes a network, weights, other machines or another program."""


def blocks(page: Path, *languages: str) -> list[str]:
    """Text of the fenced blocks of a page whose language is one of these."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def shown(page: Path) -> list[str]:
    """Commands that stand in blocks of a page, a line each, without prompts and with continued lines joined."""
    text = "\n".join(blocks(page, "", "bash", "console", "sh")).replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in text.splitlines() if re.match(r"(\$ )?resegeo ", line)]


def mentioned(page: Path) -> list[str]:
    """Commands that stand in the text of a page: optional parts count, and so does each of several words."""
    found = []
    for text in re.findall(r"`(resegeo [^`\n]+)`", page.read_text("utf-8")):
        plain = re.sub(r"[\[\]…]|\.\.\.", "", text)
        several = re.search(r"\S+\|\S+", plain)
        words = [plain] if several is None else [plain.replace(several[0], word) for word in several[0].split("|")]
        found += words
    return found


def parts_of(line: str) -> tuple[list[str], str | None]:
    """Arguments of a command line after its name, and the file that its output goes to."""
    words = shlex.split(line, comments=True)[1:]
    return (words[:-2], words[-1]) if ">" in words else (words, None)


def parsed(words: list[str], *, whole: bool) -> None:
    """Let click take a command line without running it; with ``whole`` nothing that is required may lack."""
    context = main.make_context("resegeo", list(words))
    command: click.Command = main
    rest = words
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, words
        command = found
        if isinstance(command, click.Group) and not rest:
            return
        if not isinstance(command, click.Group):
            command.make_context(name, list(rest), parent=context, resilient_parsing=not whole)
            options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
            flags = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
            assert flags <= options | {"--help", "--help-all"}, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_that_a_page_shows_is_one(page):
    for line in shown(page):
        try:
            parsed(parts_of(line)[0], whole=True)
        except click.ClickException as error:
            pytest.fail(f"{page.name}: {line}: {error.format_message()}")
    for line in mentioned(page):
        try:
            parsed(parts_of(line)[0], whole=False)
        except click.ClickException as error:
            pytest.fail(f"{page.name}: {line}: {error.format_message()}")


def test_the_pages_show_commands():
    """The expression above still finds them."""
    assert {len(shown(page)) > 0 for page in PAGES if page.stem in ("README", "batch", "options", "models")} == {True}
    assert len(mentioned(ROOT / "README.md")) > 10


@pytest.fixture
def ground(tmp_path, monkeypatch, quick_model, make_raster) -> Path:
    """A folder with what the pages speak of, cut from the demo scene."""
    monkeypatch.chdir(tmp_path)
    with rasterio.open(ROOT / "examples/demo/sentinel2.tif") as demo:
        crs, nodata = demo.crs, demo.nodata
        windows = {name: Window(100 * number, 0, 96, 80) for number, name in enumerate(("scene", "other", "drone"))}
        pixels = {name: demo.read(window=window) for name, window in windows.items()}
        places = {name: demo.window_transform(window) for name, window in windows.items()}
    places["drone"] @= Affine.scale(0.02 / places["drone"].a)  # pixels of 2 cm
    for name, bands in pixels.items():
        make_raster(f"{name}.tif", bands, crs=crs, transform=places[name], nodata=nodata)
    here = {"crs": crs, "transform": places["scene"]}
    make_raster("s2.tif", np.repeat(pixels["scene"][:1].astype(np.uint16) * 10, 13, axis=0), **here)
    make_raster("labels.tif", (np.arange(80 * 96).reshape(1, 80, 96) // 999 + 1).astype(np.int32), **here)
    left, bottom, right, top = array_bounds(80, 96, places["scene"])
    middle = (left + right) / 2
    halves = [shapely.box(left, bottom, middle, top), shapely.box(middle, bottom, right, top)]
    for name in ("parcels.gpkg", "buildings.gpkg", "fields.gpkg"):
        gpd.GeoDataFrame({"crop": ["water", "forest"]}, geometry=halves, crs=crs).to_file(name)
    gpd.GeoDataFrame(geometry=halves[:1], crs=crs).to_file("district.geojson")
    for folder in ("scenes/alps", "tiles"):
        Path(folder).mkdir(parents=True)
        shutil.copy("scene.tif", folder)
    shutil.copy(ROOT / "examples/demo/classes.yml", "classes.yml")
    Path("other.yml").write_text("classes: [water, grass]")
    return tmp_path


def run(line: str) -> None:
    """Run a command of a page, in this process."""
    words, target = parts_of(line)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    if target is not None:
        Path(target).write_text(done.stdout, "utf-8")


def here(page: str) -> list[str]:
    """Commands of a page that this machine can run."""
    return [line for line in shown(ROOT / page) if not ELSEWHERE.search(line)]


def fill_in() -> None:
    """Do what a user does in QGIS: give each point of clicks.gpkg a class."""
    points = gpd.read_file("clicks.gpkg", layer="clicks")
    points["class"] = [("water", "forest")[number % 2] for number in range(len(points))]
    Path("clicks.gpkg").unlink()
    points.to_file("clicks.gpkg")


def test_the_readmes_commands_run(ground):
    for line in here("README.md"):
        run(line)
        if "suggest" in line:
            fill_in()
    assert Path("scene_resegeo/scene.other.classes.tif").exists()


def test_the_classes_that_pages_show_are_read(ground):
    for page in ("README.md", "examples/guide/class-files.md"):
        (text,) = blocks(ROOT / page, "yaml")
        Path("shown.yml").write_text(text)
        run("resegeo classes check shown.yml")


def test_the_lines_of_python_run(ground):
    (text,) = blocks(ROOT / "examples/guide/python.md", "python")
    names: dict[str, object] = {}
    exec(compile(text, "python.md", "exec"), names)
    assert isinstance(names["codes"], xr.DataArray)
    assert Path("out/scene.classes.tif").exists()


def test_the_commands_about_clicks_run(ground):
    for line in here("examples/guide/clicks.md"):
        run(line)
        if "suggest" in line:
            fill_in()
    assert Path("other_resegeo/other.classes.tif").exists()


@pytest.mark.slow
def test_the_commands_about_evaluation_run(ground, make_raster):
    Path("mapped.yml").write_text("classes: [water, forest, road, building]")
    run("resegeo segment scene.tif --prompts mapped.yml -o out --segments none")
    shutil.copy("out/scene.classes.tif", "truth.tif")
    without = {"driver": "PNG", "crs": None, "transform": None}
    make_raster("mask.png", np.full((1, 80, 96), 255, np.uint8), **without)
    make_raster("truth.png", np.full((3, 80, 96), 60, np.uint8), **without)
    Path("colours.yml").write_text(yaml.safe_dump({"#3C3C3C": "building"}))
    Path("pairs.csv").write_text("prediction,truth\nout/scene.classes.tif,mask.png\n")
    for line in here("examples/guide/evaluation.md"):
        if not {"config.yml", "truth/", "calibrate", "calibrated.yml"} & set(line.split()):  # truths of theirs
            run(line)
        if "sample" in line:
            points = gpd.read_file("points.gpkg", layer="points")
            points["class_name"] = "water"
            Path("points.gpkg").unlink()
            points.to_file("points.gpkg")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["batch", "large-scenes"])
def test_the_commands_of_large_jobs_run(ground, page):
    for line in here(f"examples/guide/{page}.md"):
        run(line)


@pytest.mark.slow
def test_the_commands_with_options_run(ground):
    for line in here("examples/guide/options.md"):
        for folder in ground.glob("*_resegeo"):
            shutil.rmtree(folder)
        if "vectorize" in line:
            run("resegeo segment scene.tif --prompts classes.yml -o out --segments none")
        if "R_G_B_IR.png" in line:
            bands = np.random.default_rng(0).integers(1, 255, (64, 64, 4), dtype=np.uint8)
            Image.fromarray(bands, "RGBA").save("R_G_B_IR.png")
        run(line)
