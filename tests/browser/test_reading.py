"""Reading for everyone: a keyboard, a screen reader, no scripts, no server, a slow line."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import DESKTOP, PHONE, Browser, toc_pages

CHAPTERS = [page for page in toc_pages() if "/" in page]
FIRST, FURTHER = 2.0e6, 0.6e6  # bytes that a first and each further chapter may weigh


# ---- keyboard and screen reader ---------------------------------------------------------------

# What a keyboard must reach: all that is shown and can have the focus.
REACHABLE = """
const kinds = "a[href], button, input, select, summary, textarea, [tabindex]";
const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest("dialog") &&
  e.tabIndex >= 0 && !e.disabled;
globalThis.reached = new Set();
globalThis.reachable = [...document.querySelectorAll(kinds)].filter(shown);
return reachable.length;
"""
# One step further: where the focus is, and what is wrong there.
FOCUSED = """
const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
const name = `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 30)}`;
if (e === document.body) return null;
reached.add(e);
const outline = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
if (!outline && style.boxShadow === "none") return `${name}: no sign of the focus`;
if (box.bottom < 0 || box.top > innerHeight) return `${name}: out of sight`;
return "";
"""


@pytest.mark.parametrize("page", ["foundations/05_first_vae", "claims"])
def test_a_keyboard_reaches_everything_and_shows_where_it_is(
    light: Browser, address: str, page: str
) -> None:
    light.resize(*DESKTOP)
    light.open(f"{address}/{page}.html")
    count = light.script(REACHABLE)
    assert count > 50
    faults, steps = [], 0
    while steps < 2 * count:
        key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
        light.command("Input.dispatchKeyEvent", type="keyDown", **key)
        light.command("Input.dispatchKeyEvent", type="keyUp", **key)
        steps += 1
        fault = light.script(FOCUSED)
        if fault is None and steps > 1:
            break  # past the last one, the focus leaves the page
        if fault:
            faults.append(fault)
    missed = light.script(
        "return reachable.filter((e) => !reached.has(e) && e.isConnected && e.checkVisibility())"
        ".map((e) => `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 40)}`)"
    )
    assert not faults, "\n".join(faults)
    assert not missed, "not reached:\n" + "\n".join(missed)


def test_the_first_stop_leads_past_the_contents(light: Browser, address: str) -> None:
    light.resize(*DESKTOP)
    light.open(f"{address}/foundations/03_elbo.html")
    for kind in ("keyDown", "keyUp"):
        light.command("Input.dispatchKeyEvent", type=kind, key="Tab", windowsVirtualKeyCode=9)
    assert "main content" in light.script("return document.activeElement.textContent")
    for kind in ("rawKeyDown", "char", "keyUp"):
        enter = {"key": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}
        light.command("Input.dispatchKeyEvent", type=kind, **enter)
    assert light.script("return location.hash") == "#main-content"


def test_formulas_are_there_for_a_screen_reader(light: Browser, address: str) -> None:
    light.open(f"{address}/foundations/03_elbo.html")
    count, silent = light.script(
        """const all = [...document.querySelectorAll("mjx-container")];
        return [all.length, all.filter((e) => !e.querySelector("mjx-assistive-mml math") &&
          !e.getAttribute("aria-label")).length];"""
    )
    assert count > 50 and silent == 0


def test_nothing_moves_by_itself_where_motion_is_unwanted(light: Browser, address: str) -> None:
    """The browsers of these tests ask for reduced motion."""
    light.resize(*DESKTOP)
    light.open(f"{address}/intro.html")
    light.script("document.querySelector('.theme-switch-button').click(); scrollTo(0, 800)")
    moving = light.script(
        """return [document.getAnimations().length,
        getComputedStyle(document.documentElement).scrollBehavior];"""
    )
    light.script("localStorage.clear()")
    assert moving == [0, "auto"]


# ---- without a server, without scripts --------------------------------------------------------


@pytest.mark.parametrize("page", toc_pages())
def test_a_page_works_from_a_folder(light: Browser, pages: Path, page: str) -> None:
    """As from an unpacked archive: formulas, pictures and widgets are there, nothing is asked."""
    light.resize(*DESKTOP)
    light.open(f"{pages.as_uri()}/{page}.html")
    asked, failed = light.traffic()
    outside = [url for url in asked if not url.startswith((pages.as_uri(), "data:", "blob:"))]
    dead = light.script(
        """return [...document.querySelectorAll(".math:not(:has(mjx-container))"),
        ...[...document.images].filter((i) => !i.naturalWidth),
        ...[...document.querySelectorAll(".explorer")].filter((e) => !e.explorer)].length;"""
    )
    assert (outside, failed, dead, light.console()) == ([], [], 0, [])


@pytest.fixture
def without_scripts(light: Browser) -> Iterator[Browser]:
    light.command("Emulation.setScriptExecutionDisabled", value=True)
    yield light
    light.command("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("page", ["intro", "foundations/03_elbo", "models/09_posterior_collapse"])
def test_without_scripts_text_pictures_and_colours_stay(
    without_scripts: Browser, address: str, page: str
) -> None:
    browser = without_scripts
    browser.resize(*DESKTOP)
    browser.driver.get(f"{address}/{page}.html")
    facts = {}
    root = browser.command("DOM.getDocument", depth=0)["root"]["nodeId"]
    for name, selector in {
        "article": "article",
        "picture": ".explorer img",
        "sentence": ".explorer p",
    }.items():
        node = browser.command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        assert node, f"no {name} on {page}"
        quad = browser.command("DOM.getBoxModel", nodeId=node)["model"]
        facts[name] = (quad["width"], quad["height"])
    assert facts["article"][1] > 2000
    assert facts["picture"][0] > 150 and facts["picture"][1] > 100
    assert facts["sentence"][1] > 10


# ---- weight and time --------------------------------------------------------------------------


def weight(path: Path) -> int:
    """As it travels: text is compressed, pictures are as they are."""
    data = path.read_bytes()
    return len(data) if path.suffix in (".png", ".webp") else len(gzip.compress(data, 6))


VITALS = """
const done = arguments[arguments.length - 1];
let shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
(async () => {
  for (let y = 0; y < document.documentElement.scrollHeight; y += 600) {
    scrollTo(0, y);
    await new Promise((r) => setTimeout(r, 20));
  }
  await new Promise((r) => setTimeout(r, 200));
  done([performance.getEntriesByName("first-contentful-paint")[0].startTime, shift]);
})();
"""


@pytest.mark.parametrize("page", toc_pages())
def test_a_page_is_light_and_fast_and_stands_still(
    light: Browser, address: str, pages: Path, page: str
) -> None:
    light.resize(*DESKTOP)
    light.command("Network.setCacheDisabled", cacheDisabled=True)
    times, shifts = [], []
    for _ in range(10):
        light.open(f"{address}/{page}.html")
        asked, _ = light.traffic()
        paint, shift = light.driver.execute_async_script(VITALS)
        times.append(paint)
        shifts.append(shift)
        if paint < 1000:
            break  # a busy machine may need other tries
    light.command("Network.setCacheDisabled", cacheDisabled=False)
    found = {pages / unquote(urlsplit(url).path).lstrip("/") for url in asked if address in url}
    weights = {path: weight(path) for path in found}
    # What a first visit has left in the cache comes with no further page: the search index, too.
    shared = {p for p in weights if "_static" in p.parts or p.name == "searchindex.js"}
    own = {p: w for p, w in weights.items() if p not in shared}
    heaviest = sorted(((w, path.name) for path, w in weights.items()), reverse=True)[:8]
    print(
        f"{page}: {len(asked)} requests, {sum(weights.values()) / 1e6:.2f} MB first, "
        f"{sum(own.values()) / 1e6:.2f} MB further, {min(times):.0f} ms, shift {max(shifts):.4f}"
    )
    assert sum(weights.values()) <= FIRST, heaviest
    assert sum(own.values()) <= FURTHER, heaviest
    assert min(times) < 1000 and max(shifts) < 0.01


SHARP = """
return [...document.querySelectorAll("article img")].filter((i) => i.clientWidth > 200 &&
  !/svg/.test(i.src) && i.naturalWidth < 1.9 * i.clientWidth)
  .map((i) => `${i.getAttribute("src").slice(-40)}: ${i.naturalWidth} for ${i.clientWidth}`);
"""


@pytest.mark.parametrize("page", ["intro", "claims", *CHAPTERS])
def test_figures_have_two_pixels_for_each_of_the_page(
    light: Browser, address: str, page: str
) -> None:
    light.resize(*DESKTOP)
    light.open(f"{address}/{page}.html")
    assert light.script(SHARP) == []


# ---- the live widgets in the book's own pages -------------------------------------------------

LIVE = """
return [...document.querySelectorAll(".explorer")].map((root) => {
  const { decode, z, move, spec } = root.explorer, times = [];
  if (spec.kind === "explorer") for (let i = 0; i < 500; i++) {
    const start = performance.now();
    root.explorer.decode(z.map(() => 4 * Math.random() - 2));
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  return { kind: spec.kind, slowest: times[Math.floor(0.95 * times.length)] ?? 0,
    canvases: root.querySelectorAll("canvas").length };
});
"""


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ("intro", "explorer"),
        ("foundations/03_elbo", "sliders"),
        ("foundations/04_reparameterization", "sliders"),
        ("foundations/05_first_vae", "explorer"),
        ("models/09_posterior_collapse", "sliders"),
    ],
)
def test_an_explorer_lives_in_its_page_light_and_quick(
    light: Browser, address: str, pages: Path, page: str, kind: str
) -> None:
    html = (pages / f"{page}.html").read_text(encoding="utf-8")
    weights = [part.split("<")[0].split(">", 1)[1] for part in html.split("data-weights=")[1:]]
    assert weights and all(len(text) <= 300_000 for text in weights)
    for size in (DESKTOP, PHONE):
        light.resize(*size)
        light.open(f"{address}/{page}.html")
        (widget,) = light.script(LIVE)
        assert widget["kind"] == kind and widget["canvases"] >= 1
        assert widget["slowest"] <= 8  # milliseconds
    light.resize(*DESKTOP)
