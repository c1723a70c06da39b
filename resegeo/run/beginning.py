"""How a run into files begins: where all of it lies there already it ends here, and nothing that computes is loaded."""

from __future__ import annotations

from pathlib import Path

from resegeo.files import sweep, sweep_locks
from resegeo.run.options import RunOptions
from resegeo.run.plan import Job, Outputs, Plan
from resegeo.run.report import Journal
from resegeo.run.reuse import reused
from resegeo.run.segmentation import Segmentation
from resegeo.run.standing import look

PATIENCE = 60.0
"""Seconds that new words for a finished store wait for another run that uses it."""


def run_files(plan: Plan, outputs: Outputs, url: str, job: Job | None, options: RunOptions) -> Segmentation:
    """Run a plan into files; what is complete already, from an earlier or an interrupted run, is not computed again.

    Parameters
    ----------
    plan, outputs:
        What to compute, and where the results go.
    url:
        Path or URL of the store.
    job:
        The plan by reference, for other processes; None where there is none (a scene in memory, a finished store).
    options:
        Who computes and what is kept.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is wrong and how to mend it.
    Interrupted:
        When the user interrupts; the same command goes on.

    """
    locks = _locks(plan, outputs, url)
    found = look(plan, outputs, url, options, alone=False)
    # Killed between report and journal, a run leaves both; only who is alone there takes the journal away.
    if found.complete and not Journal(outputs.report).lies_there:
        sweep_locks(locks)
        sweep(outputs.folder)
        return reused(found, outputs, url, options)
    from resegeo.run.execution import compute_files

    return compute_files(plan, outputs, url, job, options, locks)


def _locks(plan: Plan, outputs: Outputs, url: str) -> dict[Path, float]:
    """What no other run may write to meanwhile, and the seconds that its end is waited for."""
    locks = {outputs.raster: 0.0}
    # New words for a finished store take seconds: a second run waits for the first.
    if "://" not in url:
        locks[Path(url)] = 0.0 if plan.made_with is None else PATIENCE
    return locks
