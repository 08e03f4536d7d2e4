"""Small pictures of the chapters, made from the figures that their stored outputs hold.

A cell tagged `opener` gives the picture of its chapter; one tagged `figure-C1` that of a claim.
"""

import base64
import html
import io
from pathlib import Path

from PIL import Image

import chapters

WIDTH = 720  # pixels: twice the width that a page gives them


def figure(path: Path, tag: str) -> tuple[bytes, str] | None:
    """The PNG and the alternative text of the chapter's cell with this tag."""
    for cell in chapters.tagged(chapters.read(path), tag):
        for output in cell.outputs:
            if png := output.get("data", {}).get("image/png"):
                return base64.b64decode(png), cell.metadata["mystnb"]["image"]["alt"]
    return None


def picture(outdir: str | Path, path: Path, tag: str, alt: str | None = None) -> str | None:
    """Write the small picture below _images, and return its <img> with {up} for the way there."""
    if (found := figure(path, tag)) is None:
        return None
    png, text = found
    image = Image.open(io.BytesIO(png)).convert("RGB")
    height = round(image.height * WIDTH / image.width)
    small = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
    target = Path(outdir, "_images", f"{path.stem[:2]}-{tag}.webp")
    target.parent.mkdir(parents=True, exist_ok=True)
    small.save(target, "WEBP", quality=82, method=6)
    alt = html.escape(text if alt is None else alt)
    return f'<img src="{{up}}_images/{target.name}" width="{WIDTH}" height="{height}" alt="{alt}"/>'
