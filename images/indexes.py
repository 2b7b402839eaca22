"""What this machine's pip knows of package indexes, for a build: as secrets, which leave no trace in an image.

Indexes and wheels that lie in folders of this machine are served on loopback for the time of the build.
"""

import configparser
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, unquote, urlsplit

# Of pip's options those that say where packages are. Constraints are the lock's, the rest is the build's own affair.
_PLACES = ("index-url", "extra-index-url", "find-links")
_OTHERS = ("trusted-host", "proxy", "timeout", "default-timeout", "retries", "no-index")
_BUNDLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
_CA_INSIDE = "/run/secrets/ca"


@contextmanager
def build_secrets() -> Iterator[dict[str, Path]]:
    """Files for `docker build --secret`, by id: `pip`, a configuration, and `ca`, a bundle of certificates, where there is one."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        options = {name: value for name, value in _pip_options().items() if name in (*_PLACES, *_OTHERS)}
        for name in _PLACES:
            if name in options:
                places = [stack.enter_context(_reachable(place, name)) for place in options[name].split()]
                options[name] = " ".join(places)
        secrets = {}
        bundle = _pip_options().get("cert") or next(filter(None, map(os.environ.get, _BUNDLES)), None)
        if bundle:
            secrets["ca"] = Path(bundle)
            options["cert"] = _CA_INSIDE
        parser = configparser.RawConfigParser()
        parser.read_dict({"global": options})
        secrets["pip"] = folder / "pip.conf"
        with os.fdopen(os.open(secrets["pip"], os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            parser.write(file)
        yield secrets


def _pip_options() -> dict[str, str]:
    """pip's options for all its commands and for installing, the more special one last."""
    script = (
        "import json; from pip._internal.configuration import Configuration; "
        "c = Configuration(isolated=False); c.load(); print(json.dumps(list(c.items())))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    options: dict[str, str] = {}
    for scope in ("global.", "install.", ":env:."):
        for key, value in json.loads(done.stdout):
            if key.startswith(scope):
                options[key.removeprefix(scope)] = value
    return options


@contextmanager
def _reachable(place: str, option: str) -> Iterator[str]:
    """An address that a build can reach: the place itself, or where its folder is served on loopback."""
    path = Path(unquote(urlsplit(place).path)) if place.startswith("file:") else Path(place)
    if not path.is_dir():
        yield place
        return
    # An index is served with the folder above it, for its pages may point to files beside the index.
    root, name = (path, "") if option == "find-links" else (path.parent, f"{quote(path.name)}/")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{name}"
        finally:
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a build asks for thousands of pages."""
