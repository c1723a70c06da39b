"""What a server says of a file behind a URL: its tag, told to any way that leads there, or nothing."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from resegeo.scene.fingerprint import stamp


class _Server(BaseHTTPRequestHandler):
    def do_HEAD(self):
        if self.path == "/moved.tif":
            self.send_response(302)
            self.send_header("Location", "/a.tif")
        elif self.path == "/a.tif":
            self.send_response(200)
            plain = self.headers.get("Accept-Encoding") == "identity"
            self.send_header("ETag", '"one"' if plain else 'W/"compressed"')
        elif self.path == "/dated.tif":
            self.send_response(200)
            self.send_header("Last-Modified", "Tue, 01 Jan 2030 00:00:00 GMT")
            self.send_header("Content-Length", "12")
        else:
            self.send_response(403)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    running = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()


def test_a_file_behind_a_url_is_known_by_the_tag_of_its_own_bytes(server):
    found = stamp([f"{server}/a.tif"])
    assert found is not None
    assert stamp([f"/vsicurl/{server}/a.tif"]) == found == stamp([f"{server}/moved.tif"])
    assert stamp([f"{server}/dated.tif"]) not in (None, found)


def test_a_server_that_tells_nothing_leaves_no_stamp(server):
    assert stamp([f"{server}/forbidden.tif"]) is None
    assert stamp(["http://127.0.0.1:9/nobody.tif"]) is None
