"""Kill a run at random moments of all its stages, go on each time, and compare with an undisturbed run's bytes.

    python tests/kill_test.py [KILLS] [SEED]

A scene of at least 200 work items is segmented once undisturbed; its report tells how long each stage took. Then the
same command is started again and again in another folder and killed (SIGKILL) at a random moment of a random stage,
KILLS times (default 20; more where a stage was not hit), each time in the work that the run before has left. At last it
runs to its end. Exits with 1 if a file differs from the undisturbed run's, if a temporary file is left, or if a stage
was never hit. The model sees by tests/fakes.py, so that all of it takes about a minute. tests/test_store.py does the
same in small.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import yaml
from guarded import apart, command, command_here, libraries, started, warm

STAGES = ("start", "windows", "labels", "polygons", "picture")
SIDE = 1950


def make(path: Path) -> None:
    """A scene of SIDE x SIDE pixels with blobs of colour, and some nodata."""
    random_ = np.random.default_rng(0)
    coarse = random_.integers(1, 255, (3, SIDE // 50 + 1, SIDE // 50 + 1))
    bands = np.kron(coarse, np.ones((1, 50, 50)))[:, :SIDE, :SIDE] + random_.integers(-20, 20, (3, SIDE, SIDE))
    bands = np.clip(bands, 1, 255).astype(np.uint8)
    bands[:, 300:700, 900:1500] = 0
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": SIDE, "width": SIDE, "nodata": 0}
    profile |= {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5200000), "tiled": True}
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(bands)


def files(folder: Path) -> dict[str, bytes]:
    """Every result; the report without dates, timings and the store's path."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    report = json.loads(found.pop("scene.json"))
    for key in ("started", "seconds", "modified", "store"):
        del report[key]
    return found | {"report": json.dumps(report, sort_keys=True).encode()}


def stage_of(folder: Path, began: float) -> int:
    """Tell from the files which stage a run that began at a time is in: an index into STAGES."""

    def fresh(path: Path) -> bool:
        try:
            return path.stat().st_mtime > began
        except FileNotFoundError:  # temporary files come and go while we look
            return False

    if fresh(folder / "scene.gpkg"):
        return 4
    if fresh(folder / "scene.classes.tif"):
        return 3
    with contextlib.suppress(FileNotFoundError):
        if any(map(fresh, folder.glob(".tmp-resegeo-*/*.tif"))):
            return 2
    marks = folder / "scene.store.zarr/marks/done"
    with contextlib.suppress(FileNotFoundError):
        return int(any(fresh(path) for path in marks.iterdir()))
    return 0


def done(folder: Path) -> int:
    """Work items that are done."""
    marks = folder / "scene.store.zarr/marks/done"
    with contextlib.suppress(FileNotFoundError):
        return sum(path.name.isdigit() for path in marks.iterdir())
    return 0


def main() -> int:
    kills, seed = (int(value) for value in (*sys.argv[1:], *("20", "0")[len(sys.argv) - 1 :]))
    choose = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        libraries()
        apart(lambda: make(root / "scene.tif"))
        (root / "classes.yml").write_text(yaml.safe_dump({"classes": ["water", "forest", "road", "grass"]}))
        words = ["segment", root / "scene.tif", "-q", "--stride", "32", "--prompts", root / "classes.yml"]
        words += ["--segments", "none", "-o"]
        small = [*words, root / "small", "--bbox", "500000,5199000,501000,5200000"]
        warm(lambda: command_here(*small))
        whole = command(*words, root / "whole", cwd=root, seconds=300)
        if whole.code != 0:
            print(f"the undisturbed run ended with {whole.code}: {whole.err}")
            return 1
        laps = json.loads((root / "whole/scene.json").read_text("utf-8"))["seconds"]
        items = done(root / "whole")
        print(f"undisturbed: {items} work items, {whole.seconds:.0f} s, of which {laps}", flush=True)
        if items < 200:
            print("fewer than 200 work items")
            return 1
        out = root / "out"
        out.mkdir()
        # Half of the kills among the windows, each after some more items; the others before and after.
        later = kills - kills // 2
        aims = [1] * (kills // 2) + [(0, 2, 3, 4, 2)[number % 5] for number in range(later)]
        lengths = (0.1, 0.05, laps["labels"], laps["polygons"], laps["picture"])
        hit: dict[str, int] = dict.fromkeys(STAGES, 0)
        missed = list(STAGES)
        for number, aim in enumerate(aims, start=1):
            goal = min(items - 2, done(out) + choose.randint(1, max(1, 2 * items // kills - 1)))
            began = time.time()
            nothing = os.open(os.devnull, os.O_WRONLY)
            process = started([*words, out], cwd=root, out=nothing, err=nothing)
            os.close(nothing)
            try:
                while not ended(process) and (stage_of(out, began) < aim or (aim == 1 and done(out) < goal)):
                    time.sleep(0.002)
                time.sleep(choose.uniform(0, 0.8 * lengths[aim]))
                late = ended(process)
            finally:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            if late:
                print(f"{number}: it had ended", flush=True)
                for path in (path for path in out.iterdir() if path.is_file()):
                    path.unlink()  # the store stays: the next run does the last stages again
            else:
                stage = STAGES[stage_of(out, began)]
                hit[stage] += 1
                print(f"{number}: killed in {stage}, {done(out)} items done", flush=True)
            missed = [stage for stage, count in hit.items() if not count]
            if number == len(aims) < 2 * kills and missed:  # a busy machine keeps no time
                aims.append(STAGES.index(missed[0]))
        last = command(*words, out, cwd=root, seconds=300)
        if last.code != 0:
            print(f"the last run ended with {last.code}: {last.err}")
            return 1
        one, two = files(root / "whole"), files(out)
        different = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
        left = [path.name for path in out.rglob("*") if ".tmp" in path.name or path.suffix == ".partial"]
    print(f"killed {sum(hit.values())} times: {hit}; files that differ: {different or 'none'}; left: {left or 'none'}")
    if missed:
        print(f"never hit: {missed}")
    return 1 if different or left or missed else 0


def ended(process: int) -> bool:
    """Whether a child has ended; it is still to be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    sys.exit(main())
