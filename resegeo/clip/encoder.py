"""open_clip's two towers: windows to dense features under attention masks, words to embeddings.

The image side knows nothing of the words: :meth:`Encoder.encode_windows` needs pixels and segments
only, :meth:`Encoder.encode_texts` words only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from resegeo.checkpoints.fit import fill
from resegeo.checkpoints.formats import bytes_of, read_checkpoint
from resegeo.checkpoints.normalisation import usual
from resegeo.checkpoints.sources import ModelSource, configuration
from resegeo.clip.attention import LastLayer, Schedule, layer_masks
from resegeo.clip.device_memory import memory_for
from resegeo.clip.tokens import tokenizer_of
from resegeo.errors import ResegeoError, UsageError, shown
from resegeo.process import remember_threads

_LIGHT = 300_000_000
"""Parameters of an architecture that is built whatever its file: what does not fit is told one by one then."""

_AS_TRAINED = LastLayer()

P = ParamSpec("P")


def _attend(
    attention: torch.nn.MultiheadAttention, x: torch.Tensor, keep: torch.Tensor | None, terms: Sequence[str] = ("qk",)
) -> torch.Tensor:
    """Multi-head self-attention of (B, T, D) tokens under a boolean keep-mask (B or 1, 1, T, T).

    ``terms`` as in :class:`resegeo.clip.attention.LastLayer`.
    """
    batch, tokens, width = x.shape
    heads = attention.num_heads
    qkv = functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    # (B, T, 3·D) -> 3 × (B, heads, T, D / heads)
    parts = dict(zip("qkv", qkv.view(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4), strict=True))
    # `keep` stays boolean: cast to the dtype of x it would be added to the logits as 0 and 1.
    each = [
        functional.scaled_dot_product_attention(parts[term[0]], parts[term[1]], parts["v"], attn_mask=keep)
        for term in terms
    ]
    mixed = each[0] if len(each) == 1 else torch.stack(each).sum(dim=0)
    mixed = mixed.transpose(1, 2).reshape(batch, tokens, width)
    projected: torch.Tensor = attention.out_proj(mixed)
    return projected


def dense_features(
    visual: Any, images: torch.Tensor, masks: Sequence[torch.Tensor | None], *, last: LastLayer = _AS_TRAINED
) -> torch.Tensor:
    """Run open_clip's vision transformer with one keep-mask a layer and project every token.

    Parameters
    ----------
    visual:
        An ``open_clip.transformer.VisionTransformer`` with learned CLS token and standard blocks.
    images:
        Normalised images (B, 3, H, W) of the tower's own size.
    masks:
        One entry a layer: None (free) or a boolean keep-mask (B or 1, 1, 1 + N, 1 + N).
    last:
        How the last layer computes, under its own mask.

    Returns
    -------
    (B, 1 + N, D): CLS first, then the patches row by row, after the final LayerNorm and the visual
    projection, not normalised. With all masks None this equals open_clip's own tokens.

    """
    blocks = visual.transformer.resblocks
    if len(masks) != len(blocks):
        raise UsageError(
            f"The attention schedule has {len(masks)} layers, but the model has {len(blocks)}; "
            "the numbers of free, segment and local layers must add up to the model's depth."
        )
    x = visual._embeds(images)  # (B, 1 + N, D), position embedding and first LayerNorm included
    for layer, (block, keep) in enumerate(zip(blocks, masks, strict=True), start=1):
        how = last if layer == len(blocks) else _AS_TRAINED
        attended = block.ls_1(_attend(block.attn, block.ln_1(x), keep, how.terms))
        x = x + attended if how.residual else attended
        if how.mlp:
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
    x = visual.ln_post(x)
    projected: torch.Tensor = x if visual.proj is None else x @ visual.proj
    return projected


Encoded = Callable[[], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Answers patch and CLS features of a batch, once the device has computed them."""


def _at_once(start: Callable[P, Encoded]) -> Callable[P, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Make a method of one that starts: of the same parameters, it waits for the device and answers features."""

    def encode(*given: P.args, **named: P.kwargs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Do as :meth:`start_windows` does, and wait: patch features (B, g, g, D) and CLS features (B, D)."""
        return start(*given, **named)()

    return encode


@dataclass(frozen=True)
class Encoder:
    """A CLIP model ready for dense use. Build it with :func:`load_encoder`."""

    model: Any
    tokenizer: Any
    name: str
    device: str
    image_size: int
    patch_size: int
    depth: int
    dimension: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    logit_scale: float
    sha256: str
    activation: str
    precision: str = "float32"
    """Arithmetic of the vision transformer: float32, bfloat16 or float16."""
    forward: Callable[..., torch.Tensor] = dense_features
    """:func:`dense_features`, or its compiled form."""

    @property
    def grid(self) -> int:
        """Patches along one side of a window."""
        return self.image_size // self.patch_size

    def start_windows(
        self,
        rgb: NDArray[np.uint8],
        valid: NDArray[np.bool_],
        levels: NDArray[np.int64],
        schedule: Schedule,
        *,
        fill: str = "mean",
        last: LastLayer = _AS_TRAINED,
    ) -> Encoded:
        """Give a batch of windows to the device; a CUDA device computes it while the caller goes on.

        Parameters
        ----------
        rgb:
            (B, S, S, 3) uint8, S being the model's image size.
        valid:
            (B, S, S) bool; pixels that are False are replaced by ``fill``.
        levels:
            Patch ids (B, K, g, g), see :func:`resegeo.clip.attention.patch_ids`.
        schedule:
            The layer schedule; its depth must be the model's.
        fill:
            ``mean`` (the model's mean colour) or ``black`` (the paper's code).
        last:
            See :func:`dense_features`.

        Returns
        -------
        What waits for the device, from any thread, and answers patch features (B, g, g, D) and CLS features (B, D),
        float32, not normalised; or raises :class:`ResegeoError` when they are no numbers.

        """
        kind = self.device.split(":", 1)[0]
        half = self.precision != "float32"
        with torch.inference_mode(), torch.autocast(kind, getattr(torch, self.precision), enabled=half):
            pixels = self._moved(rgb)
            images = pixels.permute(0, 3, 1, 2).float().div_(255.0)  # (B, S, S, 3) -> (B, 3, S, S), channels last
            mean = torch.tensor(self.mean, device=self.device).view(1, 3, 1, 1)
            std = torch.tensor(self.std, device=self.device).view(1, 3, 1, 1)
            outside = ~self._moved(valid)[:, None]
            images = images.masked_fill(outside, 0.0) if fill == "black" else torch.where(outside, mean, images)
            images = (images - mean) / std
            masks = layer_masks(schedule, self._moved(levels))
            arrives = self._arriving(self.forward(self.model.visual, images, masks, last=last).float())

        def wait() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            tokens = arrives()
            self._refuse_no_numbers(tokens)
            patches = tokens[:, 1:].reshape(len(rgb), self.grid, self.grid, -1)
            return np.ascontiguousarray(patches), np.ascontiguousarray(tokens[:, 0])

        return wait

    encode_windows = _at_once(start_windows)

    def _arriving(self, tensor: torch.Tensor) -> Callable[[], NDArray[np.float32]]:
        """Begin to bring a tensor from the device; from CUDA to pinned memory, so that nothing waits for the copy."""
        if not self.device.startswith("cuda"):
            found = tensor.cpu().numpy()
            return lambda: found
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        there.record(torch.cuda.current_stream(tensor.device))

        def wait() -> NDArray[np.float32]:
            there.synchronize()
            return np.asarray(host.numpy())

        return wait

    def _moved(self, array: NDArray[Any]) -> torch.Tensor:
        """Bring an array to the device; to CUDA from pinned memory, so that the copy need not wait."""
        tensor = torch.from_numpy(array)
        if self.device.startswith("cuda"):
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def encode_texts(self, prompts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Embed prompts, each given by its phrasings: Q lists of strings -> (Q, D) float32, unit length.

        The phrasings of one prompt (its templates) are normalised, averaged and normalised again.

        Raises
        ------
        ResegeoError:
            When the model computes values that are no numbers.

        """
        flat = [text for phrasings in prompts for text in phrasings]
        with torch.inference_mode():
            tokens = self.tokenizer(flat).to(self.device)
            embedded = functional.normalize(self.model.encode_text(tokens).float(), dim=-1).cpu()
        rows, start = [], 0
        for phrasings in prompts:
            rows.append(embedded[start : start + len(phrasings)].mean(dim=0))
            start += len(phrasings)
        unit = functional.normalize(torch.stack(rows), dim=-1)
        self._refuse_no_numbers(unit.numpy())
        return np.asarray(unit.numpy(), dtype=np.float32)

    def _refuse_no_numbers(self, computed: NDArray[np.float32]) -> None:
        """Refuse what no label can be made of: sound weights can still run out of the range of numbers."""
        if not np.isfinite(computed).all():
            more = " Choose [[precision=float32]] or bfloat16." if self.precision == "float16" else ""
            raise ResegeoError(
                f"The model {self.name} computes values that are no numbers (NaN or infinite) in {self.precision}: its "
                f"weights belong to another architecture or activation, or are damaged.{more}"
            )


def pick_device(name: str | None) -> str:
    """Return ``name`` if usable, or the best device there is: cuda, mps, cpu.

    Raises
    ------
    UsageError:
        When the device is unknown or not present on this machine.

    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name is None:
        return next(device for device in ("cuda", "mps", "cpu") if present[device])
    kind = name.split(":", 1)[0]
    usable = ", ".join(device for device, there in present.items() if there)
    if not present.get(kind, False):
        raise UsageError(f"[[device={name}]] is not available on this machine; available: {usable}.")
    try:
        with memory_for("anything", name):
            torch.empty(1, device=name)
    except RuntimeError as error:
        raise UsageError(f"[[device={name}]] is not available on this machine; available: {usable}.") from error
    return name


def quick_at_bfloat16(device: str) -> bool:
    """Whether a device computes in bfloat16 by instructions of its own: CUDA that knows it, AMX or AVX512-BF16."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8  # older ones emulate it
    if device != "cpu":
        return False
    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(test()) for test in tests if test is not None)


def load_encoder(
    source: ModelSource, *, device: str | None = None, precision: str = "float32", compiled: bool = False
) -> Encoder:
    """Load a model's weights through open_clip, in evaluation mode and float32.

    Parameters
    ----------
    source:
        The checkpoint.
    device:
        See :func:`pick_device`.
    precision:
        Arithmetic of the vision transformer: float32, or by autocast bfloat16 or float16.
    compiled:
        Whether torch.compile may take the vision transformer in hand.

    Raises
    ------
    UsageError:
        When device and precision do not fit.
    ResegeoError:
        When the weights do not fit the architecture, or the architecture has no dense patch tokens.

    """
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    where = pick_device(device)
    if precision == "float16" and where == "cpu":
        raise UsageError("precision float16 is for graphics processors; on the CPU take bfloat16 or float32.")
    model = build(source)
    fill(model, read_checkpoint(source.path), source.architecture)
    visual = model.visual
    if not (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and not visual.final_ln_after_pool
        and visual.patch_size[0] == visual.patch_size[1]
        and visual.image_size[0] == visual.image_size[1]
        and all(type(block) is ResidualAttentionBlock for block in visual.transformer.resblocks)
    ):
        raise ResegeoError(
            f"The architecture {source.architecture} cannot be segmented with: its vision tower is not a plain "
            "CLIP vision transformer with a CLS token. Use one such as ViT-B-16, ViT-L-14 or ViT-H-14."
        )
    colours = source.colours or usual()
    with memory_for(f"the model {source.name}", where):
        model.eval().requires_grad_(False).to(where)
    act = type(visual.transformer.resblocks[0].mlp.gelu).__name__
    return Encoder(
        model=model,
        tokenizer=tokenizer_of(source),
        name=source.name,
        device=where,
        image_size=int(visual.image_size[0]),
        patch_size=int(visual.patch_size[0]),
        depth=len(visual.transformer.resblocks),
        dimension=int(visual.output_dim),
        mean=colours.mean,
        std=colours.std,
        logit_scale=float(model.logit_scale.exp()),
        sha256=source.sha256,
        activation=act,
        precision=precision,
        forward=_compiled() if compiled else dense_features,
    )


def _compiled() -> Callable[..., torch.Tensor]:
    """Compile :func:`dense_features`; that happens at the first call, and may fail only then."""
    inner: Callable[..., torch.Tensor] = torch.compile(dense_features)

    def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
        try:
            return inner(*args, **kwargs)
        except Exception as error:  # the compilers behind torch share no base of errors
            raise ResegeoError(
                f"torch.compile does not work on this machine ({type(error).__name__}; it needs a C++ compiler). "
                "Leave out [[compile]]."
            ) from error

    return forward


def build(source: ModelSource) -> Any:
    """Build the architecture with random weights and the activation that the checkpoint wants.

    open_clip's own factory takes a configuration by a name that all threads share, and logs by functions that set up
    the root logger; so its classes are called here as it calls them.

    Raises
    ------
    ResegeoError:
        When the architecture is larger than the file of its weights can be, or cannot be built.

    """
    from open_clip.coca_model import CoCa
    from open_clip.model import CLIP, CustomTextCLIP

    config = copy.deepcopy(configuration(source))
    vision, text = config["vision_cfg"], config["text_cfg"]
    foreign = "timm_model_name" in vision or "hf_model_name" in text
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    kind = CLIP if not custom else CoCa if "multimodal_cfg" in config else CustomTextCLIP
    try:
        if not foreign and not source.bundled:
            with torch.device("meta"):  # shapes alone, before memory is taken for them
                count = sum(value.numel() for value in kind(**copy.deepcopy(config)).state_dict().values())
            there = bytes_of(source.path)
            if count > max(there, _LIGHT):
                raise ResegeoError(
                    f"{source.path} has {there:,} bytes, but the architecture {source.architecture} has {count:,} "
                    "parameters: they do not belong together. Name the architecture it was trained with by [[arch]]."
                )
        return kind(**config)
    except (RuntimeError, AssertionError, ValueError, TypeError, ZeroDivisionError, MemoryError) as error:
        raise ResegeoError(
            f"The architecture {source.architecture} cannot be built ({type(error).__name__}: {shown(error)}). Use "
            "another model, or name its architecture by [[arch]]."
        ) from error


def set_threads(threads: int | None) -> None:
    """Compute on ``threads`` CPU threads; None leaves torch's own choice, the number of cores."""
    if threads is not None:
        if threads < 1:
            raise UsageError(f"[[threads={threads}]] is too few; it must be 1 or more.")
        remember_threads()
        torch.set_num_threads(threads)
