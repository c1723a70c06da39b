"""The page of a data set: a page each image, and one of all with the figures that the command told."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from test_dataset import lay
from test_report_page import Tags

from resegeo_cli.main import main

pytestmark = pytest.mark.usefixtures("quick_model")


def test_a_data_set_has_a_page_each_image_and_one_of_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay(tmp_path, {"north/a": True, "b": False})
    flags = ["--model", "resegeo-small", "--segments", "superpixels", "--report"]
    ran = CliRunner().invoke(main, ["dataset", "config.yml", *flags])
    assert ran.exit_code == 0, ran.output
    page = tmp_path / "out/report.html"
    assert ran.stdout.splitlines()[-1] == "out/report.html"
    tags = Tags(page.read_text("utf-8"))
    assert {each["href"] for each in tags.all("a")} == {"./north/a/report.html", "./b/report.html"}
    assert (tmp_path / "out/north/a/report.html").exists()
    figures = json.loads((tmp_path / "out/figures.json").read_text("utf-8"))
    assert f"{figures['mean_iou']:.3f}" in tags.text
    kept = json.loads((tmp_path / "out/report.summary.json").read_text("utf-8"))
    assert kept["evaluation"]["mean_iou"] == figures["mean_iou"]
