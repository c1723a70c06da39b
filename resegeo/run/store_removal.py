"""What lies at the place of a store: told as ours by its header, or by marks of ours, and only then removed.

The header is the first file that is written to a store and the last one that goes. Where it is lost or damaged, the
marks of work items that are done still tell whose the folder is. Nothing else is ever removed than the files that a
store consists of.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from resegeo.errors import ResegeoError, notice, shown
from resegeo.run.header import FORMAT
from resegeo.run.store_place import OURS, Place, place_of


class UnusableStoreError(ResegeoError):
    """A store that can only be replaced: damaged, or of another version's layout."""


class ForeignFolderError(UnusableStoreError):
    """Something at the place of a store that nothing tells to be one of ours: it is never touched."""


class LostHeaderError(UnusableStoreError):
    """A store that its marks tell to be one of ours, while its header does not any more."""


MARK = re.compile(rb"(([01]+h?) ([0-9a-f]{8})) [0-9a-f]{16}")
"""A mark of a work item that is done: its windows, a checksum of its values, and one of the mark itself."""

_ID = re.compile(r"[0-9a-f]{32}")
_LOOKED_AT = 16
"""Marks that are looked at for one of ours."""

REMAKE = "Run `resegeo segment` on the scene with [[overwrite=True]] to make it anew."


def header_at(url: str) -> dict[str, Any] | None:
    """Return what the header at a place says, with at least format and id of ours; None where nothing lies there.

    Raises
    ------
    LostHeaderError:
        When no header tells it, but marks of ours do.
    ForeignFolderError:
        When something else lies there.
    ResegeoError:
        When the place cannot be reached.

    """
    place = place_of(url)
    try:
        text = place.header()
        if text is None and not place.others():
            return None
        document = None if text is None else _document(text)
        marked = document is None and _is_marked(place)
    except Exception as error:  # the libraries behind fsspec share no base of errors
        raise ResegeoError(
            f"The store {url} cannot be opened ({error}). Nothing was changed; see that it can be reached, and run "
            "the same command again."
        ) from error
    if document is not None:
        return document
    why = "it has no zarr.json" if text is None else "its zarr.json has no header of ours, or a damaged one"
    if marked:
        raise LostHeaderError(f"The header of the store {url} is damaged ({why}). {REMAKE}")
    raise ForeignFolderError(
        f"{url} is no store of resegeo that can be told as such ({why}), and is left as it is. Move or remove it "
        "yourself and run `resegeo segment` on the scene with [[overwrite=True]], or name another place by [[store]]."
    )


def _document(text: bytes) -> dict[str, Any] | None:
    """Read a header, if it is one of ours."""
    try:
        found = json.loads(text)
        document = found["attributes"]["resegeo"]
        ours = found["zarr_format"] == 3 and type(document["format"]) is int and _ID.fullmatch(document["id"])
        return dict(document) if ours else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_marked(place: Place) -> bool:
    """Whether work items were marked as done there, as only we do it, and in that very folder."""
    names = sorted(name for name in place.names("marks/done") if name.isascii() and name.isdecimal())[:_LOOKED_AT]
    found = place.read_all([f"marks/done/{name}" for name in names])
    return any(MARK.fullmatch(mark) for mark in found.values()) and place.link() is None


def group_document(header: Mapping[str, Any]) -> bytes:
    """Metadata of the Zarr group, with our header among its attributes."""
    document = {"attributes": {"resegeo": header}, "zarr_format": 3, "node_type": "group"}
    return json.dumps(document, indent=1).encode()


def clear(url: str, place: Place) -> bool:
    """Remove all of a store but its header, which does not count from then on; False where there is none."""
    try:
        document = header_at(url)
    except LostHeaderError:
        document = {"id": uuid.uuid4().hex}
    if document is None:
        return False
    if place.is_link():
        raise ForeignFolderError(
            f"{url} is a symbolic link: no store is removed through one. Remove the link and what it leads to "
            "yourself, or name another place by [[store]]."
        )
    place.write("zarr.json", group_document({"format": FORMAT, "id": document["id"]}))
    left = place.remove(OURS)
    if left:
        notice(
            f"{url} holds {shown(', '.join(left[:3]))}{' and more' if len(left) > 3 else ''}, which no store of "
            "resegeo consists of: that stays.",
        )
    return True


def remove(url: str) -> None:
    """Remove a store of ours, file by file; the header last, so that what a kill leaves of it is known as ours.

    Anything else that lies there stays, and is said.

    Raises
    ------
    ForeignFolderError:
        When what lies there is no store of ours; nothing is touched then.
    ResegeoError:
        When it cannot be reached.

    """
    place = place_of(url)
    try:
        if clear(url, place):
            place.delete("zarr.json")
            place.remove_folder()
    except OSError as error:
        raise ResegeoError(f"The store {url} cannot be removed ({error}).") from error
