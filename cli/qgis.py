"""``resegeo qgis``."""

from __future__ import annotations

from pathlib import Path

import click

from .console import say_path, shows
from .options import Listing


@click.group(cls=Listing)
def qgis() -> None:
    """Run resegeo from inside QGIS: a Processing provider."""


@qgis.command("install")
@click.option("--profile", default="default", show_default=True, help="User profile of QGIS.")
@click.option("--folder", type=click.Path(path_type=Path), help="Folder of plugins, instead of the profile's.")
@shows
def install(profile: str, folder: Path | None) -> None:
    """Put the plugin into QGIS's folder of plugins; enable it there under Plugins, Installed."""
    from resegeo.qgis.install import install as run

    say_path(run(folder, profile=profile))


@qgis.command("package")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("resegeo_plugin.zip"), show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@shows
def package(output: Path, overwrite: bool) -> None:
    """Write the plugin as a ZIP for QGIS's "Install from ZIP"."""
    from resegeo.qgis.install import package as run

    say_path(run(output, overwrite=overwrite))
