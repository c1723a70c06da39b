"""What bfloat16 brings on this machine's device: a window of the bundled model and of ViT-B/16 with random weights.

    python tests/benchmarks/precision.py

Prints processor and clock milliseconds a window (the least of three) on as many threads as torch takes, and how many
times as fast bfloat16 is; before them what ``--precision auto`` thinks of the device.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from given import model

from resegeo.clip.attention import default_schedule
from resegeo.clip.encoder import Encoder, load_encoder, pick_device, quick_at_bfloat16
from resegeo.composition.recipe import find_model


def cost(encoder: Encoder, count: int = 8) -> tuple[float, float]:
    """Processor and clock milliseconds of a window."""
    random, side, grid = np.random.default_rng(0), encoder.image_size, encoder.grid
    pixels = random.integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    valid, ids = np.ones((count, side, side), bool), random.integers(0, 20, (count, 1, grid, grid))
    found = []
    for _ in range(4):
        cpu, clock = time.process_time(), time.perf_counter()
        encoder.encode_windows(pixels, valid, ids, default_schedule(encoder.depth))
        found.append(((time.process_time() - cpu) / count * 1e3, (time.perf_counter() - clock) / count * 1e3))
    return min(found[1:])  # the first warms up


def main() -> None:
    device = pick_device(None)
    print(f"{device}, {torch.get_num_threads()} thread(s): quick at bfloat16: {quick_at_bfloat16(device)}")
    with tempfile.TemporaryDirectory() as name:
        large = model("vitb16", Path(name))
        for source in (find_model(None, None, None), find_model(large["model"], large["arch"], large["activation"])):
            exact = load_encoder(source)
            took = {each: cost(dataclasses.replace(exact, precision=each)) for each in ("float32", "bfloat16")}
            for precision, (cpu, clock) in took.items():
                print(f"{source.architecture}, {precision}: {cpu:.1f} CPU ms, {clock:.1f} ms a window")
            ratios = [one / other for one, other in zip(took["float32"], took["bfloat16"], strict=True)]
            print(f"{source.architecture}: bfloat16 is {ratios[0]:.2f} (clock: {ratios[1]:.2f}) times as fast")


if __name__ == "__main__":
    main()
