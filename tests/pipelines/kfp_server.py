"""A server that speaks the API of Kubeflow Pipelines, v2beta1, as far as this project uses it.

What it is sent and what it answers pass through kfp-server-api's own models: a path, a query or a field that they do not know
is refused, as the real server's gateway refuses it. It keeps everything in memory, and checks what the real one checks: that
uploaded pipelines parse as its messages, that runs name a version there is, and parameters that the version has.
"""

import json
import re
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api as api
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

_MODELS = api.ApiClient()
_LISTING = {"page_token", "page_size", "sort_by", "filter", "namespace", "experiment_id"}
_UPLOAD = {"name", "display_name", "pipelineid", "description", "tags"}
_KINDS = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": (int, float), "STRUCT": dict, "LIST": list}


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KfpServer(ThreadingHTTPServer):
    """The server and what it holds. `token`: the one it takes; `page`: answer everything with a login page."""

    daemon_threads = True

    def __init__(self) -> None:
        self.token: str | None = None
        self.page = False
        self.broken: str | None = None  # "METHOD path" that answers 500 from now on
        self.requests: list[str] = []
        self.experiments: dict[str, Any] = {}
        self.pipelines: dict[str, Any] = {}
        self.versions: dict[str, Any] = {}
        self.runs: dict[str, Any] = {}
        self.recurring: dict[str, Any] = {}
        self._lock, self._time = threading.Lock(), datetime(2026, 1, 1, tzinfo=UTC)
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def now(self) -> datetime:
        """A later time at every call."""
        self._time += timedelta(minutes=1)
        return self._time

    def end(self, run_id: str, state: str, tasks: dict[str, str]) -> None:
        """Let a run and its tasks come to a state."""
        run = self.runs[run_id]
        run.state = state
        run.run_details = api.V2beta1RunDetails(
            task_details=[
                api.V2beta1PipelineTaskDetail(run_id=run_id, display_name=name, state=its, start_time=self.now())
                for name, its in tasks.items()
            ]
        )

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, kind: str) -> Any:
        """The model that a request is answered with."""
        self.requests.append(f"{method} {path}")
        if self.broken == f"{method} {path}":
            raise Refused(500, "Internal error: the database is away")
        for verb, pattern, known, handle in _ROUTES:
            match = re.fullmatch(pattern, path)
            if verb == method and match:
                if query.keys() - known:
                    raise Refused(400, f"unknown query {sorted(query.keys() - known)}")
                with self._lock:
                    return handle(self, match, query, (body, kind))
        raise Refused(404, f"Not Found: {method} {path}")

    def healthz(self, *_: Any) -> Any:
        return api.V2beta1GetHealthzResponse(multi_user=False)

    def list_experiments(self, _: Any, query: dict[str, str], *__: Any) -> Any:
        return api.V2beta1ListExperimentsResponse(experiments=_chosen(self.experiments, query))

    def create_experiment(self, _: Any, __: Any, sent: Any) -> Any:
        one = _read(sent, "V2beta1Experiment")
        one.experiment_id = str(uuid.uuid4())
        return _keep(self.experiments, one.experiment_id, one)

    def list_pipelines(self, _: Any, query: dict[str, str], *__: Any) -> Any:
        return api.V2beta1ListPipelinesResponse(pipelines=_chosen(self.pipelines, query))

    def create_pipeline(self, _: Any, __: Any, sent: Any) -> Any:
        one = _read(sent, "V2beta1Pipeline")
        if any(other.display_name == one.display_name for other in self.pipelines.values()):
            raise Refused(409, f"Already exist error: the name {one.display_name} already exists")
        one.pipeline_id = str(uuid.uuid4())
        return _keep(self.pipelines, one.pipeline_id, one)

    def list_versions(self, match: re.Match[str], query: dict[str, str], *_: Any) -> Any:
        of_it = {key: one for key, one in self.versions.items() if one.pipeline_id == match[1]}
        return api.V2beta1ListPipelineVersionsResponse(pipeline_versions=_chosen(of_it, query))

    def upload_version(self, _: Any, query: dict[str, str], sent: tuple[bytes, str]) -> Any:
        if query["pipelineid"] not in self.pipelines:
            raise Refused(404, f"Pipeline {query['pipelineid']} not found")
        head = f"Content-Type: {sent[1]}\r\n\r\n".encode()
        (part,) = BytesParser().parsebytes(head + sent[0]).get_payload()
        specification, *platform = yaml.safe_load_all(part.get_payload(decode=True))
        json_format.ParseDict(specification, pipeline_spec_pb2.PipelineSpec())
        for document in platform:
            executors = document["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
            for pod in executors.values():
                json_format.ParseDict(pod, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
        one = api.V2beta1PipelineVersion(
            pipeline_id=query["pipelineid"],
            pipeline_version_id=str(uuid.uuid4()),
            name=query["name"],
            display_name=query["name"],
            pipeline_spec=specification,
        )
        return _keep(self.versions, one.pipeline_version_id, one)

    def list_runs(self, _: Any, query: dict[str, str], *__: Any) -> Any:
        return api.V2beta1ListRunsResponse(runs=_chosen(self.runs, query))

    def create_run(self, _: Any, __: Any, sent: Any) -> Any:
        one = _read(sent, "V2beta1Run")
        self._check_reference(one)
        one.run_id, one.state, one.created_at = str(uuid.uuid4()), "PENDING", self.now()
        return _keep(self.runs, one.run_id, one)

    def get_run(self, match: re.Match[str], *_: Any) -> Any:
        return self.runs[match[1]]

    def list_recurring(self, _: Any, query: dict[str, str], *__: Any) -> Any:
        found = _chosen(self.recurring, query)
        return api.V2beta1ListRecurringRunsResponse(recurring_runs=found)

    def create_recurring(self, _: Any, __: Any, sent: Any) -> Any:
        one = _read(sent, "V2beta1RecurringRun")
        self._check_reference(one)
        if len(one.trigger.cron_schedule.cron.split()) != 6:
            raise Refused(400, "cron: seconds come first, six fields are needed")
        one.recurring_run_id, one.created_at = str(uuid.uuid4()), self.now()
        one.status = "ENABLED" if one.mode == "ENABLE" else "DISABLED"
        return _keep(self.recurring, one.recurring_run_id, one)

    def delete_recurring(self, match: re.Match[str], *_: Any) -> Any:
        del self.recurring[match[1]]
        return None

    def switch_recurring(self, match: re.Match[str], *_: Any) -> Any:
        self.recurring[match[1]].mode = match[2].upper()
        return None

    def _check_reference(self, one: Any) -> None:
        if one.experiment_id not in self.experiments:
            raise Refused(404, f"Experiment {one.experiment_id} not found")
        version = self.versions.get(one.pipeline_version_reference.pipeline_version_id)
        if version is None:
            raise Refused(404, "Pipeline version not found")
        known = version.pipeline_spec["root"]["inputDefinitions"]["parameters"]
        for name, value in one.runtime_config.parameters.items():
            if name not in known or not isinstance(value, _KINDS[known[name]["parameterType"]]):
                raise Refused(400, f"Invalid input error: parameter {name}")


_Handle = Callable[..., Any]
_ROOT = "/apis/v2beta1"
_ROUTES: list[tuple[str, str, set[str], _Handle]] = [
    ("GET", f"{_ROOT}/healthz", set(), KfpServer.healthz),
    ("GET", f"{_ROOT}/experiments", _LISTING, KfpServer.list_experiments),
    ("POST", f"{_ROOT}/experiments", set(), KfpServer.create_experiment),
    ("GET", f"{_ROOT}/pipelines", _LISTING, KfpServer.list_pipelines),
    ("POST", f"{_ROOT}/pipelines", set(), KfpServer.create_pipeline),
    ("POST", f"{_ROOT}/pipelines/upload_version", _UPLOAD, KfpServer.upload_version),
    ("GET", f"{_ROOT}/pipelines/([^/:]+)/versions", _LISTING, KfpServer.list_versions),
    ("GET", f"{_ROOT}/runs", _LISTING, KfpServer.list_runs),
    ("POST", f"{_ROOT}/runs", {"experiment_id"}, KfpServer.create_run),
    ("GET", f"{_ROOT}/runs/([^/:]+)", {"experiment_id"}, KfpServer.get_run),
    ("GET", f"{_ROOT}/recurringruns", _LISTING, KfpServer.list_recurring),
    ("POST", f"{_ROOT}/recurringruns", set(), KfpServer.create_recurring),
    ("DELETE", f"{_ROOT}/recurringruns/([^/:]+)", set(), KfpServer.delete_recurring),
    ("POST", f"{_ROOT}/recurringruns/([^/:]+):(enable|disable)", set(), KfpServer.switch_recurring),
]


class _Handler(BaseHTTPRequestHandler):
    server: KfpServer

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
        if self.server.page:
            return self._send(200, "text/html", b"<html>Log in</html>")
        try:
            if self.server.token and self.headers.get("authorization") != f"Bearer {self.server.token}":
                raise Refused(401, f"Unauthenticated: {self.headers.get('authorization')}")
            kind = self.headers.get("Content-Type", "")
            found = self.server.answer(self.command, parts.path, query, body, kind)
            content = {} if found is None else _MODELS.sanitize_for_serialization(found)
            self._send(200, "application/json", json.dumps(content).encode())
        except Refused as refused:
            content = {"code": 3, "message": str(refused), "error": str(refused), "details": []}
            self._send(refused.status, "application/json", json.dumps(content).encode())

    do_GET = do_POST = do_DELETE = handle_any

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _read(sent: tuple[bytes, str], model: str) -> Any:
    """A body as its model; refused when the model does not keep a field of it."""
    value = json.loads(sent[0])

    class Response:
        data = sent[0].decode()

    one = _MODELS.deserialize(Response, model)
    _compare(value, _MODELS.sanitize_for_serialization(one), model)
    return one


def _compare(sent: Any, kept: Any, where: str) -> None:
    if isinstance(sent, dict):
        for name, value in sent.items():
            if not isinstance(kept, dict) or name not in kept:
                raise Refused(400, f'unknown field "{name}" in {where}')
            _compare(value, kept[name], f"{where}.{name}")


def _keep(things: dict[str, Any], key: str, one: Any) -> Any:
    things[key] = one
    return one


def _chosen(things: dict[str, Any], query: dict[str, str]) -> list[Any] | None:
    """What a listing shows; like the real one it leaves an empty list out."""
    found = list(things.values())
    if query.get("filter"):
        for one in json.loads(query["filter"])["predicates"]:
            assert one.keys() == {"operation", "key", "stringValue"} and one["operation"] in (1, "EQUALS")
            found = [each for each in found if getattr(each, one["key"]) == one["stringValue"]]
    if query.get("experiment_id"):
        found = [each for each in found if each.experiment_id == query["experiment_id"]]
    if query.get("sort_by"):
        assert query["sort_by"] == "created_at desc"
        found.sort(key=lambda each: each.created_at, reverse=True)
    return found[: int(query.get("page_size") or 20)] or None
