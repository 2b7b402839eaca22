"""Submit, status and schedule against a server that speaks the API of Kubeflow Pipelines; see kfp_server.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp.client import Client
from typer.testing import CliRunner

from pipelines import commands
from pipelines.__main__ import app
from pipelines.kubeflow import ENDPOINT_ENV, TOKEN_ENV, TOKEN_FILE_ENV, Server, Version
from pipelines.schedules import load_schedule, schedule_files
from pipelines.versions import version_name
from rlpretrain.errors import UserError
from tests.pipelines.kfp_server import KfpServer

FOLDER = Path(__file__).parents[2] / "pipelines" / "clusters"
TOKEN = "a-token-that-nobody-sees"


@pytest.fixture
def kfp_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    for name in (ENDPOINT_ENV, TOKEN_ENV, TOKEN_FILE_ENV, "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "no-context.json"))
    server = KfpServer()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cluster(kfp_server: KfpServer, tmp_path: Path) -> Path:
    """A cluster's file whose endpoint is the server."""
    values = yaml.safe_load((FOLDER / "eks.yaml").read_text()) | {"endpoint": kfp_server.address}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def version() -> Version:
    return commands._version("tiny", "base,rlp", {}, None, FOLDER / "eks.yaml")


@pytest.fixture
def compiled(version: Version, monkeypatch: pytest.MonkeyPatch) -> Version:
    """The commands take the pipeline that was compiled once: what they do with it is what is tested."""
    monkeypatch.setattr(commands, "_version", lambda *_: version)
    return version


def command(*arguments: str) -> Any:
    done = CliRunner().invoke(app, list(arguments))
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def submit(cluster: Path, *more: str) -> Any:
    return command("submit", "--profile", "tiny", "--cluster", str(cluster), *more)


def test_a_run_is_submitted_once(kfp_server: KfpServer, cluster: Path, compiled: Version) -> None:
    said = submit(cluster, "--name", "nightly", "--seed", "3").output
    (run,) = kfp_server.runs.values()
    assert said.startswith(f"run nightly: submitted as version {compiled.name}") and run.run_id in said
    assert run.runtime_config.parameters == {"run_name": "nightly", "seed": 3}
    assert run.runtime_config.pipeline_root == "s3://example-rlp/kfp" and run.service_account == "rlp-runner"
    (stored,) = kfp_server.versions.values()
    assert stored.display_name == compiled.name and stored.pipeline_spec == compiled.definition
    again = submit(cluster, "--name", "nightly", "--seed", "3").output
    assert f"run nightly: is there already (PENDING, id {run.run_id}), not submitted again" in again
    assert "another value" not in again
    other = submit(cluster, "--name", "nightly", "--seed", "4").output
    assert "not submitted again\nthat run was given another value of: seed\n" in other
    assert len(kfp_server.runs) == 1


def test_pipeline_and_version_are_uploaded_once_for_all_runs(
    kfp_server: KfpServer, cluster: Path, compiled: Version
) -> None:
    submit(cluster, "--name", "one")
    submit(cluster, "--name", "two")
    assert len(kfp_server.pipelines) == len(kfp_server.versions) == 1 and len(kfp_server.runs) == 2
    assert len({run.pipeline_version_reference.pipeline_version_id for run in kfp_server.runs.values()}) == 1
    assert next(iter(kfp_server.pipelines.values())).display_name == "rlp-reproduction-tiny"


def test_a_run_without_a_name_is_called_by_what_it_runs(
    kfp_server: KfpServer, cluster: Path, compiled: Version
) -> None:
    submit(cluster)
    submit(cluster)
    submit(cluster, "--seed", "1")
    assert sorted(run.display_name for run in kfp_server.runs.values()) == [
        f"{compiled.name}-s0",
        f"{compiled.name}-s1",
    ]


def test_a_mistake_is_told_before_the_server_is_asked(kfp_server: KfpServer, cluster: Path) -> None:
    with pytest.raises(UserError, match=r"--name ../up: use up to 63 lower-case letters"):
        submit(cluster, "--name", "../up")
    with pytest.raises(UserError, match="<nope>"):
        submit(cluster, "--set", "rlp.thinking.thought.open=<nope>")
    assert not kfp_server.runs


def test_a_pool_is_chosen_for_one_run(kfp_server: KfpServer, cluster: Path, compiled: Version) -> None:
    submit(cluster, "--param", "train_pool_count=4", "--param", "train_pool_node_selector={pool: big}")
    (run,) = kfp_server.runs.values()
    assert run.runtime_config.parameters["train_pool_count"] == "4"
    assert run.runtime_config.parameters["train_pool_node_selector"] == {"pool": "big"}
    with pytest.raises(UserError, match="unknown run parameter 'train_pool_gpus'; known: artifacts_uri"):
        submit(cluster, "--name", "other", "--param", "train_pool_gpus=4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--param", "train_pool_node_selector=big"), "'train_pool_node_selector' takes a mapping.* \\(given: big\\)"),
        (("--param", "train_pool_tolerations={key: gpu}"), "'train_pool_tolerations' takes a list"),
        (("--param", "rlp=4"), "run parameter 'rlp' takes a mapping"),
        (("--param", "artifacts_uri="), "run parameter 'artifacts_uri' takes text \\(given: None\\)"),
        (("--param", "train_pool_count=true"), "run parameter 'train_pool_count' takes text \\(given: True\\)"),
        (("--param", "run_name=../up"), r"--param run_name=../up: use up to 63 lower-case letters"),
        (("--param", "seed=7"), "--param seed: give it as --seed"),
        (
            ("--seed", "2147483647", "--param", "rlp={seed: 1}"),
            "run parameter seed 2147483647: .* from 0 to 2147483647",
        ),
    ],
)
def test_a_parameter_that_takes_no_such_value_is_told_before_the_server_is_asked(
    kfp_server: KfpServer, cluster: Path, compiled: Version, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        submit(cluster, *arguments)
    assert not kfp_server.requests


def test_status_lists_runs_and_a_runs_tasks(kfp_server: KfpServer, cluster: Path, compiled: Version) -> None:
    submit(cluster, "--name", "one", "--param", "artifacts_uri=s3://mine/runs")
    submit(cluster, "--name", "two")
    first = next(iter(kfp_server.runs))
    kfp_server.end(first, "FAILED", {"train-base": "SUCCEEDED", "pretrain-rlp": "FAILED"})
    listed = command("status", "--cluster", str(cluster)).output.splitlines()
    assert [line.split()[-1] for line in listed] == ["two", "one"] and listed[1].startswith("FAILED")
    said = command("status", "one", "--cluster", str(cluster)).output
    assert said.splitlines() == [
        f"run one: FAILED, id {first}",
        "  train-base: SUCCEEDED",
        "  pretrain-rlp: FAILED",
        "artifacts: s3://mine/runs/one",
    ]
    with pytest.raises(UserError, match="no run 'three' in experiment 'rlp'"):
        command("status", "three", "--cluster", str(cluster))


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1)])
def test_a_watched_run_ends_as_the_run_does(
    kfp_server: KfpServer, cluster: Path, compiled: Version, state: str, code: int
) -> None:
    submit(cluster, "--name", "one")
    kfp_server.end(next(iter(kfp_server.runs)), state, {"compare": state})
    done = command("status", "one", "--watch", "--every", "0.1", "--cluster", str(cluster))
    assert done.exit_code == code
    assert done.output.splitlines()[:2] == [f"compare: {state}", f"run one: {state}"]


def test_a_watch_says_what_changes_and_nothing_twice(kfp_server: KfpServer, cluster: Path, version: Version) -> None:
    server = Server(commands.load_cluster(cluster))
    run, started = server.submit("one", version, {"run_name": "one"})
    assert started
    steps = [("RUNNING", {"a": "RUNNING"}), ("RUNNING", {"a": "RUNNING"}), ("SUCCEEDED", {"a": "SUCCEEDED"})]
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)

    get_run = server.client.get_run

    def advance(run_id: str) -> Any:
        kfp_server.end(run_id, *steps.pop(0))
        return get_run(run_id)

    server.client.get_run = advance
    assert server.watch(run, say, 0.0).state == "SUCCEEDED"
    assert said == ["a: RUNNING", "a: SUCCEEDED"]


def schedule_file(folder: Path, **changes: Any) -> Path:
    values = {"profile": "tiny", "arms": "base,rlp", "cron": "0 3 * * 1", "cluster": "mine.yaml", **changes}
    path = folder / "weekly.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_schedule_is_made_once_and_replaced_when_it_changes(
    kfp_server: KfpServer, cluster: Path, compiled: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = schedule_file(cluster.parent)
    assert "schedule weekly: created, '0 3 * * 1', version" in command("schedule", str(path)).output
    ((first, recurring),) = kfp_server.recurring.items()
    assert recurring.trigger.cron_schedule.cron == "0 0 3 * * 1", "Kubeflow counts seconds first"
    assert (recurring.max_concurrency, recurring.no_catchup, recurring.mode) == ("1", True, "ENABLE")
    assert recurring.runtime_config.parameters["run_name"] == f"weekly-{compiled.name}-s0"
    assert "weekly: unchanged" in command("schedule", str(path)).output
    assert list(kfp_server.recurring) == [first]

    newer = Version("tiny-newer", compiled.text.replace("s3://example-rlp/runs", "s3://example-rlp/more"))
    monkeypatch.setattr(commands, "_version", lambda *_: newer)
    assert "weekly: replaced" in command("schedule", str(path)).output
    ((second, recurring),) = kfp_server.recurring.items()
    assert second != first and recurring.display_name == "weekly"
    changes = [one for one in kfp_server.requests if "recurringruns" in one and not one.startswith("GET")]
    root = "/apis/v2beta1/recurringruns"
    assert changes[1:] == [f"POST {root}/{first}:disable", f"POST {root}", f"DELETE {root}/{first}"]

    path = schedule_file(cluster.parent, cron="0 4 * * 1", enabled=False, parameters={"seed": 7})
    assert "weekly: replaced" in command("schedule", str(path)).output
    (recurring,) = kfp_server.recurring.values()
    assert recurring.mode == "DISABLE" and recurring.runtime_config.parameters["seed"] == 7
    # The results of seed 0 have taken the other place.
    assert recurring.runtime_config.parameters["run_name"] == "weekly-tiny-newer-s7"


def test_a_schedule_that_cannot_be_replaced_goes_on(kfp_server: KfpServer, cluster: Path, compiled: Version) -> None:
    command("schedule", str(schedule_file(cluster.parent)))
    kfp_server.broken = "POST /apis/v2beta1/recurringruns"
    with pytest.raises(UserError, match="answered 500: Internal error: the database is away"):
        command("schedule", str(schedule_file(cluster.parent, cron="0 4 * * 1")))
    (recurring,) = kfp_server.recurring.values()
    assert recurring.mode == "ENABLE" and recurring.trigger.cron_schedule.cron == "0 0 3 * * 1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cron": "0 0 3 * * 1"}, "needs five fields"),
        ({"cron": "0 3 * * 7"}, "cron: .*'7' is no weekday; use 0 to 6, or sun to sat"),
        ({"profil": "tiny"}, "unknown setting 'profil'"),
        ({"cluster": "other.yaml"}, "other.yaml does not exist"),
        ({"profile": "nope"}, "unknown profile 'nope'"),
        ({"arms": "rpl,base"}, "unknown arm 'rpl'"),
    ],
)
def test_a_mistake_in_a_schedule_is_one_line(
    kfp_server: KfpServer, cluster: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        command("schedule", str(schedule_file(cluster.parent, **changes)))
    assert not kfp_server.requests


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sede": 1}, "unknown run parameter 'sede'"),
        ({"seed": "one"}, "run parameter 'seed' takes a whole number \\(given: one\\)"),
        ({"seed": -1}, "run parameter seed -1: a stage's seed, its settings' own added, goes from 0"),
        ({"run_name": "Weekly"}, "schedule weekly: parameters.run_name Weekly: use up to 63 lower-case letters"),
    ],
)
def test_a_mistake_in_a_schedules_parameters_is_one_line(
    kfp_server: KfpServer, cluster: Path, compiled: Version, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        command("schedule", str(schedule_file(cluster.parent, parameters=parameters)))
    assert not kfp_server.requests


def test_the_checked_in_schedules_hold_together() -> None:
    for path in schedule_files():
        schedule, cluster = load_schedule(path)
        commands.load_cluster(cluster)
        commands.load_profile(schedule.profile, schedule.set)


def test_the_token_is_used_and_never_shown(
    kfp_server: KfpServer, cluster: Path, compiled: Version, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kfp_server.token = TOKEN
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    assert TOKEN not in submit(cluster, "--name", "one").output
    monkeypatch.setenv(TOKEN_ENV, "another-token")
    with pytest.raises(UserError) as raised:
        submit(cluster, "--name", "two")
    assert f"refused the token (401); set {TOKEN_ENV}" in str(raised.value)
    assert "another-token" not in str(raised.value)
    monkeypatch.delenv(TOKEN_ENV)
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv(TOKEN_FILE_ENV, str(tmp_path / "token"))
    submit(cluster, "--name", "three")
    assert len(kfp_server.runs) == 2


def test_a_server_that_is_not_there_or_is_another(
    kfp_server: KfpServer, cluster: Path, compiled: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp_server.page = True
    with pytest.raises(UserError, match="answers with a web page, not with the API"):
        submit(cluster)
    monkeypatch.setenv(ENDPOINT_ENV, "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9 cannot be reached \(Connection refused\)"):
        submit(cluster)
    monkeypatch.delenv(ENDPOINT_ENV)
    cluster.write_text(yaml.safe_dump(yaml.safe_load(cluster.read_text()) | {"endpoint": None}))
    with pytest.raises(UserError, match="no server: name the cluster's 'endpoint' or 'context'"):
        submit(cluster)


def test_what_the_server_refuses_is_told_in_its_words(
    kfp_server: KfpServer, cluster: Path, compiled: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(cluster, "--name", "one")
    monkeypatch.setattr(Server, "ensure_version", lambda *_: ("a-pipeline", "a-version", False))
    with pytest.raises(UserError, match="answered 404: Pipeline version not found"):
        submit(cluster, "--name", "two")
    monkeypatch.setenv(ENDPOINT_ENV, f"{kfp_server.address}/elsewhere")
    with pytest.raises(UserError, match="/elsewhere answered 404: Not Found"):
        submit(cluster, "--name", "two")


def test_an_unknown_profile_is_told_before_the_server_is_asked(kfp_server: KfpServer, cluster: Path) -> None:
    with pytest.raises(UserError, match="unknown profile 'nope'"):
        command("submit", "--profile", "nope", "--cluster", str(cluster))
    assert not kfp_server.requests


def test_versions_are_named_by_commit_and_by_what_was_compiled() -> None:
    one, other = version_name("tiny", "a"), version_name("tiny", "b")
    assert one != other and one == version_name("tiny", "a")
    assert one.startswith("tiny-") and one.rpartition("-")[0] == other.rpartition("-")[0]
