"""resegeo as a process of its own: which Python, progress, cancelling, and the sentence of a mistake."""

import os
import queue
import re
import subprocess
import sys
import threading
from pathlib import Path

from qgis.core import QgsProcessingException, QgsSettings

PROGRESS = re.compile(r"^resegeo-progress: (\S+) (\d+)/(\d+)$")


def interpreter():
    """Find the Python that has resegeo: the setting, or the environment that installed this plugin."""
    chosen = QgsSettings().value("resegeo/python", "") or os.environ.get("RESEGEO_PYTHON", "")
    note = Path(__file__).with_name("environment.txt")
    if not chosen and note.exists():
        chosen = note.read_text("utf-8").strip()
    if not chosen:
        raise QgsProcessingException(
            "No environment of resegeo is known. Run `resegeo qgis install` in it, or set resegeo/python (Settings, "
            "Options, Advanced) to its Python."
        )
    if not Path(chosen).is_file():
        raise QgsProcessingException(
            f"{chosen}, the Python of resegeo's environment, is not there any more. Run `resegeo qgis install` in the "
            "environment that has resegeo now."
        )
    return chosen


def _environment():
    """Environment of a process that shall not see QGIS's own Python."""
    left_out = ("PYTHONHOME", "PYTHONPATH", "GDAL_DATA", "PROJ_LIB", "PROJ_DATA", "GDAL_DRIVER_PATH")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "RESEGEO_PROGRESS": "lines", "PYTHONIOENCODING": "utf-8"}


def run(arguments, feedback):
    """Run a command of resegeo; return the lines that it prints.

    Notes go to the log, progress to the bar; cancelling ends the process, and the same run goes on later.
    """
    command = [interpreter(), "-m", "resegeo_cli", *arguments]
    feedback.pushCommandInfo(" ".join(command))
    flags = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        text=True,
        encoding="utf-8",
        errors="replace",
        **flags,
    )
    lines = queue.Queue()

    def pass_on(stream, kind):
        for line in stream:
            lines.put((kind, line.rstrip("\n")))
        lines.put((kind, None))

    for stream, kind in ((process.stdout, "out"), (process.stderr, "err")):
        threading.Thread(target=pass_on, args=(stream, kind), daemon=True).start()
    printed, said, open_streams, stage = [], [], 2, None
    while open_streams:
        if feedback.isCanceled() and process.poll() is None:
            process.terminate()
        try:
            kind, line = lines.get(timeout=0.2)
        except queue.Empty:
            continue
        if line is None:
            open_streams -= 1
        elif kind == "out":
            printed.append(line)
            feedback.pushConsoleInfo(line)
        elif found := PROGRESS.match(line):
            name, done, total = found.group(1), int(found.group(2)), int(found.group(3))
            if name != stage:
                stage = name
                feedback.setProgressText(name)
            feedback.setProgress(100 * done / max(total, 1))
        elif line.strip():
            said.append(line)
            feedback.pushInfo(line)
    code = process.wait()
    if feedback.isCanceled():
        raise QgsProcessingException("Cancelled. What was computed is kept; the same run goes on from there.")
    if code == 3:
        feedback.reportError("Some windows failed; their pixels are marked unprocessed. The same run tries them again.")
    elif code != 0:
        sentences = [line for line in said if line.startswith("Error")] or said[-3:]
        raise QgsProcessingException(" ".join(sentences) or f"resegeo ended with exit code {code}.")
    return printed
