"""Two local workers against one, one thread each: seconds of the image side, and the same bytes.

    python tests/benchmarks/workers.py [bundled|vitb16] [SIDE]

A scene of SIDE x SIDE pixels (default 4,000, ViT-B/16: 2,500) made by tiling the demo scene, superpixels; ViT-B/16 has
random weights. Workers are started, and each loads the model, with a small scene before; those seconds are printed too.
So is what the machine itself allows: forward passes of the model in two processes that know nothing of each other,
against one; and the processor time that an item costs this process, in which the scheduler lives. Exits with 1 if the
class rasters differ, or below 1.8 times. Needs two cores that nothing else uses.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from distributed import Client
from given import ARCHITECTURES, WORDS, model
from memory import make

from resegeo import Segmentation, segment
from resegeo.run.clusters import connect

SECONDS = 20.0


def main() -> int:
    kind = sys.argv[1] if len(sys.argv) > 1 else "bundled"
    side = int(sys.argv[2]) if len(sys.argv) > 2 else {"bundled": 4000, "vitb16": 2500}[kind]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options: dict[str, Any] = {"threads": 1, "vector": (), **model(kind, folder)}
        make(folder / "scene.tif", side)
        make(folder / "small.tif", 1000)

        spent: list[float] = []

        def note(stage: str, done: int, total: int) -> None:
            if stage == "windows":
                spent.append(time.process_time())

        def run(client: Client, scene: str) -> Segmentation:
            words, out = WORDS, folder / str(len(rasters))
            spent.clear()
            return segment(folder / scene, words, out, cluster=client, progress=note, **options)

        seconds: list[float] = []
        rasters: list[bytes] = []
        for workers in ("1", "2"):
            start = time.perf_counter()
            with connect(workers) as client:
                run(client, "small.tif")
                started = time.perf_counter() - start
                result = run(client, "scene.tif")
            seconds.append(json.loads(result.report.read_text("utf-8"))["seconds"]["windows"])
            rasters.append(result.raster.read_bytes())
            item = 1000 * (spent[-1] - spent[0]) / (len(spent) - 1)
            print(
                f"{workers} worker(s): {seconds[-1]:.1f} s, after {started:.1f} s to start; {item:.1f} ms an item here",
                flush=True,
            )
    ratio = seconds[0] / seconds[1]
    allowed = passes(kind, 2) / passes(kind, 1)
    print(f"two workers are {ratio:.2f} times as fast; rasters {'equal' if rasters[0] == rasters[1] else 'DIFFER'}")
    print(f"the machine allows {allowed:.2f} times: bare forward passes in two processes against one")
    return int(ratio < 1.8 or rasters[0] != rasters[1])


def passes(kind: str, processes: int) -> float:
    """Forward passes a second of so many processes together, one thread each."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(processes), context.Queue()
    running = [context.Process(target=_pass_on, args=(kind, barrier, answers)) for _ in range(processes)]
    for process in running:
        process.start()
    total = sum(answers.get() for _ in running)
    for process in running:
        process.join()
    return float(total)


def _pass_on(kind: str, barrier: Any, answers: Any) -> None:
    import open_clip
    import torch

    from resegeo.checkpoints.architecture import BUNDLED, FOLDER

    logging.disable()  # random weights are meant
    torch.set_num_threads(1)
    open_clip.add_model_config(FOLDER / f"{BUNDLED}.json")
    model = open_clip.create_model(ARCHITECTURES.get(kind, BUNDLED)).visual.eval()
    windows = torch.zeros(16, 3, *model.image_size)
    with torch.inference_mode():
        model(windows)
        barrier.wait()
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            model(windows)
            count += 1
        answers.put(count / (time.perf_counter() - start))


if __name__ == "__main__":
    sys.exit(main())
