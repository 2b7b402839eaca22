"""A Kubeflow Pipelines server: pipelines uploaded once, runs submitted once and watched, recurring runs kept up to date.

All of it through kfp's client. The server is the cluster file's `endpoint`, or KF_PIPELINES_ENDPOINT; the token is
KF_PIPELINES_TOKEN, or the file that KF_PIPELINES_SA_TOKEN_PATH names; without an endpoint, kfp goes by the kubeconfig.
"""

import json
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import urllib3
import yaml
from kfp.client import Client
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

from pipelines.cluster import Cluster
from pipelines.runs import check_seeds
from rlpretrain.errors import UserError

ENDPOINT_ENV = "KF_PIPELINES_ENDPOINT"
TOKEN_ENV = "KF_PIPELINES_TOKEN"
TOKEN_FILE_ENV = "KF_PIPELINES_SA_TOKEN_PATH"
CONNECT_SECONDS = 10.0
FINISHED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_PAGE = 100
# What a run's parameter of each of Kubeflow's types is given as; a number is written out for one of text.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "STRING": ((str, int, float), "text"),
    "NUMBER_INTEGER": ((int,), "a whole number"),
    "STRUCT": ((dict,), "a mapping, {NAME: VALUE}"),
    "LIST": ((list,), "a list, [VALUE, ...]"),
}


@dataclass(frozen=True)
class Version:
    """One compiled pipeline under the name that the server knows it by."""

    name: str
    text: str

    @property
    def definition(self) -> dict[str, Any]:
        """The pipeline's specification, without the machines."""
        return next(yaml.safe_load_all(self.text))

    @property
    def pipeline(self) -> str:
        """Name of the pipeline that this is a version of."""
        return self.definition["pipelineInfo"]["name"]

    def parameters(self, given: dict[str, Any]) -> dict[str, Any]:
        """``given`` as the pipeline's parameters take it; UserError for one that there is not or that takes no such value."""
        known = self.definition["root"]["inputDefinitions"]["parameters"]
        for name, value in given.items():
            if name not in known:
                raise UserError(f"unknown run parameter '{name}'; known: {', '.join(known)}")
            types, words = _TYPES[known[name]["parameterType"]]
            if not isinstance(value, types) or isinstance(value, bool):
                raise UserError(
                    f"run parameter '{name}' takes {words} (given: {str(value)[:60]}); mend it, or quote a text"
                )
        values = {name: parameter["defaultValue"] for name, parameter in known.items()} | given
        own = [value["seed"] for value in values.values() if isinstance(value, dict) and "seed" in value]
        numbers = [int(seed) for seed in own if isinstance(seed, int | float)]  # the rest its stage refuses
        check_seeds(values["seed"], numbers, flag="run parameter seed")
        text = {name for name in given if known[name]["parameterType"] == "STRING"}
        return {name: str(value) if name in text else value for name, value in given.items()}


class _Client(Client):
    """kfp's client, which asks for the server's health once instead of for half a minute."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        health, _, headers = self._healthz_api.healthz_service_get_healthz_with_http_info()
        if "json" not in headers.get("Content-Type", ""):
            raise UserError(
                f"{self._existing_config.host} answers with a web page, not with the API of Kubeflow Pipelines; "
                f"it is a login page or another address: set {TOKEN_ENV}, or mend the endpoint"
            )
        return health


class Server:
    """The server of a cluster. Every method raises UserError for what a user can mend."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        endpoint = os.environ.get(ENDPOINT_ENV) or cluster.endpoint
        if endpoint is None and cluster.context is None and "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise UserError(f"no server: name the cluster's 'endpoint' or 'context', or set {ENDPOINT_ENV}")
        self.where = endpoint or f"Kubeflow Pipelines of {cluster.context or 'this cluster'}"
        if endpoint is not None:
            _reach(endpoint)
        credentials = ServiceAccountTokenVolumeCredentials() if os.environ.get(TOKEN_FILE_ENV) else None
        with self._errors(), warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            self.client = _Client(
                host=endpoint,
                existing_token=os.environ.get(TOKEN_ENV),
                kube_context=cluster.context,
                credentials=credentials,
            )
            self.client.get_kfp_healthz()

    def ensure_version(self, version: Version) -> tuple[str, str, bool]:
        """Ids of the pipeline and of this version of it, and whether the version had to be uploaded."""
        with self._errors():
            pipeline_id = self.client.get_pipeline_id(version.pipeline)
            if pipeline_id is None:
                created = kfp_server_api.V2beta1Pipeline(
                    name=version.pipeline, display_name=version.pipeline, description="RLP against other arms"
                )
                pipeline_id = self.client.pipelines.pipeline_service_create_pipeline(created).pipeline_id
            found = self.client.list_pipeline_versions(pipeline_id, filter=_named(version.name)).pipeline_versions
            if found:
                return pipeline_id, found[0].pipeline_version_id, False
            with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
                path = Path(folder) / "pipeline.yaml"
                path.write_text(version.text, encoding="utf-8")
                made = self.client.upload_pipeline_version(str(path), version.name, pipeline_id)
            return pipeline_id, made.pipeline_version_id, True

    def submit(self, name: str, version: Version, parameters: dict[str, Any], cache: bool = True) -> tuple[Any, bool]:
        """The run of that name, and whether this call started it: a name is never submitted twice."""
        experiment = self.experiment_id()
        known = self.find_run(name)
        if known is not None:
            return known, False
        pipeline_id, version_id, _ = self.ensure_version(version)
        with self._errors(), redirect_stdout(StringIO()):
            started = self.client.run_pipeline(
                experiment,
                name,
                params=version.parameters(parameters),
                pipeline_id=pipeline_id,
                version_id=version_id,
                pipeline_root=self.cluster.s3.pipeline_root,
                enable_caching=None if cache else False,
                service_account=self.cluster.service_account,
            )
        return started, True

    def find_run(self, name: str) -> Any | None:
        """The newest run of that name in the cluster's experiment."""
        with self._errors():
            listed = self.client.list_runs(
                experiment_id=self.experiment_id(), filter=_named(name), sort_by="created_at desc"
            )
        return listed.runs[0] if listed.runs else None

    def runs(self, most: int = 20) -> list[Any]:
        """The newest runs of the cluster's experiment."""
        with self._errors():
            listed = self.client.list_runs(
                experiment_id=self.experiment_id(), sort_by="created_at desc", page_size=most
            )
        return listed.runs or []

    def watch(self, run: Any, say: Callable[[str], None], every: float) -> Any:
        """Follow a run to its end, saying what changes; returns it as it ended."""
        seen: dict[str, str] = {}
        while True:
            with self._errors():
                run = self.client.get_run(run.run_id)
            for name, state in task_states(run).items():
                if seen.get(name) != state:
                    say(f"{name}: {state}")
                    seen[name] = state
            if run.state in FINISHED:
                return run
            time.sleep(every)

    def schedule(
        self, name: str, version: Version, cron: str, parameters: dict[str, Any], enabled: bool, cache: bool
    ) -> str:
        """Make the one recurring run of that name what is asked for; returns `unchanged`, `created` or `replaced`.

        Kubeflow cannot change a recurring run: the old one is stopped, the new one made, then the old one deleted, so
        that no time is served twice and a failure leaves the old one going.
        """
        experiment = self.experiment_id()
        pipeline_id, version_id, _ = self.ensure_version(version)
        given = version.parameters(parameters)
        wanted = (version_id, cron, given, "ENABLE" if enabled else "DISABLE", self._place())
        with self._errors():
            listed = self.client.list_recurring_runs(experiment_id=experiment, page_size=_PAGE, filter=_named(name))
            old = listed.recurring_runs or []
            if len(old) == 1 and _as_wanted(old[0]) == wanted:
                return "unchanged"
            running = [one.recurring_run_id for one in old if one.mode == "ENABLE"]
            for one in running:
                self.client.disable_recurring_run(one)
            try:
                self.client.create_recurring_run(
                    experiment,
                    name,
                    cron_expression=cron,
                    max_concurrency=1,
                    no_catchup=True,
                    params=given,
                    pipeline_id=pipeline_id,
                    version_id=version_id,
                    enabled=enabled,
                    pipeline_root=self.cluster.s3.pipeline_root,
                    enable_caching=None if cache else False,
                    service_account=self.cluster.service_account,
                )
            except Exception:
                for one in running:
                    self.client.enable_recurring_run(one)
                raise
            for one in old:
                self.client.delete_recurring_run(one.recurring_run_id)
        return "replaced" if old else "created"

    def experiment_id(self) -> str:
        """The cluster's experiment, made where it is missing."""
        with self._errors(), redirect_stdout(StringIO()):
            return self.client.create_experiment(
                self.cluster.experiment, namespace=self.cluster.namespace
            ).experiment_id

    def _place(self) -> tuple[str | None, str | None]:
        return self.cluster.s3.pipeline_root, self.cluster.service_account

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the server's answers into one line. No answer of it is printed whole: it may quote the request."""
        try:
            yield
        except kfp_server_api.ApiException as error:
            if error.status in (401, 403):
                raise UserError(
                    f"{self.where} refused the token ({error.status}); set {TOKEN_ENV} to one that may use namespace "
                    f"'{self.cluster.namespace or 'kubeflow'}'"
                ) from None
            raise UserError(f"{self.where} answered {error.status}: {_message(error)}") from None
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", error)
            raise UserError(f"{self.where} cannot be reached ({type(reason).__name__}); check the endpoint") from None


def task_states(run: Any) -> dict[str, str]:
    """Names of a run's tasks, in the order they began, to their states; drivers and frames of the server left out."""
    details = (run.run_details.task_details if run.run_details else None) or []
    shown = [one for one in details if one.state and not (one.display_name or "").endswith(("driver", "-executor"))]
    return {one.display_name: one.state for one in sorted(shown, key=lambda one: str(one.start_time or ""))}


def other_parameters(run: Any, given: dict[str, Any]) -> list[str]:
    """The names of those of ``given`` that a run was given another value of."""
    theirs = (run.runtime_config.parameters if run.runtime_config else None) or {}
    return [name for name, value in given.items() if theirs.get(name) != value]


def run_uri(run: Any) -> str | None:
    """Where a run publishes its artifacts; None for a run that was not started by this project."""
    given = (run.runtime_config.parameters if run.runtime_config else None) or {}
    place, name = given.get("artifacts_uri"), given.get("run_name")
    return f"{place}/{name}" if place and name else None


def _reach(endpoint: str) -> None:
    """UserError where nobody listens. kfp's client has no time limit of its own."""
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"{endpoint} cannot be reached ({reason}); check the endpoint and that you are on its network"
        ) from None


def _named(name: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _as_wanted(found: Any) -> tuple[Any, ...]:
    """A recurring run in the terms of `Server.schedule`."""
    config, reference = found.runtime_config, found.pipeline_version_reference
    cron = found.trigger.cron_schedule.cron if found.trigger and found.trigger.cron_schedule else None
    place = (config.pipeline_root or None, found.service_account or None)
    return reference.pipeline_version_id, cron, config.parameters or {}, found.mode, place


def _message(error: kfp_server_api.ApiException) -> str:
    """The server's own words, in one line and not too many."""
    try:
        body = json.loads(error.body)
        text = body.get("message") or body.get("error") or error.reason
    except (TypeError, ValueError, AttributeError):
        text = error.reason
    line = " ".join(str(text).split())
    return line if len(line) <= 300 else f"{line[:297]}..."
