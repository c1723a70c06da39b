"""``resegeo plan``: what a run would need, before it runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .console import say, shows
from .options import RESULTS, GroupedCommand, segmenting

if TYPE_CHECKING:
    from resegeo.run.estimation import Estimate


@click.command(cls=GroupedCommand)
@click.argument("scene")
@RESULTS
@segmenting
@click.option("--json", "as_json", is_flag=True, help="Print JSON: bytes and seconds.")
@shows
def plan(scene: str, prompts: str, as_json: bool, **options: Any) -> None:
    """Say what segment with the same options would need: work items, memory, disk, time. Writes nothing.

    The time is measured by computing a few windows and blocks of SCENE on this machine.

    \b
    Example:
      resegeo plan scene.tif --prompts classes.yml
    """
    from resegeo.run.commands import estimate

    found = estimate(scene, prompts, options.pop("output"), **options)
    if as_json:
        import json

        say(json.dumps(asdict(found) | {"total_seconds": found.total_seconds}, indent=2))
        return
    for name, text in _lines(found).items():
        say(f"{name:12}{text}")


def _lines(found: Estimate) -> dict[str, str]:
    done = f", {found.done:,} of them done already" if found.done else ""
    words = (
        f"features are kept ({_size(found.feature_bytes)}): new words need no new pass"
        if found.features
        else f"scores only; --keep-features would take {_size(found.feature_bytes)} and save new words a new pass"
    )
    room = ""
    if found.free_bytes is not None:
        short = found.store_bytes + found.output_bytes > found.free_bytes
        room = f"; {_size(found.free_bytes)} free" + (", TOO LITTLE" if short else "")
    cuda = found.device.startswith("cuda")
    stages = ", ".join(f"{stage} {_time(value)}" for stage, value in found.seconds.items())
    polygons = f", and {_size(found.polygon_bytes)} more while polygons are drawn" if found.polygon_bytes else ""
    several = f" with {found.workers} workers" if found.workers > 1 else ""
    return {
        "work items": f"{found.items:,}{done}; {found.windows:,} windows",
        "memory": f"about {_size(found.memory_bytes)}" + (" a worker" if found.workers > 1 else "") + polygons,
        "GPU memory": f"about {_size(found.device_bytes)}"
        + ("" if cuda else " if one were used (computed from sizes)"),
        "disk": f"store up to {_size(found.store_bytes)}, class raster up to {_size(found.output_bytes)}{room}",
        "new words": words,
        "time": f"about {_time(found.total_seconds)} on {found.device}{several}: {stages}",
    }


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
