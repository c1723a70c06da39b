"""What a checkpoint file is: the architecture and the activation, from its own words, its shapes, or the user's.

Architectures of open_clip whose names end in ``-quickgelu`` have QuickGELU, those of the same name without it GELU; the
two hold the same parameters, so no shape tells them apart, and the wrong one gives wrong labels without a word.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from resegeo.checkpoints.fit import shape_of, shape_of_config
from resegeo.checkpoints.formats import Checkpoint, read_checkpoint
from resegeo.checkpoints.model_config import is_plain_name, validated
from resegeo.checkpoints.normalisation import Normalisation, said_of_colours
from resegeo.checkpoints.registry import KnownModel
from resegeo.documents import read_json
from resegeo.errors import ResegeoError, UsageError, shown
from resegeo.files import is_there

BUNDLED = "resegeo-small"
"""Name of the model that travels inside the package."""
FOLDER = Path(__file__).parents[1] / "bundled"
"""Where it lies."""
QUICK = "-quickgelu"
"""Ending of open_clip's architectures with QuickGELU."""


def config_of(architecture: str, config: Path | None) -> dict[str, Any]:
    """open_clip's configuration of an architecture, from a file (JSON, or safetensors of ours) or its own list.

    Of a name that is not in that list it is empty: names such as ``hf-hub:…`` and ``local-dir:…``, by which open_clip
    would fetch or read one, are none.

    Raises
    ------
    ResegeoError:
        When a file says what no file may say, see :func:`resegeo.checkpoints.model_config.validated`.

    """
    if config is None:
        import open_clip

        return (open_clip.get_model_config(architecture) or {}) if architecture in open_clip.list_models() else {}
    if config.suffix != ".json":
        return validated(read_checkpoint(config).facts.get("config"), str(config))
    found = read_json(config)
    if isinstance(found, dict):
        found = found.get("model_cfg", found)  # open_clip_config.json of a hub wraps it
    return validated(found, str(config))


def own_config(path: Path) -> tuple[str, Path]:
    """Check a configuration file that the user gives as architecture."""
    import open_clip

    if not is_there(path):
        raise UsageError(f"[[arch={path}]]: no such file.")
    try:
        config_of(path.stem, path)
    except ResegeoError as error:
        raise UsageError(f"[[arch]] {error.text}") from error
    if path.stem in open_clip.list_models():
        raise UsageError(f"[[arch={path}]] bears the name of an architecture of open_clip; give the file another name.")
    if not is_plain_name(path.stem):
        raise UsageError(
            f"[[arch={shown(path)}]]: its name cannot be that of an architecture; rename it to letters and digits."
        )
    return path.stem, path


def colours_of(path: Path) -> Normalisation | None:
    """What a configuration file that the user gives as architecture says of the colours; None where nothing."""
    try:
        said = read_json(path)
    except ResegeoError:  # told by own_config
        return None
    return said_of_colours(said, f"[[arch={path}]]") if isinstance(said, dict) else None


def own_words(checkpoint: Checkpoint) -> tuple[str, Path | None]:
    """The architecture that a file of resegeo names, and the file itself where it holds the configuration.

    Raises
    ------
    ResegeoError:
        When the open_clip that is installed does not know it, or the configuration beside it is refused.

    """
    import open_clip

    name = str(checkpoint.facts["architecture"])
    if "config" in checkpoint.facts:
        if name in open_clip.list_models():
            raise ResegeoError(
                f"{checkpoint.path} gives the architecture {name} of open_clip a configuration of its own; get the "
                "file anew from whoever made it."
            )
        config_of(name, checkpoint.path)
        return name, checkpoint.path
    if not config_of(name, None):
        raise ResegeoError(
            f"{checkpoint.path} is of the architecture {name}, which the open_clip installed here does not know; "
            "update it (pip install -U open_clip_torch)."
        )
    return name, None


def inferred(checkpoint: Checkpoint) -> tuple[str, Path | None]:
    """Tell the architecture from the shapes."""
    import open_clip

    found = shape_of(checkpoint.tensors)
    bundled = FOLDER / f"{BUNDLED}.json"
    if found is not None and found == shape_of_config(config_of(BUNDLED, bundled)):
        return BUNDLED, bundled
    known = {name: shape_of_config(open_clip.get_model_config(name)) for name in open_clip.list_models()}
    fitting = sorted((name for name, shape in known.items() if found and shape == found), key=lambda n: (len(n), n))
    if not fitting:
        sizes = (
            "are not those of a CLIP with a vision transformer"
            if found is None
            else f"(width {found.width}, patch {found.patch}, {found.layers} layers) are none that open_clip knows"
        )
        raise UsageError(
            f"{checkpoint.path}: its shapes {sizes}; name its open_clip architecture by [[arch]], for example "
            "[[arch=ViT-L-14-quickgelu]], or a JSON file with a model configuration."
        )
    return fitting[0], None


def settled(
    checkpoint: Checkpoint,
    architecture: str,
    config: Path | None,
    wanted: str | None,
    published: KnownModel | None,
) -> tuple[str, str]:
    """Settle the activation; also return why, where the user did not say it."""
    named = "quickgelu" if architecture.endswith(QUICK) else None
    for told, whose in ((checkpoint.activation, "the file says"), (named, f"[[arch={architecture}]] means")):
        if told is None:
            continue
        if wanted not in (None, told):
            raise UsageError(
                f"[[activation={wanted}]], but {whose} {told} for {checkpoint.path}: the labels would be wrong. Leave "
                "it "
                "out."
            )
        if told == checkpoint.activation and named not in (None, told):
            raise UsageError(
                f"[[arch={architecture}]] means {named}, but {checkpoint.path} says {told}: the labels would be wrong. "
                f"Take [[arch={architecture.removesuffix(QUICK)}]]."
            )
        return told, "the file says the activation" if told == checkpoint.activation else ""
    if wanted is not None:
        return wanted, ""
    if published is not None and published.activation is not None:
        sure = "" if published.certain else ", though its authors do not document the activation"
        return published.activation, f"it has the published name of {published.name}{sure}"
    import open_clip

    own = bool(config_of(architecture, config).get("quick_gelu", False))
    if config is not None or own or architecture + QUICK not in open_clip.list_models():
        return "quickgelu" if own else "gelu", ""
    raise UsageError(
        f"{checkpoint.path} does not say its activation, and the wrong one gives wrong labels silently: add "
        "[[activation=quickgelu]] (OpenAI's CLIP and its fine-tunes) or [[activation=gelu]] (OpenCLIP's own, such as "
        "those "
        "of LAION)."
    )


def refuse_other_heads(checkpoint: Checkpoint, architecture: str, config: Path | None) -> None:
    """Refuse an architecture with other attention heads than a config.json tells: shapes do not, features would differ.

    Raises
    ------
    UsageError:
        When they differ.

    """
    found = config_of(architecture, config)
    vision, text = found.get("vision_cfg", {}), found.get("text_cfg", {})
    ours = {"text": text.get("heads", 8), "vision": vision.get("width", 768) // vision.get("head_width", 64)}
    for tower, heads in checkpoint.heads.items():
        if heads != ours[tower]:
            raise UsageError(
                f"{checkpoint.path}: its config.json says {heads} attention heads in the {tower} tower, {architecture} "
                f"has {ours[tower]}: the labels would be wrong. Name the architecture it was trained with by [[arch]]."
            )


def known_architecture(architecture: str) -> str:
    """Return the name if open_clip knows it; see :class:`UsageError`."""
    import open_clip

    names = open_clip.list_models()
    if architecture in names:
        return architecture
    near = difflib.get_close_matches(architecture, names, n=3)
    hint = f"did you mean {' or '.join(near)}" if near else "for example ViT-B-32, ViT-B-16 or ViT-L-14-quickgelu"
    raise UsageError(f"[[arch={architecture}]] is not an architecture that open_clip knows; {hint}?")
