"""Processes of bench.py: a contender's, which waits for its turn, and one that answers once.

`peer_python` makes the Python that pythae runs in.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from cases import BEFORE

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# pythae asks for these; torch, numpy and the rest come from the Python that runs this file.
PYTHAE = "0.1.2"
PYTHAE_NEEDS = [
    "pydantic==2.14.3",
    "pydantic-core==2.50.4",
    "annotated-types==0.8.0",
    "typing-inspection==0.4.5",
    "imageio==2.38.1",
]


class Peer:
    """A process that trains an epoch when it is told to."""

    def __init__(self, settings, name, python):
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed in `end`)
        root = ROOT
        if name.endswith(BEFORE):
            root, name = Path(settings["against"]), name.removesuffix(BEFORE)
        self.process = subprocess.Popen(
            [python, root / HERE.relative_to(ROOT) / "peers.py", json.dumps(settings), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment(settings["threads"], root),
        )

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise SystemExit(f"{self.name} failed:\n{self.errors.read()[-3000:]}")
        return json.loads(line)

    def epoch(self):
        self.process.stdin.write("epoch\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def take_turns(settings, names, pythons):
    """Every contender's epochs: name -> a warm-up, the rounds, and what it told at the end."""
    settings = settings | {"task": "time", "epochs": 1 + settings["rounds"]}
    told, peers = {}, []
    try:
        for name in names:
            peers.append(Peer(settings, name, pythons.get(name, sys.executable)))
        for peer in peers:
            told[peer.name] = {"ready": peer.answer(), "rounds": []}
        for peer in peers:  # alone, so that compiling is not timed beside anything
            told[peer.name]["warm_up"] = peer.epoch()
        for i in range(settings["rounds"]):
            start = i % len(peers)
            for peer in peers[start:] + peers[:start]:
                told[peer.name]["rounds"].append(peer.epoch())
        for peer in peers:
            told[peer.name]["end"] = peer.answer()
    finally:
        for peer in peers:
            peer.end()
    return told


def environment(threads, root=ROOT):
    """The same for all: so many threads, and no progress bars, fit's or pythae's."""
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONPATH": str(root),
        "TQDM_DISABLE": "1",
        "VAELIB_PROGRESS": "0",
    }


def answer(file, arguments, threads, python=sys.executable):
    """What a process of its own prints, read as JSON."""
    done = subprocess.run(
        [python, HERE / file, *arguments],
        capture_output=True,
        text=True,
        env=environment(threads),
    )
    if done.returncode:
        raise SystemExit(f"{file} {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def peer_python():
    """A Python that has pythae beside this one's packages, made once; None where it cannot be."""
    folder = ROOT / ".bench-venv"
    python, ready = folder / "bin" / "python", folder / f"pythae-{PYTHAE}"
    if ready.exists():
        return python
    print(f"Installing pythae {PYTHAE} into {folder.name} ...", flush=True)
    create = [sys.executable, "-m", "venv", "--clear", "--without-pip", folder]
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    install = [*pip, "install", "-q", "--no-deps", f"pythae=={PYTHAE}", *PYTHAE_NEEDS]
    try:
        subprocess.run(create, check=True)
        (folder / ".gitignore").write_text("*\n")
        packages = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
        own = sysconfig.get_path("purelib")
        Path(packages, "this.pth").write_text(f"import site; site.addsitedir({own!r})\n")
        subprocess.run(install, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"pythae is left out: {error}", flush=True)
        return None
    ready.touch()
    return python
