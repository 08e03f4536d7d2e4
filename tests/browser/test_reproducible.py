"""The same source gives the same pages, byte for byte."""

import os
import subprocess
import sys
from pathlib import Path

from browser import ROOT


def test_two_builds_are_the_same(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "book"]
    command += ["--config", "_config.yml", "-W", "--keep-going", "--path-output"]
    outs = [tmp_path / "first", tmp_path / "and" / "second"]
    running = [
        subprocess.Popen(
            [*command, str(out)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(i + 1), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i, out in enumerate(outs)
    ]
    for process in running:
        said, _ = process.communicate()
        assert process.returncode == 0, said[-3000:]
    built = [
        {path.relative_to(html): path.read_bytes() for path in html.rglob("*") if path.is_file()}
        for html in (out / "_build" / "html" for out in outs)
    ]
    assert set(built[0]) == set(built[1]) and len(built[0]) > 100
    assert [str(name) for name in built[0] if built[0][name] != built[1][name]] == []
