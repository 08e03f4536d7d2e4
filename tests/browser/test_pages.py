"""Every page as a reader's browser shows it: whole, quiet, offline, on a desk and on a phone."""

import re
import tomllib
from pathlib import Path

import pytest
from browser import DESKTOP, PHONE, ROOT, Browser, toc_pages

SCREENSHOTS = ROOT / "_site" / "screenshots"

# What sticks out of the window and cannot be scrolled into it.
OVERFLOW = """
const width = document.documentElement.clientWidth;
const scrolls = (e) => e && !e.matches("main, body") &&
  (/auto|scroll|hidden|clip/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
const wide = [...document.querySelectorAll(".bd-article-container *")].filter((e) => {
  const box = e.getBoundingClientRect();
  return box.width && box.height && box.right > width + 1 && !scrolls(e.parentElement);
});
const found = wide.map((e) => `${e.tagName} ${e.className} to ${e.getBoundingClientRect().right}`);
if (document.documentElement.scrollWidth > width)
  found.push(`the page is ${document.documentElement.scrollWidth} wide, the window ${width}`);
return found.slice(0, 5);
"""

IMAGES = """
return [...document.images].flatMap((image) => {
  const name = image.getAttribute("src")?.slice(0, 80);
  if (!image.complete || !image.naturalWidth) return [`${name} did not load`];
  if (!image.alt?.trim() && !image.closest(".opener, .card")) // beside their own chapter's name
    return [`${name} has no alternative text`];
  const style = getComputedStyle(image);
  const padding = (a, b) => parseFloat(style[`padding${a}`]) + parseFloat(style[`padding${b}`]);
  const width = image.clientWidth - padding("Left", "Right");
  const height = image.clientHeight - padding("Top", "Bottom");
  const stretched = height / width / (image.naturalHeight / image.naturalWidth);
  if (width > 50 && Math.abs(stretched - 1) > 0.03)
    return [`${name} is ${stretched.toFixed(2)} times too high for its width`];
  return [];
});
"""

# What a cell printed, in lines that end beyond the box: a desk has no thumb to push them.
CUT = """
return [...document.querySelectorAll(".cell_output pre")]
  .filter((e) => e.scrollWidth > e.clientWidth + 1)
  .map((e) => `printed ${e.scrollWidth} px wide in ${e.clientWidth}: ${e.innerText.slice(0, 60)}`);
"""

# Formulas that MathJax did not set, refused (merror), or met with an unknown macro (red text).
MATHS = """
const found = [...document.querySelectorAll(".math")]
  .filter((e) => !e.querySelector("mjx-container")).map((e) => `not typeset: ${e.textContent}`);
for (const e of document.querySelectorAll('[data-mml-node="merror"], mjx-merror, ' +
    'mjx-container [data-mml-node="mtext"][fill="red"]'))
  found.push(`error in: ${e.closest("mjx-container").parentElement.textContent}`);
const content = document.querySelector("article, main");
const texts = document.createTreeWalker(content, NodeFilter.SHOW_TEXT);
const skip = "code, pre, script, style, mjx-container, .cell_output";
while (texts.nextNode()) {
  const text = texts.currentNode;
  if (/\\$[^$]+\\$|\\\\\\(|\\\\\\[/.test(text.data) && !text.parentElement.closest(skip))
    found.push(`not taken for a formula: ${text.data.trim()}`);
}
return found;
"""

# Relative luminance of the page and of its text, from 0 (black) to 1 (white).
LUMINANCE = """
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const style = (selector) => getComputedStyle(document.querySelector(selector));
return [document.documentElement.dataset.theme,
        luminance(style("body").backgroundColor), luminance(style("article, main").color)];
"""


def unfolded_barriers(browser: Browser) -> list[str]:
    """What axe finds while every folded part is open; they are closed again."""
    fold = "document.querySelectorAll('article details').forEach((d) => { d.open = %s; })"
    browser.script(fold % "true")
    browser.settle()
    found = browser.barriers()
    browser.script(fold % "false")
    return found


def test_axe_finds_what_is_wrong(light: Browser, address: str) -> None:
    """So that its silence means something."""
    light.resize(*DESKTOP)
    light.open(f"{address}/references.html")
    light.script(
        """document.querySelector("article").insertAdjacentHTML("beforeend",
        '<img src="data:,"><p style="color: #bbb; background: #fff">pale</p>');"""
    )
    rules = {line.split(":")[0] for line in light.barriers()}
    light.console()
    assert rules == {"image-alt", "color-contrast"}


def check_page(browser: Browser, address: str, page: str) -> None:
    """Open a page at both widths, check all of it, draw it, and name every fault at once."""
    faults = []
    browser.resize(*DESKTOP)
    browser.open(f"{address}/{page}.html")

    theme, background, text = browser.script(LUMINANCE)
    wanted = "dark" if browser.dark else "light"
    if theme != wanted or (background < 0.5) != browser.dark or (text > 0.4) != browser.dark:
        faults.append(f"asked for {wanted}: {theme}, background {background}, text {text}")
    faults += browser.script(IMAGES)
    faults += browser.script(MATHS)
    faults += browser.script(CUT)
    faults += [f"at {DESKTOP[0]} px: {fault}" for fault in browser.script(OVERFLOW)]
    faults += [f"at {DESKTOP[0]} px, axe: {fault}" for fault in unfolded_barriers(browser)]
    name = page.replace("/", "-")
    browser.picture(SCREENSHOTS / f"{name}-{wanted}.png")

    browser.resize(*PHONE)
    browser.settle()
    found = browser.script(OVERFLOW) + browser.script(IMAGES)
    faults += [f"at {PHONE[0]} px: {fault}" for fault in found]
    faults += [f"at {PHONE[0]} px, axe: {fault}" for fault in unfolded_barriers(browser)]
    if not browser.dark:
        browser.picture(SCREENSHOTS / f"{name}-phone.png")

    asked, failed = browser.traffic()
    faults += [f"outside request: {url}" for url in asked if not local(url, address)]
    faults += [f"failed request: {failure}" for failure in failed]
    faults += [f"console: {message}" for message in browser.console()]
    assert not faults, "\n".join([page, *faults])


def local(url: str, address: str) -> bool:
    return url.startswith((f"{address}/", "data:", "blob:"))


PAGES = [*toc_pages(), "search", "genindex"]


@pytest.mark.parametrize("page", PAGES)
def test_page_is_whole_in_light_mode(light: Browser, address: str, page: str) -> None:
    check_page(light, address, page)


@pytest.mark.parametrize("page", PAGES)
def test_page_is_whole_in_dark_mode(dark: Browser, address: str, page: str) -> None:
    check_page(dark, address, page)


RESULTS = """
const done = arguments[arguments.length - 1];
(function poll(tries) {
  const links = [...document.querySelectorAll("#search-results li a[href]")].map((a) => a.href);
  if (links.length || !tries) done(links);
  else setTimeout(poll, 50, tries - 1);
})(200);
"""


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_search_works_offline(light: Browser, address: str, pages: Path, scheme: str) -> None:
    start = address if scheme == "http" else pages.as_uri()
    light.resize(*DESKTOP)
    light.open(f"{start}/search.html?q=posterior")
    links = light.driver.execute_async_script(RESULTS)
    assert links, "the search for 'posterior' found nothing"
    asked, failed = light.traffic()
    assert [url for url in asked if not local(url, start)] == []
    assert failed == []
    assert light.console() == []
    light.open(links[0])
    assert "posterior" in light.script("return document.body.textContent").lower(), links[0]


def test_colour_mode_can_be_switched_and_is_kept(light: Browser, address: str) -> None:
    page = f"{address}/{toc_pages()[0]}.html"
    light.resize(*DESKTOP)
    light.open(page)
    theme = "return document.documentElement.dataset.theme"
    for _ in range(3):  # auto, light, dark in the theme's order
        light.script("document.querySelector('.theme-switch-button').click()")
        if light.script(theme) == "dark":
            break
    light.open(page)
    kept = light.script(theme)
    light.script("localStorage.clear()")
    assert kept == "dark"


def test_on_paper_a_page_is_text_and_figures(light: Browser, address: str) -> None:
    light.resize(*DESKTOP)
    light.open(f"{address}/foundations/03_elbo.html")
    light.emulate_media("print")
    shown = """return arguments[0].filter((s) =>
      [...document.querySelectorAll(s)].some((e) => e.checkVisibility()));"""
    furniture = [".bd-sidebar-primary", ".bd-sidebar-secondary", ".prev-next-footer", ".buttons"]
    furniture += [".bd-header-article", ".headerlink", ".explorer input"]
    content = ["h1", "article p", "article .cell_output img", ".explorer canvas", "pre"]
    found = light.script(shown, furniture), light.script(shown, content)
    pdf = light.command("Page.printToPDF", printBackground=True)["data"]
    light.emulate_media()
    assert found == ([], content)
    assert len(pdf) > 100_000


@pytest.mark.parametrize("page", toc_pages())
def test_a_link_to_a_page_can_say_what_it_is(pages: Path, page: str) -> None:
    html = (pages / f"{page}.html").read_text(encoding="utf-8")
    found = dict(re.findall(r'<meta (?:name|property)="([\w:]+)" content="([^"]*)" />', html))
    assert 40 <= len(found["description"]) <= 400  # escaped, so a little longer than it reads
    assert found["og:description"] == found["description"] and found["og:title"]
    # A picture needs a whole address: none without one in pyproject.toml.
    assert ("og:image" in found) == bool(project_urls().get("Documentation"))


def project_urls() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
