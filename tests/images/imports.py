"""What the stages of an image import, found in the source, and what the image holds, found in pyproject.toml and the environment."""

import ast
import importlib.metadata
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from images.install import BARE, requirements

ROOT = Path(__file__).parents[2]
OURS = ("rlpretrain", "components")
CHOSEN = ("vllm",)  # by a setting, from an extra of its own that an image takes as EXTRAS
ASKS_FIRST = "components.self_check"  # imports what is there and no more


def stages_of(image: str) -> list[str]:
    """The stages that Kubeflow components run in an image."""
    return sorted({stage for its_image, stage in _faces() if its_image == image})


@cache
def _faces() -> set[tuple[str, str]]:
    """Image and stage of every component: of @dsl.component(base_image=image("train")) and run_component("pretrain", ...).

    The run's end is no stage of the frame and goes by its folder's name.
    """
    found = set()
    for path in sorted((ROOT / "components").glob("*/component.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef):
                images = [_first_word(call) for call in _calls(function, "image")]
                stages = [_first_word(call) for call in _calls(function, "run_component")]
                stages = stages or [path.parent.name]
                assert len(images) == len(stages) == 1, (
                    f"{path}: {function.name} runs in several images, or several stages"
                )
                found.add((images[0], stages[0]))
    return found


def _calls(tree: ast.AST, name: str) -> list[ast.Call]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == name]


def _first_word(call: ast.Call) -> str:
    assert isinstance(call.args[0], ast.Constant)
    return str(call.args[0].value)


def imported(stage: str) -> dict[str, str]:
    """Distributions that a stage imports, also in functions and through our own modules, each with a module that does."""
    distributions = importlib.metadata.packages_distributions()
    found: dict[str, str] = {}
    seen = {ASKS_FIRST}
    todo = [f"components.{stage}.stage", "components.frame", f"components.{stage}.__main__"]
    while todo:
        module = todo.pop()
        path = _source(module)
        if module in seen or path is None:
            continue
        seen.add(module)
        todo += [module.rsplit(".", count)[0] for count in range(1, module.count(".") + 1)]
        for name in _imports(path):
            top = name.partition(".")[0]
            if top in OURS:
                todo.append(name)
            elif top not in sys.stdlib_module_names and top not in CHOSEN:
                found.update({canonicalize_name(each): module for each in distributions[top]})
    return found


def _source(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((each for each in candidates if each.is_file()), None)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and not node.level, f"{path}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named(image: str) -> list[Requirement]:
    """What the image's extra names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [Requirement(line) for line in requirements(image, project)]


def held(image: str) -> set[str]:
    """Distributions that the image holds: what its extra names, what those require in turn, and kfp without what that requires."""
    found: set[str] = {BARE}
    todo = [(canonicalize_name(each.name), frozenset(each.extras)) for each in named(image)]
    seen = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                todo.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    return found
