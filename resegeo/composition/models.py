"""What the commands of ``resegeo models`` do: list, fetch, check, compose; the others are in carry."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resegeo.checkpoints.architecture import BUNDLED, inferred
from resegeo.checkpoints.download import cached, fetch, file_sha256, parts_of, verify
from resegeo.checkpoints.fit import compared
from resegeo.checkpoints.formats import Checkpoint, read_checkpoint
from resegeo.checkpoints.imported import imported_models, imported_path, on_disk
from resegeo.checkpoints.registry import KNOWN
from resegeo.checkpoints.sources import resolve_model, vocabulary
from resegeo.checkpoints.transfer import known_weights
from resegeo.classes.class_file import load_class_list
from resegeo.clip.encoder import build, load_encoder
from resegeo.composition.average import Composition, compose
from resegeo.composition.separation import TEMPERATURE
from resegeo.errors import ResegeoError, ResegeoWarning
from resegeo.files import is_file, is_folder, is_there, writable_folder
from resegeo.progress import Progress


@dataclass(frozen=True)
class Check:
    """What a checkpoint is, and whether it will load."""

    facts: dict[str, Any]
    error: ResegeoError | None = None
    """Why it will not load; None where it will."""

    @property
    def problem(self) -> str | None:
        """The same as a sentence."""
        return None if self.error is None else str(self.error)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON, which knows no NaN and no infinity."""
        found: dict[str, Any] = _plain({**self.facts, "loads": self.problem is None, "problem": self.problem})
        return found


def listed() -> list[dict[str, Any]]:
    """One row a known or imported model: name, architecture, activation, licence, bytes, where it is here, notes."""
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
    return rows + [_imported_row(name, path) for name, path in imported_models().items()]


def _imported_row(name: str, path: Path) -> dict[str, Any]:
    """What a model of the user's own says of itself, or its shapes; None where both are silent."""
    architecture = activation = ancestor = None
    try:
        opened = read_checkpoint(path)
        activation, ancestor = opened.activation, opened.facts.get("ancestor")
        architecture = opened.facts.get("architecture") or ("SAM" if _holds_sam(opened) else inferred(opened)[0])
    except ResegeoError:
        pass
    parts = parts_of(path) if is_folder(path) else [path]
    return {
        "name": name,
        "architecture": architecture,
        "activation": activation,
        "ancestor": ancestor,
        "licence": None,
        "bytes": sum(part.stat().st_size for part in parts),
        "cached": str(path),
        "notes": "imported",
    }


def fetched(name: str, progress: Progress | None = None) -> Path:
    """Bring a known model, SAM or an open_clip tag onto this machine, and check it; an imported one is here.

    Raises
    ------
    ResegeoError:
        When it cannot be had, or is not what it should be.

    """
    known = known_weights(name)
    own = None if known is not None else imported_path(name)
    if own is not None:
        return own
    if known is None:
        return resolve_model(name, progress=progress).path
    path = fetch(known.remote, progress)
    verify(known.remote, path, file_sha256(path))
    return path


def checked(path: str | Path, architecture: str | None = None, activation: str | None = None) -> Check:
    """Tell what a checkpoint file or an imported model is, will it load, and which parameters differ and how.

    Raises
    ------
    UsageError:
        When ``path`` is empty.
    ResegeoError:
        When it is missing, cannot be read, or would run code.

    """
    found_path = on_disk(str(path), "FILE")
    if found_path is None:
        raise ResegeoError(f"{path}: no such file. Expected a checkpoint, or the folder of a Hugging Face CLIPModel.")
    path = found_path
    opened = read_checkpoint(path)
    if is_file(path) and _holds_sam(opened):
        return _checked_sam(path)
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
        scale = opened.tensors["logit_scale"]
        facts["logit_scale"] = round(float(scale.double().exp()), 4) if scale.numel() == 1 else None
    said: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResegeoWarning)
            source = resolve_model(str(path), architecture, activation)
        said = [str(one.message) for one in caught if issubclass(one.category, ResegeoWarning)]
    except ResegeoError as error:
        return Check(facts | {"activation": opened.activation}, error)
    facts |= {"architecture": source.architecture, "activation": source.activation, "ancestor": source.ancestor}
    if said:
        facts["settled"] = said[0]
    if source.colours is not None:
        facts["colours"] = f"normalised by {source.colours.text}"
    if source.card is not None:
        low, high = source.card.gsd
        facts["card"] = f"{len(source.card.kinds)} kinds, {low:g} to {high:g} m, segments {source.card.segments}"
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
        return Check(facts, error)
    return Check(facts)


def _plain(value: Any) -> Any:
    """Replace numbers that JSON cannot write by None."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _holds_sam(opened: Checkpoint) -> bool:
    return any(name.startswith("image_encoder.") for name in opened.tensors)


def _checked_sam(path: Path) -> Check:
    from resegeo.segments.sam import load_sam

    facts: dict[str, Any] = {"file": str(path), "form": "Segment Anything", "sha256": file_sha256(path)}
    try:
        model = load_sam(path)
    except ResegeoError as error:
        return Check(facts, error)
    width = {1280: "vit_h", 1024: "vit_l", 768: "vit_b"}[int(model.image_encoder.pos_embed.shape[-1])]
    parameters = sum(value.numel() for value in model.parameters())
    return Check(facts | {"architecture": width, "parameters": parameters})


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
    """Average variants by name or file: what ``resegeo models compose`` does; see
    :func:`resegeo.composition.average.compose`.

    ``architecture`` and ``activation`` are for those files that do not tell.

    Raises
    ------
    ResegeoError:
        With one sentence that says what does not fit and how to mend it.

    """
    if is_there(output) and not overwrite:
        raise ResegeoError(
            f"{output} exists; pass [[overwrite=True]] to replace it, or name another file by [[output]]."
        )
    words = None if classes is None else load_class_list(classes)
    sources = [
        resolve_model(name, architecture, activation, progress=progress)
        if on_disk(name, "MODEL") is not None
        else resolve_model(name, progress=progress)
        for name in variants
    ]
    if is_there(output) and any(output.samefile(source.path) for source in sources):
        raise ResegeoError(f"The average {output} would replace one of its variants; name another file by [[output]].")
    with writable_folder(output.parent):
        return compose(
            sources,
            output,
            weights=weights,
            classes=words,
            temperature=TEMPERATURE if temperature is None else temperature,
            allow_outlier=allow_outlier,
            device=device,
            progress=progress,
        )
