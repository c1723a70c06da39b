"""The library speaks Python, and the command line spells it in flags; warnings name the caller's line."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path

import resegeo
from resegeo.errors import InputNotice, notice

ROOT = Path(resegeo.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if "resegeo_plugin" not in path.parts)


def test_no_module_counts_the_frames_of_a_warning() -> None:
    found = [path.name for path in MODULES if "stacklevel" in path.read_text("utf-8") and path.name != "errors.py"]
    assert found == []


def test_a_notice_names_the_line_that_called_the_package() -> None:
    code = compile("def inner():\n    notice('a')\n\ndef outer():\n    inner()\n", "inside.py", "exec")
    inside = {"__name__": "resegeo.anything", "notice": notice}
    exec(code, inside)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        inside["outer"]()  # type: ignore[operator]
    (one,) = given
    assert (Path(one.filename), one.category) == (Path(__file__), InputNotice)


def test_no_string_of_the_library_spells_a_flag() -> None:
    found = [
        f"{path.name}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"--[a-z]", node.value)
    ]
    assert found == []
