"""The map of images: what compiled pipelines name, and mistakes in one line."""

from pathlib import Path

import pytest

from components import images
from components.images import VARIABLE, Image, ImageMap, map_file, read_map, repository, write_map
from rlpretrain.errors import UserError

DIGEST = f"sha256:{'a1' * 32}"


def test_an_image_is_named_by_its_digest_once_a_registry_has_it() -> None:
    assert Image(reference="a/data:dev").pinned() == "a/data:dev"
    assert Image(reference="host:5000/a/data:dev", digest=DIGEST).pinned() == f"host:5000/a/data@{DIGEST}"


@pytest.mark.parametrize(
    ("reference", "name"),
    [("a:1", "a"), ("host:5000/a", "host:5000/a"), ("host:5000/a/b:1", "host:5000/a/b"), ("a", "a")],
)
def test_a_repository_is_a_reference_without_its_tag(reference: str, name: str) -> None:
    assert repository(reference) == name


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    kept = ImageMap(base=f"python@{DIGEST}", images={"data": Image(reference="a/data:dev", digest=DIGEST)})
    write_map(kept, tmp_path / "images.yaml")
    assert read_map(tmp_path / "images.yaml") == kept


def test_the_projects_own_file_is_as_it_would_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    write_map(read_map(map_file()), tmp_path / "images.yaml")
    assert (tmp_path / "images.yaml").read_text() == map_file().read_text()


def test_a_variable_names_another_map(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_map(
        ImageMap(base=None, images={"data": Image(reference="mine/data:1", digest=DIGEST)}), tmp_path / "mine.yaml"
    )
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine.yaml"))
    assert images.image.__wrapped__("data") == f"mine/data@{DIGEST}"
    with pytest.raises(UserError, match="has no image 'train'"):
        images.image.__wrapped__("train")


def test_a_missing_or_malformed_map_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_map(tmp_path / "none.yaml")
    (tmp_path / "odd.yaml").write_text("images: {data: mine}")
    with pytest.raises(UserError, match="not a map of images"):
        read_map(tmp_path / "odd.yaml")
