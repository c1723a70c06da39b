"""How a run tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps of it that are done, and the steps in all."""


def silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""
