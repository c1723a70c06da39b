"""``resegeo``: the commands."""

from __future__ import annotations

import contextlib
import os

import click

from .batch import batch
from .calibrate import calibrate
from .classes import classes
from .compare import compare
from .console import open_standard_streams
from .dataset import dataset
from .evaluate import evaluate
from .find import find
from .models import models
from .options import Listing
from .outputs import vectorize
from .plan import plan
from .qgis import qgis
from .report import report
from .sample import sample
from .scene import info
from .segment import segment
from .suggest import suggest
from .try_words import try_


@click.group("resegeo", cls=Listing, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="resegeo")
def main() -> None:
    """Segment georeferenced images by words: no training, no labels.

    \b
    Example:
      resegeo classes template > classes.yml
      resegeo segment scene.tif --prompts classes.yml
    """


def program() -> None:
    """Run as a program of its own: what ``resegeo`` on the command line is."""
    import signal
    import sys

    open_standard_streams()
    try:
        main(prog_name="resegeo")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        # Whoever is impatient with the end of a program that was told to stop, or is done, ends it at once.
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))


for command in (
    segment,
    batch,
    try_,
    dataset,
    plan,
    info,
    vectorize,
    report,
    evaluate,
    compare,
    sample,
    calibrate,
    suggest,
    find,
    classes,
    models,
    qgis,
):
    main.add_command(command)
