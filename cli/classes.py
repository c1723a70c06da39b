"""``resegeo classes``: a template, a check, and the words of the bundled model."""

from __future__ import annotations

from pathlib import Path

import click

from resegeo.errors import spelled

from .console import in_flags, say, shows
from .options import Listing


@click.group(cls=Listing)
def classes() -> None:
    """Class files: a template, a check, and the bundled model's words."""


@classes.command()
@shows
def template() -> None:
    """Print a commented class file to begin with."""
    from resegeo.classes.class_file import TEMPLATE

    say(spelled(TEMPLATE, in_flags).rstrip("\n"))


@classes.command()
@click.argument("file")
@click.option("--model", help="Model that shall read the prompts, as segment takes it.  [default: the bundled one]")
@click.option("--arch", help="Its open_clip architecture, where the model does not tell.")
@shows
def check(file: str, model: str | None, arch: str | None) -> None:
    """Read a class FILE and print its codes, colours, names and prompts."""
    from resegeo.classes.class_file import load_class_list
    from resegeo.clip.tokens import check_prompts
    from resegeo.composition.recipe import find_model

    found = load_class_list(Path(file))
    check_prompts(found, find_model(model, arch))
    for spec in found.classes:
        colour = "#{:02x}{:02x}{:02x}".format(*spec.color)
        say(f"{spec.code:5}  {colour}  {spec.name}: {', '.join(spec.prompts)}")


@classes.command()
@shows
def vocabulary() -> None:
    """List the words and phrases that the bundled model was trained on."""
    from resegeo.checkpoints.sources import vocabulary as words

    for word in sorted(words()):
        say(word)
