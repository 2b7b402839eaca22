"""What a namespace lacks is told before a run is submitted, against a server that speaks Kubernetes' own models."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.config import kube_config

from pipelines.cluster import Cluster, load_cluster
from pipelines.preflight import check_namespace
from rlpretrain.errors import UserError

FOLDER = Path(__file__).parents[2] / "pipelines" / "clusters"


class KubernetesApi(ThreadingHTTPServer):
    """Objects by path; a path in `forbidden` answers 403."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.forbidden: set[str] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def put(self, kind: str, name: str, model: Any) -> None:
        self.objects[f"/api/v1/namespaces/research/{kind}/{name}"] = model

    def secret(self, name: str, *keys: str) -> None:
        data = {key: base64.b64encode(b"value").decode() for key in keys}
        self.put("secrets", name, client.V1Secret(metadata=client.V1ObjectMeta(name=name), data=data))


class _Handler(BaseHTTPRequestHandler):
    server: KubernetesApi

    def do_GET(self) -> None:
        found = self.server.objects.get(self.path)
        code = 403 if self.path in self.server.forbidden else 200 if found is not None else 404
        answer = found if code == 200 else client.V1Status(status="Failure", code=code)
        content = json.dumps(client.ApiClient().sanitize_for_serialization(answer)).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    server = KubernetesApi()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = {"name": "on-prem", "context": {"cluster": "c", "user": "u"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "on-prem",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [context],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    server.secret("rlp-s3", "accesskey", "secretkey")
    server.secret("rlp-webhook", "url")
    server.secret("registry", ".dockerconfigjson")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cluster() -> Cluster:
    return load_cluster(FOLDER / "on-prem.yaml")


def without(server: KubernetesApi, kind: str, name: str) -> None:
    del server.objects[f"/api/v1/namespaces/research/{kind}/{name}"]


def test_a_namespace_that_has_everything(kubernetes: KubernetesApi, cluster: Cluster) -> None:
    assert check_namespace(cluster) == []


def test_a_missing_secret_is_told_with_the_command_that_makes_it(kubernetes: KubernetesApi, cluster: Cluster) -> None:
    without(kubernetes, "secrets", "rlp-s3")
    with pytest.raises(UserError) as raised:
        check_namespace(cluster)
    assert str(raised.value) == (
        "namespace research has no Secret 'rlp-s3'; kubectl -n research create secret generic rlp-s3 "
        "--from-literal=accesskey=... --from-literal=secretkey=..."
    )


def test_a_secret_without_its_key(kubernetes: KubernetesApi, cluster: Cluster) -> None:
    kubernetes.secret("rlp-webhook", "uri")
    with pytest.raises(UserError, match="Secret 'rlp-webhook' in namespace research has no key 'url'"):
        check_namespace(cluster)


def test_a_missing_pipeline_root(kubernetes: KubernetesApi, cluster: Cluster) -> None:
    bare = cluster.model_copy(update={"s3": cluster.s3.model_copy(update={"pipeline_root": None})})
    with pytest.raises(UserError, match=r"has no ConfigMap 'kfp-launcher'; set s3\.pipeline_root"):
        check_namespace(bare)
    kubernetes.put("configmaps", "kfp-launcher", client.V1ConfigMap(data={"providers": ""}))
    with pytest.raises(UserError, match="no pipeline root: ConfigMap kfp-launcher of research has no defaultPipeline"):
        check_namespace(bare)
    kubernetes.put("configmaps", "kfp-launcher", client.V1ConfigMap(data={"defaultPipelineRoot": "s3://rlp/kfp"}))
    assert check_namespace(bare) == []


def test_what_one_may_not_look_at_is_passed_over(kubernetes: KubernetesApi, cluster: Cluster) -> None:
    kubernetes.forbidden.add("/api/v1/namespaces/research/secrets/rlp-s3")
    assert check_namespace(cluster) == ["Secret rlp-s3"]


def test_a_missing_service_account_and_an_unknown_context(kubernetes: KubernetesApi, cluster: Cluster) -> None:
    with pytest.raises(
        UserError, match="has no ServiceAccount 'runner'; kubectl -n research create serviceaccount runner"
    ):
        check_namespace(cluster.model_copy(update={"service_account": "runner"}))
    with pytest.raises(UserError, match=r"context 'other': .*mend 'context' in the cluster's file"):
        check_namespace(cluster.model_copy(update={"context": "other"}))
