"""What is left of a run in somebody else's process: nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
import torch

import resegeo
from resegeo.errors import InputNotice, notice
from resegeo.process import undisturbed

SCRIPT = """
import sys
from resegeo.run.clusters import connect, workers_of
from resegeo.errors import ResegeoError

{guard}
    try:
        with connect(1) as client:
            print(len(workers_of(client)))
    except ResegeoError as error:
        sys.exit(f"Error: {{error}}")
"""


def state():
    names = [name for name, logger in logging.root.manager.loggerDict.items() if isinstance(logger, logging.Logger)]
    return (
        {name: logging.getLogger(name).level for name in [*names, ""]},
        logging.root.manager.disable,
        list(warnings.filters),
        warnings.showwarning,
        torch.get_num_threads(),
        dict(os.environ),
    )


def check_unchanged(before):
    (levels, *others), (levels_before, *others_before) = state(), before
    assert levels.items() >= levels_before.items()  # libraries that were loaded meanwhile have brought their own
    changed = {name for name, value in os.environ.items() if others_before[-1].get(name) != value}
    assert changed - {"PYTEST_CURRENT_TEST"} == set()
    assert others[:-1] == others_before[:-1]


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(64, 64))


def test_a_run_leaves_loggers_filters_threads_and_environment_as_they_were(scene, tmp_path):
    import distributed  # noqa: F401 -- configures its loggers when it is loaded, as scipy adds a filter of its own

    import resegeo.run.commands

    logging.getLogger("distributed.worker").setLevel(logging.INFO)
    before_disable, threads = logging.root.manager.disable, torch.get_num_threads()
    logging.disable(logging.INFO)
    try:
        before = state()
        resegeo.segment(scene, ["water"], tmp_path / "one", threads=threads + 1, vector=())
        check_unchanged(before)
        with pytest.raises(resegeo.ResegeoError):
            resegeo.segment(scene, ["water"], tmp_path / "one", threads=threads + 1, vector=(), stride=32)
        check_unchanged(before)
        resegeo.segment(scene, ["water"], tmp_path / "two", cluster=1, threads=1, vector=())
        check_unchanged(before)
    finally:
        logging.disable(before_disable)


def test_what_overlapping_runs_set_is_put_back_by_the_last():
    filters, threads = list(warnings.filters), torch.get_num_threads()
    inside = threading.Barrier(2)

    def run(category, count):
        with undisturbed():
            caught = warnings.catch_warnings()
            caught.__enter__()  # as two with blocks that overlap
            warnings.simplefilter("ignore", category)
            torch.set_num_threads(count)
            inside.wait()
            caught.__exit__(None, None, None)
        return torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, (UserWarning, BytesWarning), (threads + 1, threads + 2))) == [threads, threads]
    assert warnings.filters == filters
    assert torch.get_num_threads() == threads


def test_scenes_may_be_segmented_in_several_threads_at_once(make_raster, picture, tmp_path):
    scenes = [make_raster(f"scene{seed}.tif", picture(64, 80, seed)) for seed in range(3)]
    filters = list(warnings.filters)

    def codes(scene, folder):
        with rasterio.open(resegeo.segment(scene, ["water", "road"], tmp_path / folder, vector=()).raster) as raster:
            return raster.read(1)

    alone = [codes(scene, f"alone{number}") for number, scene in enumerate(scenes)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(codes, scenes, [f"together{number}" for number in range(3)]))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
    assert warnings.filters == filters


def test_a_notice_is_given_in_the_name_of_whoever_called_the_package():
    with pytest.warns(InputNotice, match="something") as given:
        notice("something")
    assert given[0].filename == __file__
    with pytest.warns(resegeo.ResegeoWarning) as given:
        warn_through_the_package()
    assert {note.filename for note in given} == {__file__}


def warn_through_the_package():
    from types import SimpleNamespace

    from resegeo.run.prepare import warn

    source = SimpleNamespace(bundled=False, card=None)
    warn(SimpleNamespace(classes=SimpleNamespace(notices=["[[gsd=5]] is odd"]), source=source))


def test_a_warning_in_python_is_spelled_as_python():
    with pytest.warns(InputNotice, match=r"^Pass gsd=5\.$"):
        notice("Pass [[gsd=5]].")


def run_script(folder, guard):
    (folder / "script.py").write_text(SCRIPT.format(guard=guard))
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_script_without_a_guard_that_asks_for_workers_is_told_in_one_sentence(tmp_path):
    done = run_script(tmp_path, "if True:")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert 'put the call under `if __name__ == "__main__":`' in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_script_with_a_guard_has_its_workers(tmp_path):
    done = run_script(tmp_path, 'if __name__ == "__main__":')
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
