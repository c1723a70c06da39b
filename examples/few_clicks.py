"""What a few clicks add to words: IoU against the number of points, through the command line.

For held-out pictures of roads, solar panels, buildings, water and forest, so many points are drawn by a fixed seed
inside the class and as many beside it (called `other`, a class without words), and given to
`resegeo segment STORE --examples`. Points themselves are not judged. The random forest is fitted on the colours of the
same points' pixels. Points are drawn several times, since 25 of them are more or less lucky; a figure of a picture is
the mean over draws, a row the median over pictures.

    python examples/few_clicks.py --data ../shared/data --out few_clicks.json --limit 2
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from bundled_model_data import answer_key, measured_pictures
from measuring import FALSE, TRUE, UNKNOWN, markdown, write_classes, write_json
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rasterio.errors import NotGeoreferencedWarning

from resegeo_cli.main import main as command_line

POINTS = (5, 25, 100)
ASKED = (("road", "road"), ("solar_panel", "solar panel"), ("dubai", "building"), ("naip", "water"), ("forest", "tree"))
"""Set and class of the pictures that are looked at."""
SIDE = 600
"""Largest side of a picture that is looked at."""


def pictures_of(data: Path, folder: Path, limit: int) -> list[tuple[Path, Path, str]]:
    """Write held-out pictures and the truths of the class that is asked for in each; return paths and class."""
    found = []
    held_out = measured_pictures(data, test=True)
    for source, name in ASKED:
        count = 0
        for picture in (picture for picture in held_out if picture.source == source):
            part = replace(picture, rgb=picture.rgb[:SIDE, :SIDE], codes=picture.codes[:SIDE, :SIDE])
            true, known = answer_key(part, name)
            if min((true & known).sum(), (known & ~true).sum()) < 0.005 * known.size:
                continue  # too little to draw points from and to judge the rest
            scene = folder / f"{picture.name.replace('/', '_')}.png"
            truth = scene.with_suffix(".truth.png")
            Image.fromarray(part.rgb).save(scene)
            Image.fromarray(np.where(true, TRUE, np.where(known, FALSE, UNKNOWN)).astype(np.uint8)).save(truth)
            found.append((scene, truth, name))
            count += 1
            if count == limit:
                break
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


def measured(scene: Path, truth_file: Path, name: str, prompts: Path, folder: Path, draws: int) -> dict[str, Any]:
    """IoU of one picture with words alone, with each number of points, and of the random forest."""
    truth, rgb = np.asarray(Image.open(truth_file)), np.asarray(Image.open(scene).convert("RGB"))
    found: dict[str, Any] = {"class": name, "picture": scene.stem}
    found["words"] = iou(labelled(scene, prompts, folder, name, "--keep-features"), truth)
    store = folder / f"{scene.stem}.store.zarr"
    for count, draw in product(POINTS, range(draws)):
        places, inside = drawn(truth, count, seed=count + 1000 * draw)
        clicks = folder / f"{scene.stem}-{count}-{draw}.gpkg"
        where = shapely.points(places[:, 1] + 0.5, -(places[:, 0] + 0.5))
        gpd.GeoDataFrame({"class": np.where(inside, name, "other")}, geometry=where).to_file(clicks)
        said = labelled(store, prompts, folder, name, "--examples", str(clicks))
        for kind, where_said in (("clicks", said), ("colours", by_colours(rgb, places, inside))):
            key = f"{kind} {count}"
            found[key] = found.get(key, 0.0) + iou(where_said, truth, places) / draws
    return found


def main() -> None:
    """Parse the command line, measure every picture, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with `labelled` and `scenes`")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures, rewritten each time")
    parser.add_argument("--figure", type=Path, help="PNG of the curves")
    parser.add_argument("--limit", type=int, default=4, help="at most so many pictures a class")
    parser.add_argument("--draws", type=int, default=3, help="how often points are drawn")
    args = parser.parse_args()
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="resegeo-clicks-") as name:
        folder = Path(name)
        prompts = folder / "classes.yml"
        write_classes(prompts)
        for scene, truth, wanted in pictures_of(args.data, folder, args.limit):
            figures.append(measured(scene, truth, wanted, prompts, folder / "out", args.draws))
            write_json(args.out, {"pictures": figures})
    print(table(figures))
    if args.figure is not None:
        draw(figures, args.figure)


def draw(figures: list[dict[str, Any]], path: Path) -> None:
    """Draw a panel a class: IoU against the points a class, of words and clicks (blue) and of the forest (orange)."""
    names = list(dict.fromkeys(each["class"] for each in figures))
    side, margin = 150, 30
    page = Image.new("RGB", (margin + len(names) * (side + margin), side + 3 * margin), "white")
    pen = ImageDraw.Draw(page)
    for number, name in enumerate(names):
        own = [each for each in figures if each["class"] == name]
        left, low = margin + number * (side + margin), margin + side
        pen.rectangle((left, margin, left + side, low), outline="#aaaaaa")
        pen.text((left, margin - 15), name, fill="black")
        for share in (0.25, 0.5, 0.75, 1.0):
            pen.text((left - 24, low - share * side - 6), f"{share:.2f}", fill="#777777")
        across = {0: 0.0} | {count: side * (0.3 + 0.33 * step) for step, count in enumerate(POINTS)}
        for count, x in across.items():
            pen.text((left + x - 4, low + 3), str(count), fill="#777777")
        for kind, color, first in (("clicks", "#0072b2", "words"), ("colours", "#e69f00", None)):
            columns = ([(0, first)] if first else []) + [(count, f"{kind} {count}") for count in POINTS]
            spots = [
                (left + across[count], low - side * float(np.median([each[column] for each in own])))
                for count, column in columns
            ]
            pen.line(spots, fill=color, width=2)
            for x, y in spots:
                pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=color)
    pen.text((margin, side + 2 * margin - 5), "words, then words and clicks", fill="#0072b2")
    pen.text((margin + 200, side + 2 * margin - 5), "random forest on colours", fill="#e69f00")
    pen.text((margin + 380, side + 2 * margin - 5), "IoU against points a class", fill="#777777")
    page.save(path, optimize=True)


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
