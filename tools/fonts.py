"""Cut the book's fonts out of Adobe's Source family: `python tools/fonts.py`.

The family was chosen by eye among three, on chapters 03 and 09 (the others: Literata with Inter and
JetBrains Mono, STIX Two with IBM Plex): its serif is as light as MathJax's formulas and stays quiet
beside code, and the three were drawn as one, so that prose, figures and programs agree.

"Source" is a reserved name, which a changed font may not bear: the cut ones are called Measured.
Needs npm. What it writes is kept in the repository; run it again where LETTERS change.
"""

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"source-serif": "4.5.1", "source-sans": "3.52.0", "source-code-pro": "2.42.0"}
FIGURES, PAGES = ROOT / "vaelib" / "fonts", ROOT / "book" / "_ext" / "fonts"
FONTS = [  # package, its file, where to, family, style
    ("source-sans", "SourceSans3-Regular", FIGURES, "Measured Sans", "Regular"),
    ("source-sans", "SourceSans3-Semibold", FIGURES, "Measured Sans", "Bold"),
    ("source-serif", "SourceSerif4-Regular", PAGES, "Measured Serif", "Regular"),
    ("source-serif", "SourceSerif4-It", PAGES, "Measured Serif", "Italic"),
    ("source-serif", "SourceSerif4-Semibold", PAGES, "Measured Serif", "Bold"),
    ("source-code-pro", "SourceCodePro-Regular", PAGES, "Measured Mono", "Regular"),
]
LETTERS = [  # those that a font lacks are DejaVu's, on pages and in figures
    *range(0x20, 0x7F),
    *range(0xA0, 0x180),  # Latin
    *range(0x391, 0x3CA),  # Greek
    *(0x3D1, 0x3D5),  # the other theta and phi
    *range(0x2010, 0x2027),  # dashes, quotes
    *range(0x2070, 0x2090),  # raised and lowered digits
    *range(0x2190, 0x2195),  # arrows
    *(ord(sign) for sign in "−∂∇∈∏∑√∞∫≈≠≡≤≥‖∥∝±×÷·✓✗◐○●▲▼▶◀"),
]


def cut(source: Path, family: str, style: str) -> TTFont:
    """The font with our letters, under our name."""
    options = subset.Options(hinting=False, layout_features=["kern", "liga", "tnum", "mark"])
    options.drop_tables += ["DSIG", "FFTM", "STAT", "meta"]
    font = subset.load_font(str(source), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=LETTERS)
    cutter.subset(font)
    names = {1: family, 2: style, 4: f"{family} {style}", 6: f"{family}-{style}".replace(" ", "")}
    names |= {3: f"{names[6]}, cut from {source.stem}"}
    for number in {record.nameID for record in font["name"].names} - {0, 13, 14}:
        font["name"].removeNames(nameID=number)  # but the copyright and the licence
    for number, name in names.items():
        font["name"].setName(name, number, 3, 1, 0x409)
    font["OS/2"].usWeightClass = 700 if style == "Bold" else 400
    font["OS/2"].fsSelection = {"Regular": 0x40, "Italic": 0x01, "Bold": 0x20}[style]
    font["head"].macStyle = {"Regular": 0, "Italic": 2, "Bold": 1}[style]
    font.recalcTimestamp = False
    return font


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for package, version in PACKAGES.items():
            packed = ["npm", "pack", "--silent", f"{package}@{version}"]
            subprocess.run(packed, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            with tarfile.open(Path(folder, f"{package}-{version}.tgz")) as archive:
                archive.extractall(Path(folder, package), filter="data")
        for package, file, where, family, style in FONTS:
            source = Path(folder, package, "package")
            where.mkdir(exist_ok=True)
            path = where / f"{family}-{style}.ttf".replace(" ", "")
            cut(source / "TTF" / f"{file}.ttf", family, style).save(path)
            shutil.copyfile(source / "LICENSE.md", where / f"LICENSE-{family.split()[1]}.txt")
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
