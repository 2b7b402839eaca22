"""A real browser for the tests that look at pages."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright


def find_chromium() -> str:
    """Chromium's path. The page is tested in a real browser; without one the test fails rather than passing unseen."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    pytest.fail("no Chromium found: install Debian's package with `apt-get install chromium`", pytrace=False)


@contextmanager
def launched() -> Iterator[Browser]:
    """A real browser."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def visiting(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages from disk and waits until their charts are drawn: visit(path, width=390, dark=True).

    At the end it fails when a page logged anything, or asked for anything but itself.
    """
    noise: list[str] = []
    contexts = []

    def visit(path: Path, width: int = 1280, dark: bool = False) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("request", lambda request: noise.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert noise == []
