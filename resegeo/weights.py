"""Where checkpoints come from: the bundled model, a file, or one of open_clip's pretrained tags."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from resegeo.errors import ResegeoError, UsageError

BUNDLED = "resegeo-small"
"""Name of the model that travels inside the package."""

_FOLDER = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint on disk and the architecture it belongs to."""

    name: str
    architecture: str
    path: Path
    sha256: str
    config: Path | None = None
    """Folder or file of an open_clip model configuration that open_clip does not know itself."""

    @property
    def bundled(self) -> bool:
        """Whether this is the model that travels inside the package."""
        return self.name == BUNDLED


@dataclass(frozen=True)
class SamSource:
    """A checkpoint of Segment Anything on disk."""

    path: Path
    architecture: str | None
    """vit_h, vit_l or vit_b; None: told from the file."""
    sha256: str


@dataclass(frozen=True)
class Geometry:
    """What planning needs to know of a model, without loading it."""

    image_size: int
    patch_size: int
    depth: int
    dimension: int

    @property
    def grid(self) -> int:
        """Patches along one side of a window."""
        return self.image_size // self.patch_size


def resolve_model(model: str | None = None, architecture: str | None = None) -> ModelSource:
    """Find the checkpoint that ``--model`` and ``--arch`` name; a pretrained tag is downloaded on first use.

    Parameters
    ----------
    model:
        None or ``resegeo-small`` (bundled), a checkpoint file, or an open_clip pretrained tag, alone with
        ``architecture`` or as ``ARCH:TAG``.
    architecture:
        open_clip architecture, such as ``ViT-L-14-quickgelu``.

    Raises
    ------
    UsageError:
        When the two do not fit together.
    ResegeoError:
        When a file is missing or a download fails.

    """
    if model is None or model == BUNDLED:
        if architecture is not None:
            raise UsageError(
                f"--arch {architecture} needs a checkpoint: name its file or tag by --model, or leave out --arch."
            )
        path = _FOLDER / f"{BUNDLED}.safetensors"
        return ModelSource(BUNDLED, BUNDLED, path, file_sha256(path), _FOLDER / f"{BUNDLED}.json")
    if Path(model).is_dir():
        raise ResegeoError(f"--model {model} is a folder; expected a checkpoint file (.safetensors or .pt).")
    if Path(model).is_file():
        if architecture is None:
            raise UsageError(
                f"--model {model} is a file: name its open_clip architecture too, for example "
                "--arch ViT-L-14-quickgelu (OpenAI's CLIP and models fine-tuned from it use a -quickgelu one)."
            )
        return ModelSource(Path(model).stem, _known(architecture), Path(model), file_sha256(Path(model)))
    if Path(model).suffix in {".pt", ".pth", ".bin", ".ckpt", ".safetensors"}:
        raise ResegeoError(f"--model {model}: no such file. Check the path, or leave out --model for {BUNDLED}.")
    return _pretrained(model, architecture)


def resolve_sam(checkpoint: str | None, architecture: str | None = None) -> SamSource:
    """Find the checkpoint that ``--sam-checkpoint`` and ``--sam-arch`` name.

    Raises
    ------
    UsageError:
        When none is named.
    ResegeoError:
        When the file is missing.

    """
    if checkpoint is None:
        raise UsageError(
            "Segments from SAM (--preset paper implies them) need its weights: name the file by --sam-checkpoint, such "
            "as sam_vit_b_01ec64.pth, or choose --segments superpixels, none or a file of your own."
        )
    path = Path(checkpoint)
    if not path.is_file():
        found = "is a folder, not a file" if path.is_dir() else "there is no such file"
        raise ResegeoError(
            f"--sam-checkpoint {checkpoint}: {found}. Expected a checkpoint of segment-anything, such as "
            "sam_vit_b_01ec64.pth."
        )
    return SamSource(path, architecture, file_sha256(path))


def geometry(source: ModelSource) -> Geometry:
    """Read window, patch, depth and feature size from the architecture's configuration."""
    config = json.loads(source.config.read_text("utf-8")) if source.config is not None else None
    if config is None:
        import open_clip

        config = open_clip.get_model_config(source.architecture)
    vision = (config or {}).get("vision_cfg", {})
    image, patch, depth = (vision.get(key) for key in ("image_size", "patch_size", "layers"))
    if not (isinstance(image, int) and isinstance(patch, int) and isinstance(depth, int)):
        raise ResegeoError(
            f"The architecture {source.architecture} cannot be segmented with: its vision tower is not a plain "
            "CLIP vision transformer. Use one such as ViT-B-16, ViT-L-14 or ViT-H-14."
        )
    return Geometry(image, patch, depth, int((config or {}).get("embed_dim", 0)))


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """Words and phrases that the bundled model was trained on, in lower case."""
    lines = (_FOLDER / "vocabulary.txt").read_text("utf-8").splitlines()
    return frozenset(line.strip().lower() for line in lines if line.strip() and not line.startswith("#"))


def unknown_words(prompts: Iterable[str]) -> list[str]:
    """Prompts in which no phrase of the bundled model's vocabulary occurs."""
    known = re.compile(r"\b(" + "|".join(re.escape(word) for word in sorted(vocabulary())) + r")s?\b")
    return [prompt for prompt in prompts if not known.search(prompt.lower())]


def file_sha256(path: Path) -> str:
    """Checksum of a file, as hex; taken once while size and time of the file stay as they are."""
    stat = path.stat()
    return _sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=32)
def _sha256(path: Path, size: int, time: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _known(architecture: str) -> str:
    import open_clip

    names = open_clip.list_models()
    if architecture in names:
        return architecture
    near = difflib.get_close_matches(architecture, names, n=3)
    hint = f"did you mean {' or '.join(near)}" if near else "for example ViT-B-32, ViT-B-16 or ViT-L-14-quickgelu"
    raise UsageError(f"--arch {architecture} is not an architecture that open_clip knows; {hint}?")


def _pretrained(model: str, architecture: str | None) -> ModelSource:
    """Find, or download, the file behind an open_clip pretrained tag."""
    import open_clip

    given, _, tag = model.rpartition(":")
    if given and architecture is not None and given != architecture:
        raise UsageError(f"--model {model} names the architecture {given}, but --arch says {architecture}.")
    arch = given or architecture
    tags = {name for _, name in open_clip.list_pretrained()}
    if tag not in tags:
        raise ResegeoError(
            f"--model {model} is neither an existing file nor a pretrained tag of open_clip. Give a checkpoint file "
            f"with --arch, a tag such as ViT-B-32:laion2b_s34b_b79k, or leave out --model for {BUNDLED}."
        )
    if arch is None:
        having = ", ".join(open_clip.pretrained.list_pretrained_models_by_tag(tag)[:6])
        raise UsageError(f"--model {tag} exists for several architectures; add --arch, one of {having}.")
    config = open_clip.get_pretrained_cfg(_known(arch), tag)
    if not config:
        having = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
        raise UsageError(f"open_clip has no weights {tag} for {arch}; it has: {having}.")
    try:
        path = Path(open_clip.download_pretrained(config))
    except Exception as error:  # hub, HTTP and file system errors share no base
        raise ResegeoError(
            f"The weights {arch}:{tag} are not on this machine and could not be downloaded "
            f"({type(error).__name__}). Run once with a network, give a file with --model FILE --arch {arch}, "
            f"or leave out --model: {BUNDLED} needs no download."
        ) from error
    return ModelSource(f"{arch}:{tag}", arch, path, file_sha256(path))
