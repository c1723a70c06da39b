"""A weighted average of CLIP variants, parameter by parameter in float32.

θ₁ + Σ wₘ (θₘ − θ₁) with the variants in the order of their checksums: the average of a model with itself is itself to
the bit, and the order in which variants are named does not matter. Tensor after tensor is read, so that memory holds
the average and its serialisation, however many variants there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resegeo.checkpoints.architecture import QUICK
from resegeo.checkpoints.fit import shape_of
from resegeo.checkpoints.formats import Checkpoint, read_checkpoint
from resegeo.checkpoints.sources import ModelSource, facts_for_file
from resegeo.clip.tokens import refuse_cut
from resegeo.composition.distances import distances, refuse_outliers
from resegeo.composition.separation import TEMPERATURE, Separation, phrasings_of, separation, softmax_weights
from resegeo.errors import ResegeoError, UsageError, notice, shown
from resegeo.files import whole
from resegeo.progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from resegeo.classes.class_list import ClassList

FORMAT = 2
"""Counts up when the same recipe would give other weights."""


@dataclass(frozen=True)
class Variant:
    """One member of an average."""

    source: ModelSource
    weight: float
    separation: Separation | None
    distance: float
    """Relative L2 distance from the variant named first: ‖θ − θ₁‖ / ‖θ₁‖ over all parameters."""
    blocks: Mapping[str, float]
    """The same block by block."""


@dataclass(frozen=True)
class Composition:
    """What was averaged, in the order in which it was named."""

    path: Path
    rule: str
    variants: tuple[Variant, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "output": str(self.path),
            "rule": self.rule,
            "variants": [
                {
                    "name": variant.source.name,
                    "sha256": variant.source.sha256,
                    "weight": variant.weight,
                    **(
                        {}
                        if variant.separation is None
                        else {
                            "cohesion": variant.separation.cohesion,
                            "confusion": variant.separation.confusion,
                            "quality": variant.separation.quality,
                        }
                    ),
                    "distance": variant.distance,
                    "blocks": dict(variant.blocks),
                }
                for variant in self.variants
            ],
        }


def compose(
    sources: Sequence[ModelSource],
    output: str | Path,
    *,
    weights: str | Sequence[float] = "uniform",
    classes: ClassList | None = None,
    temperature: float = TEMPERATURE,
    allow_outlier: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
) -> Composition:
    """Average CLIP variants into one checkpoint, with its recipe in the file's metadata.

    Parameters
    ----------
    sources:
        Two variants or more, of one architecture, activation and ancestor.
    output:
        File to write, ``.safetensors``.
    weights:
        ``uniform``, ``separation`` (see :mod:`resegeo.composition.separation`), or one number a variant, which sum to
        1; also as
        :func:`read_weights` takes them.
    classes:
        Classes and phrasings for ``separation``; a list built in by default.
    temperature:
        Of the softmax of ``separation``.
    allow_outlier:
        Average even what :func:`resegeo.composition.distances.refuse_outliers` refuses.
    device:
        Where ``separation`` embeds the words.
    progress:
        Called with stage, steps done, steps in all.

    Raises
    ------
    UsageError:
        When the options do not fit together.
    ResegeoError:
        When the variants do not, or one cannot be read.

    """
    report = progress or silent
    output = Path(output)
    if len(sources) < 2:
        raise UsageError(f"An average needs two variants or more; given: {len(sources)}.")
    if output.suffix != ".safetensors":
        raise UsageError(f"[[output={output}]]: the average is written as .safetensors; name the file so.")
    if not (math.isfinite(temperature) and temperature > 0):
        raise UsageError(f"[[temperature={temperature:g}]] is not possible; expected a number above 0.")
    weights = read_weights(weights) if isinstance(weights, str) else weights
    given = _numbers(weights, len(sources))
    opened = [read_checkpoint(source.path) for source in sources]
    for text in filter(None, (checkpoint.notice() for checkpoint in opened)):
        notice(text)
    _refuse_strangers(sources, opened)
    blocks, parts = distances(opened, report)
    if not allow_outlier:
        refuse_outliers([source.name for source in sources], parts)
    judged = _judged(sources, classes, device, report) if weights == "separation" else None
    if judged is not None:
        given = softmax_weights([said.quality for said in judged], temperature)
    order = sorted(range(len(sources)), key=lambda index: (sources[index].sha256, given[index]))
    average = _average([opened[index] for index in order], [given[index] for index in order], report)
    variants = tuple(
        Variant(source, weight, None if judged is None else judged[index], blocks[index].pop("all"), blocks[index])
        for index, (source, weight) in enumerate(zip(sources, given, strict=True))
    )
    rule = weights if isinstance(weights, str) else "numbers"
    made = Composition(output, rule, variants)
    _write(average, made, temperature if rule == "separation" else None, classes)
    return made


def read_weights(text: str) -> str | tuple[float, ...]:
    """Read weights as a user writes them: ``0.5,0.3,0.2`` is numbers, a rule stays its name."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        return text


def _numbers(weights: str | Sequence[float], count: int) -> tuple[float, ...]:
    """Check the weights; those of ``separation`` are not known yet."""
    if weights in ("uniform", "separation"):
        return (1 / count,) * count
    if isinstance(weights, str):
        raise UsageError(
            f"[[weights={weights}]] is not known; expected uniform, separation, or one number a variant such as "
            "0.5,0.5."
        )
    numbers = tuple(float(number) for number in weights)
    listed = ",".join(f"{number:.10g}" for number in numbers)
    if len(numbers) != count:
        raise UsageError(f"[[weights={listed}]] has {len(numbers)} numbers for {count} variants; give one each.")
    wrong = next((number for number in numbers if not (math.isfinite(number) and number >= 0)), None)
    if wrong is not None:
        raise UsageError(f"[[weights={listed}]] holds {wrong:.10g}; expected numbers of 0 or more that add up to 1.")
    if abs(math.fsum(numbers) - 1) > 1e-6:
        raise UsageError(
            f"[[weights={listed}]] add up to {math.fsum(numbers):.10g}; expected numbers that add up to 1."
        )
    return numbers


def _refuse_strangers(sources: Sequence[ModelSource], opened: Sequence[Checkpoint]) -> None:
    """Refuse variants that cannot be averaged, by name and reason."""
    first, base = sources[0], opened[0]
    base_shape = shape_of(base.tensors)
    for source, checkpoint in zip(sources[1:], opened[1:], strict=True):
        pair = f"{source.name} and {first.name} cannot be averaged:"
        shape = shape_of(checkpoint.tensors)
        if shape is None or base_shape is None:
            stranger = source if shape is None else first
            raise ResegeoError(f"{stranger.path} is no plain CLIP with a vision transformer, and cannot be averaged.")
        if (shape.vocabulary, shape.context) != (base_shape.vocabulary, base_shape.context):
            raise ResegeoError(
                f"{pair} their vocabularies differ ({shape.vocabulary} words and texts of {shape.context}, "
                f"{base_shape.vocabulary} and {base_shape.context}). Leave one out."
            )
        ours, theirs = (s.architecture.removesuffix(QUICK) for s in (first, source))
        if ours != theirs or shape != base_shape:
            where = next((n for n in base.tensors if _shape(checkpoint, n) != _shape(base, n)), None)
            detail = (
                "" if where is None else f"; {shown(where)} is {_shape(checkpoint, where)} and {_shape(base, where)}"
            )
            raise ResegeoError(f"{pair} their architectures differ ({theirs}, {ours}{detail}). Leave one out.")
        if source.activation != first.activation:
            raise ResegeoError(
                f"{pair} their activations differ ({source.activation}, {first.activation}), so they come from "
                "different pre-trainings. Leave one out."
            )
        if source.colours != first.colours:
            raise ResegeoError(
                f"{pair} their colours are normalised by other means and deviations, so they come from different "
                "pre-trainings. Leave one out."
            )
        if source.ancestor and first.ancestor and source.ancestor != first.ancestor:
            raise ResegeoError(
                f"{pair} they were fine-tuned from different weights ({source.ancestor}, {first.ancestor}), so their "
                "average means nothing. Leave one out."
            )
        different = sorted(set(base.tensors) ^ set(checkpoint.tensors))
        if different:
            raise ResegeoError(f"{pair} {len(different)} parameters are in one alone (first: {shown(different[0])}).")
        changed = [name for name in base.tensors if _shape(base, name) != _shape(checkpoint, name)]
        if changed:
            raise ResegeoError(
                f"{pair} {shown(changed[0])} is {_shape(checkpoint, changed[0])} and {_shape(base, changed[0])}."
            )


def _shape(checkpoint: Checkpoint, name: str) -> tuple[int, ...] | None:
    return tuple(checkpoint.tensors[name].shape) if name in checkpoint.tensors else None


def _judged(
    sources: Sequence[ModelSource], classes: ClassList | None, device: str | None, report: Progress
) -> list[Separation]:
    """Embed the phrasings by one variant after another."""
    from resegeo.clip.encoder import load_encoder

    phrasings = phrasings_of(classes)
    found = []
    for number, source in enumerate(sources, 1):
        refuse_cut([text for texts in phrasings.values() for text in texts], source)
        encoder = load_encoder(source, device=device)
        found.append(separation([encoder.encode_texts([[text] for text in texts]) for texts in phrasings.values()]))
        if not math.isfinite(found[-1].quality):
            raise ResegeoError(
                f"{source.name} tells no words apart: its text embeddings are all zero, so separation has no weight "
                "for it. Leave it out, or choose [[weights=uniform]]."
            )
        del encoder
        report("words", number, len(sources))
    return found


def _average(ordered: Sequence[Checkpoint], weights: Sequence[float], report: Progress) -> dict[str, torch.Tensor]:
    """θ₁ + Σ wₘ (θₘ − θ₁), tensor after tensor."""
    import torch

    result: dict[str, torch.Tensor] = {}
    names = sorted(ordered[0].tensors)
    for number, name in enumerate(names, 1):
        base = ordered[0].tensors[name]
        if not base.is_floating_point():
            if any(not torch.equal(base, other.tensors[name]) for other in ordered[1:]):
                raise ResegeoError(
                    f"The whole numbers {shown(name)} differ between the variants and cannot be averaged."
                )
            result[name] = base.clone()
            continue
        base = base.float()
        step = torch.zeros_like(base)
        for other, weight in zip(ordered[1:], weights[1:], strict=True):
            step.add_(other.tensors[name].float() - base, alpha=weight)
        # −0 + 0 is 0: what does not move stays as it is, to the bit.
        result[name] = torch.where(step == 0, base, base + step).contiguous()
        report("average", number, len(names))
    return result


def _write(
    average: dict[str, torch.Tensor],
    made: Composition,
    temperature: float | None,
    classes: ClassList | None,
) -> None:
    """Write beside, then rename."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    listed = sorted(made.variants, key=lambda one: (one.source.sha256, one.weight, one.source.name))
    recipe = {**made.as_dict(), "format": FORMAT, "temperature": temperature}
    recipe.pop("output")
    recipe["variants"] = sorted(recipe["variants"], key=lambda one: (one["sha256"], one["weight"], one["name"]))
    for one in recipe["variants"]:
        del one["distance"], one["blocks"]  # they hang on which variant was named first
    if temperature is not None:
        recipe["phrasings"] = {name: list(texts) for name, texts in phrasings_of(classes).items()}
    ancestors = {source.ancestor for source in (one.source for one in listed) if source.ancestor}
    metadata = facts_for_file(
        replace(listed[0].source, ancestor=ancestors.pop() if len(ancestors) == 1 else None),
        composition=[(f"{one.source.name} sha256:{one.source.sha256}", one.weight) for one in listed],
        recipe=recipe,
    )
    try:
        made.path.parent.mkdir(parents=True, exist_ok=True)
        with whole(made.path) as beside:
            save_file(average, beside, metadata=metadata)
            beside.chmod(0o644)
    except OSError as error:
        raise ResegeoError(f"{made.path} cannot be written ({error.strerror or error}).") from error
    except SafetensorError as error:  # what its own writer says of a full disk, or of a folder that takes no file
        raise ResegeoError(f"{made.path} cannot be written ({error}). Check free space and permissions.") from error
