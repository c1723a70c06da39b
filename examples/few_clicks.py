"""What a few clicks add to words: IoU against the number of points, through the command line.

For each held-out picture of a road, solar panels, a forest or water, and for buildings of Dubai, so many points are
drawn by a fixed seed inside the class and as many beside it (called `other`, a class without words), and given to
`resegeo segment STORE --examples`. Points themselves are not judged. The random forest is fitted on the colours of the
same points' pixels. A row is the median over pictures.

    python examples/few_clicks.py --data ../shared/data --out few_clicks.json --limit 2
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from bundled_model_data import MEASURED, measured_pictures
from measuring import FALSE, TRUE, limited, markdown, write_classes, write_json, write_scene
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from resegeo_cli.main import main as command_line

POINTS = (5, 25, 100)
BUILDING = (0x3C, 0x10, 0x98)
"""Colour of buildings in the masks of Dubai."""
UNLABELLED = (0x9B, 0x9B, 0x9B)
SIDE = 600
"""Largest side of a picture of Dubai that is looked at."""


def buildings(data: Path, folder: Path, limit: int) -> list[tuple[Path, Path, str]]:
    """Write pictures of Dubai with buildings and their truths."""
    found = []
    for mask in sorted((data / "labelled/dubai_tiles").glob("tile8*.png"))[:limit]:
        colours = np.asarray(Image.open(mask).convert("RGB"))[:SIDE, :SIDE]
        rgb = np.asarray(Image.open(mask.with_suffix(".jpg")).convert("RGB"))[:SIDE, :SIDE]
        true, unknown = (colours == BUILDING).all(axis=2), (colours == UNLABELLED).all(axis=2)
        scene, truth = folder / f"{mask.stem}.png", folder / f"{mask.stem}.truth.png"
        Image.fromarray(rgb).save(scene)
        Image.fromarray(np.where(true, TRUE, np.where(unknown, 0, FALSE)).astype(np.uint8)).save(truth)
        found.append((scene, truth, "building"))
    return found


def drawn(truth: NDArray[np.uint8], count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Places (P, 2) as row and column, ``count`` inside the class and as many beside it, and which are inside."""
    random = np.random.default_rng(seed)
    inside, beside = np.argwhere(truth == TRUE), np.argwhere(truth == FALSE)
    places = [each[random.permutation(len(each))[:count]] for each in (inside, beside)]
    return np.concatenate(places), np.repeat([True, False], [len(each) for each in places])


def iou(said: NDArray[np.bool_], truth: NDArray[np.uint8], places: NDArray[np.int64] | None = None) -> float:
    """Intersection over union where the truth is known, the points given left out."""
    judged = (truth == TRUE) | (truth == FALSE)
    if places is not None:
        judged[places[:, 0], places[:, 1]] = False
    true = truth == TRUE
    return float((said & true & judged).sum() / max(1, ((said | true) & judged).sum()))


def labelled(scene: Path, prompts: Path, folder: Path, name: str, *options: str) -> NDArray[np.bool_]:
    """Run the command line and return where its class raster shows a class."""
    arguments = ["segment", str(scene), "--prompts", str(prompts), "-o", str(folder), "--vector", "none", *options]
    command_line([*arguments, "--overwrite"], standalone_mode=False)
    stem = f"{scene.name.removesuffix('.store.zarr')}.{prompts.stem}" if scene.suffix == ".zarr" else scene.stem
    from resegeo.outputs.raster import read_class_raster_info

    raster = folder / f"{stem}.classes.tif"
    classes, _ = read_class_raster_info(raster)
    code = next(spec.code for spec in classes.classes if spec.name == name)
    with rasterio.open(raster) as opened:
        return np.asarray(opened.read(1) == code)


def by_colours(rgb: NDArray[np.uint8], places: NDArray[np.int64], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Labels of a random forest on the colours of pixels."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(n_estimators=100, random_state=0)
    model.fit(rgb[places[:, 0], places[:, 1]], inside)
    return np.asarray(model.predict(rgb.reshape(-1, 3)).reshape(rgb.shape[:2]), dtype=bool)


def measured(scene: Path, truth_file: Path, name: str, prompts: Path, folder: Path) -> dict[str, Any]:
    """IoU of one picture with words alone, with each number of points, and of the random forest."""
    truth, rgb = np.asarray(Image.open(truth_file)), np.asarray(Image.open(scene).convert("RGB"))
    found: dict[str, Any] = {"class": name, "picture": scene.stem}
    found["words"] = iou(labelled(scene, prompts, folder, name, "--keep-features"), truth)
    store = folder / f"{scene.stem}.store.zarr"
    for count in POINTS:
        places, inside = drawn(truth, count, seed=count)
        clicks = folder / f"{scene.stem}-{count}.gpkg"
        where = shapely.points(places[:, 1] + 0.5, -(places[:, 0] + 0.5))
        gpd.GeoDataFrame({"class": np.where(inside, name, "other")}, geometry=where).to_file(clicks)
        said = labelled(store, prompts, folder, name, "--examples", str(clicks))
        found[f"clicks {count}"] = iou(said, truth, places)
        found[f"colours {count}"] = iou(by_colours(rgb, places, inside), truth, places)
    return found


def main() -> None:
    """Parse the command line, measure every picture, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with `labelled` and `scenes`")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures, rewritten each time")
    parser.add_argument("--limit", type=int, default=4, help="at most so many pictures a class")
    args = parser.parse_args()
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    pictures = limited(measured_pictures(args.data, test=True), args.limit, list(MEASURED))
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="resegeo-clicks-") as name:
        folder = Path(name)
        prompts = folder / "classes.yml"
        write_classes(prompts)
        scenes = [(*write_scene(picture, folder), MEASURED[picture.source]) for picture in pictures]
        scenes += buildings(args.data, folder, args.limit)
        for scene, truth, wanted in scenes:
            figures.append(measured(scene, truth, wanted, prompts, folder / "out"))
            write_json(args.out, {"pictures": figures})
    print(table(figures))


def table(figures: list[dict[str, Any]]) -> str:
    """Make the table of all classes."""
    columns = ["words", *(f"{kind} {count}" for count in POINTS for kind in ("clicks", "colours"))]
    rows = []
    for name in dict.fromkeys(each["class"] for each in figures):
        own = [each for each in figures if each["class"] == name]
        rows.append([name, len(own), *(f"{np.median([each[column] for each in own]):.2f}" for column in columns)])
    return markdown(["class", "pictures", *columns], rows)


if __name__ == "__main__":
    main()
