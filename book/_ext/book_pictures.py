"""Small pictures of the chapters, made from the figures that their stored outputs hold.

A cell tagged `opener` gives the picture of its chapter; one tagged `figure-C1` that of a claim.
"""

import base64
import html
import io
from pathlib import Path

from PIL import Image

import notebooks

WIDTH = 720  # pixels: twice the width that a page gives them


def figure(path: Path, tag: str) -> tuple[bytes, str] | None:
    """The PNG and the alternative text of the chapter's cell with this tag."""
    for cell in notebooks.tagged(notebooks.read(path), tag):
        for output in cell.outputs:
            if png := output.get("data", {}).get("image/png"):
                return base64.b64decode(png), cell.metadata["mystnb"]["image"]["alt"]
    return None


def small(
    outdir: str | Path, png: bytes, name: str, alt: str, up: str = "", ratio: float | None = None
) -> str:
    """Write the small picture below _images, and return its <img>.

    up: the way from the page to the top; ratio: of height to width, what is below is cut off.
    """
    image = Image.open(io.BytesIO(png)).convert("RGB")
    if ratio:
        image = image.crop((0, 0, image.width, min(image.height, round(ratio * image.width))))
    height = round(image.height * WIDTH / image.width)
    target = Path(outdir, "_images", f"{name}.webp")
    target.parent.mkdir(parents=True, exist_ok=True)
    image.resize((WIDTH, height), Image.Resampling.LANCZOS).save(
        target, "WEBP", quality=75, method=6
    )
    return (
        f'<img src="{up}_images/{target.name}" width="{WIDTH}" height="{height}" '
        f'alt="{html.escape(alt)}"/>'
    )


def banner(outdir: str | Path, path: Path, up: str = "") -> str:
    """The picture of a chapter, its upper part; decoration, so without an alternative text."""
    found = figure(path, "opener")
    return small(outdir, found[0], f"{path.stem[:2]}-opener", "", up, 0.47) if found else ""


def picture(outdir: str | Path, path: Path, claim: str) -> str:
    """The whole figure that goes with a claim."""
    found = figure(path, f"figure-{claim}")
    return small(outdir, found[0], f"{path.stem[:2]}-{claim}", found[1]) if found else ""
