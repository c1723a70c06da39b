"""``resegeo classes``: a template, a check, and the words of the bundled model."""

from __future__ import annotations

from pathlib import Path

import click

from resegeo.errors import spelled

from .console import complain, in_flags, say, shows
from .options import Listing


@click.group(cls=Listing)
def classes() -> None:
    """Class files: a template, a check, synonyms, and the bundled model's words."""


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
    from resegeo.checkpoints.sources import half_known, unknown_words
    from resegeo.classes.class_file import added_synonyms, load_class_list
    from resegeo.classes.land_cover import near_synonyms
    from resegeo.clip.tokens import check_prompts
    from resegeo.composition.recipe import find_model

    found = load_class_list(Path(file))
    source = find_model(model, arch)
    check_prompts(found, source)
    for spec in found.classes:
        colour = "#{:02x}{:02x}{:02x}".format(*spec.color)
        say(f"{spec.code:5}  {colour}  {spec.name}: {', '.join(spec.prompts)}")
    added = added_synonyms([(spec.name, spec.prompts) for spec in found.classes])
    for spec, more in zip(found.classes, added, strict=True):
        if more:
            complain(f"Note: `synonyms: true` would add to {spec.name}: {', '.join(more)}.")
    for one, other, kind in near_synonyms([(spec.name, spec.prompts) for spec in found.classes]):
        complain(
            f"Warning: {one} and {other} both have words for {kind} and will split its pixels; make them one class, "
            f'take that word from one of them, or show them as one by --merge "{one},{other}={kind}".'
        )
    words = [prompt for spec in found.classes for prompt in spec.prompts] if source.bundled else []
    strange = unknown_words(words)
    if strange:
        complain(
            f"Warning: the bundled model was never taught {', '.join(strange)}; take words of `resegeo classes "
            "vocabulary`, or a larger CLIP by --model."
        )
    for prompt, phrases, rest in half_known(words):
        complain(
            f"Warning: of '{prompt}' the bundled model was taught {', '.join(phrases)} and never {', '.join(rest)}, so "
            f"that it may find any {phrases[-1]}."
        )
    if len(found.classes) == 1:
        complain(
            f"Warning: {found.classes[0].name} is the only class, and every pixel will be of it; add classes for what "
            "else is there, with 'background: true' where they are not wanted in the map."
        )


@classes.command()
@click.argument("file")
@shows
def synonyms(file: str) -> None:
    """Print a class FILE with a few common words added to classes of a known kind.

    \b
    Example:
      resegeo classes synonyms classes.yml > more.yml
    """
    from resegeo.classes.class_file import load_class_list, with_synonyms

    say(with_synonyms(load_class_list(Path(file))).rstrip("\n"))


@classes.command()
@shows
def vocabulary() -> None:
    """List the words and phrases that the bundled model was trained on, by kind."""
    from resegeo.checkpoints.sources import vocabulary_text

    say(vocabulary_text().rstrip("\n"))
