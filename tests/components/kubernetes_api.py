"""The few paths of the Kubernetes API that TrainJobs need, over HTTP. A job's nodes are processes of this machine."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlparse

import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/research/trainjobs"
PODS = "/api/v1/namespaces/research/pods"
MOMENT = "2026-01-01T00:00:00.{:09d}Z"


class KubernetesApi:
    """Context manager: a server whose ``jobs`` a test looks at; ``start`` is what a new job does."""

    def __init__(self, folder: Path, start: Callable[["KubernetesApi", dict[str, Any]], None] | None = None) -> None:
        self.folder = folder
        self.start = start or KubernetesApi.run_nodes
        self.jobs: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, list[str]] = {}
        self.asked: set[tuple[str, str]] = set()  # verb and resource
        self.refused = 0  # answer everything with this status
        self.nodes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.answer(self, "get")

            def do_POST(self) -> None:
                api.answer(self, "create")

            def do_DELETE(self) -> None:
                api.answer(self, "delete")

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.kill()
        self.server.shutdown()

    def kubeconfig(self) -> Path:
        """A kubeconfig file that leads here."""
        file = self.folder / "kubeconfig"
        port = self.server.server_address[1]
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "test", "user": {"token": "secret"}}],
        }
        file.write_text(yaml.safe_dump(content))
        return file

    def answer(self, request: BaseHTTPRequestHandler, verb: str) -> None:
        url = urlparse(request.path)
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        name = url.path.rpartition("/")[2]
        if self.refused:
            self._send(request, self.refused, {"kind": "Status", "message": "no"})
        elif url.path.startswith(JOBS):
            self.asked.add((verb, "trainjobs"))
            self._send(request, *self._jobs(verb, name, body))
        elif url.path == PODS:
            self.asked.add(("list", "pods"))
            [selector] = parse_qs(url.query)["labelSelector"]
            job = selector.partition(",")[0].partition("=")[2]
            found = [{"metadata": {"name": job}, "status": {"phase": "Running"}}] if job in self.logs else []
            self._send(request, 200, {"kind": "PodList", "apiVersion": "v1", "items": found})
        elif url.path.startswith(PODS) and name == "log":
            self.asked.add(("get", "pods/log"))
            lines = self.logs[url.path.split("/")[-2]]
            text = "".join(f"{MOMENT.format(number)} {line}\n" for number, line in enumerate(list(lines)))
            request.send_response(200)
            request.end_headers()
            request.wfile.write(text.encode())
        else:
            self._send(request, 404, {"kind": "Status", "message": "no such path"})

    def _jobs(self, verb: str, name: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if verb == "create":
            job = TrainerV1alpha1TrainJob.from_json(body.decode())
            assert job is not None and job.metadata is not None and job.metadata.name is not None
            if job.metadata.name in self.jobs:
                return 409, {"kind": "Status", "message": "AlreadyExists"}
            made = self.jobs[job.metadata.name] = json.loads(body)
            self.start(self, made)
            return 201, made
        if name not in self.jobs:
            return 404, {"kind": "Status", "message": "NotFound"}
        if verb == "delete":
            for node in self.nodes:
                node.send_signal(signal.SIGTERM)
            return 200, self.jobs.pop(name)
        return 200, self.jobs[name]

    def _send(self, request: BaseHTTPRequestHandler, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def finish(self, job: dict[str, Any], condition: str, reason: str = "", message: str = "") -> None:
        """Give a job its last condition."""
        job["status"] = {"conditions": [{"type": condition, "status": "True", "reason": reason, "message": message}]}

    def run_nodes(self, job: dict[str, Any]) -> None:
        """What Trainer does with torch-distributed: a torchrun a node, each told of the others by PET_ variables."""
        trainer, name = job["spec"]["trainer"], job["metadata"]["name"]
        port = str(20_000 + os.getpid() % 20_000)
        self.logs[name] = []
        nodes = [self._node(trainer, number, port) for number in range(trainer["numNodes"])]
        self.nodes += nodes

        def watch() -> None:
            for node in nodes:
                assert node.stdout is not None
                self.logs[name] += node.stdout.read().splitlines()
            right = all(node.wait() == 0 for node in nodes)
            self.finish(job, "Complete" if right else "Failed", "JobsFailed", "a node failed")

        threading.Thread(target=watch, daemon=True).start()

    def _node(self, trainer: dict[str, Any], number: int, port: str) -> "subprocess.Popen[str]":
        scratch = self.folder / f"node{number}"
        scratch.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if name != "RLP_TRAINJOB"} | {
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_NODE_RANK": str(number),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": port,
            "TMPDIR": str(scratch),
            **{variable["name"]: variable["value"] for variable in trainer["env"]},
        }
        assert trainer["command"] == ["torchrun"]
        arguments = [str(scratch) if word == "/tmp/rlp-output" else word for word in trainer["args"]]
        output = arguments.index("--output") + 1
        arguments[output] += "/output"
        command = [sys.executable, "-m", "torch.distributed.run", *arguments]
        return subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=1
        )
