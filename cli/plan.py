"""``resegeo plan``: what a run would need, before it runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from resegeo.errors import escaped

from .console import say, shows
from .options import RESULTS, GroupedCommand, segmenting

if TYPE_CHECKING:
    from resegeo.run.estimation import Estimate


@click.command(cls=GroupedCommand)
@click.argument("scenes", nargs=-1, required=True)
@RESULTS
@segmenting
@click.option("--json", "as_json", is_flag=True, help="Print JSON: bytes and seconds.")
@shows
def plan(scenes: tuple[str, ...], prompts: str, as_json: bool, **options: Any) -> None:
    """Say what segment with the same options would need: work items, memory, disk, time. Writes nothing.

    The time is measured by computing a few windows and blocks of SCENE on this machine. Several SCENES, a pattern in
    quotes, a folder or a manifest are planned as a batch is: in total, and measured on one scene of each kind.

    \b
    Examples:
      resegeo plan scene.tif --prompts classes.yml
      resegeo plan 'scenes/*.tif' --prompts classes.yml -o out/
    """
    from resegeo.batches.destinations import is_batch

    if is_batch(scenes):
        _plan_batch(scenes, prompts, as_json, options)
        return
    from resegeo.run.commands import estimate

    scene = scenes[0]
    found = estimate(scene, prompts, options.pop("output"), **options)
    if as_json:
        import json

        say(json.dumps(asdict(found) | {"total_seconds": found.total_seconds}, indent=2))
        return
    for name, text in _lines(found).items():
        say(f"{name:12}{text}")


def _plan_batch(scenes: tuple[str, ...], prompts: str, as_json: bool, options: dict[str, Any]) -> None:
    from resegeo.batches.planning import estimate_many

    output = options.pop("output") or "batch_resegeo"
    found = estimate_many(scenes, prompts, output, **options)
    totals = ("items", "done", "windows", "store_bytes", "output_bytes", "free_bytes", "memory_bytes", "total_seconds")
    if as_json:
        import json

        each = [asdict(scene) | {"total_seconds": scene.estimate and scene.estimate.total_seconds}
                for scene in found.scenes]  # fmt: skip
        say(json.dumps({name: getattr(found, name) for name in totals} | {"scenes": each}, indent=2))
        return
    room = ""
    if found.free_bytes is not None:
        short = found.store_bytes + found.output_bytes > found.free_bytes
        room = f"; {_size(found.free_bytes)} free" + (", TOO LITTLE" if short else "")
    done = f", {found.done:,} of them done already" if found.done else ""
    devices = ", ".join(sorted({each.device for each in found.estimates})) or "none"
    lines = {
        "scenes": f"{len(found.scenes):,}"
        + (f", {len(found.failed)} of which cannot be segmented" * bool(found.failed)),
        "work items": f"{found.items:,}{done}; {found.windows:,} windows",
        "memory": f"about {_size(found.memory_bytes)} for the largest",
        "disk": f"stores up to {_size(found.store_bytes)}, class rasters up to {_size(found.output_bytes)}{room}",
        "time": f"about {_time(found.total_seconds)} on {devices}, one scene after another; measured on "
        f"{found.kinds} of them",
    }
    for name, text in lines.items():
        say(f"{name:12}{text}")
    for scene in found.failed:
        say(f"cannot be segmented: {escaped(scene.scene)}: {escaped(scene.reason)}")


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
