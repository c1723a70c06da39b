"""Checkpoints from elsewhere: looked up in the cache, fetched once, checked, whole or not at all.

Files of Hugging Face repositories go through huggingface_hub and its cache (``HF_HOME``, ``HF_ENDPOINT``), others into
``RESEGEO_HOME``, by default ``~/.cache/resegeo``. With ``HF_HUB_OFFLINE`` the network is never touched.

Whatever has a URL is asked for by requests, here and in :mod:`resegeo.scene.fingerprint`: it brings certificates and
heeds proxies on every system, and goes on where a download broke off. huggingface_hub is no second client for that, but
the hub's own: its cache is shared with other programs, and it knows revisions and the user's token. Its HTTP session is
not borrowed for URLs, since its kind changes from one of its versions to the next.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from resegeo.checkpoints.registry import Remote
from resegeo.checkpoints.zips import open_zip
from resegeo.documents import read_json
from resegeo.errors import ResegeoError, notice
from resegeo.files import DAMAGED_ZIP, is_folder, sync, whole
from resegeo.progress import Progress, silent

TRIES = 5
"""How often in a row a download may break off without a byte gained."""
TIMEOUT = (10.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""
PAUSE = 1.0
"""Seconds before the second try; each further pause is twice as long."""
_CHUNK = 1 << 16  # what a broken connection loses


def home() -> Path:
    """Folder of what resegeo keeps for this user."""
    given = os.environ.get("RESEGEO_HOME")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "resegeo"


def offline() -> bool:
    """Whether the user forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE")


def kept_path(remote: Remote) -> Path:
    """Where a file lies that was fetched from a URL or imported."""
    return home() / "models" / safe_name(remote.label) / remote.file.rpartition("/")[2]


def cached(remote: Remote) -> Path | None:
    """Find a file on this machine, without the network; None where it is not."""
    kept = kept_path(remote)
    if kept.is_file():
        return kept
    if remote.repository is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = [
        try_to_load_from_cache(remote.repository, name, cache_dir=_hub_cache())
        for name in (*remote.beside, remote.file)
    ]
    return Path(found[-1]) if all(isinstance(path, str) for path in found) else None  # type: ignore[arg-type]


def fetch(remote: Remote, progress: Progress | None = None) -> Path:
    """Return the path of a file on this machine, fetching it first if it is not there.

    Parameters
    ----------
    remote:
        What to fetch.
    progress:
        Called with a stage's name, MiB done and MiB in all.

    Raises
    ------
    ResegeoError:
        When the network is forbidden or fails, the server has no such file, the disk is full, or the file is not the
        one that was expected.

    """
    there = cached(remote)
    if there is not None:
        return there
    if offline():
        raise ResegeoError(_missing(remote, "the network is switched off (HF_HUB_OFFLINE)"))
    if remote.repository is not None:
        return _from_hub(remote)
    target = kept_path(remote)
    with locked(target):
        if not target.is_file():  # another process may have fetched it while this one waited
            _from_url(remote, target, progress or silent)
    return target


def verify(remote: Remote, path: Path, digest: str) -> None:
    """Compare a file's sha256 with the pinned one, or with the first that was seen here, which is recorded.

    Raises
    ------
    ResegeoError:
        When they differ.

    """
    wrong = told_apart(remote, digest)
    if wrong is not None:
        raise ResegeoError(
            f"{path} is not the file that {remote.label} names: {wrong}. Delete it and run `resegeo models fetch "
            f"{remote.label}`"
            + ("." if remote.sha256 else f"; if its authors changed it, delete its line in {_record()} too.")
        )
    if remote.sha256 is None and _known_checksums().get(_carried(remote)) == digest:
        notice(
            f"{remote.label} ({path}) came in an archive, not from its publisher, who names no checksum to compare it "
            "with: it is what whoever made the archive put there.",
        )


def told_apart(remote: Remote, digest: str, *, carried: bool = False) -> str | None:
    """Say how a sha256 differs from the pinned one, or from the first that was seen here; None where it does not.

    What was ``carried`` here in an archive is noted as that, and never as what the publisher has.
    """
    expected, whose = remote.sha256, "published"
    if expected is None:
        known = _known_checksums()
        if carried and _key(remote) not in known:
            _note(_carried(remote), digest)
            return None
        if not carried and known.get(_carried(remote)) == digest:
            return None
        expected, whose = _note(_key(remote), digest), "recorded when it was first fetched"
    if digest == expected:
        return None
    return f"its sha256 is {digest[:16]}…, the one {whose} is {expected[:16]}…"


def parts_of(folder: Path) -> list[Path]:
    """Files of a Hugging Face model's folder that make the model: weights and configuration."""
    return sorted(
        path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin") and path.is_file()
    )


def file_sha256(path: Path) -> str:
    """Checksum of a file, as hex; of a folder, that of the names and checksums of its weights and configuration.

    It is taken once while size and time of the file stay as they are.
    """
    if is_folder(path):
        lines = "".join(f"{file_sha256(file)} {file.name}\n" for file in parts_of(path))
        return hashlib.sha256(lines.encode()).hexdigest()
    stat = path.stat()
    return _sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=32)
def _sha256(path: Path, size: int, time: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def safe_name(label: str) -> str:
    """Turn a label into a folder's name: Windows allows no colon."""
    return re.sub(r"[^\w.+-]", "--", label).lstrip(".")


def _missing(remote: Remote, why: str) -> str:
    """The one sentence about a file that cannot be had."""
    where = remote.url or f"{remote.repository}/{remote.file} of Hugging Face"
    inside = f" (its member {remote.member})" if remote.member else ""
    return (
        f"The weights {remote.label} are not on this machine, and {why}. Run `resegeo models fetch {remote.label}` "
        f"with a network, or put {where}{inside} at {kept_path(remote)}; the bundled model needs no download."
    )


def _record() -> Path:
    return home() / "checksums.json"


def _key(remote: Remote) -> str:
    return f"{safe_name(remote.label)}/{remote.file}"


def _carried(remote: Remote) -> str:
    return f"carried: {_key(remote)}"


def _known_checksums() -> dict[str, Any]:
    """What was noted of files seen here."""
    try:
        found = read_json(_record())
    except ResegeoError:
        return {}
    return found if isinstance(found, dict) else {}


def _note(key: str, digest: str) -> str:
    """The checksum that was first noted; this one, where it is the first, or that of another archive than before."""
    path = _record()
    known = _known_checksums()
    if key in known and not (key.startswith("carried: ") and known[key] != digest):
        return str(known[key])
    with locked(path):
        entries = _known_checksums()
        if key.startswith("carried: "):
            entries[key] = digest
        first = str(entries.setdefault(key, digest))
        with whole(path) as beside:
            beside.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", "utf-8")
    return first


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keep other processes from the same file; they wait, and then find it there."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        lock.acquire()
    except (OSError, Timeout) as error:
        raise ResegeoError(
            f"The folder {target.parent} cannot be written to ({error}); name another one by RESEGEO_HOME."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _hub_cache() -> str | None:
    """The cache that the environment names now; huggingface_hub itself looks only when it is imported."""
    given = os.environ.get("HF_HUB_CACHE")
    if given:
        return given
    base = os.environ.get("HF_HOME")
    return str(Path(base).expanduser() / "hub") if base else None


def _from_hub(remote: Remote) -> Path:
    """Fetch by huggingface_hub, which resumes, locks, checks the length and renames at the end."""
    import huggingface_hub

    try:
        for name in (*remote.beside, remote.file):
            with _bars_on_terminals():
                path = huggingface_hub.hf_hub_download(
                    str(remote.repository), name, cache_dir=_hub_cache(), endpoint=os.environ.get("HF_ENDPOINT")
                )
    except Exception as error:  # hub, HTTP and file system errors share no base
        raise ResegeoError(_missing(remote, f"could not be downloaded ({why_failed(error)})")) from error
    return Path(path)


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """Keep huggingface_hub's bars out of files, and leave its own setting as it was."""
    from huggingface_hub import utils

    quiet = not sys.stderr.isatty() and not utils.are_progress_bars_disabled()  # type: ignore[attr-defined]
    if quiet:
        utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if quiet:
            utils.enable_progress_bars()  # type: ignore[attr-defined]


def why_failed(error: BaseException) -> str:
    """What made a download fail: the server's answer, or the kind of error, whatever libraries wrapped around it."""
    inner: BaseException | None = error
    while inner is not None:
        status = getattr(getattr(inner, "response", None), "status_code", None)
        if status:
            return f"the server answers {status}"
        kind = type(inner).__name__
        if "Connect" in kind or "Timeout" in kind:
            return kind
        inner = inner.__cause__ or inner.__context__
    return type(error).__name__


def _from_url(remote: Remote, target: Path, progress: Progress) -> None:
    """Download beside ``target``, check, and rename."""
    url = str(remote.url)
    part = target.with_name(f".tmp-{target.name}")  # under the lock; its name stays, so that it can be continued
    _download(remote, url, part, progress)
    whole = part
    if remote.member is not None:
        whole = target.with_name(f".tmp-member-{target.name}")
        _extract(remote, part, whole)
    digest = file_sha256(whole)
    if remote.sha256 is not None and digest != remote.sha256:
        whole.unlink()
        part.unlink(missing_ok=True)
        raise ResegeoError(
            f"What {url} sent is not {remote.label}: its sha256 is {digest[:16]}…, expected {remote.sha256[:16]}…. "
            "Nothing was kept; try again, or ask whoever runs the network between."
        )
    sync(whole)
    whole.replace(target)
    sync(target.parent)
    part.unlink(missing_ok=True)
    _mark(part).unlink(missing_ok=True)


def _mark(part: Path) -> Path:
    """File with the server's version of a partial download."""
    return part.with_name(f"{part.name}.etag")


def _download(remote: Remote, url: str, part: Path, progress: Progress) -> None:
    """Get ``url`` into ``part``, going on where an earlier try broke off."""
    import requests

    failures = 0
    while True:
        have = part.stat().st_size if part.exists() else 0
        reason = ""
        try:
            if _get(url, part, have, remote.label, progress):
                return
            reason = "the connection broke off"
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            if 400 <= status < 500 and status not in (408, 429):
                raise ResegeoError(_missing(remote, f"{url} cannot be had ({why_failed(error)})")) from error
            reason = why_failed(error)
        except requests.RequestException as error:
            if isinstance(error, requests.ConnectionError) and not part.exists():  # no network at all
                raise ResegeoError(_missing(remote, f"could not be downloaded ({why_failed(error)})")) from error
            reason = why_failed(error)
        except OSError as error:
            raise ResegeoError(
                f"{part.parent} cannot be written to ({error.strerror}); free space or move it by RESEGEO_HOME."
            ) from error
        gained = (part.stat().st_size if part.exists() else 0) > have
        failures = 0 if gained else failures + 1
        if failures == TRIES:
            kept = part.stat().st_size if part.exists() else 0
            so_far = f"; {kept / 1e6:.1f} MB are kept, and the same command goes on" if kept else ""
            raise ResegeoError(_missing(remote, f"could not be downloaded ({reason}{so_far})"))
        time.sleep(PAUSE * 2 ** max(0, failures - 1))


def _get(url: str, part: Path, have: int, label: str, progress: Progress) -> bool:
    """Ask once for what is lacking; tell whether the file is whole now."""
    import requests

    headers = {"Accept-Encoding": "identity"}
    mark = _mark(part)
    version = mark.read_text("utf-8") if mark.exists() else ""
    if have and version:  # without a version nobody knows whether the rest belongs to the start
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        if reply.status_code == 416:  # there is no rest: begin anew
            part.unlink(missing_ok=True)
            mark.unlink(missing_ok=True)
            return False
        reply.raise_for_status()
        if reply.status_code != 206:
            have = 0
        mark.write_text(reply.headers.get("ETag", ""), "utf-8")
        length = reply.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        if total is not None and total - have > shutil.disk_usage(part.parent).free:
            raise ResegeoError(
                f"{label} takes {total / 1e6:.0f} MB, but {part.parent} has only "
                f"{shutil.disk_usage(part.parent).free / 1e6:.0f} MB free. Make room, or name another folder by "
                "RESEGEO_HOME."
            )
        with part.open("ab" if have else "wb") as out:
            for chunk in reply.iter_content(_CHUNK):
                out.write(chunk)
                have += len(chunk)
                progress(label, have >> 20, max(1, (total or have) >> 20))
    return total is None or have == total


def _extract(remote: Remote, archive: Path, target: Path) -> None:
    """Take the one wanted file out of a ZIP archive."""
    try:
        with open_zip(archive) as files:
            names = [n for n in files.namelist() if n.rpartition("/")[2] == remote.member and "__MACOSX" not in n]
            if len(names) != 1:
                raise ResegeoError(
                    f"{remote.url} holds {len(names)} files called {remote.member}; expected one. It has changed: get "
                    "the checkpoint from its authors and name the file."
                )
            with files.open(names[0]) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, _CHUNK)
    except DAMAGED_ZIP as error:
        for path in (archive, _mark(archive), target):
            path.unlink(missing_ok=True)
        raise ResegeoError(
            f"What {remote.url} sent is no ZIP archive, or a damaged one. Nothing was kept; try again."
        ) from error
    except OSError as error:
        target.unlink(missing_ok=True)
        raise ResegeoError(
            f"{target.parent} cannot be written to ({error.strerror or error}); free space or move it by RESEGEO_HOME."
        ) from error
