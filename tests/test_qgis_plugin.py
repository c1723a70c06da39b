"""The plugin of QGIS: where it is put, what it holds. Inside QGIS it is run by ``check_qgis_plugin.py``."""

from __future__ import annotations

import ast
import sys
import zipfile

import pytest
from click.testing import CliRunner

from resegeo.qgis.install import NAME, PLUGIN, profile_folder
from resegeo_cli.main import main


def test_it_is_installed_whole_and_knows_its_python(tmp_path):
    done = CliRunner().invoke(main, ["qgis", "install", "--folder", str(tmp_path)])
    assert done.exit_code == 0, done.output
    folder = tmp_path / NAME
    assert (folder / "environment.txt").read_text("utf-8").strip() == sys.executable
    for source in PLUGIN.glob("*.py"):
        assert (folder / source.name).read_bytes() == source.read_bytes()
    assert "qgisMinimumVersion=3.22" in (folder / "metadata.txt").read_text("utf-8")
    assert CliRunner().invoke(main, ["qgis", "install", "--folder", str(tmp_path)]).exit_code == 0  # an update


def test_a_folder_of_the_users_own_is_left_alone(tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "mine.py").write_text("mine")
    done = CliRunner().invoke(main, ["qgis", "install", "--folder", str(tmp_path)])
    assert done.exit_code == 1
    assert "is no plugin of resegeo" in done.output
    assert [path.name for path in (tmp_path / NAME).iterdir()] == ["mine.py"]


def test_the_zip_holds_the_plugin_and_never_replaces_a_file_unasked(tmp_path):
    path = tmp_path / "plugin.zip"
    assert CliRunner().invoke(main, ["qgis", "package", "-o", str(path)]).exit_code == 0
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert f"{NAME}/metadata.txt" in names
    assert f"{NAME}/algorithms.py" in names
    first = path.read_bytes()
    assert CliRunner().invoke(main, ["qgis", "package", "-o", str(path)]).exit_code == 1
    assert CliRunner().invoke(main, ["qgis", "package", "-o", str(path), "--overwrite"]).exit_code == 0
    assert path.read_bytes() == first


@pytest.mark.skipif(sys.platform != "linux", reason="the folder is another one there")
def test_the_profiles_folder_is_the_one_of_qgis(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert profile_folder("work") == tmp_path / "QGIS/QGIS3/profiles/work/python/plugins"
    (tmp_path / "QGIS/QGIS4").mkdir(parents=True)
    assert profile_folder() == tmp_path / "QGIS/QGIS4/profiles/default/python/plugins"


def test_the_plugin_imports_nothing_but_qgis_and_the_standard_library():
    for source in PLUGIN.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in {"qgis", *sys.stdlib_module_names}, f"{source.name}: {name}"
