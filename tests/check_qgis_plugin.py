"""The plugin inside headless QGIS: every algorithm by qgis_process, a mistake's sentence, a cancelled run.

    python tests/check_qgis_plugin.py [QGIS_PYTHON]

Needs QGIS (``qgis_process`` and its Python, Debian's /usr/bin/python3). Run by .ci/run with the environment's Python,
which the plugin then finds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
QGIS_PROCESS = shutil.which("qgis_process.bin") or "qgis_process"
"""Debian's wrapper passes an option that the program does not know."""
SCENE = ROOT / "examples/demo/landsat.tif"
CANCEL = """
import sys
from pathlib import Path
from qgis.core import QgsApplication, QgsProcessingContext, QgsProcessingFeedback, QgsProject
sys.path[:0] = [sys.argv[1], "/usr/share/qgis/python/plugins"]
app = QgsApplication([], False)
app.initQgis()
from processing.core.Processing import Processing
Processing.initialize()
from resegeo_plugin.provider import Plugin
plugin = Plugin()
plugin.initProcessing()
algorithm = QgsApplication.processingRegistry().algorithmById("resegeo:segment")
class Feedback(QgsProcessingFeedback):
    def setProgress(self, value):
        super().setProgress(value)
        self.cancel()
feedback = Feedback()
context = QgsProcessingContext()
context.setProject(QgsProject.instance())
try:
    algorithm.create().run({"SCENE": sys.argv[2], "WORDS": "water,forest", "OUTPUT": sys.argv[3]}, context, feedback)
except Exception as error:
    print("raised:", error)
print("cancelled:", feedback.isCanceled(), "report:", list(Path(sys.argv[3]).glob("*.json")))
print("log:", feedback.textLog().replace("\\n", " | ")[-600:])
import os
os._exit(0)
"""

CLICKS = {
    "type": "FeatureCollection",
    "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32616"}},
    "features": [
        {
            "type": "Feature",
            "properties": {"kind": kind},
            "geometry": {"type": "Point", "coordinates": [454_000 + 2_000 * column, 3_392_000 + 2_000 * row]},
        }
        for column in range(5)
        for row, kind in enumerate(("water", "forest", "cropland"))
    ],
}


def main() -> None:
    python = sys.argv[1] if len(sys.argv) > 1 else "/usr/bin/python3"
    with tempfile.TemporaryDirectory(prefix="resegeo-qgis-") as name:
        folder = Path(name)
        plugins = folder / "plugins"
        command = [sys.executable, "-m", "resegeo_cli", "qgis", "install", "--folder", str(plugins)]
        subprocess.run(command, check=True)
        settings = {
            "QT_QPA_PLATFORM": "offscreen",
            "QGIS_PLUGINPATH": str(plugins),
            "HOME": name,
            "XDG_RUNTIME_DIR": name,
        }
        environment = {**os.environ, **settings}

        def process(*arguments: str, fails: bool = False) -> str:
            done = subprocess.run(
                [QGIS_PROCESS, *arguments], capture_output=True, text=True, env=environment, check=False, timeout=600
            )
            if (done.returncode != 0) != fails:
                raise SystemExit(f"qgis_process {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
            return done.stdout + done.stderr

        process("plugins", "enable", "resegeo_plugin")
        listed = process("list")
        for algorithm in ("segment", "relabel", "vectorize", "evaluate", "compare"):
            assert f"resegeo:{algorithm}" in listed, listed
        out = folder / "out"
        arguments = ["resegeo:segment", "--", f"SCENE={SCENE}", "WORDS=water,forest,cropland,cloud", f"OUTPUT={out}"]
        text = process("run", "--json", *arguments)
        said = json.loads(text[text.index("{") : text.rindex("}") + 1])["results"]
        raster = out / "landsat.classes.tif"
        assert Path(said["RASTER"]) == raster, said
        assert all(Path(said[name]).exists() for name in ("POLYGONS", "REPORT")), said
        process("run", "resegeo:relabel", "--", f"STORE={out / 'landsat.store.zarr'}", "WORDS=water,grass")
        assert (out / "landsat.words.classes.tif").exists(), sorted(out.iterdir())
        clicks = folder / "clicks.geojson"
        clicks.write_text(json.dumps(CLICKS), "utf-8")
        corrected = folder / "corrected"
        process(
            "run", "resegeo:relabel", "--", f"STORE={out / 'landsat.store.zarr'}", "WORDS=water,forest,cropland,cloud",
            f"EXAMPLES={clicks}", "FIELD=kind", f"OUTPUT={corrected}",
        )  # fmt: skip
        fitted = corrected / "landsat.words.fitted.safetensors"
        assert fitted.exists(), sorted(corrected.iterdir())
        change = folder / "change"
        after = corrected / "landsat.words.classes.tif"
        process(
            "run", "resegeo:compare", "--", f"BEFORE={raster}", f"AFTER={after}", "MIN_AREA=1ha", "ONLY_SURE=true",
            f"OUTPUT={change}",
        )  # fmt: skip
        assert (change / "change.csv").read_text("utf-8").startswith("before,after,pixels,ha,sure"), change
        polygons = folder / "drawn.gpkg"
        process(
            "run", "resegeo:vectorize", "--", f"RASTER={raster}", "MIN_AREA=20px", "SMOOTH=true", "REGULARIZE=water",
            f"POLYGONS={polygons}",
        )  # fmt: skip
        assert polygons.exists()
        table = process("run", "resegeo:evaluate", "--", f"PREDICTION={raster}", f"TRUTH={raster}")
        assert "mean IoU          1.000" in table, table
        sentence = process("run", "resegeo:segment", "--", f"SCENE={SCENE}", f"OUTPUT={out}", fails=True)
        assert "Give words" in sentence, sentence
        sentence = process("run", "resegeo:segment", "--", f"SCENE={SCENE}", "WORDS=water", f"OUTPUT={out}", fails=True)
        assert "Pass --overwrite" in sentence or "overwrite" in sentence, sentence
        cancelled = folder / "cancelled"
        script = folder / "cancel.py"
        script.write_text(CANCEL, "utf-8")
        done = subprocess.run(
            [python, str(script), str(plugins), str(SCENE), str(cancelled)],
            capture_output=True, text=True, env=environment, check=False, timeout=600,
        )  # fmt: skip
        assert "cancelled: True report: []" in done.stdout, done.stdout + done.stderr
        assert "Cancelled" in done.stdout + done.stderr, done.stdout + done.stderr
        print("QGIS ran every algorithm, showed the sentences of two mistakes, and cancelled a run")


if __name__ == "__main__":
    main()
