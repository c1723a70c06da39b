"""``resegeo try``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import Bars, complain, say, say_path, shows
from .options import GroupedCommand, option, segmenting, under

if TYPE_CHECKING:
    from resegeo.run.trial import Trial


@click.command("try", cls=GroupedCommand)
@click.argument("scene")
@under(
    "Results",
    option("--prompts", required=True, metavar="FILE", help="Class file: names, prompts, colours (YAML)."),
    option("-o", "--output", type=click.Path(path_type=Path), help="The contact sheet.  [default: ./<scene>.try.png]"),
    option("-n", "count", type=click.IntRange(1, 40), default=6, show_default=True, help="Number of windows."),
    option("--overwrite", is_flag=True, help="Replace the file."),
    option("--json", "as_json", is_flag=True, help="Print JSON."),
)
@segmenting
@shows
def try_(
    scene: str, prompts: str, output: Path | None, count: int, overwrite: bool, as_json: bool, **options: Any
) -> None:
    """Show what words come to on a few windows of SCENE, in seconds: a contact sheet, and how each prompt fared.

    The windows differ, and are chosen by the image alone: other words see the same ones. For each prompt: how much it
    wins and where, what it competes with, and whether no pixel ever takes it.

    \b
    Example:
      resegeo try scene.tif --prompts classes.yml
    """
    import json

    from resegeo.run.trial import try_words

    bars = Bars(quiet=click.get_current_context().obj["quiet"])
    try:
        found = try_words(scene, prompts, output, count=count, overwrite=overwrite, progress=bars, **options)
    finally:
        bars.close()
    if as_json:
        say(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
        return
    if not click.get_current_context().obj["quiet"]:
        say(_table(found), err=True)
    for each in found.never:
        complain(
            f"Note: no pixel takes '{each.prompt}' ({each.class_name}); "
            + (f"it comes nearest to '{each.rival}'." if each.rival else "no other class is there to compete with.")
        )
    say_path(found.sheet)


def _table(found: Trial) -> str:
    from .tables import columns

    rows: list[tuple[str, ...]] = [("prompt", "class", "best of all at", "windows", "competes with")]
    for each in found.prompts:
        where = ", ".join(f"{number} ({share:.0%})" for number, share in each.windows)
        rows.append((each.prompt, each.class_name, f"{each.share:.1%}", where or "–", each.rival or "–"))
    return "\n".join(columns(rows))
