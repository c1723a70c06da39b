"""The report of a run: written last, it marks that all results are there; read, it says what a new run may keep."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rasterio

from resegeo.errors import ResegeoError
from resegeo.files import whole
from resegeo.plan import Outputs, Plan, differences, fingerprint
from resegeo.raster import sidecars
from resegeo.settings import POLYGON_KNOBS


def earlier_report(path: Path) -> dict[str, Any] | None:
    """Read the report of an earlier run; None where there is none, {} where it is not ours."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
        ours = isinstance(found["outputs"], list) and all(
            isinstance(found[name], dict) for name in ("resegeo", "windows", "raster", "pixels")
        )
        return found if ours and {"bytes", "sha256"} <= found["raster"].keys() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def finished_vectors(
    earlier: Mapping[str, Any] | None, outputs: Outputs, options: Mapping[str, Any], *, overwrite: bool
) -> tuple[Path, ...] | None:
    """Return the polygon files of an equal run that lies there complete, else None; refuse to replace another."""
    if earlier is None or overwrite:
        return None
    if not earlier:
        raise ResegeoError(
            f"{outputs.report} exists and was not written by this program. Name another folder by -o, or pass "
            "--overwrite to replace it."
        )
    if earlier["resegeo"] == options and earlier.get("versions", {}).get("resegeo") == versions()["resegeo"]:
        written = [outputs.folder / name for name in earlier["outputs"]]
        complete = all(path.exists() for path in (*written, *sidecars(outputs.raster))) and not (
            earlier["windows"]["failed"] or earlier.get("unreadable_blocks")
        )
        complete = complete and outputs.raster.stat().st_size == earlier["raster"]["bytes"]
        return tuple(path for path in written if path in outputs.vectors) if complete else None
    changed = differences(earlier["resegeo"], options) or ["version of resegeo"]
    raise ResegeoError(
        f"{outputs.folder} holds the results of another run; different: {', '.join(changed)}. Pass --overwrite to "
        "replace them, or name another folder by -o."
    )


def left_over(earlier: Mapping[str, Any] | None, outputs: Outputs) -> list[Path]:
    """Files of the run that is replaced which the new one does not write: they would stand beside it as if its own."""
    names = (earlier or {}).get("outputs", [])
    kept = {path.name for path in outputs.files()}
    return [outputs.folder / name for name in names if name not in kept and Path(name).name == name]


def refuse_foreign(outputs: Outputs, earlier: Mapping[str, Any] | None, claimed: Iterable[str]) -> None:
    """Refuse to replace a file that neither a finished run nor an interrupted one is known to have written.

    Raises
    ------
    ResegeoError:
        With the file's name.

    """
    known = {*(earlier or {}).get("outputs", []), *claimed}
    for path in (outputs.raster, *outputs.vectors, outputs.picture):
        if path.exists() and path.name not in known:
            raise ResegeoError(
                f"{path} exists and is not known as a result of this program. Name another folder by -o, or pass "
                "--overwrite to replace it."
            )


def raster_holds(earlier: Mapping[str, Any] | None, outputs: Outputs, options: Mapping[str, Any]) -> bool:
    """Whether an earlier run left the class raster that these options come to."""
    return (
        earlier is not None
        and raster_options(earlier.get("resegeo", {})) == raster_options(options)
        and earlier.get("windows", {}).get("failed") == 0
        and not earlier.get("unreadable_blocks")
        and earlier.get("versions") == versions()
        and all(path.exists() for path in (outputs.raster, *sidecars(outputs.raster)))
        and checksums(outputs.raster) == earlier.get("raster")
    )


def checksums(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file, by which a damaged or cut one is told."""
    with path.open("rb") as stream:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def raster_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a run's options what comes after the class raster."""
    settings = {key: value for key, value in options.get("settings", {}).items() if key not in POLYGON_KNOBS}
    return {**options, "settings": settings}


def raster_identity(options: Mapping[str, Any], raster: Mapping[str, Any]) -> str:
    """Checksum of a class raster, see :func:`checksums`, and of the options that it came from."""
    return fingerprint({"options": raster_options(options), "sha256": raster["sha256"]})


def provenance_tags(plan: Plan) -> dict[str, str]:
    """Provenance for the raster's own tags; no dates, and no detour that led there, so that equal results are equal."""
    source = plan.source
    settings = plan.image_options()["settings"] | plan.label_options()["settings"]
    return {
        "RESEGEO_VERSION": versions()["resegeo"],
        "RESEGEO_SCENE": plan.scene.fingerprint,
        "RESEGEO_MODEL": f"{source.name} {source.architecture} {source.activation} sha256:{source.sha256}",
        "RESEGEO_SETTINGS": json.dumps(settings, sort_keys=True),
    }


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of everything that the results may depend on."""
    names: Sequence[str] = ("resegeo", "torch", "open_clip_torch", "rasterio", "scikit-image", "shapely", "numpy")
    found = {"python": platform.python_version(), "gdal": rasterio.__gdal_version__}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was never installed
            found[name] = "unknown"
    return found


def write_report(path: Path, document: Mapping[str, Any]) -> None:
    """Write a report, whole or not at all."""
    with whole(path) as beside:
        beside.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
