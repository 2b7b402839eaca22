"""A key that stands twice in a file is told with its lines; anchors and merge keys work as in all YAML."""

from pathlib import Path

import pytest
import yaml

from rlpretrain.errors import UserError
from rlpretrain.settings import FinetuneSettings, load_settings
from rlpretrain.strict_yaml import read_yaml


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3", "key 'c' stands twice, in line 3 and in line 5; keep one"),
        ("- {a: 1}\n- {a: 1, 'a': 1}", "key 'a' stands twice, in line 2 and in line 2"),
        ("shared: &it {a: 1, a: 2}\nother: *it", "key 'a' stands twice"),
    ],
)
def test_a_key_that_stands_twice(text: str, words: str) -> None:
    with pytest.raises(yaml.YAMLError, match=words):
        read_yaml(text)


@pytest.mark.parametrize(
    "text",
    [
        "{a: 1, b: {a: 2}, c: [{a: 1}, {a: 2}], 1: x, '1': y}",
        "base: &base {a: 1, b: 2}\none: &one {<<: *base, b: 3}\ntwo: {<<: *one, a: 4, b: 5}\nthree: {<<: [*one, *base], a: 0}",
        "base: &base {a: &a [1, 2]}\nmany: [*a, *a, *base, *base]",
        "[1, two, null]",
        "",
    ],
)
def test_all_else_is_read_as_yaml_is(text: str) -> None:
    assert read_yaml(text) == yaml.safe_load(text)


def test_nothing_is_made_of_python() -> None:
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        read_yaml("a: !!python/object/apply:os.getcwd []")


def test_files_of_settings_are_read_so(tmp_path: Path) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text("seed: 1\nlikelihood: {steps: 1}\nseed: 2\n")
    with pytest.raises(UserError, match=r"sft.yaml is not valid YAML or JSON: key 'seed' stands twice, in line 1 and"):
        load_settings(FinetuneSettings, file)
