"""What must not come in does not, and what must not get out does not: code in data, names that lead elsewhere, secrets."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlpretrain import storage
from rlpretrain.artifacts import MANIFEST, canonical_digest, file_sha256, write_manifest
from rlpretrain.errors import UserError
from rlpretrain.models import load_model
from rlpretrain.s3server import EmbeddedS3
from tests.rlpretrain.fault_proxy import FaultProxy

ROOT = Path(__file__).parents[1]
ROOMS = ("rlpretrain", "components", "pipelines", "images")
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# Sharding hands its own encoder to its own worker processes, in a file that only this user can open.
PICKLES_ALLOWED = {"rlpretrain/data/tokenising.py"}
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
}
PLANTED = {
    "HF_TOKEN": "hf_plantedsecretplantedsecret",
    "WANDB_API_KEY": "plantedwandbkey0123456789",
    "AWS_SESSION_TOKEN": "",
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def name_of(node: ast.expr) -> str:
    """os.path.join of a call's function; "" for what is no plain name."""
    if isinstance(node, ast.Attribute):
        inner = name_of(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def open_doors(tree: ast.Module, path: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if path not in PICKLES_ALLOWED and PICKLES.intersection(name.partition(".")[0] for name in names):
                yield f"{path}:{node.lineno}: imports {names[0]}"
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        given = {each.arg: getattr(each.value, "value", None) for each in node.keywords}
        if name in CALLS:
            yield f"{path}:{node.lineno}: calls {name}"
        if name == "torch.load" and given.get("weights_only") is not True:
            yield f"{path}:{node.lineno}: torch.load without weights_only=True"
        if name in ("np.load", "numpy.load") and given.get("allow_pickle"):
            yield f"{path}:{node.lineno}: numpy.load with allow_pickle"
        if given.get("shell") or given.get("trust_remote_code"):
            yield f"{path}:{node.lineno}: {name} with shell or trust_remote_code"


def test_no_code_is_run_out_of_data() -> None:
    assert [door for path, tree in sources() for door in open_doors(tree, path)] == []


def test_the_search_finds_what_it_looks_for() -> None:
    text = "import pickle\neval('1')\ntorch.load(f)\nyaml.load(f)\nsubprocess.run(c, shell=True)\nnp.load(f, allow_pickle=True)"
    assert len(list(open_doors(ast.parse(text), "here"))) == 6
    assert not list(open_doors(ast.parse("torch.load(f, weights_only=True)\nmodel.eval()\nre.compile('a')"), "here"))


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 8}'
    )
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    with pytest.raises(UserError, match="cannot load"):
        load_model(tmp_path)


HOSTILE = [
    *("../x", "a/../../x", "/etc/x", "..", "~/../x", "a//b", "./x", "a/", "a\0b", "a\nb", "\x1b[2Jx", "..\\x"),
    *(
        "C:\\x",
        "C:x",
        "a\\b",
        "con",
        "a/nul.txt",
        "x:stream",
        MANIFEST,
        f"{MANIFEST}/x",
        f".{MANIFEST}.partial",
        "\ud800",
    ),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_in_a_manifest_leaves_its_folder(s3_bucket: str, tmp_path: Path, name: str) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "file").write_text("1")
    value = json.loads(write_manifest(made, kind="shards", settings={}, inputs={}, seed=0, facts={}).content())
    value["files"] = {name: value["files"]["file"]}
    value["digest"] = canonical_digest({key: each for key, each in value.items() if key not in ("digest", "volatile")})
    (made / MANIFEST).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    storage.connect(f"{s3_bucket}/it").put_file(MANIFEST, made / MANIFEST, file_sha256(made / MANIFEST))
    with pytest.raises(UserError, match="leaves its folder"):
        storage.download_folder(f"{s3_bucket}/it", tmp_path / "inner" / "back")
    assert not (tmp_path / "inner" / "back").exists()


@pytest.mark.parametrize("key", ["../x", "/x", "a/../../x", "C:x", "a\\x"])
def test_no_key_that_a_server_lists_leaves_its_folder(
    s3: EmbeddedS3, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    (tmp_path / "file").write_text("1")
    storage.connect(f"{s3_bucket}/raw").put_file("named", tmp_path / "file", file_sha256(tmp_path / "file"))
    with FaultProxy(s3.endpoint) as proxy:
        proxy.rewrite = lambda body: body.replace(b"<Key>raw/named<", f"<Key>raw/{key}<".encode())
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        with pytest.raises(UserError, match="leaves its folder"):
            storage.download_files(f"{s3_bucket}/raw", tmp_path / "inner" / "back")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["back", "file", "inner"]


def test_a_link_in_the_way_is_not_followed(s3_bucket: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    (tmp_path / "secret").mkdir()
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "deep").symlink_to(tmp_path / "secret")
    storage.connect(f"{s3_bucket}/raw").put_file("deep/x", tmp_path / "file", file_sha256(tmp_path / "file"))
    with pytest.raises(UserError, match="leaves its folder"):
        storage.download_files(f"{s3_bucket}/raw", tmp_path / "back")
    assert not list((tmp_path / "secret").iterdir())


def test_no_secret_of_the_environment_gets_out(s3: EmbeddedS3, s3_bucket: str, tmp_path: Path) -> None:
    """A stage that works and one that fails with a traceback, then everything they said and left, here and in storage, is searched."""
    settings = {
        "sources": [{"name": "mini", "kind": "generator", "generator": "mini_documents", "documents": 8}],
        "tokenizer": {"name": "builtin:characters"},
        "workers": 1,
        "held_out_fraction": 0.5,
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    password = {"AWS_ENDPOINT_URL_S3": "http://user:plantedpassword@127.0.0.1:1", "RLP_DEBUG": "1"}
    cases = {"works": (PLANTED, f"{s3_bucket}/it"), "fails": (PLANTED | password, f"{s3_bucket}/other")}
    said = {}
    for name, (changes, uri) in cases.items():
        command = [sys.executable, "-m", "components.shard_data", "--settings", str(tmp_path / "settings.json")]
        command += ["--output", str(tmp_path / "out" / name), "--publish", uri]
        environment = {**os.environ, "AWS_MAX_ATTEMPTS": "1", **changes}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        said[name] = done.stdout + done.stderr
    assert "digest" in said["works"] and "Traceback" in said["fails"] and "***@" in said["fails"]
    storage.download_folder(f"{s3_bucket}/it", tmp_path / "out" / "stored")
    left = {str(path): path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert len(left) > 5
    secrets = ["planted", *filter(None, (PLANTED["HF_TOKEN"], s3.secret_key))]
    for secret in secrets:
        assert [name for name, text in said.items() if secret in text] == []
        assert [path for path, content in left.items() if secret.encode() in content] == []


def test_a_config_that_fits_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 9, "num_attention_heads": 2}')
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot load"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2}')
    with pytest.raises(UserError, match="cannot load"):
        load_model(tmp_path)
