"""``resegeo models``: list, fetch, check, export, import, compose."""

from __future__ import annotations

import json
from pathlib import Path

import click

from resegeo.errors import ResegeoError, escaped

from .console import Bars, say, shows, told
from .options import Listing

ACTIVATION = click.Choice(["quickgelu", "gelu"])


@click.group(cls=Listing)
def models() -> None:
    """Checkpoints: which are known, here, sound; and averages of them."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with paths and ancestors.")
@shows
def list_models(as_json: bool) -> None:
    """List the models that are known by name: CLIP variants and SAM, and those that were imported.

    A question mark: likely, but not documented by its authors. The last column says what a model was trained on, as far
    as that touches what it may be measured on.
    """
    from resegeo.composition.models import listed

    from .tables import of_models

    rows = listed()
    say(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else of_models(rows))


@models.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@shows
def fetch(names: tuple[str, ...]) -> None:
    """Bring models onto this machine, and print where they are.

    \b
    Examples:
      resegeo models fetch remoteclip-l14 sam-vit-b
      resegeo models fetch ViT-B-32:laion2b_s34b_b79k
    """
    from resegeo.composition.models import fetched

    bars = Bars(quiet=click.get_current_context().obj["quiet"])
    try:
        for name in names:
            say(escaped(fetched(name, bars)))
    finally:
        bars.close()


@models.command()
@click.argument("file")
@click.option("--arch", help="open_clip architecture, where the file does not tell.")
@click.option("--activation", type=ACTIVATION, help="Where the file does not tell.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every parameter that differs.")
@shows
def check(file: str, arch: str | None, activation: str | None, as_json: bool) -> None:
    """Tell what a checkpoint FILE is, whether it will load, and which parameters differ and how.

    FILE may be a folder too, or the name of an imported model.

    \b
    Example:
      resegeo models check RemoteCLIP-ViT-L-14.pt
    """
    from resegeo.composition.models import checked

    from .tables import of_check

    result = checked(file, arch, activation)
    if as_json:
        document = result.as_dict()
        if result.error is not None:
            document["problem"] = told(result.error)
        say(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        say(of_check(result))
    if result.error is not None:
        raise ResegeoError(result.error.text)


@models.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-o", "--output", required=True, metavar="ARCHIVE", help="ZIP archive to write.")
@click.option("--overwrite", is_flag=True, help="Replace the archive if it exists.")
@shows
def export(names: tuple[str, ...], output: str, overwrite: bool) -> None:
    """Put models, known ones or files and folders of yours, into one archive for a machine without a network.

    \b
    Example:
      resegeo models export remoteclip-l14 mine.safetensors -o models.zip
    """
    from resegeo.checkpoints.transfer import export as run

    say(escaped(run(names, output, overwrite=overwrite)))


@models.command("import")
@click.argument("archive")
@shows
def import_models(archive: str) -> None:
    """Take the models out of an ARCHIVE that `models export` wrote; --model takes them by name then.

    \b
    Example:
      resegeo models import models.zip
      resegeo segment scene.tif --prompts classes.yml --model mine
    """
    from resegeo.checkpoints.transfer import imported

    for path in imported(archive):
        say(escaped(path))


@models.command()
@click.argument("variants", nargs=-1, required=True, metavar="MODEL...")
@click.option("-o", "--output", required=True, metavar="FILE", help="Checkpoint to write (.safetensors).")
@click.option(
    "--weights",
    default="uniform",
    show_default=True,
    metavar="HOW",
    help="uniform, separation (by how well each tells the classes apart), or one number a variant such as 0.5,0.3,0.2.",
)
@click.option(
    "--classes", metavar="FILE", help="Class file whose phrasings separation takes.  [default: a built-in list]"
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Of separation's softmax.  [default: 0.05]",
)
@click.option("--arch", help="open_clip architecture of files that do not tell.")
@click.option("--activation", type=ACTIVATION, help="Activation of files that do not tell.")
@click.option("--allow-outlier", is_flag=True, help="Average even what is no fine-tune of the same weights.")
@click.option("--device", help="Where separation computes: cpu, cuda or mps.  [default: the best there is]")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@shows
def compose(
    variants: tuple[str, ...],
    output: str,
    weights: str,
    classes: str | None,
    temperature: float | None,
    arch: str | None,
    activation: str | None,
    allow_outlier: bool,
    device: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Average CLIP variants of one architecture, activation and ancestor into one checkpoint.

    Prints each variant's weight and its distance from the first, block by block.

    \b
    Examples:
      resegeo models compose openai:ViT-L-14 remoteclip-l14 skyclip-l14 --weights separation -o rs-l14.safetensors
      resegeo models compose a.pt b.pt --weights 0.7,0.3 --activation quickgelu -o ab.safetensors
    """
    from resegeo.composition.models import averaged

    from .tables import of_composition

    bars = Bars(quiet=click.get_current_context().obj["quiet"])
    try:
        made = averaged(
            variants,
            Path(output),
            weights=weights,
            classes=classes,
            temperature=temperature,
            architecture=arch,
            activation=activation,
            allow_outlier=allow_outlier,
            device=device,
            overwrite=overwrite,
            progress=bars,
        )
    finally:
        bars.close()
    say(json.dumps(made.as_dict(), indent=2, ensure_ascii=False) if as_json else of_composition(made))
    say(f"Written: {escaped(made.path)}", err=True)
