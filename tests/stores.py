"""Small stores for tests of the store alone."""

from __future__ import annotations

from typing import Any

from resegeo.run.header import Layout, StoredModel, StoredScene, StoreHeader

SHA = "0" * 64


def header(items: int = 4, *, windows: int = 3, prompts: int | None = None, **given: Any) -> StoreHeader:
    """A header that is valid: features of 5 numbers for 2 x 2 patches, or scores of so many prompts."""
    dtype = given.pop("dtype", "float16")
    name = given.pop("name", "scene")
    layout = Layout(
        items=items,
        windows=windows,
        grid=2,
        side=4,
        dimension=5,
        dtype=dtype,
        prompts=prompts,
        segments=given.pop("segments", False),
        height=given.pop("height", 6),
        width=8,
    )
    scene = StoredScene(
        name=name,
        source=f"{name}.tif",
        height=layout.height,
        width=8,
        count=3,
        dtype="uint8",
        bands=(1, 2, 3),
        nodata=(None, 0.0, 255.0),
        stretch=None,
        fingerprint=SHA,
        stamp=None,
        crs=None,
        transform=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6),
        gcps=(),
        gcps_crs=None,
        rpcs=None,
    )
    image: dict[str, Any] = dict.fromkeys(["scene_files", "crs", "stretch", "segment_files", "sam", "region"])
    image |= {"scene": SHA, "bands": [1, 2, 3], "settings": {"stride": 2}, "schedule": [1, 1, 1, 0]}
    image["model"] = {"name": "m", "architecture": "m", "sha256": SHA, "activation": "gelu"}
    image["model"] |= {"config": None, "normalisation": None}
    return StoreHeader(
        image=image,
        settings={"feature_dtype": dtype},
        prompts=tuple((f"word {number}",) for number in range(prompts or 2)),
        layout=layout,
        model=StoredModel(None, None, None),
        scene=scene,
        canvas=(1.0, 1.0),
        **given,
    )
