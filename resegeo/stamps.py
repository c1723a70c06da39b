"""Size and time of files, ETag of URLs: by which a file that was replaced is noticed, whatever its pixels."""

from __future__ import annotations

import contextlib
import hashlib
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from urllib.error import URLError

TIMEOUT = 10.0
"""Seconds that a server may take to say what it has."""


def stamp(files: Iterable[str]) -> str | None:
    """Checksum over the stamps of some files or URLs, in their order; None where none of them has one."""
    found = [_one(file) for file in files]
    if not any(found):
        return None
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _one(file: str) -> str | None:
    url = file.removeprefix("/vsicurl/")
    if url.startswith(("http://", "https://")):
        return _of_server(url)
    if "://" in url:
        return _of_object(url)
    with contextlib.suppress(OSError, ValueError):
        state = Path(file).stat()
        return f"{state.st_size} {state.st_mtime_ns}"
    return None


def _of_server(url: str) -> str | None:
    """What a server answers to HEAD: its ETag, else date and length."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            heads = answer.headers
    except (URLError, OSError, ValueError):  # signed addresses often allow GET alone
        return None
    tag = heads.get("ETag")
    return tag or " ".join(filter(None, (heads.get("Last-Modified"), heads.get("Content-Length")))) or None


def _of_object(url: str) -> str | None:
    """What an object store says of an object, where fsspec has a way to it."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        facts = system.info(path)
    except (
        Exception
    ):  # the libraries behind fsspec share no base of errors, and GDAL may well read the URL without them
        return None
    return str(facts.get("ETag") or f"{facts.get('LastModified')} {facts.get('size')}")
