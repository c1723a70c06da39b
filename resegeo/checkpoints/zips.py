"""ZIP archives of strangers, measured before they are read: a small one may tell of any number of bytes.

Python reads the whole directory of an archive when it is opened, and unpacks as many bytes as a member declares.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from resegeo.errors import ResegeoError, shown

DIRECTORY = 8_000_000
"""Bytes of an archive's directory at most; one of a large checkpoint takes some 100,000."""
PICKLE = 64_000_000
"""Bytes of the pickled tree in a checkpoint at most; that of a large one takes some 100,000."""
_END, _LOCATOR, _END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_SHRINKS = 10
"""How many times larger than the archive its members may be: weights do not shrink, but for zeros."""
_SPARE = 20_000_000
"""Bytes of members that are no matter whatever the archive's size."""


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a ZIP archive to read, once its directory and the sizes that its members declare are seen to be possible.

    Raises
    ------
    ResegeoError:
        When the directory is too large, or the members would take far more room than the archive.
    zipfile.BadZipFile, OSError:
        When it is damaged.

    """
    declared = _directory_size(path)
    if declared > DIRECTORY:
        raise ResegeoError(
            f"{path} has a directory of {declared:,} bytes, and {DIRECTORY:,} are the most that is read; it is no "
            "archive of models."
        )
    archive = zipfile.ZipFile(path)
    try:
        _refuse_bombs(archive, path)
    except BaseException:
        archive.close()
        raise
    return archive


def _refuse_bombs(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    packed = next((one for one in members if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)), None)
    if packed is not None:
        raise ResegeoError(
            f"{path} has {shown(packed.filename)} packed in a way that is not read; expected plain ZIP. Get the file "
            "as it was made."
        )
    size, total = path.stat().st_size, sum(one.file_size for one in members)
    if total > _SHRINKS * size + _SPARE:
        raise ResegeoError(
            f"{path} has {size:,} bytes, but would take {total:,} unpacked; weights do not shrink so far, so nothing "
            "of it is read. Get the file as it was made."
        )
    large = next((one for one in members if one.filename.endswith(".pkl") and one.file_size > PICKLE), None)
    if large is not None:
        raise ResegeoError(
            f"{path} has {large.file_size:,} bytes of {shown(large.filename)}, and {PICKLE:,} are the most that is "
            "read; it is no checkpoint."
        )
    names = {one.filename for one in members}
    if len(names) != len(members):
        raise ResegeoError(f"{path} has two members of one name, so nobody knows which is meant. Get the file anew.")


def _directory_size(path: Path) -> int:
    """Bytes of an archive's directory, as its end tells; 0 where there is no such end."""
    with path.open("rb") as stream:
        stream.seek(0, 2)
        size = stream.tell()
        start = max(0, size - (1 << 16) - 22 - 20 - 56)
        stream.seek(start)
        tail = stream.read()
    at = len(tail) - 22 if tail[-22:-18] == _END and tail[-2:] == b"\0\0" else tail.rfind(_END)
    if at < 0 or at + 22 > len(tail):
        return 0
    found = int.from_bytes(tail[at + 12 : at + 16], "little")
    if at >= 76 and tail[at - 20 : at - 16] == _LOCATOR and tail[at - 76 : at - 72] == _END64:
        found = max(found if found != 0xFFFFFFFF else 0, int.from_bytes(tail[at - 36 : at - 28], "little"))
    return found
