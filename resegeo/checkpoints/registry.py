"""The checkpoints that are known by name: where they are, what they are, whose they are. Data only.

Sources: the authors' own pages. Where a fact is not documented there, ``certain`` is False, or the field is None.
"""

from __future__ import annotations

from dataclasses import dataclass

ACTIVATIONS = ("quickgelu", "gelu")
"""x·σ(1.702 x), OpenAI's, and the exact GELU; weights trained with one give wrong features with the other."""


@dataclass(frozen=True)
class Remote:
    """One file that is fetched on first use: from a Hugging Face repository, or from a URL."""

    label: str
    """Name for messages, and of its folder in the cache."""
    file: str
    """Name under which it is kept; of a file in a repository, its path there."""
    repository: str | None = None
    url: str | None = None
    member: str | None = None
    """Name of the wanted file inside the ZIP archive behind ``url``, in whatever folder of it."""
    sha256: str | None = None
    """None: the first that is fetched is recorded, and later ones are compared with it."""
    beside: tuple[str, ...] = ()
    """Other files of the repository without which this one cannot be read."""


@dataclass(frozen=True)
class KnownModel:
    """A checkpoint with a name."""

    name: str
    remote: Remote
    architecture: str
    """open_clip's name, or vit_b, vit_l, vit_h of segment-anything."""
    activation: str | None
    """One of :data:`ACTIVATIONS`; None for SAM."""
    licence: str
    ancestor: str | None = None
    """Pre-training from which it was fine-tuned; only variants of one ancestor can be averaged."""
    certain: bool = True
    """Whether activation and ancestor are documented, not just likely."""
    size: int | None = None
    """Bytes to download, about, where known."""
    notes: str = ""
    """What it was trained on, as far as that touches what it may be measured on."""

    @property
    def sam(self) -> bool:
        """Whether this is a Segment Anything Model."""
        return self.activation is None


def _openai(name: str, file: str, digest: str, size: int) -> KnownModel:
    url = f"https://openaipublic.azureedge.net/clip/models/{digest}/{file}"
    remote = Remote(f"openai:{name}", file, url=url, sha256=digest)
    notes = "trained on 400 million unpublished pairs of the web"
    return KnownModel(
        remote.label, remote, f"{name}-quickgelu", "quickgelu", "MIT", f"openai:{name}", size=size, notes=notes
    )


def _remoteclip(name: str, arch: str) -> KnownModel:
    remote = Remote(name, f"RemoteCLIP-{arch}.pt", repository="chendelong/RemoteCLIP")
    notes = (
        "captions made of the labels of Potsdam, Vaihingen, iSAID, LoveDA, DOTA, DIOR and others: no zero-shot there"
    )
    return KnownModel(
        name, remote, f"{arch}-quickgelu", "quickgelu", "Apache-2.0", f"openai:{arch}", certain=False, notes=notes
    )


def _georsclip(name: str, arch: str, ancestor: str, activation: str, *, certain: bool) -> KnownModel:
    remote = Remote(name, f"ckpt/RS5M_{arch}.pt", repository="Zilun/GeoRSCLIP")
    notes = "RS5M: web images, BigEarthNet, fMoW and Million-AID; no captions of segmentation labels"
    return KnownModel(
        name,
        remote,
        f"{arch}-quickgelu" if activation == "quickgelu" else arch,
        activation,
        'code MIT, weights "cc"',
        f"{ancestor}:{arch}",
        certain=certain,
        notes=notes,
    )


def _skyclip(name: str, archive: str, arch: str, ancestor: str, activation: str) -> KnownModel:
    url = f"https://opendatasharing.s3.us-west-2.amazonaws.com/SkyScript/ckpt/{archive}.zip"
    remote = Remote(name, f"{archive}.pt", url=url, member="epoch_20.pt")
    notes = "SkyScript: images with the tags of OpenStreetMap as captions"
    suffix = "-quickgelu" if activation == "quickgelu" else ""
    return KnownModel(name, remote, arch + suffix, activation, "MIT", f"{ancestor}:{arch}", notes=notes)


def _sam(arch: str, digest: str, mark: str, size: int) -> KnownModel:
    file = f"sam_{arch}_{mark}.pth"
    name = f"sam-{arch.replace('_', '-')}"
    remote = Remote(name, file, url=f"https://dl.fbaipublicfiles.com/segment_anything/{file}", sha256=digest)
    return KnownModel(name, remote, arch, None, "Apache-2.0", size=size, notes="SA-1B: 11 million photographs")


KNOWN: tuple[KnownModel, ...] = (
    _openai("ViT-B-32", "ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", 354_000_000),
    _openai("ViT-B-16", "ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", 351_000_000),
    _openai("ViT-L-14", "ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", 933_000_000),
    _openai(
        "ViT-L-14-336",
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        934_000_000,
    ),
    _remoteclip("remoteclip-b32", "ViT-B-32"),
    _remoteclip("remoteclip-l14", "ViT-L-14"),
    _georsclip("georsclip-b32", "ViT-B-32", "openai", "quickgelu", certain=True),
    _georsclip("georsclip-l14", "ViT-L-14", "openai", "quickgelu", certain=False),
    _georsclip("georsclip-l14-336", "ViT-L-14-336", "openai", "quickgelu", certain=False),
    _georsclip("georsclip-h14", "ViT-H-14", "laion2b_s32b_b79k", "gelu", certain=True),
    _skyclip("skyclip-b32", "SkyCLIP_ViT_B32_top50pct", "ViT-B-32", "laion2b_e16", "gelu"),
    _skyclip("skyclip-l14", "SkyCLIP_ViT_L14_top30pct", "ViT-L-14", "openai", "quickgelu"),
    KnownModel(
        "clip-rsicd",
        Remote("clip-rsicd", "pytorch_model.bin", repository="flax-community/clip-rsicd-v2", beside=("config.json",)),
        "ViT-B-32-quickgelu",
        "quickgelu",
        "Apache-2.0",
        "openai:ViT-B-32",
        notes="captions of RSICD, UCM and Sydney",
    ),
    _sam("vit_b", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", "01ec64", 375_042_383),
    _sam("vit_l", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", "0b3195", 1_249_524_607),
    _sam("vit_h", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", "4b8939", 2_564_550_879),
)


def known_model(name: str, *, sam: bool = False) -> KnownModel | None:
    """Find a CLIP, or with ``sam`` a SAM, by its name, whatever its letters' case; None where there is none.

    ``ViT-L-14:openai``, as open_clip writes it, is ``openai:ViT-L-14``, and so is the form with ``-quickgelu``.
    """
    folded = name.casefold().replace("-quickgelu", "")
    arch, _, tag = folded.partition(":")
    if tag == "openai":
        folded = f"openai:{arch}"
    return next((model for model in KNOWN if model.sam == sam and model.name.casefold() == folded), None)


def known_file(file: str) -> KnownModel | None:
    """Find the CLIP whose checkpoint is published under a file name that no other bears."""
    if file == "pytorch_model.bin":
        return None
    return next((m for m in KNOWN if not m.sam and file in (m.remote.file, m.remote.file.rpartition("/")[2])), None)
