"""``resegeo calibrate``."""

from __future__ import annotations

from pathlib import Path

import click

from .console import Bars, complain, say, say_path, shows


@click.command()
@click.argument("store")
@click.argument("truths", nargs=-1, required=True, metavar="TRUTH...")
@click.option("--prompts", required=True, metavar="FILE", help="Class file: names, prompts, colours (YAML).")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The new class file.")
@click.option("--map", "legend", metavar="MAP", help="What the truths' values mean, as for `resegeo evaluate`.")
@click.option("--field", metavar="NAME", help="Field of the truths' polygons that names the class.")
@click.option("--diagram", metavar="FILE", help="Reliability diagrams before and after, as PNG.")
@click.option("--model", metavar="MODEL", help="The model of the store, where it is not the bundled one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@shows
def calibrate(
    store: str,
    truths: tuple[str, ...],
    prompts: str,
    output: Path,
    legend: str | None,
    field: str | None,
    diagram: str | None,
    model: str | None,
    as_json: bool,
) -> None:
    """Fit a threshold and a scale for each class on labelled parts of a scene, from its STORE: no image pass.

    Every part is judged by what the others came to, and what does not help there is not written. The result is a new
    class file, for this scene and those like it.

    \b
    Example:
      resegeo calibrate out/scene.store.zarr tile1.tif tile2.gpkg --prompts classes.yml -o calibrated.yml
      resegeo segment out/scene.store.zarr --prompts calibrated.yml
    """
    import json

    from resegeo.run.calibration import calibrate as run

    from .tables import columns

    bars = Bars(quiet=click.get_current_context().obj["quiet"])
    try:
        found = run(
            store,
            truths,
            prompts,
            output,
            legend=legend,
            field=field,
            diagram=diagram,
            progress=bars,
            model=model,
        )
    finally:
        bars.close()
    if as_json:
        say(json.dumps(found.as_dict(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    rows: list[tuple[str, ...]] = [("class", "scale", "threshold")]
    for spec in found.classes.classes:
        rows.append((spec.name, *("–" if value is None else f"{value:.4g}" for value in (spec.scale, spec.threshold))))
    say("\n".join(columns(rows)), err=True)
    changes = (("calibration error", found.before.error, found.after.error), ("mean IoU", *found.iou))
    for name, before, after in changes:
        say(f"{name}: {before:.3f} before, {after:.3f} after, on parts that it was not fitted on", err=True)
    for text in found.refusals:
        complain(f"Note: {text}")
    say_path(output)
    if diagram is not None:
        say_path(diagram)
