"""Peak memory of a small and a large scene up to the class raster, each in a process of its own.

    python tests/benchmarks/memory.py [SMALL LARGE] [--fake]

Prints both peaks and their ratio; exits with 1 if the large one takes more than 1.2 times the small one (default:
2,000 and 6,000 pixels a side). The scenes are made by tiling the demo scene to uint8; stride = window and no segments
keep it short. ``--fake`` puts a stand-in for the encoder, which answers patches with their mean colours, and lays the
scene as a VRT over one file of 2,000 pixels (default: 20,000 and 40,000 pixels a side). At last the memory that
drawing polygons takes is printed, of the smaller scene without ``--fake``.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SCENE = Path(__file__).parents[2] / "examples/demo/sentinel2.tif"


def make(path: Path, side: int) -> None:
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    from resegeo import open_scene

    scene = open_scene(SCENE)
    tile = scene.read(0, 0, scene.height, scene.width)[0].transpose(2, 0, 1)
    tile = np.maximum(tile, 1)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": side, "width": side, "nodata": 0}
    profile |= {"crs": scene.georeference.crs, "transform": scene.georeference.transform, "tiled": True}
    with rasterio.open(path, "w", compress="deflate", blockxsize=512, blockysize=512, **profile) as raster:
        for row in range(0, side, tile.shape[1]):
            for col in range(0, side, tile.shape[2]):
                part = tile[:, : side - row, : side - col]
                raster.write(part, window=Window(col, row, part.shape[2], part.shape[1]))


def lay_mosaic(path: Path, side: int) -> None:
    """A VRT of ``side`` pixels that repeats one file."""
    from xml.sax.saxutils import escape

    import rasterio

    tile = path.with_name("tile.tif")
    make(tile, 2000)
    with rasterio.open(tile) as raster:
        crs, where = escape(raster.crs.to_wkt()), ", ".join(str(value) for value in raster.transform.to_gdal())
    bands = []
    for band, colour in enumerate(("Red", "Green", "Blue"), start=1):
        parts = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{tile.name}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="2000" ySize="2000"/>'
            f'<DstRect xOff="{col}" yOff="{row}" xSize="2000" ySize="2000"/></SimpleSource>'
            for row in range(0, side, 2000)
            for col in range(0, side, 2000)
        )
        bands.append(
            f'<VRTRasterBand dataType="Byte" band="{band}"><NoDataValue>0</NoDataValue>'
            f"<ColorInterp>{colour}</ColorInterp>{parts}</VRTRasterBand>"
        )
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>{crs}</SRS><GeoTransform>{where}</GeoTransform>'
        f"{''.join(bands)}</VRTDataset>"
    )


def fake(self: Any, rgb: Any, valid: Any, levels: Any, schedule: Any, **options: Any) -> Any:
    """Features (B, g, g, D) and CLS (B, D) from mean colours, in no time."""
    import numpy as np

    count, side = rgb.shape[0], rgb.shape[1] // self.patch_size
    mean = rgb.reshape(count, side, self.patch_size, side, self.patch_size, 3).mean(axis=(2, 4)) / 255
    features = np.zeros((count, side, side, self.dimension), dtype=np.float32)
    features[..., :3] = mean + 0.01
    return lambda: (features, features.mean(axis=(1, 2)))


def peak(path: Path, stand_in: bool, answer: multiprocessing.Queue[float]) -> None:
    import warnings

    import resegeo.clip.encoder
    from resegeo import segment

    warnings.simplefilter("ignore")
    if stand_in:
        resegeo.clip.encoder.Encoder.start_windows = fake  # type: ignore[method-assign]
    words = ["water", "forest", "grass", "building"]
    segment(path, words, path.with_suffix(""), segments="none", stride=128, vector=())
    answer.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if not stand_in:
        from resegeo import polygonize

        polygonize(path.with_suffix("") / f"{path.stem}.classes.tif")
        answer.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    stand_in = "--fake" in sys.argv
    sides = [int(side) for side in sys.argv[1:] if side.isdigit()] or ([20000, 40000] if stand_in else [2000, 6000])
    spawn = multiprocessing.get_context("spawn")
    peaks = []
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / (f"scene{side}.vrt" if stand_in else f"scene{side}.tif")
            maker = spawn.Process(target=lay_mosaic if stand_in else make, args=(path, side))
            maker.start()
            maker.join()
            answer = spawn.Queue()
            started = time.monotonic()
            worker = spawn.Process(target=peak, args=(path, stand_in, answer))
            worker.start()
            peaks.append(answer.get())
            took = time.monotonic() - started
            print(f"{side} x {side} pixels: peak {peaks[-1]:.0f} MiB up to the class raster, {took:.0f} s", flush=True)
            if not stand_in:
                more = max(0.0, answer.get() - peaks[-1]) * 2**20 / side**2
                print(f"    polygons: {more:.0f} bytes a pixel on top of that peak", flush=True)
            worker.join()
    ratio = peaks[1] / peaks[0]
    print(f"ratio {ratio:.3f}")
    sys.exit(ratio > 1.2)


if __name__ == "__main__":
    main()
