"""A headless Chromium that sees only this machine, and a server for the built pages.

Shared by the tests and by look.py.
"""

import base64
import functools
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "_site" / "_build" / "html"
DESKTOP, PHONE = (1280, 900), (390, 844)
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
STRIP = 5000  # pixels; a taller page becomes several pictures (Chromium cannot draw 16,384)

# Every rule that axe runs by default, on what is in view and what is not.
RUN_AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, { resultTypes: ["violations"] }).then(
  ({ violations }) => done(violations.flatMap((v) => v.nodes.map(
    (n) => `${v.id}: ${n.target.join(" ")}: ${n.failureSummary.split("\\n").slice(1).join(";")}`))),
  (error) => done([String(error)]));
"""

# Resolved when all that loads with the page is there and the formulas are set.
SETTLED = """
const done = arguments[arguments.length - 1];
(async () => {
  if (document.readyState !== "complete") await new Promise((r) => addEventListener("load", r));
  await window.MathJax?.startup?.promise;
  await document.fonts.ready;
  await new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)));
})().then(() => done(null), (error) => done(String(error)));
"""


def toc_pages(toc: Path = ROOT / "book" / "_toc.yml") -> list[str]:
    """The pages of the book, without suffix, in reading order."""

    def walk(entry: object) -> Iterator[str]:
        if isinstance(entry, list):
            for item in entry:
                yield from walk(item)
        elif isinstance(entry, dict):
            if page := entry.get("root") or entry.get("file"):
                yield page.removesuffix(".md").removesuffix(".ipynb")
            for key in ("parts", "chapters", "sections", "subtrees", "entries"):
                yield from walk(entry.get(key))

    return list(walk(yaml.safe_load(toc.read_text(encoding="utf-8"))))


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; gives the address, without a slash at its end."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def find_program(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    raise RuntimeError(
        f"{names[0]} was not found, and the rendered pages can't be checked without it: "
        "install it with `apt-get install chromium chromium-driver`."
    )


class Browser:
    """Chromium in one colour mode, cut off from the network."""

    def __init__(self, dark: bool = False) -> None:
        self.dark = dark
        options = webdriver.ChromeOptions()
        options.binary_location = find_program("chromium", "chromium-browser", "google-chrome")
        for flag in (
            "--headless=new",
            "--no-sandbox",  # containers often run as root
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1",
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        service = Service(find_program("chromedriver"), log_output=os.devnull)
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_script_timeout(60)
        self.command("Network.enable")
        self.emulate_media()
        self.resize(*DESKTOP)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *error: object) -> None:
        self.driver.quit()

    def command(self, name: str, **parameters: object) -> dict:
        return self.driver.execute_cdp_cmd(name, parameters)

    def emulate_media(self, media: str = "screen") -> None:
        """Screen or paper, in this browser's colour mode, with no wish for motion."""
        colours = {"name": "prefers-color-scheme", "value": "dark" if self.dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.command("Emulation.setEmulatedMedia", media=media, features=[colours, motion])

    def script(self, source: str, *arguments: object) -> object:
        return self.driver.execute_script(source, *arguments)

    def resize(self, width: int, height: int) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def open(self, address: str) -> None:
        """Load a page and wait until it has settled. Forgets what earlier pages logged."""
        self.console()
        self.traffic()
        self.driver.get(address)
        self.settle()

    def settle(self) -> None:
        if error := self.driver.execute_async_script(SETTLED):
            raise RuntimeError(f"{self.driver.current_url} did not settle: {error}")

    def console(self) -> list[str]:
        """Errors and warnings in the console since the last call."""
        entries = self.driver.get_log("browser")
        return [e["message"] for e in entries if e["level"] in ("SEVERE", "WARNING")]

    def traffic(self) -> tuple[list[str], list[str]]:
        """The addresses asked for since the last call, and those that failed, with the reason."""
        asked: dict[str, str] = {}
        failed = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            parameters = message["params"]
            match message["method"]:
                case "Network.requestWillBeSent":
                    asked[parameters["requestId"]] = parameters["request"]["url"]
                case "Network.loadingFailed":
                    address = asked.get(parameters["requestId"], "an unknown address")
                    failed.append(f"{address}: {parameters['errorText']}")
                case "Network.responseReceived" if parameters["response"]["status"] >= 400:
                    response = parameters["response"]
                    failed.append(f"{response['url']}: status {response['status']}")
        return list(asked.values()), failed

    def barriers(self) -> list[str]:
        """What axe-core finds on the page, a line each: rule, element, what is wrong."""
        if not self.script("return typeof axe !== 'undefined'"):
            self.script(AXE.read_text(encoding="utf-8") + ";globalThis.axe = axe;")
        return self.driver.execute_async_script(RUN_AXE)

    def picture(self, path: Path) -> list[Path]:
        """Draw the whole page into `path` (.png), or into strips -1, -2, ... if it is tall."""
        width, old_height, height = self.script(
            "return [innerWidth, innerHeight, document.documentElement.scrollHeight]"
        )
        # The window becomes as tall as the strip: Chromium's own capture beyond the window
        # moves what is sticky.
        self.resize(width, min(height, STRIP))
        height = self.script("return document.documentElement.scrollHeight")
        strips = -(-height // STRIP)
        path.parent.mkdir(parents=True, exist_ok=True)
        written = []
        for i in range(strips):
            self.script("scrollTo(0, arguments[0])", i * STRIP)
            shot = self.command("Page.captureScreenshot", optimizeForSpeed=True)
            name = path if strips == 1 else path.with_stem(f"{path.stem}-{i + 1}")
            name.write_bytes(base64.b64decode(shot["data"]))
            written.append(name)
        self.resize(width, old_height)
        return written
