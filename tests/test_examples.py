"""The examples fit the package as it is: each one says what it does, and the measuring of probabilities agrees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

import resegeo
from resegeo.settings import Settings

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = ["ablation", "compose_fine_tunes", "evaluate_bundled_model", "reproduce_paper", "train_bundled_model"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_loads_and_shows_its_options(name):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--data" in done.stdout or "--help" in done.stdout


def test_measured_probabilities_are_those_behind_the_labels(tmp_path, make_raster, picture, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import measuring

    from resegeo.checkpoints.sources import resolve_model
    from resegeo.clip.encoder import load_encoder

    scene = make_raster("scene.tif", picture(200, 300))
    source = resolve_model()
    found = measuring.probabilities(scene, source, load_encoder(source), Settings())
    measuring.write_classes(tmp_path / "classes.yml")
    result = resegeo.segment(scene, tmp_path / "classes.yml", tmp_path / "out", vector=())
    with rasterio.open(result.raster) as raster:
        labels = raster.read(1)
    assert np.allclose(found.sum(0), 1, atol=1e-4)
    assert (found.argmax(0) + 1 == labels).mean() > 0.9999
