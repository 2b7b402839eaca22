"""Commands that speak to a cluster: submit, status, schedule."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.arms import DEFAULT_ARMS, parse_arms
from pipelines.checks import check_given, check_profile, check_tokenizers
from pipelines.cluster import load_cluster
from pipelines.profile import Profile, known, load_profile, name_of, parse_changes
from pipelines.runs import check_name, check_seeds
from rlpretrain.errors import UserError, printable

Arms = Annotated[str | None, typer.Option(help="arms with commas between them, or all; default: base,cpt,rlp")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="over the profile; repeatable")
]
Artifacts = Annotated[str, typer.Option(help="s3:// or file:// place of the artifacts")]
Endpoint = Annotated[
    str | None, typer.Option(help="S3 server to use; default: AWS_ENDPOINT_URL_S3, else an embedded one")
]
Mirror = Annotated[
    str | None,
    typer.Option(metavar="URI", help="s3:// or file:// place that `mirror` wrote to, read in the hub's stead"),
]
Runs = Annotated[Path, typer.Option(help="folder of the runs and of the embedded S3 server's data")]
ClusterFile = Annotated[Path, typer.Option("--cluster", help="the cluster's file, such as pipelines/clusters/eks.yaml")]
Watch = Annotated[bool, typer.Option("--watch", help="follow the run to its end; exit code 1 when it fails")]
Every = Annotated[float, typer.Option(min=0.1, help="seconds between two looks at a watched run")]


def chosen_arms(text: str | None) -> tuple[str, ...]:
    """The arms that an option names, or those of the reproduction."""
    return DEFAULT_ARMS if text is None else parse_arms(text)


def from_mirror(settings: Profile, mirror: str | None) -> Profile:
    """The profile with the mirror's places in the hub's stead, where a mirror is named."""
    if mirror is None:
        return settings
    from pipelines.mirroring import mirrored

    return mirrored(settings, mirror.rstrip("/"))


def check_seed(settings: Profile, seed: int, seeds: int = 1) -> None:
    """UserError when the seeds of ``seeds`` runs from ``seed`` on do not fit the profile's stages."""
    check_seeds(seed, (stage.seed for _, stage in settings if hasattr(stage, "seed")), seeds)


def submit(
    cluster: ClusterFile,
    profile: Annotated[str, typer.Option(help=f"which reproduction: {known()}")],
    name: Annotated[str | None, typer.Option(help="name of the run; default: profile, commit, digest and seed")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    arms: Arms = None,
    change: Changes = None,
    mirror: Mirror = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="a run's parameter; repeatable")
    ] = None,
    cache: Annotated[bool, typer.Option(help="serve tasks with unchanged inputs and code from the cache")] = True,
    watch: Watch = False,
    every: Every = 30.0,
) -> None:
    """Start a run on a cluster, once: of a name that is there already, the run is shown and no other started."""
    if name is not None:
        check_name(name)
    parameters = parse_changes(parameter or [], "--param", "NAME=VALUE")
    if "seed" in parameters:
        raise UserError("--param seed: give it as --seed, which a run without --name is called by")
    version = _version(profile, arms, parse_changes(change or []), mirror, cluster)
    name = name or f"{version.name}-s{seed}"
    given = version.parameters({"run_name": name, "seed": seed} | parameters)
    if "run_name" in parameters:
        check_name(given["run_name"], "--param run_name=")
    server = _server(cluster, check=True)
    from pipelines.kubeflow import other_parameters

    run, started = server.submit(name, version, given, cache)
    if started:
        print(f"run {name}: submitted as version {version.name} of {version.pipeline}, id {run.run_id}")
    else:
        print(f"run {name}: is there already ({run.state or 'PENDING'}, id {run.run_id}), not submitted again")
        if different := other_parameters(run, given):
            print(f"that run was given another value of: {', '.join(different)}")
        print("a run of its own needs another --name; a failed one is tried again with Retry in the UI")
    if watch:
        _watch(server, run, every)


def status(
    cluster: ClusterFile,
    name: Annotated[str | None, typer.Argument(help="name of a run; default: the newest runs")] = None,
    watch: Watch = False,
    every: Every = 30.0,
) -> None:
    """Say how runs on a cluster stand: the newest ones, or one with its tasks."""
    from pipelines.kubeflow import run_uri, task_states

    server = _server(cluster)
    if name is None:
        for run in server.runs():
            print(printable(f"{run.state or 'PENDING':10} {run.created_at:%Y-%m-%d %H:%M}  {run.display_name}"))
        return
    found = server.find_run(name)
    if found is None:
        raise UserError(f"no run '{name}' in experiment '{server.cluster.experiment}'; `status` alone lists the runs")
    if watch:
        return _watch(server, found, every)
    print(f"run {name}: {found.state or 'PENDING'}, id {found.run_id}")
    for task, state in task_states(found).items():
        print(printable(f"  {task}: {state}"))
    if uri := run_uri(found):
        print(printable(f"artifacts: {uri}"))


def schedule(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="schedule files; default: pipelines/schedules/*.yaml")
    ] = None,
) -> None:
    """Make recurring runs on their clusters what the schedule files say; what is so already stays untouched."""
    from pipelines.schedules import load_schedule, schedule_files

    loaded = [(path.stem, *load_schedule(path)) for path in paths or schedule_files()]
    if not loaded:
        print("no schedules: pipelines/schedules holds no *.yaml")
    for name, wanted, cluster in loaded:
        version = _version(wanted.profile, wanted.arms, wanted.set, wanted.mirror, cluster)
        # Kubeflow puts no date into parameters: runs of one version share a place, and unchanged ones its cached results.
        # Another seed gives other results, and a place that another result has taken is refused.
        run_name = f"{name}-{version.name}-s{wanted.parameters.get('seed', 0)}"
        given = version.parameters({"run_name": run_name, **wanted.parameters})
        if "run_name" in wanted.parameters:
            check_name(given["run_name"], f"schedule {name}: parameters.run_name ")
        server = _server(cluster, check=True)
        done = server.schedule(name, version, wanted.kubeflow_cron, given, wanted.enabled, wanted.cache)
        print(
            f"schedule {name}: {done}, '{wanted.cron}', version {version.name}{'' if wanted.enabled else ', disabled'}"
        )


def _version(profile: str, arms: str | None, changes: dict[str, Any], mirror: str | None, cluster: Path) -> Any:
    """The compiled pipeline under its name; mistakes in profile, arms and cluster are told before the server is asked."""
    settings, chosen = load_profile(profile, changes), chosen_arms(arms)
    check_given(settings)
    check_profile(settings)
    profile = name_of(profile)
    load_cluster(cluster)
    settings = from_mirror(settings, mirror)
    check_tokenizers(settings)
    from pipelines.compiling import compiled_for
    from pipelines.kubeflow import Version
    from pipelines.versions import version_name

    text = compiled_for(profile, settings, chosen, cluster)
    return Version(version_name(profile, text), text)


def _server(path: Path, check: bool = False) -> Any:
    from pipelines.kubeflow import Server

    cluster = load_cluster(path)
    if check and cluster.context is not None:
        from pipelines.preflight import check_namespace

        if unseen := check_namespace(cluster):
            print(f"not looked at, for want of rights: {', '.join(unseen)}")
    return Server(cluster)


def _watch(server: Any, run: Any, every: float) -> None:
    """Follow a run; exit code 1 unless it succeeded."""
    from pipelines.kubeflow import run_uri

    ended = server.watch(run, lambda line: print(printable(line), flush=True), every)
    print(printable(f"run {ended.display_name}: {ended.state}"))
    if uri := run_uri(ended):
        print(printable(f"artifacts: {uri}"))
        print(printable(f"compare: python -m pipelines compare {uri}"))
    if ended.state != "SUCCEEDED":
        raise typer.Exit(1)
