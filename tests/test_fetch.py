"""Downloads against a small server on the loopback address; nothing here touches another machine."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass, field
from types import SimpleNamespace

import huggingface_hub.constants  # noqa: F401 - reads HF_HUB_OFFLINE when it is imported, so before a test sets it
import numpy as np
import pytest
import requests

import resegeo.checkpoints.download
from resegeo.checkpoints.download import cached, fetch, file_sha256, home, kept_path, verify, why_failed
from resegeo.checkpoints.registry import KNOWN, Remote, known_file, known_model
from resegeo.errors import ResegeoError

BODY = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


@dataclass
class Server:
    """What the server does, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which each of the next answers breaks off."""
    seconds: float = 0.0
    """Pause between two pieces of an answer."""
    thinks: float = 0.0
    """Seconds before it answers."""
    ranges: bool = True
    status: int | None = None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent: int = 0


@pytest.fixture
def server():
    state = Server(files={"/clip.pt": BODY})

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.answer(head=True)

        def do_GET(self):
            self.answer(head=False)

        def answer(self, *, head):
            asked = self.headers.get("Range")
            state.asked.append((self.command, self.path, asked))
            body = state.files.get(self.path)
            time.sleep(state.thinks)
            if body is None or state.status is not None:
                self.send_response(state.status or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start, etag = 0, f'"{hashlib.sha256(body).hexdigest()}"'
            if asked and state.ranges and self.headers.get("If-Range", etag) == etag:
                start = int(asked.removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.send_header("ETag", etag)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if head:
                return
            cut = state.cut_after.pop(0) if state.cut_after else None
            rest = body[start:] if cut is None else body[start : start + cut]
            for at in range(0, len(rest), 200_000):
                self.wfile.write(rest[at : at + 200_000])
                state.sent += len(rest[at : at + 200_000])
                time.sleep(state.seconds)
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()

        def log_message(self, *args):
            pass

    http.server.ThreadingHTTPServer.handle_error = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{listening.server_address[1]}"
        yield state
        listening.shutdown()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESEGEO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(resegeo.checkpoints.download, "PAUSE", 0.01)


def remote(server, **changes):
    return Remote("test", "clip.pt", **{"url": f"{server.url}/clip.pt", "sha256": DIGEST, **changes})


def kept():
    return sorted(p.name for p in (home() / "models").rglob("*") if p.is_file() and not p.name.endswith(".lock"))


def test_a_file_is_fetched_once_with_progress_and_then_found_without_the_server(server):
    seen = []
    path = fetch(remote(server), lambda *step: seen.append(step))
    assert path.read_bytes() == BODY
    assert seen[-1] == ("test", 2, 2)
    assert fetch(remote(server)) == cached(remote(server)) == path
    assert len(server.asked) == 1
    assert kept() == ["clip.pt"]


def test_a_download_that_breaks_off_goes_on_where_it_was(server):
    server.cut_after = [1_000_000, 700_000]
    assert fetch(remote(server)).read_bytes() == BODY
    asked = [at for _, _, at in server.asked]
    assert asked[0] is None
    assert len(asked) == 3
    first, second = (int(at.removeprefix("bytes=").rstrip("-")) for at in asked[1:])
    assert 0 < first < second < len(BODY)
    assert server.sent < len(BODY) + 1_000_000  # what had come was not sent again


def test_a_server_without_ranges_and_a_file_that_changed_meanwhile_begin_anew(server):
    server.cut_after, server.ranges = [1_000_000], False
    assert fetch(remote(server)).read_bytes() == BODY
    kept_path(remote(server)).unlink()
    server.cut_after, server.ranges = [500_000, *[0] * resegeo.checkpoints.download.TRIES], True
    with pytest.raises(ResegeoError, match="the same command goes on"):
        fetch(remote(server))
    other = bytes(reversed(BODY))
    server.files["/clip.pt"] = other
    found = fetch(remote(server, sha256=hashlib.sha256(other).hexdigest()))
    assert found.read_bytes() == other


def test_an_interrupted_command_leaves_no_checkpoint_and_the_next_one_goes_on(server):
    server.cut_after = [1_000_000, *[0] * resegeo.checkpoints.download.TRIES]
    with pytest.raises(ResegeoError, match=r"could not be downloaded .* MB are kept") as caught:
        fetch(remote(server))
    assert cached(remote(server)) is None
    assert str(caught.value).count(". ") <= 1
    server.asked.clear()
    assert fetch(remote(server)).read_bytes() == BODY
    assert server.asked[0][2] is not None


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(server):
    server.files["/clip.pt"] = BODY[:-1] + b"x"
    with pytest.raises(ResegeoError, match=r"its sha256 is .*…, expected .*Nothing was kept"):
        fetch(remote(server))
    assert [name for name in kept() if not name.endswith(".etag")] == []
    server.files["/clip.pt"] = BODY
    assert fetch(remote(server)).read_bytes() == BODY


def test_without_a_published_checksum_the_first_is_recorded_and_others_are_refused(server):
    unpinned = remote(server, sha256=None)
    path = fetch(unpinned)
    verify(unpinned, path, file_sha256(path))
    verify(unpinned, path, file_sha256(path))
    path.write_bytes(b"other")
    with pytest.raises(ResegeoError, match=r"recorded when it was first fetched.*checksums\.json"):
        verify(unpinned, path, file_sha256(path))
    with pytest.raises(ResegeoError, match="the one published"):
        verify(remote(server), path, file_sha256(path))


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 5)])
def test_a_refusal_is_one_sentence_and_only_a_passing_one_is_tried_again(server, status, requests):
    server.status = status
    with pytest.raises(ResegeoError, match=rf"the server answers {status}.*models fetch test.*needs no download"):
        fetch(remote(server))
    assert len(server.asked) == requests
    assert kept() == []


def test_a_slow_server_is_waited_for_but_a_silent_one_is_not(server, monkeypatch):
    monkeypatch.setattr(resegeo.checkpoints.download, "TIMEOUT", (1.0, 0.4))
    server.seconds = 0.05
    assert fetch(remote(server)).read_bytes() == BODY
    kept_path(remote(server)).unlink()
    monkeypatch.setattr(resegeo.checkpoints.download, "TRIES", 1)
    server.thinks = 1.0
    with pytest.raises(ResegeoError, match="could not be downloaded"):
        fetch(remote(server))


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        (requests.ConnectionError("refused"), "ConnectionError"),
        (requests.HTTPError("gone", response=SimpleNamespace(status_code=404)), "the server answers 404"),
        (ValueError("another matter"), "FileNotFoundError"),
    ],
)
def test_the_reason_is_the_networks_whatever_libraries_wrapped_around_it(inner, said):
    middle, outer = OSError("it is not in the cache"), FileNotFoundError("failed to download")
    middle.__cause__, outer.__context__ = inner, middle
    assert why_failed(outer) == said


def test_nobody_there_is_one_sentence(server):
    with pytest.raises(ResegeoError, match=r"not on this machine.*\(ConnectionError\)"):
        fetch(Remote("test", "clip.pt", url="http://127.0.0.1:9/clip.pt"))


def test_two_processes_at_once_download_once(server, tmp_path):
    server.seconds = 0.05
    code = (
        "from resegeo.checkpoints.download import fetch; from resegeo.checkpoints.registry import Remote\n"
        f"print(fetch(Remote('test', 'clip.pt', url={server.url + '/clip.pt'!r}, sha256={DIGEST!r})))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ.copy())
        for _ in range(2)
    ]
    answers = {process.communicate(timeout=60)[0].strip() for process in started}
    assert answers == {str(kept_path(remote(server)))}
    assert [process.returncode for process in started] == [0, 0]
    assert kept_path(remote(server)).read_bytes() == BODY
    assert len(server.asked) == 1


def archive(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        for name, body in files.items():
            made.writestr(name, body)
    return data.getvalue()


def test_the_checkpoint_inside_an_archive_is_taken_out_and_the_archive_goes(server):
    server.files["/all.zip"] = archive({"run/epoch_20.pt": b"x", "run/checkpoints/last.pt": BODY})
    inside = remote(server, url=f"{server.url}/all.zip", member="last.pt")
    server.cut_after = [900_000]
    assert fetch(inside).read_bytes() == BODY
    assert kept() == ["clip.pt"]
    kept_path(inside).unlink()
    with pytest.raises(ResegeoError, match=r"holds 0 files called first\.pt"):
        fetch(remote(server, url=f"{server.url}/all.zip", member="first.pt"))
    server.files["/all.zip"] = b"no archive"
    with pytest.raises(ResegeoError, match="is no ZIP archive"):
        fetch(remote(server, url=f"{server.url}/all.zip", member="last.pt"))


def test_a_damaged_member_of_an_archive_is_one_sentence_and_nothing_of_it_stays(server):
    good = archive({"run/epoch_20.pt": BODY})
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("epoch_20.pt", BODY)
    damaged = bytearray(data.getvalue())
    damaged[1000:9000] = b"\xff" * 8000
    inside = remote(server, url=f"{server.url}/all.zip", member="epoch_20.pt")
    server.files["/all.zip"] = bytes(damaged)
    with pytest.raises(ResegeoError, match=r"is no ZIP archive, or a damaged one\. Nothing was kept; try again"):
        fetch(inside)
    assert kept() == []
    server.files["/all.zip"] = good
    assert fetch(inside).read_bytes() == BODY


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline_touches_no_network_and_finds_what_is_there(server, monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(ResegeoError, match=r"network is switched off.*models fetch test.*put http.*at .*clip\.pt") as e:
        fetch(remote(server))
    hub = Remote("hub", "ckpt/clip.pt", repository="some/body")
    with pytest.raises(ResegeoError, match=r"some/body/ckpt/clip\.pt of Hugging Face"):
        fetch(hub)
    assert str(e.value).endswith("the bundled model needs no download.")
    for wanted in (remote(server), hub):
        kept_path(wanted).parent.mkdir(parents=True, exist_ok=True)
        kept_path(wanted).write_bytes(BODY)
        assert fetch(wanted) == kept_path(wanted)
    assert server.asked == []


def test_files_of_a_repository_come_through_its_own_cache(server, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.files["/some/body/resolve/main/ckpt/clip.pt"] = BODY
    server.files["/some/body/resolve/main/config.json"] = b"{}"
    hub = Remote("hub", "ckpt/clip.pt", repository="some/body", beside=("config.json",))
    path = fetch(hub)
    assert path.read_bytes() == BODY
    assert path.is_relative_to(tmp_path / "hub")
    asked = len(server.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(hub) == path
    assert len(server.asked) == asked
    with pytest.raises(ResegeoError, match="not on this machine"):
        fetch(Remote("hub", "ckpt/other.pt", repository="some/body"))


def test_a_repository_without_the_file_is_one_sentence(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(ResegeoError, match=r"The weights hub are not on this machine.*could not be downloaded"):
        fetch(Remote("hub", "clip.pt", repository="some/body"))


def test_the_registry_names_each_model_once_and_where_it_is():
    assert len({model.name for model in KNOWN}) == len(KNOWN)
    for model in KNOWN:
        assert (model.remote.url is None) != (model.remote.repository is None)
        assert model.remote.sha256 is None or len(model.remote.sha256) == 64
        assert model.licence
        assert known_model(model.name.upper(), sam=model.sam) is model
        if not model.sam:
            assert model.architecture.endswith("-quickgelu") == (model.activation == "quickgelu")
            assert model.ancestor
    for form in ("openai:ViT-L-14", "ViT-L-14:openai", "ViT-L-14-quickgelu:openai"):
        assert known_model(form).remote.file == "ViT-L-14.pt"
    assert known_file("RemoteCLIP-ViT-L-14.pt").name == "remoteclip-l14"
    assert known_file("pytorch_model.bin") is None
    assert known_model("sam-vit-b") is None


def test_the_registry_agrees_with_open_clip():
    import open_clip

    for model in KNOWN:
        if model.sam:
            continue
        assert model.architecture in open_clip.list_models()
        assert bool(open_clip.get_model_config(model.architecture).get("quick_gelu")) == (
            model.activation == "quickgelu"
        )
        if model.name.startswith("openai:"):
            known = open_clip.get_pretrained_cfg(model.architecture, "openai")
            assert known["url"] == model.remote.url
            assert known["quick_gelu"]
