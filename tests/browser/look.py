"""Draw pages of the built book as a reader sees them: light, dark, and on a phone.

    python tests/browser/look.py OUTDIR [PAGE ...]

A page is named as in _toc.yml, `foundations/03_elbo`; without names, all of them. Build first.
"""

import argparse
from pathlib import Path

from browser import DESKTOP, PAGES, PHONE, Browser, serve, toc_pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("outdir", type=Path)
    parser.add_argument("pages", nargs="*", metavar="page", help="default: every page of the book")
    parser.add_argument("--html", type=Path, default=PAGES, help="the built pages")
    given = parser.parse_args()
    views = {False: {"light": DESKTOP, "phone": PHONE}, True: {"dark": DESKTOP}}
    with serve(given.html) as address:
        for dark, sizes in views.items():
            with Browser(dark) as browser:
                for page in given.pages or toc_pages():
                    browser.open(f"{address}/{page}.html")
                    for view, size in sizes.items():
                        browser.resize(*size)
                        browser.settle()
                        for path in browser.picture(
                            given.outdir / f"{page.replace('/', '-')}-{view}.png"
                        ):
                            print(path)
                    browser.resize(*DESKTOP)


if __name__ == "__main__":
    main()
