"""What cheaper superpixels cost in quality: seconds a megapixel, and how well segments keep to hand-drawn truths.

    RESEGEO_TEST_DATA=DIR python tests/benchmarks/superpixels.py [--limit 4] [--area 1024]

Every held-out picture of the sets in DIR is segmented by variants of SLIC. Printed are processor seconds a megapixel,
against those of the way that is used; boundary recall (the share of the truth's borders with a segment's border within
2 pixels; higher is better) and the corrected undersegmentation error (P. Neubert and P. Protzel 2012: the share of
pixels on the smaller side of segments that a border of the truth cuts; lower is better), each a mean over pictures. A
variant that is twice as cheap at equal figures is worth having.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from skimage.segmentation import slic

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from bundled_model_data import SINGLES, measured_pictures
from measuring import limited

Ids = NDArray[np.integer[Any]]


def plain(rgb: NDArray[Any], area: float, *, iterations: int = 5, compactness: float = 10.0) -> Ids:
    count = max(1, round(rgb.shape[0] * rgb.shape[1] / area))
    return np.asarray(
        slic(rgb, n_segments=count, compactness=compactness, max_num_iter=iterations, start_label=1, channel_axis=-1)
    )


def reduced(rgb: NDArray[Any], area: float, *, factor: int = 2, iterations: int = 5, compactness: float = 10.0) -> Ids:
    """Superpixels of the image at a fraction of its size, enlarged again."""
    height, width = (-(-size // factor) * factor for size in rgb.shape[:2])
    padded = np.pad(rgb, ((0, height - rgb.shape[0]), (0, width - rgb.shape[1]), (0, 0)), mode="edge")
    small = padded.reshape(height // factor, factor, width // factor, factor, 3).mean(axis=(1, 3))
    found = plain((small / 255).astype(np.float32), area / factor**2, iterations=iterations, compactness=compactness)
    return found.repeat(factor, axis=0).repeat(factor, axis=1)[: rgb.shape[0], : rgb.shape[1]]


VARIANTS: dict[str, Callable[[NDArray[np.uint8], float], Ids]] = {
    "as used: 5 iterations, compactness 10": plain,
    "float32": lambda rgb, area: plain((rgb / 255).astype(np.float32), area),
    "3 iterations": lambda rgb, area: plain(rgb, area, iterations=3),
    "2 iterations, float32": lambda rgb, area: plain((rgb / 255).astype(np.float32), area, iterations=2),
    "1 iteration": lambda rgb, area: plain(rgb, area, iterations=1),
    "10 iterations": lambda rgb, area: plain(rgb, area, iterations=10),
    "compactness 5": lambda rgb, area: plain(rgb, area, compactness=5.0),
    "compactness 20": lambda rgb, area: plain(rgb, area, compactness=20.0),
    "half the size": reduced,
    "half the size, 10 iterations": lambda rgb, area: reduced(rgb, area, iterations=10),
    "half the size, compactness 5": lambda rgb, area: reduced(rgb, area, compactness=5.0),
    "a third of the size": lambda rgb, area: reduced(rgb, area, factor=3),
    "squares": lambda rgb, area: _squares(rgb.shape[:2], area),
}


def _squares(shape: tuple[int, ...], area: float) -> Ids:
    row, col = (np.arange(size) // round(area**0.5) for size in shape)
    return row[:, None] * 100_000 + col + 1


def borders(ids: Ids) -> NDArray[np.bool_]:
    """Pixels that differ from the next one to the right or below."""
    found = np.zeros(ids.shape, dtype=bool)
    found[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    found[:-1] |= ids[:-1] != ids[1:]
    return found


def boundary_recall(ids: Ids, truth: Ids, tolerance: int = 2) -> float:
    near = maximum_filter(borders(ids), size=2 * tolerance + 1)
    real = borders(truth)
    return float(near[real].mean()) if real.any() else float("nan")


def undersegmentation(ids: Ids, truth: Ids) -> float:
    segment = np.unique(ids, return_inverse=True)[1].ravel()
    region = np.unique(truth, return_inverse=True)[1].ravel()
    table = np.bincount(segment * (region.max() + 1) + region, minlength=(segment.max() + 1) * (region.max() + 1))
    table = table.reshape(-1, region.max() + 1)
    rest = table.sum(axis=1, keepdims=True) - table
    return float(np.minimum(table, rest).sum() / 2 / ids.size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=4, help="pictures a set")
    parser.add_argument("--area", type=float, default=1024.0)
    given = parser.parse_args()
    data = Path(os.environ["RESEGEO_TEST_DATA"])
    pictures = limited(measured_pictures(data, test=True), given.limit, list(SINGLES))
    pixels = sum(picture.codes.size for picture in pictures)
    print(f"{len(pictures)} pictures of {len({p.source for p in pictures})} sets, {pixels / 1e6:.1f} megapixels")
    first = None
    for name, variant in VARIANTS.items():
        seconds, recall, error, count = 0.0, [], [], []
        for picture in pictures:
            start = time.process_time()
            ids = variant(picture.rgb, given.area)
            seconds += time.process_time() - start
            recall.append(boundary_recall(ids, picture.codes))
            error.append(undersegmentation(ids, picture.codes))
            count.append(len(np.unique(ids)) / ids.size * given.area)
        pace = seconds / pixels * 1e6
        first = first or pace
        print(
            f"{name:40} {pace:.3f} s a megapixel, {first / pace:.2f} times as fast; boundary recall "
            f"{np.nanmean(recall):.3f}, undersegmentation {np.mean(error):.4f}, {np.mean(count):.2f} of the segments "
            "asked for",
            flush=True,
        )


if __name__ == "__main__":
    main()
