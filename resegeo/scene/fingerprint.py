"""Size and time of files, ETag of URLs: by which a file that was replaced is noticed, whatever its pixels.

A VRT is known by its text, since it is small and often written anew; a file in an archive by the archive and its name
there.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from resegeo.files import is_file

TIMEOUT = 10.0
"""Seconds that a server may take to say what it has."""

_ARCHIVE = re.compile(r"/vsi(zip|tar|gzip|7z|rar)/")
_ARCHIVE_URL = re.compile(r"(.+?\.(?:zip|tar\.gz|tar|tgz|gz|7z|rar))(?=[/?]|$)", re.IGNORECASE)
_STORES = {"/vsis3/": "s3://", "/vsigs/": "gs://", "/vsiaz/": "az://"}
"""GDAL's prefixes for objects, and fsspec's."""
_TEXT_LIMIT = 100_000_000


def stamp(files: Iterable[str], part: str = "") -> str | None:
    """Checksum over the stamps of some files or URLs, in their order; None where none of them has one.

    ``part`` tells which of several rasters in them is meant.
    """
    found = []
    for file in files:
        holder, member = _held(file)
        found.append((member, _one(holder)))
    if not any(one for _, one in found):
        return None
    return hashlib.sha256(repr((found, part)).encode()).hexdigest()


def _held(file: str) -> tuple[str, str]:
    """Split a path of GDAL's own into the file or URL that lies somewhere and the name in it, if it is an archive."""
    archived = False
    while found := _ARCHIVE.match(file):
        file, archived = file[found.end() :].replace("{", "").replace("}", ""), True
    file = file.removeprefix("/vsicurl/")
    for prefix, scheme in _STORES.items():
        if file.startswith(prefix):
            file = scheme + file.removeprefix(prefix)
    if not archived:
        return file, ""
    if "://" in file:
        url = _ARCHIVE_URL.match(file)
        holder = file if url is None else url[1]
    else:
        paths = (Path(file), *Path(file).parents)
        holder = next((str(path) for path in paths if is_file(path)), file)
    return holder, file[len(holder) :].lstrip("/")


def _one(file: str) -> str | None:
    if file.startswith(("http://", "https://")):
        return _of_server(file)
    if "://" in file:
        return _of_object(file)
    with contextlib.suppress(OSError, ValueError):
        state = Path(file).stat()
        if file.lower().endswith(".vrt") and state.st_size < _TEXT_LIMIT:
            return hashlib.sha256(Path(file).read_bytes()).hexdigest()
        return f"{state.st_size} {state.st_mtime_ns}"
    return None


def _of_server(url: str) -> str | None:
    """What a server answers to HEAD: its ETag, else date and length."""
    import requests

    try:  # of the file as it is: one that is compressed on the way has another tag
        answer = requests.head(url, headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT, allow_redirects=True)
        answer.raise_for_status()
    except (requests.RequestException, OSError, ValueError):  # signed addresses often allow GET alone
        return None
    heads = answer.headers
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
