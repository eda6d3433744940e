"""The page in a real browser: it draws, answers to keys and clicks, and logs no error."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from triptych.report import write_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")), reason="chromium or chromedriver is absent"
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--window-size=1200,1000",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, run: dict[str, Any], tmp_path: Path) -> Any:
    browser.get(write_report(run, tmp_path).as_uri())
    return browser


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def find(browser: Any, css: str) -> list[Any]:
    return list(browser.find_elements("css selector", css))


def test_the_page_draws_without_a_console_error_or_dialog(opened: Any, run: dict[str, Any]) -> None:
    marks = find(opened, "#scatter .mark")
    assert len(marks) == len(run["reports"]) + len(run["steps"]) + 1  # one rejected candidate has figures
    assert len(find(opened, ".example")) == 8
    assert opened.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert opened.execute_script("return [...document.images].every(i => i.src.startsWith('data:'))")
    assert not errors(opened)


def test_the_axis_switch_redraws(opened: Any) -> None:
    before = find(opened, "#scatter svg")[0].get_attribute("aria-label")
    find(opened, "button[data-axis=size_bytes]")[0].click()
    after = find(opened, "#scatter svg")[0].get_attribute("aria-label")
    assert (before, after) == ("accuracy against latency", "accuracy against size")
    assert not errors(opened)


def test_a_focused_mark_shows_its_figures(opened: Any) -> None:
    opened.execute_script("document.querySelector('#scatter .mark[aria-label^=lean]').focus()")
    tip = find(opened, "#scatter .tip")[0]
    assert tip.is_displayed()
    assert "87.4 %" in tip.text
    assert "2.31 ms" in tip.text


def test_examples_can_be_filtered(opened: Any) -> None:
    find(opened, "button[data-show=wrong]")[0].click()
    shown = [card for card in find(opened, ".example") if card.is_displayed()]
    assert [card.get_attribute("data-state") for card in shown] == ["wrong"] * 3


def test_a_screenshot_of_the_whole_page_is_not_blank(opened: Any, tmp_path: Path) -> None:
    height = opened.execute_script("return document.body.scrollHeight")
    opened.set_window_size(1200, height + 100)
    path = tmp_path / "page.png"
    opened.save_screenshot(str(path))
    from PIL import Image

    with Image.open(path) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50
