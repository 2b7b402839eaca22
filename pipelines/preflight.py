"""What a run will need of its namespace, looked for before it is submitted: a pod that misses a Secret waits for ever."""

from typing import Any

import urllib3

from pipelines.cluster import Cluster
from rlpretrain.errors import UserError

LAUNCHER = "kfp-launcher"


def check_namespace(cluster: Cluster) -> list[str]:
    """UserError for the first thing that is missing; returns what could not be looked at for want of rights."""
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException

    namespace = cluster.namespace or "kubeflow"
    try:
        core = client.CoreV1Api(config.new_client_from_config(context=cluster.context))
    except config.ConfigException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"context '{cluster.context}': {reason}; mend 'context' in the cluster's file") from None
    unseen = []

    def read(what: str, get: Any, name: str, mend: str) -> Any | None:
        try:
            return get(name, namespace, _request_timeout=10)
        except ApiException as error:
            if error.status == 404:
                raise UserError(f"namespace {namespace} has no {what} '{name}'; {mend}") from None
            unseen.append(f"{what} {name}")
        except urllib3.exceptions.HTTPError:
            raise UserError(f"the Kubernetes API of context '{cluster.context}' cannot be reached; check it") from None
        return None

    for secret in cluster.task_secrets("report_status"):  # its task has all of them
        keys = " ".join(f"--from-literal={key}=..." for key in secret.env.values())
        mend = f"kubectl -n {namespace} create secret generic {secret.name} {keys}"
        found = read("Secret", core.read_namespaced_secret, secret.name, mend)
        for key in secret.env.values():
            if found is not None and key not in (found.data or {}):
                raise UserError(f"Secret '{secret.name}' in namespace {namespace} has no key '{key}'; {mend}")
    for name in cluster.image_pull_secrets:
        mend = f"kubectl -n {namespace} create secret docker-registry {name} ..."
        read("Secret", core.read_namespaced_secret, name, mend)
    if cluster.service_account is not None:
        mend = f"kubectl -n {namespace} create serviceaccount {cluster.service_account}"
        read("ServiceAccount", core.read_namespaced_service_account, cluster.service_account, mend)
    if cluster.s3.pipeline_root is None:
        mend = "set s3.pipeline_root in the cluster's file"
        found = read("ConfigMap", core.read_namespaced_config_map, LAUNCHER, mend)
        if found is not None and not (found.data or {}).get("defaultPipelineRoot"):
            raise UserError(f"no pipeline root: ConfigMap {LAUNCHER} of {namespace} has no defaultPipelineRoot; {mend}")
    return unseen
