"""The options of ``segment`` in groups, made of what :mod:`resegeo.run.options` declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from resegeo.declare import Declared, MisfitError, read
from resegeo.errors import spelled
from resegeo.run.options import OPTIONS

from .console import in_flags, say

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class GroupedCommand(click.Command):
    """A command whose help shows its options under headings, in the order in which these were first used."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section a heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "heading", ""), []).append(record)
        for heading in sorted(sections, key=lambda name: name == ""):  # those under no heading come last
            with formatter.section(heading or "Other"):
                formatter.write_dl(sections[heading])


class Listing(click.Group):
    """A group whose help shows the first sentence of each command in full, in the order of work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one line or more a command; nothing is cut."""
        rows = [(name, self.commands[name].get_short_help_str(limit=1000)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


COMMON = frozenset(
    {"prompts", "output", "overwrite", "only", "bands", "assign_crs", "gsd", "model", "preset", "segments", "vector"}
    | {"min_area"}
)
"""Options of ``segment`` that people use: ``--help`` shows these, ``--help-all`` all."""


class SegmentCommand(GroupedCommand):
    """``segment``, whose help shows what people use; ``--help-all`` shows the rest too."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all parameters and ``--help-all``."""
        return [*super().get_params(ctx), _HELP_ALL]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options that people use under one heading, or all where they were asked for."""
        if ctx.meta.get(_ALL):
            super().format_options(ctx, formatter)
            return
        named = {parameter.name: parameter for parameter in self.get_params(ctx)}
        context_help = self.get_help_option(ctx)
        order = [name for name in named if name in COMMON] + [
            *([] if context_help is None else [context_help.name]),
            _HELP_ALL.name,
        ]
        records = [named[name].get_help_record(ctx) for name in order if name in named]
        with formatter.section("Options"):
            formatter.write_dl([record for record in records if record is not None])
        with formatter.section("More"):
            others = sorted({getattr(each, "heading", "") for each in self.get_params(ctx)} - {""})
            formatter.write_text(f"--help-all shows all options, under {', '.join(others)}.")


_ALL = "resegeo.all"


def _show_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        say(ctx.get_help())
        ctx.exit()


_HELP_ALL = click.Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_all,
    help="Show all options, under headings.",
)


class _Option(click.Option):
    """An option under a heading."""

    heading = ""


def under(heading: str, *options: tuple[tuple[str, ...], dict[str, Any]]) -> Decorator:
    """Add options, each as the arguments of :func:`click.option`, under a heading of the help."""
    kind = type("_Headed", (_Option,), {"heading": heading})

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for names, settings in reversed(options):
            command = click.option(*names, cls=kind, **settings)(command)
        return command

    return decorate


def option(*names: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Describe an option for :func:`under`, in the words of :func:`click.option`."""
    return names, settings


def arguments(what: Declared) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Say in the words of :func:`click.option` what is declared; ranges are checked with the values of files."""
    about = what.about
    words: dict[str, Any] = {"default": None, "help": spelled(about.help, in_flags), "metavar": about.metavar}
    if about.repeated:
        return (what.flag,), words | {"multiple": True}
    if what.kind is bool:
        name = f"{what.flag}/--no-{what.flag.removeprefix('--')}" if about.off else what.flag
        return (name,), words | ({} if about.off else {"is_flag": True})
    if what.several:
        return (what.flag,), words | {"callback": _several(what)}
    if what.choices:
        return (what.flag,), words | {"type": click.Choice(what.choices)}
    return (what.flag,), words | {
        "type": what.kind if what.kind in (int, float) and not (about.metres or about.measure) else str
    }


def _several(what: Declared) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Build the check of an option that takes several values as one word, such as 4,3,2 or 200:3000."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else read(what, value)
        except MisfitError as error:
            raise click.BadParameter(str(error).removeprefix(f"{what.name} is "), ctx, param) from error

    return check


LOOKS = tuple(arguments(OPTIONS[name]) for name in ("bands", "formats", "alpha"))
"""What ``info`` takes too."""

FORMATS = arguments(OPTIONS["formats"])
"""What ``evaluate`` takes for its rasters."""


def _declared(heading: str) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    return [arguments(what) for what in OPTIONS.values() if what.about.heading == heading]


_PROMPTS: dict[str, Any] = {"metavar": "FILE", "help": "Class file: names, prompts, colours (YAML)."}

REPORT = under(
    "Results", option("--report", is_flag=True, help="Write a page for readers too, as `resegeo report` does.")
)

RESULTS = under(
    "Results",
    option("--prompts", **_PROMPTS),
    option("-o", "--output", metavar="DIR", help="Folder for the results.  [default: ./<scene>_resegeo]"),
    *_declared("Results"),
)

BATCH = under(
    "Batch",
    option(
        "--asset", metavar="NAME", help="Asset of a STAC item.  [default: visual, data, image, or the only GeoTIFF]"
    ),
    option("--mosaic", metavar="NAME", help="The scenes are tiles of one grid: segment them as one, without seams."),
)

BATCH_RESULTS = under(
    "Results",
    option("--prompts", **_PROMPTS),
    option("-o", "--output", default="batch_resegeo", show_default=True, metavar="DIR", help="Folder for all results."),
    *_declared("Results"),
)

DATASET = under(
    "Data set",
    option("--data", metavar="DIR", help="Folder of the images, instead of the file's input.dir."),
    option("--limit", type=int, metavar="N", help="The first N images alone, for a quick look."),
    option("--latex", is_flag=True, help="Print the figures as a table in LaTeX, in per cent."),
)

DATASET_RESULTS = under(
    "Results",
    option("-o", "--output", metavar="DIR", help="Folder for all results, instead of the file's output.base_dir."),
    *(each for each in _declared("Results") if each[0] not in (("--name",), ("--append",))),
)

SECTIONS = ("Scene", "Model", "Segments", "Method", "Execution")
"""Headings of all that segmenting takes beside its results."""


def segmenting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of scene, model, segments, method and execution."""
    for heading in reversed(SECTIONS):
        command = under(heading, *_declared(heading))(command)
    return command
