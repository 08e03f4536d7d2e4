"""How fast `vaelib.fit` trains, beside other ways to train the same network, in one run.

    python tests/bench/bench.py                 all of it: 15 minutes on two quiet cores
    python tests/bench/bench.py --gpu           on a GPU: 5 minutes, installs nothing
    python tests/bench/bench.py --cases growth  a part, printed (kept with --out FILE)
    python tests/bench/bench.py --quick         tiny numbers, to see that everything runs
    python tests/bench/bench.py --against DIR   beside the fit of another checkout

Writes data/results/bench.json, or data/results/gpu/bench.json. Each contender is a process of its
own (peers.py); they take turns, an epoch at a time, in an order that moves by one each round. A
ratio is the median over rounds of the ratio within a round, so a machine that drifts cancels.

The contenders and their settings are in cases.py, what is measured in measures.py, by processes of
processes.py, and printed by report.py; faults.py, growth.py and scale.py run by themselves, too.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

from cases import (
    BEFORE,
    CPU_CASES,
    GPU_CASES,
    GROWTH,
    NATS,
    OURS,
    PEERS,
    QUICK_CASES,
    QUICK_GROWTH,
    QUICK_NATS,
)
from measures import growth, nats, rounded, speed
from processes import PYTHAE, ROOT, peer_python
from report import print_case, print_growth, print_nats, print_targets, targets


def machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_before": rounded(os.getloadavg()[0]),  # above a few tenths: not a quiet machine
    }


def commit():
    """The commit, with -dirty where a file of vaelib or of the benchmark differs from it."""
    try:
        git = ["git", "-C", ROOT]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "vaelib", "tests/bench"], capture_output=True
        )
    except OSError:
        return "unknown"
    return (head.stdout.strip() or "unknown") + ("-dirty" if changed.stdout else "")


def run(arguments):
    started, device = time.perf_counter(), "cuda" if arguments.gpu else "cpu"
    content = {
        "commit": commit(),
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": version("torch")},
    }
    cases = GPU_CASES if arguments.gpu else QUICK_CASES if arguments.quick else CPU_CASES
    names = [*PEERS, "fit", "fit_compiled"] + (["fit_bf16"] if arguments.gpu else [])
    names = [name for name in names if name not in arguments.skip]
    if arguments.against:
        names += [name + BEFORE for name in names if name in OURS]
        cases = [c | {"against": str(arguments.against.resolve())} for c in cases]
    pythons = {}
    if "pythae" in names:
        python = None if arguments.gpu else peer_python()  # a GPU machine may reach no registry
        if python is None:
            names.remove("pythae")
        else:
            pythons["pythae"] = python
            content["versions"]["pythae"] = PYTHAE

    wanted = arguments.cases or [c["name"] for c in cases] + ["nats", "growth"]
    content["cases"] = []
    for settings in cases:
        if settings["name"] in wanted:
            if arguments.rounds:
                settings = settings | {"rounds": arguments.rounds}
            content["cases"].append(speed(settings, names, pythons))
            print_case(content["cases"][-1])
    content["targets"] = targets(content["cases"])
    print_targets(content["targets"])
    if "nats" in wanted:
        settings = QUICK_NATS if arguments.quick else NATS
        ours = [name for name in names if not name.endswith(BEFORE)]
        content["nats"] = nats(settings, ours, pythons, device)
        print_nats(content["nats"])
    if "growth" in wanted and not arguments.gpu:
        content["growth"] = growth(QUICK_GROWTH if arguments.quick else GROWTH, pythons)
        print_growth(content["growth"])
    content["seconds"] = rounded(time.perf_counter() - started)
    return content


def main():
    names = [c["name"] for c in CPU_CASES + GPU_CASES] + ["nats", "growth"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--quick", action="store_true", help="tiny numbers; nothing is stored")
    parser.add_argument("--cases", nargs="+", choices=sorted(set(names)), metavar="CASE")
    parser.add_argument("--skip", nargs="+", choices=PEERS, default=[], help="leave peers out")
    parser.add_argument("--rounds", type=int, help="rounds of each case")
    parser.add_argument("--against", type=Path, help="a checkout whose fit takes turns, too")
    parser.add_argument("--out", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:  # nothing compiled before the run counts
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        content = run(arguments)
    partial = arguments.quick or arguments.cases or arguments.skip or arguments.against
    out = arguments.out
    if out is None and not partial:
        out = ROOT / "data/results" / ("gpu/bench.json" if arguments.gpu else "bench.json")
    print(f"\n{content['seconds']:.0f} s; " + (f"written: {out.name}" if out else "not stored"))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
