"""Memory and time of polygons against their vertices and against gdal_polygonize, on patches of smoothed noise.

    python tests/benchmarks/polygons.py [SMALL LARGE] [--patch PIXELS] [--simplify]

Makes class rasters of so many pixels a side (default: 10,000 and 20,000), each by laying one random tile side by side,
mirrored so that patches go on across its edges. Prints for ``resegeo vectorize`` into a GeoPackage the peak of memory,
the number of vertices, and the seconds of computing beside those of ``gdal_polygonize`` (GDAL's command line). Exits
with 1 where a bound fails: 2 GB at the large one; 1.2 times the peak of the small one, the vertices left out; no slower
than GDAL's. ``--simplify``: the same of polygons that are simplified by 1.5 pixels, GDAL's by coverage_simplify
then; all of them are in memory there, so that memory has no bound.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TILE = 2000


def make(path: Path, side: int, patch: float) -> None:
    from rasterio.crs import CRS
    from rasterio.transform import from_origin
    from scipy.ndimage import gaussian_filter

    from resegeo.classes.class_file import class_list
    from resegeo.outputs.raster import write_class_raster
    from resegeo.scene.source import GeoReference

    random = np.random.default_rng(0)
    field = np.zeros((TILE, TILE), dtype=np.float32)
    for scale, weight in ((patch, 1.0), (patch / 4, 0.15)):
        part = gaussian_filter(random.standard_normal((TILE, TILE), dtype=np.float32), scale)
        field += weight * part / part.std()
    codes = np.digitize(field, np.quantile(field, (0.2, 0.35, 0.5, 0.65, 0.8))).astype(np.uint8) + 1
    tiles = [codes, codes[:, ::-1], codes[::-1], codes[::-1, ::-1]]

    def blocks():
        for row in range(0, side, TILE):
            for col in range(0, side, TILE):
                tile = tiles[row // TILE % 2 * 2 + col // TILE % 2][: side - row, : side - col]
                for top in range(0, len(tile), 500):
                    yield row + top, col, np.ascontiguousarray(tile[top : top + 500])

    write_class_raster(
        path,
        blocks(),
        height=side,
        width=side,
        georeference=GeoReference(CRS.from_epsg(32633), from_origin(500_000, 5_200_000, 10, 10)),
        classes=class_list(["water", "forest", "field", "road", "roof", "soil"]),
        tags={},
    )


def run(*command: str | Path) -> tuple[float, float]:
    """Seconds of computing and peak memory in MiB of a command."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} ended with {status}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sides", nargs="*", type=int, default=[10_000, 20_000])
    parser.add_argument("--patch", type=float, default=24.0)
    parser.add_argument("--simplify", action="store_true")
    asked = parser.parse_args()
    import pyogrio

    rest, failed = [], False
    for side in asked.sides:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            raster = folder / "a.classes.tif"
            subprocess.run([sys.executable, __file__, "--make", raster, str(side), str(asked.patch)], check=True)
            more = ("--simplify", "1.5px") if asked.simplify else ()
            ours = "-m", "resegeo_cli", "vectorize", raster, "-q", *more, "-o"
            took, peak = run(sys.executable, *ours, folder / "a.gpkg")
            info = pyogrio.read_info(folder / "a.gpkg", layer="a")
            vertices = size_of_vertices(folder / "a.gpkg")
            gdal, gdal_peak = run("gdal_polygonize.py", "-q", raster, folder / "g.gpkg", "g", "class_id")
            if asked.simplify:
                more_time, more_peak = run(sys.executable, __file__, "--simplified", folder / "g.gpkg")
                gdal, gdal_peak = gdal + more_time, max(gdal_peak, more_peak)
            rest.append(peak - vertices * 16 / 2**20)
            print(
                f"{side} x {side}: {info['features']:,} polygons, {vertices:,} vertices: {took:.1f} s, {peak:.0f} MiB "
                f"({rest[-1]:.0f} without vertices); gdal_polygonize{' and coverage_simplify' if more else ''} "
                f"{gdal:.1f} s, {gdal_peak:.0f} MiB; ratio {took / gdal:.2f}",
                flush=True,
            )
            failed |= took > gdal or (peak > 2048 and not more)
    if asked.simplify:
        sys.exit(failed)
    print(f"memory without vertices, large to small: {rest[-1] / rest[0]:.2f}")
    sys.exit(failed or rest[-1] > 1.2 * rest[0])


def simplify(path: Path) -> None:
    """Simplify the polygons of a file by 1.5 pixels of 10 m into another."""
    import pyogrio
    import shapely

    frame = pyogrio.read_dataframe(path, use_arrow=True)
    frame = frame.set_geometry(shapely.coverage_simplify(frame.geometry.to_numpy(), 15.0), crs=frame.crs)
    pyogrio.write_dataframe(frame, path.with_name("simplified.gpkg"), use_arrow=True)


def size_of_vertices(path: Path) -> int:
    import pyogrio
    import shapely

    with pyogrio.open_arrow(path, columns=[], layer="a", batch_size=8192, use_pyarrow=True) as (about, reader):
        name = about["geometry_name"] or "wkb_geometry"
        shapes = (batch.column(name).to_numpy(zero_copy_only=False) for batch in reader)
        return sum(int(shapely.get_num_coordinates(shapely.from_wkb(part)).sum()) for part in shapes)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        make(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    elif sys.argv[1:2] == ["--simplified"]:
        simplify(Path(sys.argv[2]))
    else:
        main()
