"""What a run costs before it computes: the smallest run, and the same command again, which has nothing to do.

    python tests/benchmarks/cold_start.py [PYTHON ...]

Each PYTHON is an interpreter in whose environment a checkout is installed, such as one of before a change and one of
after it; by default the one that runs this. Prints processor seconds (the least of three), peak memory and the number
of modules of both commands for each, and the ratios to the first; and what is the smallest run's own beside importing
torch and open_clip, which every model needs. A scene of 64 × 64 pixels, the bundled model, no polygons.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = """
import json, resource, sys, time
try:
    if sys.argv[1:]:
        from resegeo_cli.main import main
        main(sys.argv[1:], prog_name="resegeo", standalone_mode=False)
    else:
        import open_clip, torch
finally:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": time.process_time(), "MB": peak, "modules": len(sys.modules)}))
"""


def cost(python: str, command: list[str]) -> dict[str, float]:
    """Run a command, or import the libraries of models alone, and return what it took."""
    # A checkout in the working folder would go before the installed one.
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run([python, "-c", RUN, *command], capture_output=True, text=True, check=True, cwd=elsewhere)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    rows = []
    for python in sys.argv[1:] or [sys.executable]:
        with tempfile.TemporaryDirectory() as name:
            scene, out = Path(name) / "scene.tif", Path(name) / "out"
            place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_200_000, 10, 10)}
            with rasterio.open(scene, "w", driver="GTiff", count=3, height=64, width=64, dtype="uint8", **place) as it:
                it.write(np.random.default_rng(0).integers(1, 255, (3, 64, 64)).astype(np.uint8))
            (Path(name) / "classes.yml").write_text("classes: [water, forest]\n")
            command = ["segment", str(scene), "--prompts", f"{name}/classes.yml", "-o", str(out), "--vector", "none"]
            first = min((cost(python, [*command, "--overwrite"]) for _ in range(3)), key=lambda each: each["cpu"])
            again = min((cost(python, command) for _ in range(3)), key=lambda each: each["cpu"])
            libraries = min((cost(python, []) for _ in range(3)), key=lambda each: each["cpu"])
        rows.append((python, first, again, {key: value - libraries[key] for key, value in first.items()}))
    for python, *both in rows:
        parts = "smallest run", "nothing to do", "smallest, own"
        for what, found, before in zip(parts, both, rows[0][1:], strict=True):
            ratios = "  ".join(f"{found[key] / before[key]:.2f}" for key in found)
            print(
                f"{what:14} {found['cpu']:6.2f} CPU s {found['MB']:6.0f} MB {found['modules']:5.0f} modules"
                f"   ratios {ratios}   {python}"
            )


if __name__ == "__main__":
    main()
