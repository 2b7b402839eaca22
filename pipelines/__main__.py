"""The command line: python -m pipelines run | ablate | plan | probe | runs | show | compare | mirror | compile | submit | status |
schedule | verify | gc | lineage | export."""

import json
import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipelines import commands, custody_commands, probe_command, stored_commands
from pipelines.checks import check_given, check_here, check_profile, check_tokenizers
from pipelines.commands import Arms, Artifacts, Changes, Endpoint, Mirror, Runs, check_seed, chosen_arms, from_mirror
from pipelines.profile import HardwareSettings, known, load_profile, name_of, parse_changes
from rlpretrain.errors import UserError, local_errors, printable
from rlpretrain.settings import parse_settings

# A shell completes commands by their names, and that of `python -m pipelines` is python.
completes = Path(sys.argv[0]).name == "rlp-pipelines"
app = typer.Typer(add_completion=completes, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
for its_command in (
    *(commands.submit, commands.status, commands.schedule),
    *(stored_commands.runs, stored_commands.show),
    *(custody_commands.verify, custody_commands.gc, custody_commands.lineage, custody_commands.export),
    probe_command.probe,
):
    app.command()(its_command)
Debug = Annotated[bool, typer.Option("--debug", help="show all output, and tracebacks of mistakes")]


@app.command("compile")
def compile_command(
    profile: Annotated[str | None, typer.Option(help="profile to compile, or its file; default: all")] = None,
    check: Annotated[bool, typer.Option("--check", help="write nothing, fail when a file is stale")] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="file to write one pipeline to, as the options below say; default: pipelines/compiled"),
    ] = None,
    arms: Arms = None,
    change: Changes = None,
    mirror: Mirror = None,
    cluster: Annotated[Path | None, typer.Option(help="cluster's file, whose pools the tasks run on")] = None,
    target: Annotated[Literal["kubeflow", "argo"], typer.Option(help="whose manifests")] = "kubeflow",
    cron: Annotated[str, typer.Option(help="argo: five-field schedule; default: weekly, suspended")] = "",
) -> None:
    """Write pipelines/compiled/*.yaml, the DAG as Kubeflow takes it, or one of your own choice to --output."""
    from pipelines.compiling import checked_in, compiled_for, compiled_text

    if output is not None:
        if profile is None:
            raise UserError("--output: name the --profile to compile")
        if cron and target != "argo":
            raise UserError("--cron: goes with --target argo; a schedule on Kubeflow is a file, see `schedule`")
        settings = load_profile(profile, parse_changes(change or []))
        check_profile(settings)
        settings = from_mirror(settings, mirror)
        check_tokenizers(settings)
        text = compiled_for(name_of(profile), settings, chosen_arms(arms), cluster, target, cron)
        with local_errors(output):
            output.write_text(text, encoding="utf-8")
        print(output)
        return
    if arms or change or mirror or cluster or cron or target != "kubeflow":
        raise UserError("options besides --profile and --check go with --output FILE; pipelines/compiled is as it is")
    if profile is not None:
        if name_of(profile) != profile:
            raise UserError("--profile: pipelines/compiled holds the project's own profiles; give --output FILE")
        load_profile(profile)
    for name, make in checked_in().items():
        if profile is None or name.partition("-")[2] == f"{profile}.yaml":
            _compile(name, compiled_text(make()), check)


def _compile(name: str, text: str, check: bool) -> None:
    path = Path(str(files("pipelines").joinpath("compiled", name)))
    if not check:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"pipelines/compiled/{name}")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        raise UserError(f"pipelines/compiled/{name} is stale; run `make compile`")


def _refuse_beside_resume(context: typer.Context) -> None:
    """UserError for an option that the run which goes on has its own value of."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        given = source is not None and source.name == "COMMANDLINE"
        if given and parameter.name not in ("resume", "runs", "endpoint", "debug"):
            raise UserError(f"--resume takes the run's own options; leave {parameter.opts[0]} out")


@app.command()
def run(
    context: typer.Context,
    profile: Annotated[str, typer.Option(help=f"which reproduction: {known()}")] = "mini",
    name: Annotated[str | None, typer.Option(help="name of the run; default: profile, time and seed")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="first seed")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="runs, with seeds one apart, compared together")] = 1,
    arms: Arms = None,
    change: Changes = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="one small step a stage, on rows and a random model of the same kinds")
    ] = False,
    artifacts: Artifacts = "s3://rlp/runs",
    mirror: Mirror = None,
    endpoint: Endpoint = None,
    runs: Runs = Path("runs"),
    debug: Debug = False,
    resume: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="go on with the killed run of that name; takes its options from it"),
    ] = None,
) -> None:
    """Run the reproduction on this machine to its report."""
    from pipelines.runs import Given, recall, remember

    if resume is not None:
        _refuse_beside_resume(context)
        name, profile, seed, seeds, arms, change, dry_run, artifacts, mirror = recall(runs, resume)
    chosen = chosen_arms(arms)
    settings = load_profile(profile, parse_changes(change or []))
    check_profile(settings)
    check_seed(settings, seed, seeds)
    if not dry_run:
        check_given(settings)
    from pipelines import local  # kfp takes a second to import: after the mistakes that need none of it
    from pipelines.comparing import compare_uris
    from pipelines.placing import ONE_MACHINE
    from pipelines.reproduction import reproduction

    if dry_run:
        from components.processes import COUNT
        from pipelines.dry_run import shrunk

        settings = shrunk(settings)
        os.environ.setdefault(COUNT, "1")  # its few rows are no work for several GPUs
    if debug:
        os.environ[local.DEBUG] = "1"
    called = name_of(profile)
    name = name or local.default_name(called, seed)
    parts = {name: seed} if seeds == 1 else {f"{name}-seed{seed + index}": seed + index for index in range(seeds)}
    if resume is None:
        local.check_free([name, *(part for part in parts if part != name)], runs)
    report = runs / name / "report"
    with local.storage(runs, endpoint), local.resumable(name, runs, endpoint):
        settings = from_mirror(settings, mirror)
        check_here(settings)
        local.create_bucket(artifacts)
        remember(runs, Given(name, profile, seed, seeds, arms, change, dry_run, artifacts, mirror))
        uris = []
        for part, its_seed in parts.items():
            print(f"run {part}, profile {called}, seed {its_seed}", flush=True)
            pipeline = reproduction(called, settings, chosen, ONE_MACHINE)
            uris.append(local.run_local(part, pipeline, its_seed, runs, artifacts))
        if seeds == 1:
            local.fetch_report(f"{uris[0]}/compare", report)
        else:
            compare_uris(uris, report, settings.compare)
    local.point_latest(runs, name)
    _summarise(report)
    print(f"artifacts: {' '.join(uris)}")


@app.command()
def ablate(
    profile: Annotated[str, typer.Option(help=f"which reproduction: {known()}")] = "mini",
    sweeps: Annotated[str, typer.Option(help="ablations with commas between them, or all of the profile's")] = "all",
    name: Annotated[
        str | None, typer.Option(help="name of the run; default: ablations, profile, time and seed")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    change: Changes = None,
    artifacts: Artifacts = "s3://rlp/runs",
    mirror: Mirror = None,
    endpoint: Endpoint = None,
    runs: Runs = Path("runs"),
    debug: Debug = False,
) -> None:
    """Change one setting of RLP at a time on this machine; a page of curves beside the paper's."""
    settings = load_profile(profile, parse_changes(change or []))
    check_seed(settings, seed)
    check_given(settings)
    from pipelines import local
    from pipelines.ablations import ablations, make_points, parse_sweeps
    from pipelines.placing import ONE_MACHINE

    chosen = parse_sweeps(sweeps, settings)
    check_profile(settings, chosen)
    if debug:
        os.environ[local.DEBUG] = "1"
    profile = name_of(profile)
    name = name or f"ablations-{local.default_name(profile, seed)}"
    local.check_free([name], runs)
    with local.storage(runs, endpoint):
        settings = from_mirror(settings, mirror)
        points = make_points(settings, chosen)
        check_here(settings, chosen)
        print(f"run {name}, profile {profile}, {len(points)} points of {', '.join(chosen)}", flush=True)
        pipeline = ablations(profile, settings, chosen, parallelism=1, target=ONE_MACHINE)
        tasks = 6 + 2 * len(points.rlp) + 3 * len(points.corpora)
        uri = local.run_local(name, pipeline, seed, runs, artifacts, tasks)
        local.fetch_report(f"{uri}/ablate", runs / name / "report")
    local.point_latest(runs, name)
    _summarise_ablations(runs / name / "report")
    print(f"artifacts: {uri}")


@app.command()
def plan(
    profile: Annotated[str, typer.Option(help=f"which reproduction: {known()}")],
    gpu: Annotated[str | None, typer.Option(help="a100, h100, h200, b200, l40s; default: the profile's")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="GPU nodes; default: the profile's")] = None,
    arms: Arms = None,
    change: Changes = None,
) -> None:
    """Say what a run takes before anything is spent: tokens, FLOPs, memory a GPU, storage, hours."""
    chosen = chosen_arms(arms)
    settings = load_profile(profile, parse_changes(change or []))
    check_profile(settings)
    from rich.console import Console

    from pipelines.plan import make_plan
    from pipelines.planned import show_plan

    given = {key: value for key, value in (("gpu", gpu), ("nodes", nodes)) if value is not None}
    hardware = settings.hardware
    if given:
        values = (hardware.model_dump() if hardware else {}) | given
        hardware = parse_settings(HardwareSettings, values, "plan")
    show_plan(make_plan(settings, chosen, hardware), Console(width=None if sys.stdout.isatty() else 120))


@app.command()
def mirror(
    profile: Annotated[str, typer.Option(help=f"whose data and models: {known()}")],
    to: Annotated[str, typer.Option(metavar="URI", help="s3:// or file:// place to copy to")] = "s3://rlp/mirror",
    only: Annotated[
        Literal["benchmarks", "all"], typer.Option(help="the evaluation sets alone, or training data and models too")
    ] = "all",
    change: Changes = None,
    endpoint: Endpoint = None,
    runs: Runs = Path("runs"),
    debug: Debug = False,
) -> None:
    """Copy what a profile reads from the Hugging Face hub to storage, once; runs with --mirror then need no hub."""
    settings = load_profile(profile, parse_changes(change or []))
    from pipelines import local
    from pipelines.mirroring import copy_all, pieces

    scratch = local.make_folder(runs, "--runs")
    with local.storage(runs, endpoint):
        copy_all(pieces(settings, benchmarks_only=only == "benchmarks"), to.rstrip("/"), scratch)


@app.command()
def compare(
    uris: Annotated[list[str], typer.Argument(help="runs, each the s3:// place that holds its artifacts")],
    output: Annotated[Path, typer.Option(help="folder for the page")] = Path("comparison"),
    title: Annotated[str, typer.Option(help="title of the page")] = "Comparison of runs",
    endpoint: Endpoint = None,
    runs: Runs = Path("runs"),
) -> None:
    """Read one or more runs (seeds) back from storage and compare their models on one page."""
    from pipelines import local
    from pipelines.comparing import compare_uris
    from rlpretrain.settings import CompareSettings

    local.make_folder(output, "--output")
    with local.storage(runs, endpoint):
        compare_uris(uris, output, CompareSettings(title=title))
    _summarise(output)


def _summarise(report: Path) -> None:
    from rlpretrain.report.build import RESULTS_FILE, summary_lines

    lines = summary_lines(json.loads((report / RESULTS_FILE).read_text(encoding="utf-8")))
    print("\n".join(map(printable, lines)))
    print(f"report: {report / 'index.html'}")


def _summarise_ablations(report: Path) -> None:
    from rlpretrain.report.ablations import ablation_lines
    from rlpretrain.report.results import RESULTS_FILE

    lines = ablation_lines(json.loads((report / RESULTS_FILE).read_text(encoding="utf-8")))
    print("\n".join(map(printable, lines)))
    print(f"page: {report / 'index.html'}")


def main() -> int:
    """Exit code 0; 2 after one line on a user's mistake; 1 after the end of the log when a task broke; 130 when stopped."""
    try:
        return app(standalone_mode=False) or 0
    except typer.Abort:
        return 130
    except UserError as error:
        if "--debug" in sys.argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if hasattr(error, "format_message"):  # the command line's own complaint, of classes that typer moves about
            return _complain(error)
        if type(error).__name__ != "TaskFailed":
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


def _complain(error: Any) -> int:
    """A wrong command, option or argument as one line; without any arguments, the help."""
    message = " ".join(error.format_message().split())
    if message:
        print(f"error: {message.rstrip('.')}; see --help", file=sys.stderr)
    else:
        error.show()
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
