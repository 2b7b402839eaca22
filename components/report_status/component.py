"""Kubeflow face of the run's end: the exit handler's task, which runs however the run ended."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from components.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def report_status(status: PipelineTaskFinalStatus, run_name: str, run_uri: str):
    """Write the run's status beside its artifacts, and tell the webhook when there is one."""
    from components.report_status.stage import run_report

    run_report(run_name, run_uri, status.state, status.pipeline_job_resource_name, status.error_message or "")
