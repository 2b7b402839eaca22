"""pipelines/README.md, the guide, says what there is: every command, every file, and messages that the code really gives."""

import ast
import re
from pathlib import Path

import pytest
import typer
import yaml

from pipelines.__main__ import app
from pipelines.cluster import Cluster
from rlpretrain.settings import parse_settings

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "pipelines"
TEXT = (ROOM / "README.md").read_text(encoding="utf-8")
YAML_BLOCKS = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def section(heading: str) -> str:
    """What stands below a heading, up to the next one."""
    _, _, rest = TEXT.partition(f"\n{heading}\n")
    assert rest, f"no heading '{heading}'"
    return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]


def messages() -> list[str]:
    """First column of the table of the project's own messages."""
    found = [line.split("|")[1].strip() for line in section("### What this project says").splitlines() if "| `" in line]
    return [message.strip("`") for message in found]


def spoken() -> str:
    """Every text in the code, a line each; what an f-string fills in parts its text."""
    lines = []
    for room in ("pipelines", "components", "rlpretrain", "images"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    lines.append(node.value)
    return "\n".join(lines)


def test_the_commands_named_are_those_there_are() -> None:
    there = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"^\| `(\w+)` \|", section("## Commands"), re.MULTILINE)) == there
    assert set(re.findall(r"python -m pipelines (\w+)", TEXT)) - {"COMMAND"} <= there


def test_every_file_has_its_line() -> None:
    named = section("## Files")
    files = {path.name for path in ROOM.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.name}/" for path in ROOM.iterdir() if path.is_dir() and path.name != "__pycache__"}
    missing = sorted(name for name in files | folders if f"`{name}`" not in named)
    assert not missing, f"pipelines/README.md does not name {', '.join(missing)}"


def test_the_messages_quoted_are_the_codes() -> None:
    said = spoken()
    assert len(messages()) > 15
    for message in messages():
        for part in filter(None, (part.strip("'` ") for part in message.split("..."))):
            assert part in said, f"'{part}' of '{message}' is not said by the code"


def test_links_lead_somewhere() -> None:
    slugs = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in slugs, target
        elif not target.startswith("https://"):
            assert (ROOM / target).exists(), target


@pytest.mark.parametrize("block", YAML_BLOCKS, ids=range(len(YAML_BLOCKS)))
def test_manifests_in_it_are_whole(block: str) -> None:
    value = yaml.safe_load(block)
    if "pools" in value:
        example = yaml.safe_load((ROOM / "clusters" / "eks.yaml").read_text())
        value["pools"] = example["pools"] | value["pools"]
        assert parse_settings(Cluster, example | value, "the guide").pools.train.nodes == 4
    elif value["kind"] == "ConfigMap":
        assert "credentials" in yaml.safe_load(value["data"]["providers"])["s3"]["default"]
