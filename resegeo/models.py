"""What the commands of ``resegeo models`` do: list, fetch, check, carry to another machine."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resegeo.checkpoints import compared, read_checkpoint
from resegeo.class_file import load_class_list
from resegeo.compose import Composition, compose
from resegeo.encoder import build, load_encoder
from resegeo.errors import ResegeoError, ResegeoWarning, UsageError
from resegeo.fetch import Progress, cached, fetch, file_sha256, kept_path, locked, verify
from resegeo.files import whole
from resegeo.identify import BUNDLED
from resegeo.registry import KNOWN, KnownModel, Remote, known_model
from resegeo.separation import TEMPERATURE
from resegeo.weights import resolve_model, vocabulary

_MANIFEST = "resegeo-models.json"


@dataclass(frozen=True)
class Check:
    """What a checkpoint is, and whether it will load."""

    facts: dict[str, Any]
    problem: str | None
    """Why it will not load; None where it will."""


def listed() -> list[dict[str, Any]]:
    """One row a known model: name, architecture, activation, licence, bytes, where it is on this machine, notes."""
    bundled = resolve_model()
    rows = [
        {
            "name": BUNDLED,
            "architecture": bundled.architecture,
            "activation": bundled.activation,
            "ancestor": None,
            "licence": "MIT, see its model card",
            "bytes": bundled.path.stat().st_size,
            "cached": "bundled",
            "notes": f"small; knows {len(vocabulary())} words of land cover",
        }
    ]
    for model in KNOWN:
        where = cached(model.remote)
        rows.append(
            {
                "name": model.name,
                "architecture": model.architecture,
                "activation": model.activation if model.certain or model.sam else f"{model.activation}?",
                "ancestor": model.ancestor,
                "licence": model.licence,
                "bytes": model.size if where is None else where.stat().st_size,
                "cached": None if where is None else str(where),
                "notes": model.notes,
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return :func:`listed` as text."""
    head = ("name", "architecture", "activation", "MB", "licence", "here", "notes")
    lines = [head]
    for row in rows:
        size = "?" if row["bytes"] is None else f"{row['bytes'] / 1e6:.0f}"
        here = {None: "no", "bundled": "bundled"}.get(row["cached"], "yes")
        name, act = row["name"], row["activation"] or "-"
        lines.append((name, row["architecture"], act, size, row["licence"], here, row["notes"]))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(f"{cell:{width}}" for cell, width in zip(line, widths, strict=False)), line[-1]]) for line in lines
    )


def fetched(name: str, progress: Progress | None = None) -> Path:
    """Bring a known model, SAM or an open_clip tag onto this machine, and check it.

    Raises
    ------
    ResegeoError:
        When it cannot be had, or is not what it should be.

    """
    known = _known(name)
    if known is None:
        return resolve_model(name, progress=progress).path
    path = fetch(known.remote, progress)
    verify(known.remote, path, file_sha256(path))
    return path


def checked(path: str | Path, architecture: str | None = None, activation: str | None = None) -> Check:
    """Tell what a checkpoint file is, will it load, and which parameters differ and how.

    Raises
    ------
    ResegeoError:
        When it is missing, cannot be read, or would run code.

    """
    path = Path(path)
    if not path.exists():
        raise ResegeoError(f"{path}: no such file. Expected a checkpoint, or the folder of a Hugging Face CLIPModel.")
    if path.is_file() and _is_sam(path):
        return _checked_sam(path)
    opened = read_checkpoint(path)
    kinds: dict[str, int] = {}
    count = 0
    for name in opened.tensors:
        tensor = opened.tensors[name]
        kinds[str(tensor.dtype).removeprefix("torch.")] = kinds.get(str(tensor.dtype).removeprefix("torch."), 0) + 1
        count += tensor.numel()
    facts: dict[str, Any] = {
        "file": str(path),
        "form": opened.form,
        "sha256": file_sha256(path),
        "tensors": len(opened.tensors),
        "parameters": count,
        "types": ", ".join(f"{name} ({number})" for name, number in sorted(kinds.items())),
    }
    if "logit_scale" in opened.tensors:
        facts["logit_scale"] = round(float(opened.tensors["logit_scale"].float().exp()), 4)
    said: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResegeoWarning)
            source = resolve_model(str(path), architecture, activation)
        said = [str(one.message) for one in caught if issubclass(one.category, ResegeoWarning)]
    except ResegeoError as error:
        return Check(facts | {"activation": opened.activation}, str(error))
    facts |= {"architecture": source.architecture, "activation": source.activation, "ancestor": source.ancestor}
    if said:
        facts["settled"] = said[0]
    if source.composition:
        facts["composition"] = [{"variant": name, "weight": weight} for name, weight in source.composition]
    found = compared(opened.tensors, build(source))
    facts |= {
        "missing": list(found.missing),
        "unknown": list(found.extra),
        "other_shape": [f"{name}: {ours} in the file, {theirs} wanted" for name, ours, theirs in found.shapes],
    }
    try:
        load_encoder(source, device="cpu")
    except ResegeoError as error:
        return Check(facts, str(error))
    return Check(facts, None)


def report(check: Check) -> str:
    """Return a check as text."""
    lines = []
    for name, value in check.facts.items():
        if isinstance(value, list):
            if not value:
                continue
            shown = [f"{v['variant']} {v['weight']:.4f}" if isinstance(v, dict) else str(v) for v in value]
            more = f" … {len(shown) - 8} more" if len(shown) > 8 else ""
            value = f"{len(shown)}: {', '.join(shown[:8])}{more}" if name != "composition" else ", ".join(shown)
        lines.append(f"{name.replace('_', ' '):13}  {'unknown' if value is None else value}")
    lines.append(f"{'loads':13}  {'yes' if check.problem is None else 'no'}")
    return "\n".join(lines)


def export(names: Sequence[str], archive: str | Path, *, overwrite: bool = False) -> Path:
    """Put models of this machine into one ZIP archive, to be carried to one without a network.

    Raises
    ------
    ResegeoError:
        When a model is not here, or the archive exists.

    """
    archive = Path(archive)
    if archive.exists() and not overwrite:
        raise ResegeoError(f"{archive} exists; pass --overwrite to replace it, or name another file by -o.")
    found: list[tuple[str, str, Path]] = []
    for name in dict.fromkeys(names):
        known = _known(name)
        if known is None:
            path = resolve_model(name).path
            label, files = resolve_model(name).name, [path]
        else:
            here = cached(known.remote)
            if here is None:
                raise ResegeoError(
                    f"{known.name} is not on this machine; run `resegeo models fetch {known.name}` first."
                )
            label, files = known.name, [here, *(here.parent / other for other in known.remote.beside)]
        found += [(label, file.name, file) for file in files]
    manifest = [
        {"model": label, "file": name, "sha256": file_sha256(path), "member": f"{number}/{name}"}
        for number, (label, name, path) in enumerate(found)
    ]
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with whole(archive) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as out:  # weights do not shrink
            out.writestr(_MANIFEST, json.dumps({"format": 1, "files": manifest}, indent=1))
            for entry, (_, _, path) in zip(manifest, found, strict=True):
                out.write(path, entry["member"])
    except OSError as error:
        raise ResegeoError(f"{archive} cannot be written ({error.strerror or error}).") from error
    return archive


def imported(archive: str | Path) -> list[Path]:
    """Take the models out of an archive of :func:`export`; each is checked before it gets its name.

    Raises
    ------
    ResegeoError:
        When it is no such archive, or a file in it is damaged.

    """
    archive = Path(archive)
    if not archive.is_file():
        raise ResegeoError(f"{archive}: no such file. Expected an archive that `resegeo models export` wrote.")
    paths = []
    try:
        with zipfile.ZipFile(archive) as files:
            for entry in json.loads(files.read(_MANIFEST))["files"]:
                known = _known(entry["model"])
                remote = known.remote if known is not None else Remote(entry["model"], entry["file"])
                target = kept_path(remote).with_name(Path(entry["file"]).name)
                with locked(target), whole(target) as beside:
                    with files.open(entry["member"]) as source, beside.open("wb") as out:
                        shutil.copyfileobj(source, out, 1 << 20)
                    digest = file_sha256(beside)
                    if digest != entry["sha256"]:
                        raise zipfile.BadZipFile(entry["member"])
                    if known is not None and target.name == kept_path(remote).name:
                        verify(remote, beside, digest)
                paths.append(target)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise ResegeoError(
            f"{archive} is damaged, or no archive that `resegeo models export` wrote; copy it anew."
        ) from error
    return paths


def _known(name: str) -> KnownModel | None:
    if name == BUNDLED:
        raise UsageError(f"{BUNDLED} travels inside the package; nothing has to be fetched or carried.")
    return known_model(name) or known_model(name, sam=True)


def _is_sam(path: Path) -> bool:
    """Whether a file holds SAM's parameters, as far as that can be told without a word about what is wrong with it."""
    try:
        return any(name.startswith("image_encoder.") for name in read_checkpoint(path).tensors)
    except ResegeoError:
        return False


def _checked_sam(path: Path) -> Check:
    from resegeo.sam import load_sam

    facts: dict[str, Any] = {"file": str(path), "form": "Segment Anything", "sha256": file_sha256(path)}
    try:
        model = load_sam(path)
    except ResegeoError as error:
        return Check(facts, str(error))
    width = {1280: "vit_h", 1024: "vit_l", 768: "vit_b"}[int(model.image_encoder.pos_embed.shape[-1])]
    parameters = sum(value.numel() for value in model.parameters())
    return Check(facts | {"architecture": width, "parameters": parameters}, None)


def averaged(
    variants: Sequence[str],
    output: Path,
    *,
    weights: str = "uniform",
    classes: str | None = None,
    temperature: float | None = None,
    architecture: str | None = None,
    activation: str | None = None,
    allow_outlier: bool = False,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Composition:
    """Average variants by name or file: what ``resegeo models compose`` does; see :func:`resegeo.compose.compose`.

    ``architecture`` and ``activation`` are for those files that do not tell.

    Raises
    ------
    ResegeoError:
        With one sentence that says what does not fit and how to mend it.

    """
    if output.exists() and not overwrite:
        raise ResegeoError(f"{output} exists; pass --overwrite to replace it, or name another file by -o.")
    words = None if classes is None else load_class_list(classes)
    numbers: str | tuple[float, ...] = weights
    if any(char.isdigit() for char in weights):
        try:
            numbers = tuple(float(part) for part in weights.split(","))
        except ValueError as error:
            raise UsageError(f"--weights {weights}: expected numbers such as 0.5,0.3,0.2.") from error
    sources = [
        resolve_model(name, architecture, activation, progress=progress)
        if Path(name).exists()
        else resolve_model(name, progress=progress)
        for name in variants
    ]
    return compose(
        sources,
        output,
        weights=numbers,
        classes=words,
        temperature=TEMPERATURE if temperature is None else temperature,
        allow_outlier=allow_outlier,
        device=device,
        progress=progress,
    )
