"""What the bundled model's card says of its quality is what its weights do, on pictures that training never saw."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from resegeo.checkpoints.model_card import bundled_card

ROOT = Path(__file__).parents[1]


JAPAN, BRAZIL = "aerial images of Japan", "Sentinel-2 images of Brazil"
CLOUDS = "Landsat and Sentinel-2 scenes with clouds"


@pytest.mark.slow
def test_the_card_says_what_the_weights_do(test_data, tmp_path):
    made = tmp_path / "figures.json"
    script = ROOT / "examples" / "evaluate_bundled_model.py"
    asked = ["--data", test_data, "--out", made, "--title", "now", "--sets", "road", "solar_panel", "forest", "clouds"]
    subprocess.run([sys.executable, script, *map(str, asked)], check=True, capture_output=True)
    measured = json.loads(made.read_text("utf-8"))["measured"]["now"]
    said = {(kind.name, each.source): each.iou for kind in bundled_card().kinds for each in kind.quality}
    found = {
        ("road", JAPAN): measured["road"]["road"],
        ("solar panel", JAPAN): measured["solar_panel"]["solar panel"],
        ("tree", BRAZIL): measured["forest"]["tree"],
        ("cloud", CLOUDS): measured["clouds"]["cloud"],
        ("shadow", CLOUDS): measured["clouds"]["shadow"],
    }
    # The card has two digits; the last bits of other processors may move a pixel.
    assert {place: said[place] for place in found} == pytest.approx(found, abs=0.007)
