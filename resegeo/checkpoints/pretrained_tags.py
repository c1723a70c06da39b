"""open_clip's pretrained tags: which architecture and activation one means, and where its file is."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resegeo.checkpoints.architecture import BUNDLED, QUICK, known_architecture
from resegeo.checkpoints.download import kept_path, offline, why_failed
from resegeo.checkpoints.normalisation import Normalisation, normalisation
from resegeo.checkpoints.registry import KNOWN, Remote
from resegeo.errors import ResegeoError, UsageError


@dataclass(frozen=True)
class Tag:
    """What a pretrained tag means."""

    architecture: str
    tag: str
    activation: str
    path: Path
    colours: Normalisation | None = None
    """What its pictures were normalised by, where that is not OpenAI's."""

    @property
    def name(self) -> str:
        """Architecture and tag, as ``--model`` takes them."""
        return f"{self.architecture}:{self.tag}"

    @property
    def ancestor(self) -> str:
        """The pre-training, whatever the architecture's name says of the activation."""
        return f"{self.tag}:{self.architecture.removesuffix(QUICK)}"


def is_tag(name: str) -> bool:
    """Whether open_clip has pretrained weights of this tag, for whatever architecture."""
    import open_clip

    return name in {tag for _, tag in open_clip.list_pretrained()}


def find_tag(model: str, architecture: str | None, activation: str | None) -> Tag:
    """Find, or download, the file behind ``TAG`` or ``ARCH:TAG``.

    Raises
    ------
    UsageError:
        When architecture or activation are lacking or do not fit.
    ResegeoError:
        When there is no such tag, or a download fails.

    """
    import open_clip

    given, _, tag = model.rpartition(":")
    if given and architecture is not None and given != architecture:
        raise UsageError(f"--model {model} names the architecture {given}, but --arch says {architecture}.")
    arch = given or architecture
    if not is_tag(tag):
        near = difflib.get_close_matches(model.lower(), [known.name for known in KNOWN if not known.sam], n=1)
        hint = f"; did you mean {near[0]}?" if near else f". Without a model {BUNDLED} is used."
        raise ResegeoError(
            f"{model} is neither an existing file, nor a name of `resegeo models list`, nor a pretrained tag of "
            f"open_clip such as ViT-B-32:laion2b_s34b_b79k{hint}"
        )
    if arch is None:
        having = ", ".join(open_clip.pretrained.list_pretrained_models_by_tag(tag)[:6])
        raise UsageError(f"--model {tag} exists for several architectures; add --arch, one of {having}.")
    config = open_clip.get_pretrained_cfg(known_architecture(arch), tag)
    if not config:
        having = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
        raise UsageError(f"open_clip has no weights {tag} for {arch}; it has: {having}.")
    act = "quickgelu" if config.get("quick_gelu") else "gelu"
    if activation not in (None, act):
        raise UsageError(
            f"--model {arch}:{tag} was trained with {act}, but --activation says {activation}. Leave it out."
        )
    if act == "quickgelu" and not arch.endswith(QUICK) and arch + QUICK in open_clip.list_models():
        arch += QUICK
    colours = normalisation(config.get("mean"), config.get("std"), f"open_clip's {arch}:{tag}")
    return Tag(arch, tag, act, _file(f"{arch}:{tag}", config), colours)


def _file(name: str, config: dict[str, Any]) -> Path:
    """Find, or have open_clip download, the file of a pretrained tag."""
    import open_clip

    folder = kept_path(Remote(name, "open_clip_model.safetensors")).parent
    imported = sorted(path for path in folder.glob("*") if not path.name.startswith(".")) if folder.is_dir() else []
    if imported:
        return imported[0]
    try:
        if offline() and not config.get("hf_hub"):  # huggingface_hub heeds that itself
            raise ConnectionError("the network is switched off")
        return Path(open_clip.download_pretrained(config))
    except Exception as error:  # hub, HTTP and file system errors share no base
        why = "the network is switched off (HF_HUB_OFFLINE)" if offline() else why_failed(error)
        raise ResegeoError(
            f"The weights {name} are not on this machine and could not be downloaded ({why}). Run "
            f"`resegeo models fetch {name}` once with a network, or put the file at "
            f"{kept_path(Remote(name, 'open_clip_model.safetensors'))}; the bundled model needs no download."
        ) from error
