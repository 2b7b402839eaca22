"""A Hugging Face hub on loopback: as much of its interface as its own clients ask for to read data sets and models.

`huggingface_hub` and `datasets` are the real ones; HF_ENDPOINT leads them here. A repository is a folder of files at one
commit. It stands in for the hub where there is none.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_right"


@dataclass
class Hub:
    """What the server has: folders by (datasets or models, id), the gated ids, and the requests it got."""

    repositories: dict[tuple[str, str], Path]
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def environment(self, home: Path) -> dict[str, str]:
        """What leads a process's clients here, with a cache of its own."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Answer requests until the end of the block."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        asked = re.fullmatch(r"/api/(datasets|models)/([\w.-]+/[\w.-]+?)(?:/([a-z-]+)(?:/([\w.-]+)(?:/(.*))?)?)?", path)
        if asked:
            self._api(*asked.groups(), body)
            return
        file = re.fullmatch(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/(.+)", path)
        if file:
            kind, name, revision, inner = file.groups()
            self._file("datasets" if kind else "models", name, revision, inner)
            return
        self._say(404, {"error": "not here"})

    def _api(
        self, kind: str, name: str, what: str | None, revision: str | None, inner: str | None, body: bytes
    ) -> None:
        if not self._may_see(kind, name, revision, secret=what in ("auth-check", "tree", "paths-info")):
            return
        folder = self.hub.repositories[kind, name]
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if what == "auth-check":
            self._say(200, {})
        elif what in (None, "revision"):
            siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
            self._say(200, {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})
        elif what == "tree":
            below = [path for path in files if path.relative_to(folder).as_posix().startswith(inner or "")]
            self._say(200, [self._entry(folder, path) for path in below])
        elif what == "paths-info":
            found = [folder / path for path in _wanted(body)]
            self._say(200, [self._entry(folder, path) for path in found if path.exists()])
        else:
            self._say(404, {"error": "not here"})

    def _entry(self, folder: Path, path: Path) -> dict[str, Any]:
        kind = "file" if path.is_file() else "directory"
        size = path.stat().st_size if path.is_file() else 0
        return {"type": kind, "path": path.relative_to(folder).as_posix(), "size": size, "oid": _etag(path)}

    def _file(self, kind: str, name: str, revision: str, inner: str) -> None:
        if not self._may_see(kind, name, revision, secret=True):
            return
        path = self.hub.repositories[kind, name] / inner
        if not path.is_file():
            self._say(404, {"error": "no such file"}, code="EntryNotFound")
            return
        content = path.read_bytes()
        total, status, extra = len(content), 200, {}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span:
            first, last = int(span[1]), min(total - 1, int(span[2] or total - 1))
            content, status = content[first : last + 1], 206
            extra = {"Content-Range": f"bytes {first}-{last}/{total}"}
        self.send_response(status)
        headers = {"Content-Length": str(len(content)), "ETag": f'"{_etag(path)}"', "X-Repo-Commit": COMMIT, **extra}
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _may_see(self, kind: str, name: str, revision: str | None, secret: bool) -> bool:
        if (kind, name) not in self.hub.repositories:
            self._say(401, {"error": "Repository not found"}, code="RepoNotFound")
        elif secret and name in self.hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._say(401, {"error": "Access to it is restricted."}, code="GatedRepo")
        elif revision not in (None, "main", COMMIT):
            self._say(404, {"error": "Invalid rev id"}, code="RevisionNotFound")
        else:
            return True
        return False

    def _say(self, status: int, value: Any, code: str = "") -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _wanted(body: bytes) -> list[str]:
    try:
        return json.loads(body)["paths"]
    except ValueError:  # a form: paths=a&paths=b
        pairs = (pair.partition("=") for pair in body.decode().split("&"))
        return [unquote(value.replace("+", " ")) for name, _, value in pairs if name == "paths"]


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes() if path.is_file() else b"").hexdigest()
