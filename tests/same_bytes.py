"""Whether the outputs of a fixed set of runs are the same bytes as before: record them, change the code, compare.

    python tests/same_bytes.py record FILE.json
    python tests/same_bytes.py compare FILE.json
    python tests/same_bytes.py compare FILE.json --only NAME     (runs whose name holds NAME)

The runs take every kind of scene (uint16 with 13 bands, alpha, nodata, rotated, ground control points, EPSG:4326), each
executor, a killed run that goes on, new words, a batch, a mosaic, every polygon format, and the knobs that act on
labels and polygons. They use commands and options alone, and `resegeo.segment` where a run has to be killed: the same
script runs before and after a change of the insides. Compared are all files but reports and lists, which hold dates and
seconds; of a scene's report its pixels a class. Files that are new are told and are no fault. It records versions too,
since other versions of the libraries may write other bytes. Two minutes on one core.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import hashlib
import io
import json
import multiprocessing
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import geopandas
import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, from_origin
from shapely import Polygon, to_wkb

DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo"
VERSIONS = (
    "torch",
    "open_clip_torch",
    "rasterio",
    "pyogrio",
    "geopandas",
    "shapely",
    "numpy",
    "scikit-image",
    "pillow",
)
TIME = 1_700_000_000
"""Of all inputs: what is made of them must not depend on when they were written."""

CLASSES = """\
templates: ["an aerial photo of {}"]
threshold: 0.2
classes:
  - name: water
    prompts: [water, lake, river]
    color: "#2b83ba"
  - {name: forest, prompts: [forest, trees]}
  - {name: cropland, threshold: 0.3}
  - name: road
  - {name: shadow, background: true}
"""
OTHER = """\
classes: [grass, building, bare soil, {name: "Wälder, nass", prompts: [wetland, marsh]}]
"""

# scenes


def picture(height: int, width: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    """Blobs of colour with noise (b, h, w), 20 to 250."""
    random = np.random.default_rng(seed)
    coarse = random.integers(20, 235, (bands, height // 30 + 1, width // 30 + 1))
    fine = np.kron(coarse, np.ones((1, 30, 30)))[:, :height, :width]
    return np.clip(fine + random.integers(-15, 16, fine.shape), 20, 250).astype(np.uint8)


def write(name: str, bands: np.ndarray, **profile: Any) -> None:
    """A GeoTIFF in the current folder; any option of rasterio's profile by keyword, None for none."""
    gcps = profile.pop("gcps", None)
    alpha = profile.pop("alpha", False)
    options: dict[str, Any] = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_200_000, 10, 10)}
    options |= {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    options |= {"dtype": bands.dtype, "tiled": True, "blockxsize": 64, "blockysize": 64, **profile}
    with rasterio.open(name, "w", **{key: value for key, value in options.items() if value is not None}) as raster:
        raster.write(bands)
        if gcps is not None:
            raster.gcps = gcps
        if alpha:
            raster.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)


def make_inputs() -> None:
    """All scenes, class files and areas, in the current folder."""
    plain = picture(190, 230)
    write("plain.tif", plain)
    hole = plain.copy()
    hole[:, 40:110, 60:170] = 0
    write("nodata.tif", hole, nodata=0)
    write("rotated.tif", plain, transform=Affine(9, 2, 500_000, 2, -9, 5_200_000))
    write("degrees.tif", plain, crs="EPSG:4326", transform=from_origin(14.0, 47.0, 1e-4, 1e-4))
    write("nocrs.tif", plain, crs=None)
    points = [GroundControlPoint(r, c, 14 + c / 9000, 47 - r / 9000, 0) for r in (0, 95, 190) for c in (0, 115, 230)]
    write("gcps.tif", plain, crs=None, transform=None, gcps=(points, CRS.from_epsg(4326)))
    sentinel = picture(190, 230, 13, seed=1).astype(np.uint16) * 14
    write("sentinel.tif", sentinel, nodata=0)
    clear = np.full((1, 190, 230), 255, np.uint8)
    clear[0, :60, :90] = 0
    write("alpha.tif", np.concatenate([plain, clear]), alpha=True)
    write("small.tif", plain[:, :70, :90])
    for number in range(2):  # tiles of one grid
        tile = plain[:, :, number * 115 : number * 115 + 115]
        write(f"tile{number}.tif", tile, transform=from_origin(500_000 + number * 1150, 5_200_000, 10, 10))
    labels = (np.arange(190)[:, None] // 24 * 12 + np.arange(230)[None] // 24 + 1).astype(np.int32)
    write("labels.tif", labels[None])

    def box(left: float, top: float, right: float, bottom: float) -> Polygon:
        pixels = [(left, top), (right, top), (right, bottom), (left, bottom)]
        return Polygon([(500_000 + 10 * x, 5_200_000 - 10 * y) for x, y in pixels])

    fields = [box(x, y, x + 40, y + 35) for x in range(0, 220, 45) for y in range(0, 180, 40)]
    geopandas.GeoDataFrame({"id": range(len(fields))}, geometry=fields, crs="EPSG:32633").to_file("fields.geojson")
    area = Polygon([(500_100, 5_199_900), (502_200, 5_199_700), (501_500, 5_198_200), (500_300, 5_198_600)])
    geopandas.GeoDataFrame({"id": [1]}, geometry=[area], crs="EPSG:32633").to_crs(4326).to_file("area.geojson")
    Path("classes.yml").write_text(CLASSES, "utf-8")
    Path("other.yml").write_text(OTHER, "utf-8")
    Path("knobs.yml").write_text("local_radius: 1\nlogit_scale: 60\n", "utf-8")
    Path("scenes.csv").write_text('scene,gsd,bands\nplain.tif,,\nnodata.tif,15,\nsentinel.tif,,"4,3,2"\n', "utf-8")
    for name in ("sentinel2.tif", "landsat.tif"):
        shutil.copy(DEMO / name, name)
    shutil.copy(DEMO / "classes.yml", "demo.yml")
    for path in Path().iterdir():
        os.utime(path, (TIME, TIME))


# runs


def resegeo(*words: str) -> None:
    """Run a command in this process."""
    from resegeo_cli.main import main

    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main(list(words), standalone_mode=False)
        except SystemExit as error:
            if error.code not in (0, None):
                raise RuntimeError(f"resegeo {' '.join(words)}: exit code {error.code}: {said.getvalue()}") from error


def segment(*words: str, prompts: str = "classes.yml") -> Callable[[str], None]:
    """A run of `segment` into a folder."""
    return lambda out: resegeo("segment", *words, "--prompts", prompts, "-o", out, "-q")


def batch(*words: str) -> Callable[[str], None]:
    """A run of `batch` into a folder."""
    return lambda out: resegeo("batch", *words, "--prompts", "classes.yml", "-o", out, "-q")


def dies(out: str, calls: int, **options: Any) -> NoReturn:
    """Segment nodata.tif, and die by SIGKILL when progress was called so many times."""
    import resegeo as library

    told = iter(range(calls - 1))

    def progress(stage: str, done: int, total: int) -> None:
        if next(told, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    with contextlib.suppress(BaseException):
        library.segment("nodata.tif", "classes.yml", out, progress=progress, **options)
    os._exit(9)


def killed_and_gone_on(out: str) -> None:
    """A run that is killed twice, among the windows and among the last stages, and then goes on."""
    for calls in (2, 6):
        # A process of its own from the start: a fork of one whose threads have computed may wait for them for ever.
        child = multiprocessing.get_context("spawn").Process(
            target=dies, args=(out, calls), kwargs={"stride": 16, "vector": ("gpkg", "geojson")}
        )
        child.start()
        child.join()
        if child.exitcode != -signal.SIGKILL:
            raise RuntimeError("the run that should have been killed had ended")
    segment("nodata.tif", "--stride", "16", "--vector", "gpkg,geojson")(out)


def with_other_words(out: str) -> None:
    """New words for a finished scene."""
    resegeo("segment", "nodata.tif", "--prompts", "classes.yml", "-o", out, "-q")
    resegeo("segment", f"{out}/nodata.store.zarr", "--prompts", "other.yml", "-o", out, "-q")


def overwritten(out: str) -> None:
    """The same folder with other options, the store used again."""
    resegeo("segment", "plain.tif", "--prompts", "classes.yml", "-o", out, "-q")
    resegeo("segment", "plain.tif", "--prompts", "other.yml", "-o", out, "-q", "--overwrite", "--min-area", "9")


def vectorized(out: str) -> None:
    """Every format from a finished raster."""
    resegeo("segment", "plain.tif", "--prompts", "classes.yml", "-o", out, "-q", "--vector", "none")
    for suffix in ("gpkg", "shp", "geojson", "fgb", "parquet", "kml"):
        resegeo("vectorize", f"{out}/plain.classes.tif", "-o", f"{out}/again.{suffix}", "--simplify", "1", "-q")


ALL = "gpkg,shp,geojson,fgb,parquet,kml"
RUNS: dict[str, Callable[[str], None]] = {
    "plain, every format": segment("plain.tif", "--vector", ALL),
    "nodata": segment("nodata.tif", "--stride", "16", "--vector", "gpkg,geojson"),
    "nodata, read ahead 0": segment("nodata.tif", "--stride", "16", "--vector", "gpkg,geojson", "--read-ahead", "0"),
    "nodata, killed": killed_and_gone_on,
    "rotated": segment("rotated.tif", "--vector", "gpkg,fgb"),
    "degrees": segment("degrees.tif", "--vector", ALL),
    "ground control points": segment("gcps.tif", "--vector", "gpkg,geojson"),
    "no CRS": segment("nocrs.tif"),
    "no CRS, assigned": segment("nocrs.tif", "--assign-crs", "EPSG:32632"),
    "13 bands": segment("sentinel.tif", "--bands", "4,3,2", "--vector", "gpkg,parquet"),
    "13 bands, stretch": segment("sentinel.tif", "--bands", "8,4,3", "--stretch", "300:3000", "--vector", "none"),
    "alpha": segment("alpha.tif"),
    "smaller than a window": segment("small.tif"),
    "other words": with_other_words,
    "overwritten": overwritten,
    "vectorized": vectorized,
    "min area, simplify, background": segment(
        "nodata.tif", "--min-area", "25", "--simplify", "1.5", "--keep-background", "--vector", "gpkg,shp"
    ),
    "votes, CLS, self-self": segment(
        "plain.tif", "--vote-segments", "--subtract-cls", "0.3", "--self-self", "--settings", "knobs.yml"
    ),
    "mean, no taper, overhang": segment(
        "plain.tif", "--reduction", "mean", "--no-taper", "--edge", "overhang", "--fill", "black", "--no-use-thresholds"
    ),
    "int8": segment("plain.tif", "--feature-dtype", "int8", "--keep-features"),
    "no features": segment("plain.tif", "--no-keep-features"),
    "store discarded": segment("plain.tif", "--discard-store"),
    "gsd": segment("plain.tif", "--gsd", "17", "--vector", "gpkg,geojson"),
    "area": segment("plain.tif", "--aoi", "area.geojson"),
    "box": segment("plain.tif", "--bbox", "500300,5198500,501500,5199500", "--only", "water", "--only", "forest"),
    "no segments": segment("plain.tif", "--segments", "none"),
    "label raster": segment("plain.tif", "--segments", "labels.tif"),
    "polygons as segments": segment("plain.tif", "--segments", "fields.geojson"),
    "two levels": segment("plain.tif", "--superpixel-area", "256,1024", "--segment-layers", "2"),
    "Sentinel-2": segment("sentinel2.tif", prompts="demo.yml"),
    "Landsat": segment("landsat.tif", "--vector", ALL, prompts="demo.yml"),
    "batch": batch("scenes.csv"),
    "mosaic": batch("tile0.tif", "tile1.tif", "--mosaic", "both"),
    "two workers": segment("nodata.tif", "--stride", "16", "--vector", "gpkg,geojson", "--cluster", "2"),
    "batch, two workers": batch("plain.tif", "nodata.tif", "--cluster", "2"),
}
EQUAL = [("nodata", other) for other in ("nodata, read ahead 0", "nodata, killed", "two workers")]
"""Runs that must agree with one another, whatever the code before wrote."""

# what they left


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def content(path: Path) -> str | None:
    """Checksum of what a raster's pixels or a layer's shapes and fields are, by which a difference is understood."""
    if path.suffix == ".tif":
        with rasterio.open(path) as raster:
            return digest(raster.read().tobytes())
    if path.suffix in (".gpkg", ".shp", ".geojson", ".fgb", ".parquet", ".kml"):
        frame = geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path, layer=0)
        shapes = b"".join(to_wkb(frame.geometry.values))
        return digest(shapes + frame.drop(columns=frame.geometry.name).to_csv(index=False).encode())
    return None


def left(folder: Path, *, deep: bool = True) -> dict[str, list[str]]:
    """Checksums of a folder's files: of the bytes, and if ``deep``, where it can be told, of the content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") or part.endswith(".store.zarr") for part in path.relative_to(folder).parts)
        if not path.is_file() or hidden or path.name.startswith("batch."):
            continue
        if path.suffix == ".qgz":  # which names the scene as seen from here
            continue
        if path.suffix == ".json":
            pixels = json.loads(path.read_text("utf-8")).get("pixels")
            found[name] = [digest(json.dumps(pixels, sort_keys=True).encode())]
        else:
            found[name] = [digest(path.read_bytes()), *filter(None, [content(path) if deep else None])]
    return found


def run_all(only: str = "") -> dict[str, dict[str, list[str]]]:
    """Do the runs in a new folder and return what each left."""
    results = {}
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as name:
        os.chdir(name)
        try:
            make_inputs()
            for number, (what, run) in enumerate(RUNS.items()):
                if only in what:
                    began = time.monotonic()
                    try:
                        run(f"out{number}")
                        results[what] = left(Path(f"out{number}"))
                    except Exception as error:  # the next run is to be seen all the same
                        results[what] = {"": [f"{type(error).__name__}: {error}"[:600]]}
                    print(f"{what}: {len(results[what])} files, {time.monotonic() - began:.1f} s", flush=True)
        finally:
            os.chdir(before)
    return results


def differences(one: dict[str, list[str]], two: dict[str, list[str]]) -> list[str]:
    """Say which files of a run differ from those before."""
    said = []
    for name, (before, *rest) in one.items():
        if name not in two:
            said.append(f"{name or two} is not there" if name else before)
        elif two[name][0] != before:
            same = rest and two[name][1:] == rest
            said.append(f"{name} differs" + (", though its content is the same" if same else ""))
    if "" in two:
        said.append(two[""][0])
    return said


def main() -> int:
    warnings.simplefilter("ignore")
    words = sys.argv[1:]
    only = words.pop(words.index("--only") + 1) if "--only" in words else ""
    words = [word for word in words if word != "--only"]
    if len(words) != 2 or words[0] not in ("record", "compare"):
        print(__doc__)
        return 2
    file = Path(words[1]).resolve()
    versions = {package: version(package) for package in VERSIONS}
    found = run_all(only)
    faults = [f"{what}: {files[''][0]}" for what, files in found.items() if "" in files]
    for what, other in EQUAL:
        if what in found and other in found:
            faults += [f"{other}, against {what}: {one}" for one in differences(found[what], found[other])]
    if words[0] == "record":
        file.write_text(json.dumps({"versions": versions, "runs": found}, indent=1), "utf-8")
    else:
        said = json.loads(file.read_text("utf-8"))
        if said["versions"] != versions:
            print("Note: recorded with other versions of libraries:", said["versions"])
        for what, files in said["runs"].items():
            if only in what:
                now = found.get(what, {})
                faults += [f"{what}: {one}" for one in differences(files, now)]
                for fresh in sorted(now.keys() - files.keys() - {""}):
                    print(f"Note: {what}: {fresh} is new")
    print(*faults, sep="\n")
    print(f"{len(found)} runs, {sum(map(len, found.values()))} files, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
