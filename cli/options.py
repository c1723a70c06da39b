"""The options of ``segment`` in groups, and the checks of those that hold several values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

VECTORS = ("gpkg", "shp", "geojson", "fgb", "parquet")

Callback = Callable[[click.Context, click.Parameter, str | None], Any]
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


def numbers(count: int | None, kind: type[int] | type[float], separator: str, example: str) -> Callback:
    """Build the check of an option that takes ``count`` numbers (None: one or more), such as 4,3,2 or 200:3000."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
        if value is None:
            return None
        try:
            found = tuple(kind(part) for part in value.split(separator))
        except ValueError:
            found = ()
        if not found or (count is not None and len(found) != count):
            wanted = "numbers" if count is None else f"{count} numbers"
            raise click.BadParameter(f"{value!r}; expected {wanted} such as {example}.", ctx, param)
        return found

    return check


def formats(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Check an option that takes polygon formats separated by commas, or none."""
    if value is None:
        return None
    names = tuple(dict.fromkeys(part.strip().lower() for part in value.split(",")))
    if names == ("none",):
        return ()
    for name in names:
        if name not in VECTORS:
            known = ", ".join(VECTORS)
            raise click.BadParameter(f"{name!r} is no polygon format; known are {known}, or none.", ctx, param)
    return names


BANDS: dict[str, Any] = {
    "callback": numbers(3, int, ",", "4,3,2"),
    "metavar": "R,G,B",
    "help": "Bands for red, green, blue, counted from 1, such as 4,3,2.",
}


def _flag(name: str, text: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """An on/off option that counts as not given unless it is."""
    return option(f"--{name}/--no-{name}", default=None, help=text)


_PROMPTS: dict[str, Any] = {"metavar": "FILE", "help": "Class file: names, prompts, colours (YAML)."}

_RESULTS = (
    option("--overwrite", is_flag=True, help="Replace the results of a run with other options."),
    option(
        "--vector",
        callback=formats,
        metavar="FORMATS",
        help=f"Polygon formats, comma-separated: {', '.join(VECTORS)}, or none.  [default: gpkg]",
    ),
    option("--min-area", type=int, metavar="PIXELS", help="Smaller areas join their largest neighbour.  [default: 0]"),
    option("--simplify", type=float, metavar="PIXELS", help="Simplify polygon borders.  [default: 0, exact]"),
    option("--only", multiple=True, metavar="CLASS", help="Write this class alone; may be repeated."),
    _flag("keep-background", "Draw background as polygons too."),
)

RESULTS = under(
    "Results",
    option("--prompts", required=True, **_PROMPTS),
    option("-o", "--output", metavar="DIR", help="Folder for the results.  [default: ./<scene>_resegeo]"),
    *_RESULTS,
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
    *_RESULTS,
)

SCENE = under(
    "Scene",
    option("--bands", **BANDS),
    option(
        "--stretch",
        callback=numbers(2, float, ":", "200:3000"),
        metavar="LOW:HIGH",
        help="Values that become 0 and 255.  [default: 2nd to 98th percentile; uint8 as it is]",
    ),
    option("--gsd", type=float, metavar="METRES", help="Pixel size the model sees.  [default: the scene's own]"),
    option("--assign-crs", metavar="CRS", help="CRS for a scene that has none, such as EPSG:32633."),
    option("--aoi", metavar="FILE", help="Vector file with polygons, in any CRS: outside is nodata."),
    option(
        "--bbox",
        callback=numbers(4, float, ",", "500000,5190000,501000,5191000"),
        metavar="L,B,R,T",
        help="Left, bottom, right, top in the scene's CRS: outside is nodata.",
    ),
)

MODEL = under(
    "Model",
    option(
        "--model",
        help="A name of `resegeo models list`, a checkpoint file or folder, an open_clip tag such as "
        "ViT-B-32:laion2b_s34b_b79k, or compose:FILE.  [default: bundled]",
    ),
    option("--arch", help="open_clip architecture of a file that does not tell it, such as ViT-L-14-quickgelu."),
    option(
        "--activation",
        type=click.Choice(["quickgelu", "gelu"]),
        help="That of a checkpoint file that does not tell: quickgelu for OpenAI's CLIP and its fine-tunes.",
    ),
    option("--device", help="cpu, cuda or mps.  [default: the best there is]"),
    option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all cores]"),
    option(
        "--precision",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        help="Arithmetic of the vision transformer.  [default: float32]",
    ),
    _flag("compile", "Compile the vision transformer (torch.compile)."),
)

SEGMENTS = under(
    "Segments",
    option(
        "--segments",
        metavar="WHAT",
        help="superpixels, sam, none, a label raster, or polygons (a second file after a comma is the next level).  "
        "[default: superpixels]",
    ),
    option(
        "--superpixel-area",
        callback=numbers(None, int, ",", "256,1024"),
        metavar="AREAS",
        help="Mean area of superpixels in pixels, one number a level.  [default: 16 patches]",
    ),
    option("--sam-checkpoint", metavar="NAME|FILE", help="SAM's weights, for --segments sam: sam-vit-b or a file."),
    option("--sam-arch", type=click.Choice(["vit_h", "vit_l", "vit_b"]), help="SAM's size.  [default: the file's]"),
    option(
        "--sam-mode",
        type=click.Choice(["tile", "exact"]),
        help="One pass a 1024-pixel tile, or the paper's passes over every window.  [default: tile]",
    ),
)

METHOD = under(
    "Method",
    option("--preset", type=click.Choice(["default", "paper"]), default="default", show_default=True),
    option("--settings", metavar="FILE", help="YAML file with any knob of the method; options go before it."),
    option("--stride", type=int, metavar="PIXELS", help="Step of the windows.  [default: half a window]"),
    option("--overlap", type=float, metavar="SHARE", help="The same as a share of the window.  [default: 0.5]"),
    option("--free-layers", type=int, metavar="N", help="Unrestricted layers.  [default: the paper's share]"),
    option("--segment-layers", type=int, metavar="N", help="Layers restricted to segments."),
    option("--local-layers", type=int, metavar="N", help="Layers restricted to a patch's neighbourhood."),
    option("--local-radius", type=int, metavar="PATCHES", help="How far that reaches.  [default: 0, itself]"),
    _flag("self-self", "Last layer by q·q + k·k + v·v, without residual and MLP."),
    option("--edge", type=click.Choice(["clamp", "overhang"]), help="Last window of a row.  [default: clamp]"),
    option("--fill", type=click.Choice(["mean", "black"]), help="Colour of invalid pixels.  [default: mean]"),
    _flag("taper", "Weigh a window's middle more than its border.  [default: on]"),
    option("--logit-scale", type=float, metavar="X", help="Factor before the softmax.  [default: the model's]"),
    option("--subtract-cls", type=float, metavar="X", help="Subtract X times the CLS score.  [default: 0]"),
    _flag("vote-segments", "Let the pixels of a segment share their votes."),
    option(
        "--reduction",
        type=click.Choice(["max", "mean", "logsumexp"]),
        help="A class's score from its prompts.  [default: max]",
    ),
    option(
        "--softmax-over",
        type=click.Choice(["classes", "prompts"]),
        help="Probabilities over classes, whatever the number of words, or over prompts as published.  "
        "[default: classes]",
    ),
    option("--threshold", type=float, metavar="P", help="Less probable pixels become background."),
    _flag("use-thresholds", "Apply thresholds, also those of the class file.  [default: on]"),
)

EXECUTION = under(
    "Execution",
    _flag("keep-features", "Keep features, so that other words need no new pass.  [default: below 2 GB]"),
    option("--discard-store", is_flag=True, help="Remove the store at the end."),
    option("--store", metavar="DIR", help="Folder or URL (s3://...) for the store.  [default: that of the results]"),
    option(
        "--cluster",
        metavar="N|ADDRESS",
        help="Local worker processes, or a dask scheduler such as tcp://10.0.0.5:8786.",
    ),
    option(
        "--read-ahead", type=click.IntRange(min=0), default=1, show_default=True, metavar="N", help="Items read ahead."
    ),
    option(
        "--feature-dtype",
        type=click.Choice(["float16", "int8"]),
        help="What features are rounded to; int8 takes half the space.  [default: float16]",
    ),
)


def segmenting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of scene, model, segments, method and execution: all that segmenting takes beside its results."""
    for group in (EXECUTION, METHOD, SEGMENTS, MODEL, SCENE):
        command = group(command)
    return command
