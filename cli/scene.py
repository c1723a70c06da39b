"""``resegeo info``: what a scene is."""

from __future__ import annotations

from typing import Any

import click

from .console import say, shows
from .options import LOOKS


@click.command()
@click.argument("scene")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(*LOOKS[0][0], **LOOKS[0][1])
@click.option(*LOOKS[1][0], **LOOKS[1][1])
@click.option(*LOOKS[2][0], **LOOKS[2][1])
@shows
def info(scene: str, as_json: bool, **options: Any) -> None:
    """Show size, CRS, bands and nodata of SCENE, and what segment would do.

    \b
    Example:
      resegeo info scene.tif
    """
    import json

    from resegeo.run.commands import info as inspect

    facts = inspect(scene, **options)
    if as_json:
        say(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        say(f"{name:{width}}  {value}")
