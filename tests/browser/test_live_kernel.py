"""The explorer of chapter 05 in JupyterLab, with a kernel: what the hand does, Python sees."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import ROOT, Browser
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.support.wait import WebDriverWait
from test_live_explorer import STATE, click, drag

import notebooks

SCREENSHOTS = ROOT / "_site" / "screenshots"
# The user's own settings, kernels and history stay out of it.
FOLDERS = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
FOLDERS += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")


@contextmanager
def jupyterlab(notebooks: Path, own: Path) -> Iterator[str]:
    """JupyterLab over a folder of notebooks, its own files in another; gives an address."""
    (own / "labconfig").mkdir(parents=True)
    # JupyterLab asks outside for its news.
    settings = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (own / "labconfig/page_config.json").write_text(json.dumps(settings))
    token = secrets.token_hex()
    env = os.environ | dict.fromkeys(FOLDERS, str(own)) | {"JUPYTER_TOKEN": token}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={notebooks}"]
    command += ["--LabApp.extension_manager=readonly"]
    with (own / "log").open("w") as log:
        server = subprocess.Popen(
            command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        for _ in range(300):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        else:
            pytest.fail(f"JupyterLab does not answer:\n{(own / 'log').read_text()[-3000:]}")
        yield f"http://127.0.0.1:{port}/lab/tree/chapter.ipynb?token={token}"
    finally:
        server.terminate()  # it ends its kernel first
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)  # a kernel whose server is gone ends itself
            server.wait()


def up_to_the_explorer() -> object:
    """Chapter 05 at smoke budget, without outputs and without what follows its explorer."""
    notebook = notebooks.at_budget(notebooks.read(notebooks.find("05")), "smoke")
    (explorer,) = notebooks.tagged(notebook, "explorer")
    del notebook.cells[notebook.cells.index(explorer) + 1 :]
    for cell in notebooks.code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    return notebook


def until(browser: Browser, script: str, *arguments: object, seconds: float = 20) -> object:
    """Wait until the script gives something true, and give that."""
    wait = WebDriverWait(browser.driver, seconds, poll_frequency=0.1)
    return wait.until(lambda _: browser.script(script, *arguments), f"in vain: {script}")


MENU = """return [...document.querySelectorAll(".lm-MenuBar-itemLabel, .lm-Menu-itemLabel")]
    .find((e) => e.innerText === arguments[0]);"""


def choose(browser: Browser, *labels: str) -> None:
    """Click through the menus."""
    for label in labels:
        until(browser, MENU, label).click()


PRINTED = """return [...document.querySelectorAll(".jp-OutputArea-output pre")]
    .map((e) => e.innerText).find((text) => text.startsWith(arguments[0]));"""


def run(browser: Browser, source: str) -> None:
    """Type into a new cell at the end, and run it."""
    until(browser, "return document.querySelector('.jp-Notebook-footer')").click()
    keys = ActionChains(browser.driver).send_keys(Keys.ENTER, source)
    keys.key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()


def printed(browser: Browser, name: str, values: str) -> list[float]:
    """What a new cell prints for these values."""
    run(browser, f'print("{name} is", {values})')
    text = until(browser, PRINTED, f"{name} is")
    return [float(number) for number in text.split("is")[1].split()]


STARTED = """return / [|] Idle/.test(document.querySelector("#jp-main-statusbar")?.innerText);"""
LIVE = """
const failed = document.querySelector('[data-mime-type="application/vnd.jupyter.error"]');
return failed ? failed.innerText : document.querySelector(".explorer .pad .knob") && "live";
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser in which the chapter has run up to its explorer."""
    folder = tmp_path_factory.mktemp("notebooks")
    notebooks.write(up_to_the_explorer(), folder / "chapter.ipynb")
    own = tmp_path_factory.mktemp("jupyter")
    with jupyterlab(folder, own) as address, Browser() as browser:
        browser.open(address)
        until(browser, STARTED, seconds=30)
        choose(browser, "Run", "Run All Cells")
        assert until(browser, LIVE, seconds=90) == "live"
        yield browser
        here = (address.partition("lab/")[0], "data:", "blob:")
        assert [url for url in browser.traffic()[0] if not url.startswith(here)] == []
        # These tests themselves read canvases back.
        assert [line for line in browser.console() if "willReadFrequently" not in line] == []


def test_python_sees_where_mouse_and_keys_have_moved_the_pad(live: Browser) -> None:
    cells = "return document.querySelectorAll('.jp-Notebook .jp-Cell').length"
    before = live.script(cells)
    drag(live, ".explorer .pad", (0.5, 0.5), (0.6, 0.45))
    dragged = live.script(STATE)["z"]
    assert dragged[0] == pytest.approx(2 * dragged[1], abs=0.1) and dragged[1] > 0.2
    keys = (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, "b")  # b: JupyterLab's new cell
    ActionChains(live.driver).send_keys(*keys).perform()
    assert live.script(STATE)["z"] == pytest.approx([dragged[0] + 0.2, dragged[1] + 0.1], abs=1e-3)
    live.script("document.querySelector('.explorer input').focus()")  # the slider of z1
    ActionChains(live.driver).send_keys(Keys.ARROW_RIGHT, "b").perform()
    state, focused = live.script(STATE), live.script("return document.activeElement.type")
    assert state["z"][0] == pytest.approx(dragged[0] + 0.25, abs=0.03) and focused == "range"
    assert live.script(cells) == before
    assert printed(live, "z", "*explorer.z") == pytest.approx(state["z"], abs=1e-3)
    ink = sum(255 - value for value in state["image"]) / 255
    assert printed(live, "ink", "explorer.image.sum().item()") == pytest.approx([ink], abs=2)


def test_the_pad_moves_to_where_python_puts_it(live: Browser) -> None:
    run(live, "explorer.z = [1.0, -1.0]")
    moved = "return document.querySelector('.explorer').dataset.z === '1.0000 -1.0000'"
    assert until(live, moved)
    left, top = live.script("""const { left, top } = document.querySelector(".knob").style;
        return [left, top].map(parseFloat);""")
    assert left - 50 == pytest.approx(top - 50) and 50 < left < 100


def test_python_has_the_drawing_until_it_is_cleared(live: Browser) -> None:
    drag(live, ".explorer .paper", (0.5, 0.2), (0.5, 0.4), (0.5, 0.6), (0.5, 0.8))
    z = live.script(STATE)["z"]
    assert printed(live, "shape", "*explorer.drawn.shape") == [1, 1, 28, 28]
    assert 0.02 < printed(live, "mean", "explorer.drawn.mean().item()")[0] < 0.2
    assert printed(live, "code", "*explorer.z") == pytest.approx(z, abs=1e-3)
    click(live, "Clear")
    assert printed(live, "nothing", "int(explorer.drawn is None)") == [1]


def test_colours_follow_jupyterlabs(live: Browser) -> None:
    colour = "return getComputedStyle(document.querySelector('.explorer .pad')).backgroundColor"
    light = live.script(colour)
    photograph(live, "light")
    choose(live, "Settings", "Theme", "JupyterLab Dark")
    until(live, "return document.body.dataset.jpThemeLight === 'false'")
    photograph(live, "dark")
    assert live.script(colour) != light


def photograph(browser: Browser, theme: str) -> None:
    browser.script("document.querySelector('.explorer').scrollIntoView()")
    browser.picture(SCREENSHOTS / f"live-kernel-{theme}.png")
