"""Models carried to a machine without a network: into one archive where they are, out of it where they are wanted.

A known model goes where a fetched one would lie. A file or folder of the user's own is taken as it is, and found again
by its name.
"""

from __future__ import annotations

import json
import secrets
import shutil
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from resegeo.checkpoints.architecture import BUNDLED
from resegeo.checkpoints.download import cached, file_sha256, home, kept_path, locked, parts_of, told_apart
from resegeo.checkpoints.formats import read_checkpoint
from resegeo.checkpoints.imported import imported_path, name_of, on_disk, shelf
from resegeo.checkpoints.pretrained_tags import is_tag
from resegeo.checkpoints.registry import KnownModel, Remote, known_model
from resegeo.checkpoints.sources import resolve_model
from resegeo.checkpoints.zips import open_zip
from resegeo.documents import parse_json
from resegeo.errors import ResegeoError, UsageError, shown
from resegeo.files import DAMAGED_ZIP, is_file, is_folder, is_there, sync, sync_below, whole

_MANIFEST = "resegeo-models.json"
_FORMAT = 2
"""Of the archive; those of 1 have no folders, and do not mark what is the user's own."""
_MANIFEST_LIMIT = 4_000_000
"""Bytes of a manifest at most; one of a thousand files has some 300,000."""
_MOST_FILES = 10_000
"""Files in an archive at most."""


@dataclass(frozen=True)
class Entry:
    """One file in an archive, as its manifest tells of it."""

    model: str
    """Name by which the model is found again."""
    file: str
    """Name of the file; of one in a folder, that folder's name before it."""
    sha256: str
    member: str
    """Its name in the archive."""
    own: bool
    """Whether the model is a file or folder of the user's own."""

    @property
    def remote(self) -> Remote:
        """What is known of the file, if it is not the user's own."""
        known = known_weights(self.model)
        return known.remote if known is not None else Remote(self.model, self.file)

    @property
    def target(self) -> Path:
        """Where it lies once it is imported."""
        if self.own:
            return shelf(self.model).joinpath(*self.file.split("/"))
        return kept_path(self.remote).with_name(Path(self.file).name)


def known_weights(name: str) -> KnownModel | None:
    """Find a CLIP or a SAM of the registry; None where there is none.

    Raises
    ------
    UsageError:
        When it is the bundled model, which is everywhere.

    """
    if name == BUNDLED:
        raise UsageError(f"{BUNDLED} travels inside the package; nothing has to be fetched or carried.")
    return known_model(name) or known_model(name, sam=True)


# into an archive


def export(names: Sequence[str], archive: str | Path, *, overwrite: bool = False) -> Path:
    """Put models of this machine into one ZIP archive, to be carried to one without a network.

    Parameters
    ----------
    names:
        Known models, open_clip tags, imported models, checkpoint files and folders of a Hugging Face CLIPModel.
    archive:
        File to write.
    overwrite:
        Whether it may exist.

    Raises
    ------
    UsageError:
        When a name is that of the bundled model, or empty.
    ResegeoError:
        When a model is not here or cannot be read, two would bear one name, or the archive exists.

    """
    archive = Path(archive)
    if is_there(archive) and not overwrite:
        raise ResegeoError(
            f"{archive} exists; pass [[overwrite=True]] to replace it, or name another file by [[output]]."
        )
    found: dict[str, list[tuple[Entry, Path]]] = {}
    for name in dict.fromkeys(names):
        parts = _parts(name)
        there = found.setdefault(parts[0][0].model, parts)
        if [(entry.file, entry.sha256) for entry, _ in there] != [(entry.file, entry.sha256) for entry, _ in parts]:
            raise ResegeoError(
                f"{_whole_of(there)} and {_whole_of(parts)} are different models that would both be called "
                f"{parts[0][0].model} where they are imported; give one of them another name."
            )
    numbered = [
        (replace(entry, member=f"{number}/{entry.file}"), path)
        for number, (entry, path) in enumerate(part for parts in found.values() for part in parts)
    ]
    if is_there(archive) and any(archive.samefile(path) for _, path in numbered):
        raise ResegeoError(
            f"The archive {archive} would replace a model that goes into it; name another file by [[output]]."
        )
    manifest = {"format": _FORMAT, "files": [asdict(entry) for entry, _ in numbered]}
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        # Weights do not shrink; what has no time that ZIP could tell is no reason to fail.
        with whole(archive) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED, strict_timestamps=False) as out:
            out.writestr(_MANIFEST, json.dumps(manifest, indent=1))
            for entry, path in numbered:
                out.write(path, entry.member)
    except OSError as error:
        raise ResegeoError(f"{archive} cannot be written ({error.strerror or error}).") from error
    return archive


def _parts(name: str) -> list[tuple[Entry, Path]]:
    """Find the files of a model on this machine; their members in the archive are not named yet."""
    known = known_weights(name)
    if known is not None:
        here = cached(known.remote)
        if here is None:
            raise ResegeoError(f"{known.name} is not on this machine; run `resegeo models fetch {known.name}` first.")
        paths = [here, *(here.parent / other for other in known.remote.beside)]
        return [(Entry(known.name, path.name, file_sha256(path), "", False), path) for path in paths]
    path = on_disk(name, "NAME")
    if path is None:
        source = resolve_model(name)  # a tag of open_clip
        return [(Entry(source.name, source.path.name, source.sha256, "", False), source.path)]
    opened = read_checkpoint(path)  # what cannot be read is refused here, not where it arrives
    if is_file(path) and opened.colours is not None and not opened.facts:
        raise ResegeoError(
            f"{path} takes the mean and deviation of colours from the JSON file beside it; export the folder "
            f"{path.resolve().parent} instead."
        )
    label = name_of(path)
    if _is_taken(label):
        raise ResegeoError(
            f"{path} would be called {label} where it is imported, which already means another model; give it another "
            "name."
        )
    folder = f"{label}/" if is_folder(path) else ""
    files = parts_of(path) if is_folder(path) else [path]
    return [(Entry(label, folder + file.name, file_sha256(file), "", True), file) for file in files]


def _whole_of(parts: Sequence[tuple[Entry, Path]]) -> Path:
    entry, path = parts[0]
    return path.parent if "/" in entry.file else path


def _is_taken(name: str) -> bool:
    """Whether a name means a model already, wherever one is."""
    return name == BUNDLED or known_weights(name) is not None or is_tag(name)


# out of an archive


def imported(archive: str | Path) -> list[Path]:
    """Take the models out of an archive of :func:`export`; each is checked before it gets its name.

    Returns
    -------
    Where they lie now: of known models every file, of the user's own the file or folder.

    Raises
    ------
    ResegeoError:
        When it is no such archive, a file in it is damaged or not the one that is known by its name, or another model
        of a name is here already.

    """
    archive = Path(archive)
    if not is_file(archive):
        raise ResegeoError(f"{archive}: no such file. Expected an archive that `resegeo models export` wrote.")
    paths: list[Path] = []
    try:
        with open_zip(archive) as files:
            entries = _entries(_manifest(files, archive), archive)
            _refuse_impossible(files, entries, archive)
            for entry in entries:
                _refuse_another(entry, archive)
            for entry in (entry for entry in entries if not entry.own):
                _take_known(files, entry, archive)
                paths.append(entry.target)
            for name in dict.fromkeys(entry.model for entry in entries if entry.own):
                paths.append(_take_own(files, [entry for entry in entries if entry.own and entry.model == name]))
    except (*DAMAGED_ZIP, KeyError, ValueError, TypeError) as error:
        raise ResegeoError(
            f"{archive} is damaged, or no archive that `resegeo models export` wrote; copy it anew."
        ) from error
    except OSError as error:
        raise ResegeoError(
            f"{archive} cannot be taken in ({error.strerror or error}). Check free space, or name another folder by "
            "RESEGEO_HOME."
        ) from error
    return paths


def _manifest(files: zipfile.ZipFile, archive: Path) -> Any:
    """Read the manifest of an archive, once it is known to be a small one."""
    size = files.getinfo(_MANIFEST).file_size
    if size > _MANIFEST_LIMIT:
        raise ResegeoError(
            f"{archive} has a {_MANIFEST} of {size:,} bytes, and {_MANIFEST_LIMIT:,} are the most that is read; "
            "`resegeo models export` writes no such file."
        )
    return parse_json(files.read(_MANIFEST), f"{archive}: its {_MANIFEST}")


def _refuse_impossible(files: zipfile.ZipFile, entries: Sequence[Entry], archive: Path) -> None:
    """Refuse members that are links, and more bytes than the disk has, before one of them is written."""
    needed = 0
    for entry in entries:
        member = files.getinfo(entry.member)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or member.is_dir():
            raise ResegeoError(
                f"{archive} holds {shown(entry.member)} as a link or folder; expected files alone, as `resegeo models "
                "export` writes them."
            )
        needed += member.file_size
    place = next(path for path in (home(), *home().absolute().parents) if is_there(path))
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ResegeoError(
            f"The models of {archive} take {needed / 1e6:,.0f} MB, but {place} has only {free / 1e6:,.0f} MB free. "
            "Make room, or name another folder by RESEGEO_HOME."
        )


def _entries(said: Any, archive: Path) -> list[Entry]:
    """Read a manifest; ValueError, TypeError or KeyError where it is none."""
    if not isinstance(said, dict) or not isinstance(said["files"], list):
        raise ValueError("no manifest")
    if said.get("format", 1) not in (1, _FORMAT):
        raise ResegeoError(
            f"{archive} has the format {shown(repr(said['format']))}, which this resegeo does not know (up to "
            f"{_FORMAT}); install the version that wrote it."
        )
    if len(said["files"]) > _MOST_FILES:
        raise ResegeoError(f"{archive} lists {len(said['files']):,} files; {_MOST_FILES:,} are the most that is read.")
    entries = [_entry(one) for one in said["files"]]
    if not entries:
        raise ResegeoError(f"{archive} holds no models; export them anew.")
    seen: dict[Path, str] = {}
    for entry in entries:
        if seen.setdefault(entry.target, entry.sha256) != entry.sha256:
            raise ResegeoError(
                f"{archive} holds two different files {shown(entry.file)} of the model {shown(entry.model)}; give one "
                "model another name and export them anew."
            )
    return entries


def _entry(said: dict[str, object]) -> Entry:
    """Read one entry of a manifest, and make sure that it stays where its model belongs."""
    model, file, digest, member = (said[key] for key in ("model", "file", "sha256", "member"))
    if not (isinstance(model, str) and isinstance(file, str) and isinstance(digest, str) and isinstance(member, str)):
        raise ValueError("no entry")
    own = said.get("own")
    if own is None:  # an archive of format 1
        own = known_weights(model) is None and ":" not in model
    parts = file.split("/")
    if any(part in ("", ".", "..") or Path(part).name != part or not part.isprintable() for part in parts):
        raise ValueError("a file elsewhere")
    if not model.isprintable():
        raise ValueError("no name")
    if own:
        told = parts[0] if len(parts) == 2 else Path(parts[0]).stem
        if len(parts) > 2 or told != model or _is_taken(model):
            raise ValueError("no file of the model")
    return Entry(model, file, digest, member, bool(own))


def _refuse_another(entry: Entry, archive: Path) -> None:
    """Refuse to replace a file that is another one, unless it is not what it should be."""
    target = entry.target
    there = imported_path(entry.model) if entry.own else target
    if there is None or not is_there(there) or (is_file(target) and file_sha256(target) == entry.sha256):
        return
    if not entry.own and entry.remote.sha256 is not None:
        return  # the checksum that is pinned decides
    raise ResegeoError(
        f"{there} is here already, and is not the {entry.model} of {archive} (sha256 {entry.sha256[:16]}…). Nothing "
        "was taken in; remove what is here, or export the other one under another name."
    )


def _take_known(files: zipfile.ZipFile, entry: Entry, archive: Path) -> None:
    """Take out a file of a model that is known by its name or tag."""
    target, remote = entry.target, entry.remote
    with locked(target), whole(target) as beside:
        _copy(files, entry, beside)
        published = known_weights(entry.model) is not None and target == kept_path(remote)
        wrong = told_apart(remote, entry.sha256, carried=True) if published else None
        if wrong is not None:
            raise ResegeoError(
                f"{archive} holds a file {entry.file} that is not the one {entry.model} names: {wrong}. It was not "
                "taken in; fetch the model anew where the archive was made, and export it again."
            )


def _take_own(files: zipfile.ZipFile, entries: Sequence[Entry]) -> Path:
    """Take out a model of the user's own, whole or not at all."""
    place = shelf(entries[0].model)
    with locked(place):
        there = imported_path(entries[0].model)
        if there is not None:  # the same: another one was refused
            return there
        for left in place.parent.glob(f".tmp-{place.name}~*"):  # of an import that was killed
            shutil.rmtree(left, ignore_errors=True)
        beside = place.with_name(f".tmp-{place.name}~{secrets.token_hex(8)}")
        try:
            beside.mkdir()
            for entry in entries:
                target = beside / entry.target.relative_to(place)
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy(files, entry, target)
            sync_below(beside)
            beside.replace(place)
            for folder in (place.parent, place.parent.parent):  # which may be new
                sync(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return next(place.iterdir())


def _copy(files: zipfile.ZipFile, entry: Entry, target: Path) -> None:
    """Copy a member to a file; BadZipFile where it is not what the manifest says."""
    with files.open(entry.member) as source, target.open("wb") as out:  # no more than the member declares
        shutil.copyfileobj(source, out, 1 << 20)
    if file_sha256(target) != entry.sha256:
        raise zipfile.BadZipFile(entry.member)
