"""Commands and calls in forked processes with limits: what tests/attack.py is made of.

Everything heavy is imported once; each command runs in a fork of that process, with a limit of seconds and of memory.
The process that forks never computes: threads of Zarr, Arrow or torch would not live on in its children.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # a process with threads is not to fork
    os.environ[_name] = "1"

GIGABYTE = 1 << 30
EXITS = (0, 1, 2, 3, 130)
"""Codes that a command may end with."""
SAID = ("Note: ", "Warning: ", "Written: ", "Error: ", "Usage: ", "Try ", "Interrupted")
"""How lines on stderr may begin."""
OF_LIBRARIES = re.compile(r"_tiff(?:Seek|Read|Write)Proc: .*")
"""What libtiff itself writes to stderr of offsets that no file can have; GDAL 3.10 gives it no other place."""
MOST_SAID = 4000
"""Characters that a command may say about a mistake."""


@dataclass
class Answer:
    """How a command ended."""

    code: int
    """Exit code; below 0 the signal that ended it."""
    out: str
    err: str
    seconds: float
    late: bool = False
    """Whether it had to be killed, since it took too long."""

    @property
    def killed(self) -> bool:
        return self.code < 0


def fault_of(answer: Answer) -> str | None:
    """Say what is wrong with how a command ended; None where it is right, or one sentence."""
    said = answer.err.strip()
    if answer.late:
        return f"it had not ended after {answer.seconds:.0f} s"
    if answer.code not in EXITS:
        return f"it ended with {answer.code}: {said[-300:]}"
    for word in ("Traceback", "defect of resegeo"):
        if word in said:
            return f"{word}: {said[-400:]}"
    if any(not (sign.isprintable() or sign in "\n\r\t") for sign in said):
        return f"control characters reach the terminal: {said[-300:]!r}"
    lines = [line for line in said.splitlines() if line.strip() and not OF_LIBRARIES.fullmatch(line)]
    if answer.code in (1, 2):
        if sum(line.startswith("Error: ") for line in lines) != 1:
            return f"exit code {answer.code} without one sentence: {said[-300:]!r}"
        if stray := [line for line in lines if not line.startswith(SAID)]:
            return f"more than one sentence: {stray[0][:200]!r} beside {lines[-1][:200]!r}"
        if len(said) > MOST_SAID:
            return f"{len(said):,} characters are said: {said[:200]!r}"
    return None


@dataclass
class Verdict:
    """What became of some cases: those that ended right, those told by a sentence, and what was wrong with others."""

    right: int = 0
    told: int = 0
    faults: list[str] = field(default_factory=list)
    left_out: int = 0
    """Trials that time did not allow to begin."""

    def __iadd__(self, other: Verdict) -> Verdict:
        self.right += other.right
        self.told += other.told
        self.faults += other.faults
        self.left_out += other.left_out
        return self

    @property
    def cases(self) -> int:
        return self.right + self.told + len(self.faults)

    @classmethod
    def of(cls, answer: Answer, *faults: str | None) -> Verdict:
        """Judge a command, and further faults that were looked for."""
        found = [fault for fault in (fault_of(answer), *faults) if fault]
        if found:
            return cls(faults=["; ".join(found)])
        return cls(right=1) if answer.code == 0 else cls(told=1)


class Dead(Exception):  # noqa: N818
    """A guarded call died or took too long."""


def patience() -> float:
    """How many times longer than on an idle machine of ours something may take on this one as it is now.

    A machine that is slow, or busy with other things, is nobody's fault: a hang is told as well after some minutes.
    """
    return 3 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _limit(memory: int) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _await(child: int, seconds: float, kill_after: float | None = None) -> tuple[int, bool]:
    """Wait for a child and all of its group; return its exit code (below 0 the signal) and whether it was too late.

    ``seconds`` are those of an idle machine, see :func:`patience`.
    """
    began = time.monotonic()
    kill_at = None if kill_after is None else began + kill_after
    late = False
    while True:
        done, state = os.waitpid(child, os.WNOHANG)
        if done:
            break
        now = time.monotonic()
        if now - began > seconds * patience() or (kill_at is not None and now >= kill_at):
            late = now - began > seconds * patience()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            kill_at = None
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what it may have left: workers, pools
    return os.waitstatus_to_exitcode(state), late


def started(
    words: Sequence[object],
    *,
    cwd: Path,
    out: int,
    err: int,
    env: Mapping[str, str] | None = None,
    memory: int = 6 * GIGABYTE,
) -> int:
    """Start `resegeo` with some words in a fork; return its process id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(out, 1)
        os.dup2(err, 2)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(cwd)
        os.environ.update(env or {})
        _limit(memory)
        from resegeo_cli.main import main

        try:
            main([str(word) for word in words], prog_name="resegeo")
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def command(
    *words: object,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    seconds: float = 90,
    kill_after: float | None = None,
    memory: int = 6 * GIGABYTE,
) -> Answer:
    """Run `resegeo` with some words to its end, or kill it (SIGKILL) after some seconds."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = started(words, cwd=cwd, out=out.fileno(), err=err.fileno(), env=env, memory=memory)
        code, late = _await(child, seconds, kill_after)
        out.seek(0)
        err.seek(0)
        texts = [stream.read(1 << 20).decode("utf-8", "backslashreplace") for stream in (out, err)]
    return Answer(code, texts[0], texts[1], time.monotonic() - began, late)


def libraries() -> None:
    """Import what takes long; nothing of it may start a thread that a fork would miss."""
    for name in ("torch", "open_clip", "rasterio", "pyogrio", "geopandas", "zarr", "rioxarray", "resegeo_cli.main"):
        import_module(name)


def warm(learn: Callable[[], Any]) -> None:
    """Load once what commands need: libraries, the bundled model and its words, as ``learn`` asks for them in a fork.

    The bundled model sees by tests/fakes.py from then on: what is attacked lies around it.
    """
    libraries()
    from fakes import colour_features, quick

    from resegeo.clip.encoder import Encoder
    from resegeo.run import compute

    load, embed = compute.load_encoder, Encoder.encode_texts
    encoders: dict[Any, Any] = {}
    words: dict[Any, Any] = {}

    def encoder(source: Any, **options: Any) -> Any:
        if not source.bundled:
            return load(source, **options)
        key = (source, tuple(sorted(options.items())))
        if key not in encoders:
            encoders[key] = quick(load(source, **options))
        return encoders[key]

    def texts(self: Any, prompts: Any) -> Any:
        if self.forward is not colour_features:
            return embed(self, prompts)
        key = tuple(map(tuple, prompts))
        if key not in words:
            words[key] = embed(self, prompts)
        return words[key].copy()

    compute.load_encoder, Encoder.encode_texts = encoder, texts  # type: ignore[assignment]
    modules, keys, known = apart(lambda: (learn(), (sorted(sys.modules), list(encoders), words))[1], seconds=300)
    for name in modules:
        with contextlib.suppress(Exception):
            import_module(name)
    for source, options in keys:
        encoder(source, **dict(options))
    words.update(known)
    gc.collect()
    gc.freeze()  # else each fork's first collection copies all that was loaded


def command_here(*words: object) -> None:
    """Run a command in this very process; raise its sentence."""
    import io

    from resegeo.errors import ResegeoError
    from resegeo_cli.main import main

    said, code = io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main([str(word) for word in words], standalone_mode=False)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
    wrong = fault_of(Answer(code, "", said.getvalue(), 0))
    if wrong:
        raise AssertionError(wrong)
    if code:
        raise ResegeoError(" ".join(said.getvalue().split()))


def together(
    *runs: Sequence[object], cwd: Path, env: Mapping[str, str] | None = None, seconds: float = 120
) -> list[Answer]:
    """Run several commands at the same time."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        streams = [[stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)] for _ in runs]
        children = [
            started(words, cwd=cwd, out=out.fileno(), err=err.fileno(), env=env)
            for words, (out, err) in zip(runs, streams, strict=True)
        ]
        answers = []
        for child, (out, err) in zip(children, streams, strict=True):
            code, late = _await(child, max(1, seconds - (time.monotonic() - began)))
            out.seek(0)
            err.seek(0)
            texts = [stream.read(1 << 20).decode("utf-8", "backslashreplace") for stream in (out, err)]
            answers.append(Answer(code, texts[0], texts[1], time.monotonic() - began, late))
    return answers


def apart(call: Callable[[], Any], *, seconds: float = 60, memory: int = 4 * GIGABYTE) -> Any:
    """Return what a call gives that is made in a fork; :class:`Dead` where it dies or takes too long."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            os.close(source)
            _limit(memory)
            with os.fdopen(sink, "wb") as stream:
                pickle.dump(call(), stream)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(sink)
    data, ended = b"", False
    began = time.monotonic()
    with os.fdopen(source, "rb", buffering=0) as stream:
        while not ended and time.monotonic() - began < seconds * patience():
            if select.select([stream], [], [], 0.1)[0]:
                part = stream.read(1 << 20)
                ended = not part
                data += part
    code, late = _await(child, 10 if ended else 0)
    if late or code != 0:
        raise Dead("it took too long" if late else f"it died ({code})")
    return pickle.loads(data)


def each(
    inputs: Sequence[bytes], call: Callable[[bytes], str | None], *, seconds: float, memory: int, grace: float = 60
) -> Iterator[tuple[int, str, str]]:
    """Make a call for each input, many in one fork; yield number, "right", "told" or "fault", and a text.

    ``call`` returns None, or the text of the sentence that it was answered by. A call that raises, dies or takes more
    than ``seconds`` is a fault, and the rest follows in another fork.
    """
    first = 0
    while first < len(inputs):
        with tempfile.TemporaryFile("w+b") as said:
            child = os.fork()
            if child == 0:
                _many(inputs[first:], call, said.fileno(), seconds, memory)
            code, late = _await(child, grace + seconds * len(inputs[first:]))
            said.seek(0)
            lines = said.read().decode("utf-8", "backslashreplace").splitlines()
        for line in lines:
            kind, _, text = line.partition(" ")
            yield first, kind, text
            first += 1
        if first < len(inputs):
            slow = late or code == -signal.SIGALRM
            yield first, "fault", f"it took over {seconds:.0f} s" if slow else f"the process died ({code})"
            first += 1


def _many(inputs: Sequence[bytes], call: Callable[[bytes], str | None], said: int, seconds: float, memory: int) -> None:
    """Be the child of :func:`each`: a line a call."""
    import warnings

    try:
        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        _limit(memory)
        warnings.simplefilter("ignore")
        for data in inputs:
            signal.setitimer(signal.ITIMER_REAL, seconds * patience())
            try:
                text = call(data)
                line = "right" if text is None else f"told {text}"
            except BaseException as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                line = f"fault {type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
            signal.setitimer(signal.ITIMER_REAL, 0)
            clean = "".join(sign if sign.isprintable() else "?" for sign in line[:600])
            os.write(said, clean.encode("utf-8", "backslashreplace") + b"\n")
        os._exit(0)
    finally:
        os._exit(71)


Case = tuple[str, Callable[[], Verdict]]


def tried(cases: Sequence[Case], jobs: int, deadline: float) -> Verdict:
    """Try cases in ``jobs`` forks; those that have not begun at a deadline are left out.

    A case in whose process something dies is a fault by its name.
    """
    total = Verdict()
    waiting = list(enumerate(cases))[::-1]
    running: dict[int, tuple[int, str, int]] = {}
    while waiting or running:
        while waiting and len(running) < jobs and time.monotonic() < deadline:
            number, (name, act) = waiting.pop()
            source, sink = os.pipe()
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    os.close(source)
                    verdict = act()
                    verdict.faults = [f"{name}: {fault}"[:1500] for fault in verdict.faults]
                    with os.fdopen(sink, "wb") as stream:
                        pickle.dump(verdict, stream)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            os.close(sink)
            running[source] = (number, name, child)
        if not running:
            total.left_out = len(waiting)
            break
        for source in select.select(list(running), [], [], 1.0)[0]:
            _, name, child = running.pop(source)
            with os.fdopen(source, "rb") as stream:
                data = stream.read()
            os.waitpid(child, 0)
            try:
                total += pickle.loads(data)
            except (EOFError, pickle.UnpicklingError):
                total += Verdict(faults=[f"{name}: the trial itself failed, see above"])
    return total
