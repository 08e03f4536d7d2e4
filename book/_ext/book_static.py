"""What an extension adds to the folder that all pages share."""

from pathlib import Path

from sphinx.application import Sphinx


def write_static(app: Sphinx, name: str, content: str | bytes) -> None:
    """Put a file under _static of the built pages."""
    target = Path(app.outdir, "_static", name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
