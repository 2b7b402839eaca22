"""The hub's data and models copied once to storage by the real clients from a hub on loopback, then read without a hub."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.frame import run_stage
from pipelines.mirroring import mirrored, pieces
from pipelines.profile import Profile, load_profile
from rlpretrain.artifacts import MANIFEST, file_sha256, verify
from rlpretrain.data.shards import read_shards
from rlpretrain.errors import UserError
from rlpretrain.models import new_model, save_model
from rlpretrain.settings import ArchitectureSettings
from rlpretrain.storage import connect, download_folder, list_artifacts, upload_folder
from rlpretrain.tokenizer import load_tokenizer
from tests.hub_server import COMMIT, TOKEN, Hub, serve

ROOT = Path(__file__).parents[2]
README = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train.jsonl}
  - {split: test, path: main/test.jsonl}
---
"""
pytestmark = pytest.mark.timeout(600)


def write_data_set(folder: Path, words: str) -> Path:
    (folder / "main").mkdir(parents=True)
    (folder / "README.md").write_text(README)
    for split in ("train", "test"):
        rows = [{"question": f"{words} {split} {n}?", "answer": f"So\n#### {n}", "note": None} for n in range(6)]
        (folder / "main" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    tokenizer = load_tokenizer("builtin:characters")
    shape = ArchitectureSettings(layers=1, width=16, heads=2, key_value_heads=1, feed_forward=16)
    save_model(new_model(shape, tokenizer, 0), tokenizer, folder / "model")
    (folder / "model" / "pytorch_model.bin").write_bytes(b"a pickle")
    repositories = {
        ("datasets", "a/sums"): write_data_set(folder / "sums", "sum"),
        ("datasets", "a/secret"): write_data_set(folder / "secret", "secret"),
        ("models", "a/model"): folder / "model",
    }
    with serve(Hub(repositories, gated={"a/secret"})) as server:
        yield server


def source(dataset: str = "a/sums", split: str = "test", revision: str = COMMIT) -> dict[str, Any]:
    given = {"name": f"{dataset[2:]}-{split}", "kind": "huggingface", "dataset": dataset, "revision": revision}
    return given | {"subset": "main", "split": split, "conversion": "gsm8k"}


def changes(**sources: list[dict[str, Any]]) -> dict[str, Any]:
    """What makes profile tiny read from the hub."""
    found: dict[str, Any] = {f"{task}.sources": value for task, value in sources.items()}
    if sources:
        tasks = ("shard_benchmarks", "shard_base_corpus", "shard_corpus", "shard_sft", "shard_rlvr")
        found |= {f"{task}.tokenizer": {"name": "a/model", "revision": COMMIT} for task in tasks}
        found |= {"base.initial_model": "a/model", "base.initial_revision": COMMIT}
    return found


def pipelines(
    hub: Hub, folder: Path, command: str, given: dict[str, Any], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command line on profile tiny with these changes; its clients ask ``hub``."""
    pairs = [word for name, value in given.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    called = [sys.executable, "-m", "pipelines", command, "--profile", "tiny", *pairs, *arguments]
    variables = {**os.environ, **hub.environment(folder / "home"), "HF_TOKEN": "", **environment}
    variables["AWS_ENDPOINT_URL_S3"] = "http://127.0.0.1:9"  # these places are folders: no server need start
    return subprocess.run(
        [*called, "--runs", str(folder / "runs")], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300
    )


GIVEN = changes(shard_benchmarks=[source()], shard_rlvr=[source(split="train")])
PLACES = [
    f"datasets/a/sums/{COMMIT}/main/test",
    f"datasets/a/sums/{COMMIT}/main/train",
    f"models/a/model/{COMMIT}",
    f"tokenizers/a/model/{COMMIT}",
]


@pytest.fixture(scope="module")
def mirror(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `mirror` has filled: first with the benchmarks alone, then with the rest."""
    folder = tmp_path_factory.mktemp("mirror")
    place = ("--to", f"file://{folder}/m")
    first = pipelines(hub, folder, "mirror", GIVEN, *place, "--only", "benchmarks")
    assert first.returncode == 0, first.stderr
    assert f"{PLACES[0]}: 6 rows" in first.stdout and "train" not in first.stdout
    hub.asked.clear()
    second = pipelines(hub, folder, "mirror", GIVEN, *place)
    assert second.returncode == 0, second.stderr
    assert f"{PLACES[0]}: there already" in second.stdout and f"{PLACES[1]}: 6 rows" in second.stdout
    return folder / "m"


def profile_from(place: str) -> Profile:
    return mirrored(load_profile("tiny", GIVEN), place)


def test_every_piece_is_an_artifact_of_its_own_that_says_where_it_came_from(mirror: Path) -> None:
    assert list_artifacts(f"file://{mirror}") == [f"file://{mirror}/{place}" for place in PLACES]
    for place in PLACES:
        manifest = verify(mirror / place, "mirror")
        assert manifest.facts["commit"] == manifest.settings["revision"] == COMMIT
        assert not any(name.endswith(".bin") for name in manifest.files)
    assert "model.safetensors" in verify(mirror / PLACES[2]).files
    assert "model.safetensors" not in verify(mirror / PLACES[3]).files
    with gzip.open(mirror / PLACES[0] / "rows-00000.jsonl.gz", "rt") as rows:
        assert json.loads(rows.readline()) == {"question": "sum test 0?", "answer": "So\n#### 0", "note": None}


def test_a_branch_is_asked_for_once_and_read_at_the_commit_that_it_was(hub: Hub, tmp_path: Path) -> None:
    """It may move between two readings, and the splits, or tokenizer and model, would not belong together."""
    sources = [[source(split=split, revision="main")] for split in ("test", "train")]
    given = changes(shard_benchmarks=sources[0], shard_rlvr=sources[1]) | {"base.initial_revision": "main"}
    given |= {name: value | {"revision": "main"} for name, value in given.items() if name.endswith(".tokenizer")}
    hub.asked.clear()
    done = pipelines(hub, tmp_path, "mirror", given, "--to", f"file://{tmp_path}/m")
    assert done.returncode == 0, done.stderr
    by_name = [line for line in hub.asked if re.search(r"/(revision|tree|paths-info|resolve)/main(/|$)", line)]
    assert by_name == ["GET /api/datasets/a/sums/revision/main", "GET /api/models/a/model/revision/main"]
    for place in PLACES:
        manifest = verify(tmp_path / "m" / place.replace(COMMIT, "main"), "mirror")
        assert (manifest.settings["revision"], manifest.facts["commit"]) == ("main", COMMIT)


def test_what_is_there_is_not_fetched_again(hub: Hub, mirror: Path, tmp_path: Path) -> None:
    hub.asked.clear()
    done = pipelines(hub, tmp_path, "mirror", GIVEN, "--to", f"file://{mirror}")
    assert done.stdout.count("there already") == len(PLACES)
    assert not [line for line in hub.asked if "a/" in line]


def test_stages_read_the_mirror_without_a_hub(hub: Hub, mirror: Path, tmp_path: Path) -> None:
    """The very shards that the hub gives, and the model; this process's clients are offline."""
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    profile = profile_from(f"file://{mirror}")
    kept = profile.shard_benchmarks.sources[0]
    assert (kept.dataset, kept.subset, kept.revision, kept.conversion) == ("a/sums", "main", COMMIT, "gsm8k")
    settings = profile.shard_benchmarks.model_dump(mode="json")
    run_stage("shard_data", settings, {}, tmp_path / "offline")

    online = load_profile("tiny", GIVEN).shard_benchmarks.model_dump(mode="json")
    online["sources"][0]["revision"] = online["tokenizer"]["revision"] = "main"
    (tmp_path / "online.json").write_text(json.dumps(online))
    command = [sys.executable, "-m", "components.shard_data", "--settings", str(tmp_path / "online.json")]
    variables = {**os.environ, **hub.environment(tmp_path / "home")}
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "online")], cwd=ROOT, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    offline = verify(tmp_path / "offline")
    assert offline.facts["origins"]["tokenizer"] == origin(mirror, PLACES[3])
    origins = verify(tmp_path / "online").facts["origins"]
    assert origins["sums-test"] == {"dataset": "a/sums", "revision": COMMIT}, "what main was"
    assert origins["tokenizer"] == {"model": "a/model", "revision": COMMIT}
    names = [name for name in offline.files if name.endswith(".parquet")]
    assert names
    for name in names:
        assert (tmp_path / "offline" / name).read_bytes() == (tmp_path / "online" / name).read_bytes()
    assert [item.answer for item in read_shards(tmp_path / "offline", "test")] == list("012345")

    corpus = {"sources": [{"name": "c", "kind": "generator", "generator": "mini_documents", "documents": 4}]}
    corpus["tokenizer"] = settings["tokenizer"]  # type: ignore[assignment]
    run_stage("shard_data", corpus, {}, tmp_path / "corpus")
    base = profile.base.model_dump(mode="json") | {"likelihood": {"steps": 0}}
    run_stage("pretrain", base, {"shards": tmp_path / "corpus"}, tmp_path / "base")
    ours, theirs = (folder / "model.safetensors" for folder in (tmp_path / "base" / "model", mirror / PLACES[2]))
    assert ours.read_bytes() == theirs.read_bytes()
    made = verify(tmp_path / "base", "checkpoint")
    assert made.facts["origins"] == {"initial_model": origin(mirror, PLACES[2])}
    (tmp_path / "base.json").write_text(json.dumps(base | {"initial_model": "a/model", "initial_revision": "main"}))
    command = [sys.executable, "-m", "components.pretrain", "--settings", str(tmp_path / "base.json")]
    command += ["--input", f"shards={tmp_path / 'corpus'}", "--output", str(tmp_path / "base-online")]
    subprocess.run(command, cwd=ROOT, env=variables, check=True)
    made = verify(tmp_path / "base-online", "checkpoint")
    assert made.facts["origins"] == {"initial_model": {"model": "a/model", "revision": COMMIT}}

    rpt = profile.rpt.model_dump(mode="json")
    rpt["thinking"] |= {"steps": 1, "proxy": {"model": f"file://{mirror}/{PLACES[2]}"}}
    run_stage("pretrain", rpt, {"shards": tmp_path / "corpus", "checkpoint": tmp_path / "base"}, tmp_path / "rpt")
    assert verify(tmp_path / "rpt").facts["origins"] == {"proxy": origin(mirror, PLACES[2])}


def origin(mirror: Path, place: str) -> dict[str, str]:
    """What a manifest tells of a model or tokenizer that was loaded from the mirror."""
    return {"artifact": f"file://{mirror}/{place}", "digest": verify(mirror / place).digest}


def test_a_mirror_in_s3_and_rows_that_were_changed_there(mirror: Path, s3_bucket: str, tmp_path: Path) -> None:
    for place in PLACES:
        upload_folder(mirror / place, f"{s3_bucket}/m/{place}")
    settings = profile_from(f"{s3_bucket}/m").shard_benchmarks.model_dump(mode="json")
    assert settings["sources"][0]["path"] == f"{s3_bucket}/m/{PLACES[0]}"
    run_stage("shard_data", settings, {}, tmp_path / "good")
    download_folder(f"{s3_bucket}/m/{PLACES[0]}", tmp_path / "copy")
    rows = tmp_path / "copy" / "rows-00000.jsonl.gz"
    rows.write_bytes(gzip.compress(b'{"question": "other?", "answer": "#### 9"}\n'))
    connect(f"{s3_bucket}/m/{PLACES[0]}").put_file(rows.name, rows, file_sha256(rows))
    with pytest.raises(UserError, match="is corrupted, its checksum is not the manifest's"):
        run_stage("shard_data", settings, {}, tmp_path / "bad")


def test_what_the_mirror_lacks_stays_with_the_hub_and_is_named(
    mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mirror / PLACES[1] / MANIFEST).rename(mirror / "aside")
    try:
        profile = profile_from(f"file://{mirror}")
    finally:
        (mirror / "aside").rename(mirror / PLACES[1] / MANIFEST)
    assert profile.shard_rlvr.sources[0].kind == "huggingface"
    assert profile.shard_benchmarks.sources[0].kind == "jsonl"
    assert f"lacks, and the hub is asked for: {PLACES[1]}" in capsys.readouterr().out


def test_the_corpora_of_ablations_are_mirrored_too_and_asked_for_where_they_are_read(
    hub: Hub, mirror: Path, tmp_path: Path
) -> None:
    corpus = {"default": "ours", "others": {"sums": {"sources": [source(split="train")]}}}
    given = {"ablations.corpus": corpus}
    profile = load_profile("tiny", given)
    assert [piece.place for piece in pieces(profile)] == [PLACES[1]]
    read = mirrored(profile, f"file://{mirror}").ablations
    assert read is not None and read.corpus is not None
    [settings] = read.corpus.others["sums"]["sources"]
    assert settings["kind"] == "jsonl" and settings["path"] == f"file://{mirror}/{PLACES[1]}"
    lacking = {"ablations.corpus": {**corpus, "others": {"sums": {"sources": [source("a/none")]}}}}
    artifacts = ("--artifacts", f"file://{tmp_path}/artifacts")
    done = pipelines(hub, tmp_path, "ablate", lacking, *artifacts, "--sweeps", "corpus")
    assert done.returncode == 2 and "a/none" in done.stderr and done.stderr.count("\n") == 1


def test_a_gated_set_needs_a_token_and_is_never_printed(hub: Hub, tmp_path: Path) -> None:
    given = {"shard_benchmarks.sources": [source(), source("a/secret")]}
    to = ("--to", f"file://{tmp_path}/m")
    done = pipelines(hub, tmp_path, "mirror", given, *to)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: source 'secret-test': data set a/secret is gated; accept its terms on its page, then set HF_TOKEN to a "
        "token that may read it"
    )
    assert not list_artifacts(f"file://{tmp_path}/m")  # told before anything is fetched
    done = pipelines(hub, tmp_path, "mirror", given, *to, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert f"datasets/a/secret/{COMMIT}/main/test: 6 rows" in done.stdout
    assert "secret test" not in done.stdout + done.stderr and TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shard_corpus.sources": [source("a/nothing")]}, "source 'nothing-test': the hub has no data set a/nothing;"),
        ({"shard_corpus.sources": [source(revision="v9")]}, "source 'sums-test': data set a/sums has no revision v9;"),
        ({"base.initial_model": "a/other"}, "base.initial_model: the hub has no model a/other, and there is no such"),
    ],
)
def test_what_the_hub_lacks_is_told_before_a_run(hub: Hub, tmp_path: Path, given: dict[str, Any], words: str) -> None:
    arguments = ("--name", "mistake", "--artifacts", f"file://{tmp_path}/a")
    done = pipelines(hub, tmp_path, "run", given, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {words}") and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs" / "mistake").exists()


def test_a_hub_out_of_reach_has_a_line_that_names_the_mirror(hub: Hub, tmp_path: Path) -> None:
    away = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    given = changes(shard_rlvr=[source(split="train")])
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = pipelines(hub, tmp_path, "run", given, "--artifacts", f"file://{tmp_path}/a", **away, **more)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "source 'sums-train': data set a/sums is read from the Hugging Face hub, which cannot be" in done.stderr
        assert "run `python -m pipelines mirror`" in done.stderr and "--mirror" in done.stderr


def test_pieces_are_named_once_and_the_benchmarks_first() -> None:
    paper = load_profile("qwen3-1.7b")
    found = list(pieces(paper))
    assert [piece.name for piece in found[:8]] == [str(item.dataset) for item in paper.shard_benchmarks.sources]
    assert list(pieces(paper, benchmarks_only=True)) == found[:8]
    assert len({piece.place for piece in found}) == len(found)
    assert [(piece.kind, piece.name) for piece in found[-2:]] == [
        ("tokenizer", "Qwen/Qwen3-1.7B-Base"),
        ("model", "Qwen/Qwen3-1.7B-Base"),
    ]
