"""JSON that a stranger may have written: small, and whatever is wrong with it said in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resegeo.errors import ResegeoError, shown
from resegeo.files import read_limited

MOST = 8_000_000
"""Bytes of a JSON file that are read at most."""


def read_json(path: Path, most: int = MOST) -> Any:
    """Read a JSON file; :class:`ResegeoError` where it is none, larger than ``most`` bytes, or unreadable."""
    return parse_json(read_limited(path, most), str(path))


def parse_json(content: bytes | str, what: str) -> Any:
    """Parse JSON; :class:`ResegeoError` where it is none; the text begins with ``what``."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError, OverflowError, MemoryError) as error:  # nested deeply, endless numbers, …
        raise ResegeoError(f"{what} is no JSON that can be read ({shown(error)}).") from error
