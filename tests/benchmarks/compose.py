"""Peak memory and seconds of averaging 2 and 7 variants of one architecture with random weights.

Counted is memory that the process itself asked for (RssAnon), which the system cannot take back; pages of mapped
checkpoints it can. One unit is one model in float32. Needs Linux.

    python tests/benchmarks/compose.py --arch ViT-B-32 --dtype float16
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import open_clip
import torch


def write(arch: str, count: int, folder: Path, dtype: torch.dtype) -> list[Path]:
    """Variants that lie close together, as plain state dicts; and the bytes of one in float32."""
    torch.manual_seed(0)
    state = open_clip.create_model(arch, pretrained=None).state_dict()
    paths = []
    for number in range(count):
        near = {k: (v + 1e-3 * torch.randn_like(v) if v.ndim else v).to(dtype) for k, v in state.items()}
        paths.append(folder / f"{number}.pt")
        torch.save(near, paths[-1])
    return paths


def anonymous() -> int:
    """Bytes of memory that belong to this process alone."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure(arch: str, paths: list[Path]) -> None:
    """Average in this process and print count, units and seconds."""
    from resegeo.checkpoints.sources import resolve_model
    from resegeo.composition.average import compose

    sources = [resolve_model(str(path), arch, "gelu") for path in paths]
    with torch.device("meta"):
        model = open_clip.model.CLIP(**open_clip.get_model_config(arch))
    unit = sum(value.numel() * 4 for value in model.state_dict().values())
    before, peak, done = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, anonymous() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    compose(sources, paths[0].with_name("mean.safetensors"))
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    print(f"{len(paths)} variants: peak {peak / 1e6:.0f} MB = {peak / unit:.2f} models in float32, {seconds:.1f} s")


def main() -> None:
    """Measure each count in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="ViT-B-32")
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float16")
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 7])
    parser.add_argument("--measure", type=Path, nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.arch, args.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = write(args.arch, max(args.counts), Path(folder), getattr(torch, args.dtype))
        for count in args.counts:
            command = [sys.executable, __file__, "--arch", args.arch, "--measure", *map(str, paths[:count])]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
