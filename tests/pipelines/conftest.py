"""What the tests of the pipelines share."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from kfp.dsl import pipeline_task


@pytest.fixture(scope="session", autouse=True)
def quick_compiler() -> Iterator[None]:
    """kfp asks who called it by `inspect.stack`, which looks up the source of every frame: seconds a pipeline under pytest."""

    def stack() -> list[tuple[str, ...]]:
        return [(), ("", "", "", sys._getframe(2).f_code.co_name)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_task, "inspect", SimpleNamespace(stack=stack))
        yield
