"""What the bundled model and its teacher are trained by: labels that are sets of kinds, and a teacher's word."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from bundled_model_data import (
    CLASSES,
    CODES,
    EUROSAT,
    FAMILIES,
    MEASURED,
    PAINTED,
    POOLED,
    answers,
    likely_table,
)
from torch.nn import functional

VIEW_SHARES = (0.7, 0.15, 0.15)
"""How often the words of each entry of VIEWS compete."""


WORDS = (*CLASSES, "vegetation")


@dataclass(frozen=True)
class View:
    """Words that compete, and what each code says of them."""

    columns: list[int]
    """Where the words stand in :data:`WORDS`."""
    likely: torch.Tensor
    """Row: code, column: word; how much the word counts at a pixel of the code, 0 where it is impossible."""
    judged: list[tuple[str, list[int], torch.Tensor, torch.Tensor]]
    """Source, columns that count as the class asked for there, whether a code is it, whether that is known."""


def make_view(members: dict[str, tuple[str, ...]]) -> View:
    """The tables of one entry of :data:`VIEWS`."""
    table = torch.from_numpy(likely_table())
    words = list(members)
    likely = torch.stack([table[:, [CLASSES.index(c) for c in members[w]]].amax(1) for w in words], dim=1)
    judged = []
    for source, names in (*MEASURED.items(), *PAINTED.items()):
        for name in names:
            family = FAMILIES[name] | {"car park", "swimming pool"}
            columns = [i for i, w in enumerate(words) if w in {*FAMILIES[name], name} and family.issuperset(members[w])]
            true, known = answers(source, name)
            if columns:
                judged.append((source, columns, torch.from_numpy(true), torch.from_numpy(known)))
    return View([WORDS.index(w) for w in words], likely, judged)


def only_chips(logits: torch.Tensor, sources: list[str]) -> torch.Tensor:
    """Let only the words of EuroSAT's ten classes compete on its chips; logits (B, h, w, kinds)."""
    ten = {word.removesuffix(" chip") for word in EUROSAT.values()}
    other = torch.tensor([name not in ten for name in CLASSES])
    chip = torch.tensor([source == "eurosat" for source in sources])
    return logits.masked_fill(chip[:, None, None, None] & other, -1e4)


def partial_loss(logits: torch.Tensor, codes: torch.Tensor, likely: torch.Tensor) -> torch.Tensor:
    """Weighted mean of −log Σ w p over the possible words; logits (B, h, w, C), codes (B, h, w), w in ``likely``.

    Codes in :data:`POOLED` name a whole picture: there the mean of p over its pixels stands in the logarithm.
    """
    may = likely[codes]
    logs = torch.logsumexp(logits, -1) - torch.logsumexp(logits + may.clamp(min=1e-9).log(), -1)
    known = (codes > 0) & (may.amax(-1) > 0)
    # Rare codes count more than their pixels, vague ones less than exact ones.
    share = torch.bincount(codes[known], minlength=len(likely)).float()
    weight = share.clamp(min=1.0).rsqrt()[codes] * torch.where((may > 0).sum(-1) > 3, 0.6, 1.0) * known
    total, norm = logits.sum() * 0.0, weight.sum().clamp(min=1e-6)
    for name in POOLED:
        here = (codes == CODES[name]) & known
        weight = weight * ~here
        for picture in range(len(codes)):
            if int(here[picture].sum()):
                pooled = -torch.log(torch.exp(-logs[picture][here[picture]]).mean().clamp(min=1e-6))
                total = total + pooled * float(here[picture].sum()) * float(share[CODES[name]].clamp(min=1.0).rsqrt())
    return ((logs * weight).sum() + total) / norm


def jaccard_loss(logits: torch.Tensor, codes: torch.Tensor, sources: list[str], view: View) -> torch.Tensor:
    """1 − soft Jaccard index of each measured class over the crops of its source, mean over the classes."""
    chance = logits.softmax(-1)
    losses = []
    for source, columns, is_it, is_known in view.judged:
        crops = [i for i, own in enumerate(sources) if own == source]
        if not crops:
            continue
        code = codes[crops]
        true, known = is_it[code], is_known[code]
        said = chance[crops][..., columns].sum(-1) * known
        both = (said * true).sum()
        if int(true.sum()) >= 20:
            # Smoothed, so that a handful of pixels is no coin toss.
            losses.append(1.0 - (both + 5.0) / (said.sum() + true.sum() - both + 5.0))
    return torch.stack(losses).mean() if losses else logits.sum() * 0.0


def taught_loss(logits: torch.Tensor, said: torch.Tensor, codes: torch.Tensor, likely: torch.Tensor) -> torch.Tensor:
    """Cross-entropy to the teacher's distribution, of which only the possible words of a pixel stay.

    Both logits (B, h, w, C); pixels count by how rare their likeliest word is in the batch, as in
    :func:`partial_loss`.
    """
    asked = ~said.isnan().any(-1)
    may = (likely[codes] > 0) | (likely[codes].amax(-1, keepdim=True) == 0)
    chance = said.nan_to_num().softmax(-1) * may
    mass = chance.sum(-1, keepdim=True)
    target = chance / mass.clamp(min=1e-4)
    # Where the teacher thinks the label impossible its word on the rest is worth little.
    sure = (mass[..., 0] > 0.02) & asked
    kind = target.argmax(-1)
    share = torch.bincount(kind[sure], minlength=said.shape[-1]).float()
    weight = share.clamp(min=1.0).rsqrt()[kind] * sure
    each = -(target * logits.log_softmax(-1)).sum(-1)
    return (each * weight).sum() / weight.sum().clamp(min=1e-6)


def hidden_loss(head: torch.nn.Linear, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """1 − cosine of what ``head`` makes of the unit features (B, 1 + N, D) and the teacher's (B, g, g, F)."""
    target = hidden.flatten(1, 2)
    asked = ~target.isnan().any(-1)
    said = head(functional.normalize(tokens[:, 1:], dim=2))
    near = functional.cosine_similarity(said, target.nan_to_num(), dim=2)
    return ((1.0 - near) * asked).sum() / asked.sum().clamp(min=1)
