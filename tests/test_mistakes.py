"""Mistakes a user can make in a command, a class file or a settings file: each is answered by one sentence.

The sentences stand in ``mistakes.txt``, to be read by a human; ``python tests/show_mistakes.py`` writes them anew.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from click.testing import CliRunner
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasters import write_raster
from safetensors import safe_open
from safetensors.torch import save_file

import resegeo
from resegeo.checkpoints.sources import resolve_model
from resegeo_cli.main import main

SENTENCES = Path(__file__).with_name("mistakes.txt")

USUAL = "segment scene.tif --prompts classes.yml"


@dataclass(frozen=True)
class Mistake:
    """A command, and the text of ``mine.yml`` where the mistake is in that file."""

    command: str
    file: str = ""

    def __str__(self) -> str:
        shown = "".join(f"    {line}\n" for line in self.file.splitlines())
        return (f"mine.yml:\n{shown}" if shown else "") + f"$ resegeo {self.command}\n"


COMMANDS = [
    # the words of a command
    "segmnt",
    "segment",
    "segment scene.tif",
    "segment scene.tif --prompts",
    "segment scene.tif --promts classes.yml",
    f"{USUAL} water forest",
    "info",
    "vectorize scene.tif",
    "classes chek classes.yml",
    # the scene
    "segment missing.tif --prompts classes.yml",
    "segment '' --prompts classes.yml",
    "segment images --prompts classes.yml",
    "segment classes.yml --prompts classes.yml",
    "segment polygons.gpkg --prompts classes.yml",
    "segment empty.tif --prompts classes.yml",
    "segment cut.tif --prompts classes.yml",
    "segment mosaic.vrt --prompts classes.yml",
    "segment complex.tif --prompts classes.yml",
    "segment dark.tif --prompts classes.yml",
    "segment lost.tif --prompts classes.yml",
    "segment http://127.0.0.1:9/scene.tif --prompts classes.yml",
    "segment /vsizip/none.zip/scene.tif --prompts classes.yml",
    "info missing.tif",
    "info empty.tif",
    "info scene.tif --bands 7,8,9",
    # how it is read
    f"{USUAL} --bands 1,2,9",
    f"{USUAL} --bands 0,1,2",
    f"{USUAL} --bands 1,2",
    f"{USUAL} --bands red,green,blue",
    f"{USUAL} --stretch 9:3",
    f"{USUAL} --stretch 200-3000",
    f"{USUAL} --stretch 0:inf",
    f"{USUAL} --assign-crs EPSG:1",
    f"{USUAL} --assign-crs UTM33",
    # where
    f"{USUAL} --aoi missing.gpkg",
    f"{USUAL} --aoi other.tif",
    f"{USUAL} --aoi points.gpkg",
    f"{USUAL} --aoi far.geojson",
    f"{USUAL} --aoi polygons.gpkg --bbox 500000,5199000,500500,5199500",
    f"{USUAL} --bbox 500000,5199000,500500",
    f"{USUAL} --bbox 500500,5199000,500000,5199500",
    f"{USUAL} --bbox 10,50,11,51",
    f"{USUAL} --bbox 500001,5199991,500002,5199992",
    "segment points.tif --prompts classes.yml --aoi polygons.gpkg",
    # a result measured
    "evaluate",
    "evaluate scene.tif scene.tif",
    "evaluate finished/scene.classes.tif missing.tif",
    "evaluate finished/scene.classes.tif other.tif",
    "evaluate finished/scene.classes.tif other.tif --map 255",
    "evaluate finished/scene.classes.tif scene.tif --map 7=lake",
    "evaluate finished/scene.classes.tif polygons.gpkg",
    "evaluate finished/scene.classes.tif polygons.gpkg --field crop",
    "evaluate --pairs missing.csv",
    "evaluate finished missing",
    "evaluate finished foreign",
    "evaluate images finished",
    "evaluate finished/scene.classes.tif finished/scene.classes.tif --bootstrap 100",
    "evaluate finished/scene.classes.tif finished/scene.classes.tif --ignore-border 9km",
    "evaluate finished/scene.classes.tif finished/scene.classes.tif --boundary wide",
    "evaluate finished/scene.classes.tif points.gpkg --design --latex",
    "calibrate finished/scene.store.zarr finished/scene.classes.tif --prompts classes.yml -o classes.yml",
    "calibrate scene.tif finished/scene.classes.tif --prompts classes.yml -o new.yml",
    "calibrate finished/scene.store.zarr missing.tif --prompts classes.yml -o new.yml",
    # a page of it
    "report missing",
    "report images",
    "report finished -o page.txt",
    "report finished --truth missing.tif",
    # words tried
    "try scene.tif --prompts classes.yml -o sheet.jpg",
    "try scene.tif --prompts classes.yml -o scene.png -n 0",
    "try finished/scene.store.zarr --prompts classes.yml",
    # words
    "segment scene.tif --prompts missing.yml",
    "segment scene.tif --prompts scene.tif",
    "segment scene.tif --prompts images",
    f"{USUAL} --only lake",
    f"{USUAL} --only Water",
    f"{USUAL} --regularize house",
    f"{USUAL} --append a.shp",
    f"{USUAL} --append nowhere/a.gpkg",
    f"{USUAL} --append polygons.gpkg",
    f"{USUAL} --append scene_resegeo/scene.gpkg",
    "classes check missing.yml",
    # segments
    f"{USUAL} --segments slic",
    f"{USUAL} --segments sam",
    f"{USUAL} --segments other.tif",
    f"{USUAL} --segments float.tif",
    f"{USUAL} --segments elsewhere.tif",
    f"{USUAL} --segments classes.yml",
    f"{USUAL} --segments points.gpkg",
    f"{USUAL} --segments far.geojson",
    f"{USUAL} --segments scene.tif",
    f"{USUAL} --segments zone.tif",
    f"{USUAL} --segments other.tif,float.tif",
    f"{USUAL} --segments sam --sam-checkpoint sam.pth",
    f"{USUAL} --segments sam --sam-checkpoint scene.tif",
    f"{USUAL} --segments sam --sam-checkpoint scene.tif --sam-arch vit_x",
    f"{USUAL} --sam-mode quick",
    f"{USUAL} --cluster 0",
    f"{USUAL} --cluster many",
    f"{USUAL} --store classes.yml",
    f"{USUAL} --store ''",
    f"{USUAL} --store nosuch://place",
    f"{USUAL} -o ''",
    "plan scene.tif --prompts classes.yml --store classes.yml",
    "plan scene.tif --prompts classes.yml --store nosuch://place",
    "plan scene.tif --prompts classes.yml --cluster many",
    "plan scene.tif --prompts classes.yml -o classes.yml/results",
    f"{USUAL} --stride 32 --overlap 0.5",
    f"{USUAL} --superpixel-area large",
    f"{USUAL} --superpixel-area 1",
    # the scale
    f"{USUAL} --gsd 0",
    f"{USUAL} --gsd nan",
    f"{USUAL} --gsd 10px",
    f"{USUAL} --gsd 1000000",
    "segment bare.tif --prompts classes.yml --gsd 0.5",
    "segment line.tif --prompts classes.yml --gsd 0.5",
    # the method
    f"{USUAL} --overlap 1.5",
    f"{USUAL} --overlap 0.5 --stride 64",
    f"{USUAL} --threshold 30",
    f"{USUAL} --free-layers 9",
    f"{USUAL} --segment-layers 99",
    f"{USUAL} --local-radius -1",
    f"{USUAL} --preset best",
    f"{USUAL} --preset paper",
    f"{USUAL} --last-attention qx",
    f"{USUAL} --resize 0",
    f"{USUAL} --resize 1",
    f"{USUAL} --resize 40 --gsd 20",
    f"{USUAL} --templates mine",
    f"{USUAL} --stride 500",
    f"{USUAL} --stride 0",
    f"{USUAL} --stride half",
    f"{USUAL} --settings missing.yml",
    f"{USUAL} --settings images",
    f"{USUAL} --settings scene.tif",
    # the model
    f"{USUAL} --model clip.pt",
    f"{USUAL} --model nonsense",
    f"{USUAL} --model scene.tif",
    f"{USUAL} --model scene.tif --arch ViT-L14",
    f"{USUAL} --model scene.tif --arch ViT-B-32",
    f"{USUAL} --arch ViT-B-32",
    f"{USUAL} --activation gelu",
    f"{USUAL} --activation relu",
    f"{USUAL} --model openai:ViT-L-14",
    f"{USUAL} --model openai:ViT-L-14 --arch ViT-B-32",
    f"{USUAL} --model openai:ViT-L-14 --activation gelu",
    f"{USUAL} --model compose:missing.yml",
    f"{USUAL} --model compose:classes.yml",
    f"{USUAL} --segments sam --sam-checkpoint sam-vit-b",
    "models fetch remoteclip-l14",
    "models fetch remoteclip-h14",
    "models fetch resegeo-small",
    "models check missing.pt",
    "models check images",
    "models export remoteclip-l14 -o a.zip",
    "models import missing.zip",
    "models import scene.tif",
    "models compose resegeo-small -o a.safetensors",
    "models compose resegeo-small resegeo-small -o a.pt",
    "models compose resegeo-small resegeo-small -o a.safetensors --weights 0.5,0.6",
    "models compose resegeo-small resegeo-small -o a.safetensors --weights best",
    "models compose resegeo-small scene.tif -o a.safetensors",
    "models compose resegeo-small resegeo-small -o a.safetensors --weights 1.000002,0",
    "models compose resegeo-small resegeo-small -o a.safetensors --weights 1.5,-0.5",
    "models compose resegeo-small resegeo-small -o a.safetensors --weights separation --temperature nan",
    "models compose resegeo-small resegeo-small -o classes.yml/a.safetensors",
    "models check cut.safetensors",
    "models check cut.pt",
    "models check ''",
    "models export scene.tif -o a.zip",
    "models export '' -o a.zip",
    "models export resegeo-small.safetensors -o a.zip",
    "models export one/mine.safetensors two/mine.safetensors -o a.zip",
    "models import nothing.zip",
    "models import later.zip",
    f"{USUAL} --model cut.safetensors",
    f"{USUAL} --model nan.safetensors",
    f"{USUAL} --model sam-vit-b",
    f"{USUAL} --model ''",
    f"{USUAL} --model compose:",
    f"{USUAL} --model compose:images",
    f"{USUAL} --device tpu",
    f"{USUAL} --threads 0",
    f"{USUAL} --threads all",
    f"{USUAL} --precision float64",
    # how it runs
    f"{USUAL} --read-ahead -1",
    f"{USUAL} --feature-dtype int4",
    # examples
    *(
        f"segment finished/scene.store.zarr --prompts classes.yml {options}"
        for options in (
            "--examples missing.gpkg",
            "--examples images",
            "--examples scene.tif",
            "--examples classes.yml",
            "--examples ''",
            "--examples clicks/cut.gpkg",
            "--examples clicks/table.csv",
            "--examples clicks/one.gpkg",
            "--examples clicks/beside.gpkg",
            "--examples clicks/blank.gpkg",
            "--examples clicks/kind.gpkg",
            "--examples clicks/kind.gpkg --field sort",
            "--examples clicks/kind.gpkg --field geometry",
            "--examples clicks/number.gpkg",
            "--examples clicks/many.gpkg",
            "--examples clicks/long.gpkg",
            "--examples clicks/nowhere.gpkg",
            "--examples clicks/good.gpkg --softmax-over prompts",
            "--examples clicks/good.gpkg --preset paper",
            "--field class",
            "--examples missing.safetensors",
            "--examples cut.safetensors",
            "--examples resegeo-small.safetensors",
            "--examples fit/scene.fitted.safetensors --reduction mean",
        )
    ),
    "segment finished/scene.store.zarr --prompts lists/classes.yml --examples fit/scene.fitted.safetensors",
    f"{USUAL} --examples clicks/good.gpkg --no-keep-features",
    "segment points.tif --prompts classes.yml --examples clicks/good.gpkg",
    "suggest scene.tif --prompts classes.yml -o a.gpkg",
    "suggest finished/scene.store.zarr --prompts classes.yml -o a.shp",
    "suggest finished/scene.store.zarr --prompts classes.yml -o clicks/good.gpkg",
    "suggest finished/scene.store.zarr --prompts classes.yml -o clicks/good.gpkg --overwrite",
    "suggest finished/scene.store.zarr --prompts lists/classes.yml -o a.gpkg",
    "suggest finished/scene.store.zarr --prompts classes.yml -o a.gpkg --examples clicks/one.gpkg",
    # labels shown in another way
    "segment damaged/scene.store.zarr --prompts classes.yml",
    "segment finished/scene.store.zarr --merge water",
    "segment finished/scene.store.zarr --merge lake,water=wet",
    "segment finished/scene.store.zarr --merge water=",
    "segment finished/scene.store.zarr --merge water=wet --merge water=blue",
    "segment finished/scene.store.zarr --crop",
    "segment finished/scene.store.zarr --aoi far.geojson",
    "segment finished/scene.store.zarr --aoi missing.gpkg --crop",
    "segment finished/scene.store.zarr --bbox 500001,5199991,500002,5199992 --crop",
    "segment finished/scene.store.zarr --colors missing.yml",
    "segment finished/scene.store.zarr --colors lists/other.yml",
    "segment images.store.zarr --colors classes.yml",
    f"{USUAL} --merge lake=wet",
    f"{USUAL} --crop",
    # what was found
    "find",
    "find finished",
    "find nowhere water",
    "find images water",
    "find scene.tif water",
    "find finished ''",
    "find finished water -n 0",
    "find finished water -o a.csv",
    "find finished water -o clicks/good.gpkg",
    "find finished water --field class",
    "find finished lake --examples clicks/good.gpkg",
    "find finished water --examples clicks/one.gpkg",
    "find finished lake --examples fit/scene.fitted.safetensors",
    "find images.store.zarr water",
    "segment missing.store.zarr --prompts classes.yml",
    "segment images.store.zarr --prompts classes.yml",
    # many scenes
    "batch",
    "batch scene.tif",
    "batch missing.tif --prompts classes.yml",
    "batch 'images/*.tif' --prompts classes.yml",
    "batch images --prompts classes.yml",
    "batch scene.tif scene.tif --prompts classes.yml",
    "batch 'scene.*' --prompts classes.yml",
    "batch scene.tif --prompts missing.yml",
    "batch scene.tif --prompts classes.yml --only lake",
    "batch scene.tif --prompts classes.yml --regularize house",
    "batch scene.tif --prompts classes.yml --append a.shp",
    "batch scene.tif --prompts classes.yml --overlap 1.5",
    "batch scene.tif --prompts classes.yml --model nonsense",
    "batch scene.tif --prompts classes.yml --model scene.tif --arch ViT-B-32",
    "batch scene.tif --prompts classes.yml --device tpu",
    "batch scene.tif --prompts classes.yml --cluster 0",
    "batch scene.tif --prompts classes.yml -o classes.yml",
    "batch missing.csv --prompts classes.yml",
    "batch lists/none.csv --prompts classes.yml",
    "batch lists/image.csv --prompts classes.yml",
    "batch lists/strech.csv --prompts classes.yml",
    "batch lists/bands.csv --prompts classes.yml",
    "batch lists/comma.csv --prompts classes.yml",
    "batch lists/overlap.csv --prompts classes.yml",
    "batch lists/words.csv",
    "batch lists/above.csv",
    "batch lists/binary.csv --prompts classes.yml",
    "batch lists/cut.json --prompts classes.yml",
    "batch lists/items.json --prompts classes.yml",
    "batch lists/items.json --prompts classes.yml --asset B09",
    "batch scene.tif other.tif --prompts classes.yml --mosaic district",
    "batch bare.tif scene.tif --prompts classes.yml --mosaic district",
    "batch scene.tif --prompts classes.yml --mosaic a/b",
    "batch lists/overlap.csv --prompts classes.yml --mosaic district",
    # a data set
    "dataset",
    "dataset missing.yml",
    "dataset scene.tif",
    "dataset classes.yml",
    "dataset classes.yml -o set --data tiles --limit 0",
    "batch lists/tile.csv --prompts classes.yml --mosaic district",
    # results
    f"{USUAL} -o classes.yml",
    f"{USUAL} -o classes.yml/results",
    f"{USUAL} -o finished",
    f"{USUAL} -o foreign",
    f"{USUAL} --vector gml",
    f"{USUAL} --vector gpkg,dxf",
    f"{USUAL} --vector ''",
    f"{USUAL} --simplify -1",
    f"{USUAL} --simplify a-little",
    "segment bare.tif --prompts classes.yml --vector geojson",
    "segment site.tif --prompts classes.yml --vector geojson",
    "vectorize missing.tif -o a.gpkg",
    "vectorize scene.tif -o a.gpkg",
    "vectorize scene.tif -o a.dxf",
    "vectorize finished/scene.classes.tif -o a.gpkg --regularize house",
    "vectorize scene.tif -o a",
    "vectorize scene.tif -o scene.tif",
    "vectorize scene.tif -o nowhere/a.gpkg",
    "vectorize scene.tif -o polygons.gpkg",
    "vectorize scene.tif -o a.gpkg --min-area -1",
]

CLASS_FILES = [
    "# nothing yet\n",
    "- water\n- forest\n",
    "clases: [water]\n",
    "classes: []\n",
    "classes: water\n",
    "classes:\n  water: [lake]\n",
    "classes:\n  - name: water\n    promts: [lake]\n",
    "classes:\n  - prompts: [lake]\n",
    "classes:\n  - name:\n",
    "classes: [water, Water]\n",
    "classes:\n  - name: water\n  - no\n",
    "classes:\n  - name: water\n    prompts: []\n",
    "classes:\n  - name: water\n    prompt: lake\n    prompts: [lake]\n",
    "classes:\n  - name: water\n    color: bluish\n",
    "classes:\n  - name: water\n    color: [0, 0, 300]\n",
    "classes:\n  - name: water\n    color: #0000ff\n",
    "classes:\n  - name: water\n    color: '#0000ff80'\n",
    "classes:\n  - name: water\n    threshold: 30\n",
    "classes:\n  - name: water\n    threshold: high\n",
    "classes:\n  - name: water\n    background: maybe\n",
    "classes:\n  - name: shadow\n    background: true\n",
    "classes: [water]\ntemplates: [an aerial photo]\n",
    "classes: [water]\ntemplates: ['{} and {}']\n",
    "classes: [water]\nclasses: [forest]\n",
    "classes:\n  - name: water\n\tprompts: [lake]\n",
    "classes:\n  - name: 'water\n",
    "classes:\n  - name: water: lake\n",
    "stride: 64\n",
    "classes: [water, forest]\nmerge: [water]\n",
    "classes: [water, forest]\nmerge: {wet: [lake]}\n",
    "classes: [water, forest]\nmerge: {wet: []}\n",
    "text_queries: [water]\n",
    "text_queries: [water, lake]\nclass_mapping: {0: water}\ncategory_to_index: {water: 0}\n",
]

SETTINGS_FILES = [
    "strid: 64\n",
    "stride: '64'\n",
    "stride: 64.5\n",
    "stride: -1\n",
    "overlap: 1.5\n",
    "overlap: half\n",
    "taper: maybe\n",
    "edge: wrap\n",
    "fill: white\n",
    "reduction: sum\n",
    "logit_scale: 0\n",
    "threshold: 30\n",
    "vector: gml\n",
    "segments: 5\n",
    "superpixel_area: []\n",
    "superpixel_area: [many]\n",
    "free_layers: 40\n",
    "simplify: .nan\n",
    "- stride: 64\n",
    "stride: [64\n",
    "64: stride\n",
]

_WORDS = "text_queries: [water, forest]\nclass_mapping: {0: Water, 1: Forest}\n"
_SET = f"{_WORDS}category_to_index: {{Water: 0, Forest: 1}}\noutput: {{base_dir: set}}\n"
DATASET_FILES = [
    _SET,
    f"{_SET}input: {{dir: nowhere}}\n",
    f"{_SET}input: {{dir: images}}\n",
    f"{_SET}input: {{dir: tiles}}\n",
    f"{_SET}input: {{dir: tiles, only: [b]}}\n",
    f"{_WORDS}category_to_index: {{Water: 0}}\n",
    f"{_WORDS}category_to_index: {{Water: 0, Forest: 1}}\ninput: {{dir: tiles}}\n",
    f"{_SET}input: {{dir: tiles}}\nmodel: {{num_classes: 6}}\n",
    f"{_SET}input: {{dir: tiles}}\nmodel: {{clip_model_name: RN50}}\n",
    f"{_SET}input: {{dir: tiles}}\nmodel: {{clip_checkpoint: gone/clip.pt}}\n",
    f"{_SET}input: {{dir: tiles}}\nmodel: {{sam_checkpoint: gone/sam.pth}}\n",
    f"{_SET}input: {{dir: tiles}}\nmodel: {{img_size: 336}}\nsettings: {{preset: default}}\n",
    f"{_SET}input: {{dir: tiles}}\nattention:\n  max_random_attn: 0.2\n",
    f"{_SET}input: {{dir: tiles}}\nattention: {{num_sam_attention_layers: 4, sam_param_sets: [{{}}]}}\n",
    f"{_SET}input: {{dir: tiles}}\nattention: {{sam_param_sets: [{{points_per_side: 1}}]}}\n",
    f"{_SET}input: {{dir: tiles}}\nlabels:\n  values: {{9: lake}}\n",
    f"{_SET}input: {{dir: tiles}}\nlabels:\n  ignore: [0]\n",
    f"{_SET}input: {{dir: tiles}}\nsettings: {{strid: 4}}\n",
    f"{_SET}input: tiles\n",
]

MISTAKES = [
    *map(Mistake, COMMANDS),
    *(Mistake("segment scene.tif --prompts mine.yml", text) for text in CLASS_FILES),
    *(Mistake(f"{USUAL} --settings mine.yml", text) for text in SETTINGS_FILES),
    *(Mistake("dataset mine.yml", text) for text in DATASET_FILES),
    Mistake("dataset mine.yml --segments superpixels", DATASET_FILES[3]),
    Mistake("dataset mine.yml --segments superpixels --data tiles -o tiles", DATASET_FILES[3]),
]


def prepare(folder: Path) -> None:
    """Write what the commands speak of."""
    random = np.random.default_rng(0)

    def raster(name: str, bands: np.ndarray, **profile: object) -> Path:
        return write_raster(folder / name, bands, **profile)

    picture = random.integers(1, 255, (3, 100, 120)).astype(np.uint8)
    good = raster("scene.tif", picture)
    raster("bare.tif", picture, crs=None)
    raster("site.tif", picture, crs='LOCAL_CS["building site",UNIT["metre",1]]')
    raster("dark.tif", picture * 0, nodata=0)
    raster("complex.tif", picture[:1].astype(np.complex64))
    raster("other.tif", picture[:1, :20, :20])
    raster("float.tif", picture[:1].astype(np.float32))
    raster("zone.tif", picture[:1], crs="EPSG:32634")
    raster("elsewhere.tif", picture[:1], transform=from_origin(0, 0, 10, 10))
    for name, rows in (("points.tif", (0, 100)), ("line.tif", (50,))):
        with rasterio.open(raster(name, picture, crs=None, transform=None), "r+") as file:
            points = [GroundControlPoint(r, c, 15 + c / 1e4, 47 - r / 1e4) for r in rows for c in (0, 60, 120)]
            file.gcps = (points, CRS.from_epsg(4326))
    code = [np.array([3072, 0, 1, number], "<u2").tobytes() for number in (32633, 9)]
    (folder / "lost.tif").write_bytes(good.read_bytes().replace(*code))
    whole = raster("whole.tif", random.integers(0, 255, (3, 300, 300)).astype(np.uint8))
    (folder / "cut.tif").write_bytes(whole.read_bytes()[:100_000])
    (folder / "empty.tif").write_bytes(b"")
    source = '<SimpleSource><SourceFilename relativeToVRT="1">gone.tif</SourceFilename></SimpleSource>'
    band = f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand>'
    (folder / "mosaic.vrt").write_text(f'<VRTDataset rasterXSize="9" rasterYSize="9">{band}</VRTDataset>')
    for name, shape, crs in (
        ("polygons.gpkg", shapely.box(500_000, 5_199_000, 500_500, 5_199_500), "EPSG:32633"),
        ("points.gpkg", shapely.Point(500_100, 5_199_100), "EPSG:32633"),
        ("far.geojson", shapely.box(0, 0, 1, 1), "EPSG:4326"),
    ):
        gpd.GeoDataFrame(geometry=[shape], crs=crs).to_file(folder / name)
    (folder / "classes.yml").write_text("classes: [water, forest, road]\n")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "scene.json").write_text("{}")
    resegeo.segment(good, folder / "classes.yml", folder / "finished", segments="none", stride=128, vector=())
    shutil.copytree(folder / "finished/scene.store.zarr", folder / "damaged/scene.store.zarr")
    (folder / "damaged/scene.store.zarr/zarr.json").write_text("")
    _examples(folder)
    resegeo.segment(
        good, folder / "classes.yml", folder / "fit", stride=128, vector=(), examples=folder / "clicks/good.gpkg"
    )
    shutil.rmtree(folder / "fit/scene.store.zarr")
    raster("scene.jp2", picture)
    (folder / "tiles" / "a").mkdir(parents=True)
    Image.fromarray(picture.transpose(1, 2, 0)).save(folder / "tiles" / "a" / "R_G_B_IR.png")
    Image.fromarray(np.full(picture.shape[1:], 7, np.uint8)).save(folder / "tiles" / "a" / "L.png")
    lists = {
        "none.csv": "scene,gsd\n",
        "image.csv": "image,gsd\n../scene.tif,1\n",
        "strech.csv": "scene,strech\n../scene.tif,0:9\n",
        "bands.csv": 'scene,bands\n../scene.tif,"4,3"\n',
        "comma.csv": "scene,bands\n../scene.tif,4,3,2\n",
        "overlap.csv": "scene,overlap\n../bare.tif,\n../scene.tif,1.5\n",
        "classes.yml": "classes: [water]\n",
        "other.yml": "classes: [lava, ice]\n",
        "words.csv": "scene,prompts\n../bare.tif,classes.yml\n../scene.tif,\n",
        "tile.csv": "scene,overlap\n../scene.tif,0.5\n",
        "above.csv": "scene,prompts\n../scene.tif,../classes.yml\n",
        "binary.csv": b"scene\n\0\1\2",
        "cut.json": '{"type": "FeatureCollection",\n "features": [{',
        "items.json": '{"features": [{"type": "Feature", "id": "S2A", "assets": {"B02": {}, "B03": {}}}]}',
    }
    _weights(folder)
    (folder / "lists").mkdir()
    for name, text in lists.items():
        (folder / "lists" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "images").mkdir()
    (folder / "images.store.zarr").mkdir()


def _examples(folder: Path) -> None:
    """Points that cannot be learnt from, and some that can."""
    (folder / "clicks").mkdir()

    def points(name: str, values: list[object], *, field: str = "class", east: float = 500_000) -> None:
        spots = [shapely.Point(east + 105 + 100 * (n % 10), 5_199_505 + n // 10) for n in range(len(values))]
        gpd.GeoDataFrame({field: values}, geometry=spots, crs="EPSG:32633").to_file(folder / "clicks" / name)

    points("good.gpkg", ["water", "forest"] * 4)
    points("one.gpkg", ["water"] * 3)
    points("beside.gpkg", ["water", "forest"], east=600_000)
    points("blank.gpkg", [None, "", " "])
    points("kind.gpkg", ["water", "forest"], field="kind")
    points("number.gpkg", [7, 8], field="class_id")
    points("many.gpkg", [f"c{number}" for number in range(101)])
    points("long.gpkg", ["water", "w" * 300])
    nothing = gpd.GeoSeries([shapely.Point(), None], crs="EPSG:32633")
    gpd.GeoDataFrame({"class": ["water", "forest"]}, geometry=nothing).to_file(folder / "clicks/nowhere.gpkg")
    (folder / "clicks/table.csv").write_text("class,x,y\nwater,1,2\n")
    (folder / "clicks/cut.gpkg").write_bytes((folder / "clicks/good.gpkg").read_bytes()[:5000])


def _weights(folder: Path) -> None:
    """Checkpoints of the bundled model's form, and archives, that are not as they should be."""
    bundled = resolve_model().path
    with safe_open(bundled, "pt") as opened:
        state, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
    data = bundled.read_bytes()
    (folder / "resegeo-small.safetensors").write_bytes(data)
    (folder / "cut.safetensors").write_bytes(data[: len(data) // 2])
    torch.save(state, folder / "cut.pt")
    with (folder / "cut.pt").open("r+b") as file:
        file.truncate(len(data) // 2)
    for name, value in (("one", 1.0), ("two", 2.0)):
        (folder / name).mkdir()
        save_file({"visual.proj": torch.full((2, 2), value)}, folder / name / "mine.safetensors")
    state["visual.proj"] = torch.full_like(state["visual.proj"], float("nan"))
    save_file(state, folder / "nan.safetensors", metadata=metadata)
    for name, manifest in (("nothing", {"files": []}), ("later", {"format": 9, "files": []})):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            archive.writestr("resegeo-models.json", json.dumps(manifest))


def contents(folder: Path) -> dict[Path, tuple[int, ...] | None]:
    """What any writing to a file of the folder, or replacing it, would change: cheaper than reading all of them."""

    def traces(path: Path) -> tuple[int, ...]:
        found = path.lstat()
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    return {path: None if path.is_dir() else traces(path) for path in folder.rglob("*")}


def answer(mistake: Mistake, folder: Path) -> tuple[int, list[str], str]:
    """Run a command in ``folder``: exit code, what stderr says beside notes and usage, stdout."""
    if mistake.file:
        (folder / "mine.yml").write_text(mistake.file, "utf-8")
    env = {"RESEGEO_HOME": "home", "HF_HOME": "hub", "HF_HUB_OFFLINE": "1"}
    done = CliRunner().invoke(main, shlex.split(mistake.command), env=env)
    beside = ("Usage: ", "Try '", "Note: ")
    said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(beside)]
    return done.exit_code, [_without_gdals_words(line) for line in said], done.stdout


def _without_gdals_words(line: str) -> str:
    """Leave out what changes with GDAL's version, with its cache of addresses, and with the time."""
    line = re.sub(r"GDAL \d+\.\d+\.\d+", "GDAL x.y.z", line)
    return re.sub(r"\((CURL|TIFF|'/vsi)[^)]*\)", "(what GDAL says)", line)


def shown(mistake: Mistake, code: int, said: list[str]) -> str:
    return "\n".join([str(mistake) + said[0] if said else str(mistake), *said[1:], f"(exit {code})", ""])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mistakes")
    prepare(path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mistake", MISTAKES, ids=[f"{m.command} {m.file}"[-60:] for m in MISTAKES])
def test_a_mistake_is_answered_by_one_sentence_and_leaves_nothing(folder, monkeypatch, mistake):
    monkeypatch.chdir(folder)
    before = contents(folder)
    code, said, stdout = answer(mistake, folder)
    (folder / "mine.yml").unlink(missing_ok=True)
    assert contents(folder) == before
    assert stdout == ""
    assert code in (1, 2)
    assert len(said) == 1
    assert said[0].startswith("Error: ")
    assert len(said[0]) < 500
    assert "Traceback" not in said[0]
    assert "defect" not in said[0]
    assert shown(mistake, code, said) in SENTENCES.read_text("utf-8"), "read it, then run tests/show_mistakes.py"


def test_every_sentence_that_is_kept_belongs_to_a_mistake():
    text = SENTENCES.read_text("utf-8")
    assert len(MISTAKES) == len({str(mistake) for mistake in MISTAKES}) == text.count("$ resegeo ")
    assert all(str(mistake) in text for mistake in MISTAKES)
