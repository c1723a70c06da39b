"""The pixel size that the model sees, given with its unit: in Python, settings files, manifests and by flags."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from resegeo.batches.manifest import read_manifest
from resegeo.errors import UsageError
from resegeo.run.options import Options
from resegeo.settings import Settings, resolve_settings
from resegeo_cli.main import main


@pytest.mark.parametrize("given", ["20cm", "0.2m", "0.2", 0.2])
def test_a_length_with_its_unit_is_in_metres_wherever_it_stands(tmp_path, given):
    assert Settings(gsd=given).gsd == pytest.approx(0.2)
    assert Options.of({"gsd": given}).method.knobs["gsd"] == pytest.approx(0.2)
    (tmp_path / "s.yml").write_text(f"gsd: {given}\n")
    assert resolve_settings({}, file=tmp_path / "s.yml").gsd == pytest.approx(0.2)
    (tmp_path / "scenes.csv").write_text(f"scene,gsd\na.tif,{given}\n")
    assert read_manifest(tmp_path / "scenes.csv")[0].options["gsd"] == pytest.approx(0.2)


@pytest.mark.parametrize("given", ["20px", "20 parsecs", "-1m", "0m"])
def test_what_is_no_length_on_the_ground_is_told(tmp_path, given):
    with pytest.raises(UsageError, match=r"gsd is .*expected"):
        Settings(gsd=given)
    words = tmp_path / "c.yml"
    words.write_text("classes: [water]\n")
    shown = CliRunner().invoke(main, ["segment", "a.tif", "--prompts", str(words), f"--gsd={given}"])
    assert shown.exit_code == 2
