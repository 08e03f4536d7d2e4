"""How fast `vaelib.fit` trains, beside other ways to train the same network, in one run.

    python tests/bench/bench.py                 all of it: 15 minutes on two quiet cores
    python tests/bench/bench.py --gpu           on a GPU: 5 minutes, installs nothing
    python tests/bench/bench.py --cases growth  a part, printed (kept with --out FILE)
    python tests/bench/bench.py --quick         tiny numbers, to see that everything runs
    python tests/bench/bench.py --against DIR   beside the fit of another checkout

Writes data/results/bench.json, or data/results/gpu/bench.json. Each contender is a process of its
own (peers.py); they take turns, an epoch at a time, in an order that moves by one each round. A
ratio is the median over rounds of the ratio within a round, so a machine that drifts cancels.
"""

import argparse
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path

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

PEERS = ["classic", "pythae", "resident", "by_hand", "floor"]
OURS = ["fit", "fit_compiled", "fit_bf16"]
BEFORE = "_before"  # ends the names of another checkout's
# MLP, batch 128, two CPU cores: ours / theirs, in speed.
TARGET_CASE = "mlp-mnist-128-t2"
TARGETS = [
    ("fit", "classic", 3.0),
    ("fit", "pythae", 1.5),
    ("fit", "floor", 0.65),
    ("fit_compiled", "floor", 0.8),
]


def case(net, images, batch_size, threads, examples, rounds):
    device = "cuda" if threads is None else "cpu"
    name = f"{net}-{images}-{batch_size}" + (f"-t{threads}" if threads else "")
    return {
        "name": name,
        "net": net,  # "mlp": 400 hidden units, 20 latents; "conv": 32 and 64 channels, stride 2
        "images": images,  # "mnist", or "colour": noise of CIFAR-10's shape
        "batch_size": batch_size,
        "device": device,
        "threads": threads or os.cpu_count(),
        "examples": examples,  # an epoch
        "rounds": rounds,
    }


CPU_CASES = [
    case("mlp", "mnist", 128, 1, 12_800, 5),
    case("mlp", "mnist", 128, 2, 12_800, 9),
    case("mlp", "mnist", 1024, 1, 12_288, 5),
    case("mlp", "mnist", 1024, 2, 12_288, 5),
    case("conv", "mnist", 128, 2, 6_400, 4),
    case("mlp", "colour", 128, 2, 10_000, 3),
    case("conv", "colour", 128, 2, 10_000, 3),
]
GPU_CASES = [
    case("mlp", "mnist", 128, None, 12_800, 7),
    case("mlp", "mnist", 1024, None, 20_480, 7),
    case("conv", "mnist", 128, None, 12_800, 5),
    case("conv", "colour", 128, None, 10_000, 5),
]
QUICK_CASES = [
    case("mlp", "mnist", 128, 1, 1_280, 3),
    case("conv", "mnist", 128, 1, 640, 2) | {"without": ["classic", "fit_compiled"]},
]

NATS = {
    "nets": ["mlp", "conv"],
    "epochs": 3,
    "examples": 20_000,
    "test_examples": 1_000,
    "num_samples": 100,
}
QUICK_NATS = {
    "nets": ["mlp"],
    "epochs": 1,
    "examples": 1_280,
    "test_examples": 100,
    "num_samples": 10,
}

GROWTH = {
    "threads": 2,
    "examples": [7_500, 15_000, 30_000, 60_000],
    "repeats": 3,
    "epochs": [1, 2, 4],
    "memory_examples": 10_000,
    "num_samples": [10, 100, 1_000],
    "test_examples": 200,
    "rows": [10_000, 40_000, 160_000],
    "nll_examples": 50,
    "nll_num_samples": [1, 100, 1_000],
    "nll_rounds": 3,
}
QUICK_GROWTH = {
    "threads": 1,
    "examples": [512, 1_024],
    "repeats": 1,
    "epochs": [2],
    "memory_examples": 512,
    "num_samples": [50],
    "test_examples": 20,
    "rows": [1_000],
    "nll_examples": 5,
    "nll_num_samples": [100],
    "nll_rounds": 9,  # milliseconds each: the median of one would be chance
}


# Processes ---------------------------------------------------------------------------------------


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


# Speed -------------------------------------------------------------------------------------------


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


def takes_part(name, net, device):
    """Whether a contender can train the network there."""
    return name != "by_hand" or (net == "mlp" and device == "cpu")


def speed(settings, names, pythons):
    """A case's rows and ratios, from the epochs that the contenders took in turns."""
    names = [name for name in names if name not in settings.get("without", ())]
    names = [name for name in names if takes_part(name, settings["net"], settings["device"])]
    told = take_turns(settings, names, pythons)
    scale = 60_000 / settings["examples"]
    rows = {}
    for name, facts in told.items():
        seconds = [epoch["seconds"] * scale for epoch in facts["rounds"]]
        rows[name] = {
            "seconds_per_60000": spread(seconds),
            "rounds": rounded(seconds),
            "warm_up_seconds": rounded(facts["warm_up"]["seconds"]),
            "objective_first": rounded(facts["warm_up"]["objective"]),
            "objective_last": rounded(facts["rounds"][-1]["objective"]),
        }
        if name in OURS:
            rows[name]["call"] = call_seconds(facts, scale)
    ratios = {
        ours: {
            name: spread([a / b for a, b in zip(row["rounds"], rows[ours]["rounds"])])
            for name, row in rows.items()
            if name != ours
        }
        for ours in OURS
        if ours in rows
    }
    gpu = told[names[0]]["ready"]["gpu"]
    return settings | {"gpu": gpu, "contenders": rows, "speed_of_ours_to": ratios}


def call_seconds(facts, scale):
    """Where the seconds of one whole call of fit went.

    before: checks, the fingerprint, the first order; first_epoch_extra: what its first epoch took
    beyond a later one, where compiling lies; after: from the last epoch to the return.
    """
    first, own = facts["warm_up"], [epoch["own"] for epoch in facts["rounds"]]
    return {
        "epochs": 1 + len(own),
        "whole": rounded(
            first["seconds"] + sum(e["seconds"] for e in facts["rounds"]) + facts["end"]["after"]
        ),
        "before": rounded(first["seconds"] - first["own"]),
        "first_epoch_extra": rounded(first["own"] - statistics.median(own)),
        "after": rounded(facts["end"]["after"]),
        "history_seconds_per_60000": rounded(statistics.median(own) * scale),
    }


def spread(values):
    """The median and the quartiles."""
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    return {"median": rounded(middle), "quartiles": rounded([low, high])}


def interval(values, level=0.9, resamples=10_000):
    """The bootstrap interval of the median."""
    dice = random.Random(0)
    medians = sorted(
        statistics.median(dice.choices(values, k=len(values))) for _ in range(resamples)
    )
    tail = round((1 - level) / 2 * resamples)
    return rounded([medians[tail], medians[-tail - 1]])


def rounded(value):
    """To five digits; noise lies above them."""
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return value if value is None else float(f"{value:.5g}")


# Nats --------------------------------------------------------------------------------------------


def nats(settings, names, pythons, device):
    """log p(x) of test images after equal training: the same weights, bits and order, one seed."""

    def train(job):
        net, name = job
        task = case(net, "mnist", 128, 1, 0, 0) | settings | {"task": "nats", "device": device}
        python = pythons.get(name, sys.executable)
        return answer("peers.py", [json.dumps(task), name], 1, python)

    jobs = [
        (net, name)
        for net in settings["nets"]
        for name in names
        if name != "floor" and takes_part(name, net, device)
    ]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(train, jobs))
    tables = {net: {} for net in settings["nets"]}
    for (net, name), result in zip(jobs, results):
        tables[net][name] = {key: rounded(value) for key, value in result.items()}
    note = "one seed; the posterior's noise differs between contenders"
    return settings | {"batch_size": 128, "note": note, "contenders": tables}


# Growth ------------------------------------------------------------------------------------------


def growth(settings, pythons):
    """Time against examples, memory against epochs, K and rows, and log p(x) beside pythae's."""
    threads = settings["threads"]

    def grow(task, **arguments):
        task = {"task": task, "threads": threads, **arguments}
        return answer("growth.py", [json.dumps(task)], threads)

    def memory(task, name, values, **arguments):
        with ThreadPoolExecutor(2) as pool:  # two at a time: nothing is timed here
            found = pool.map(lambda value: grow(task, **{name: value}, **arguments), values)
        return [
            {name: value} | {key: rounded(mb) for key, mb in row.items()}
            for value, row in zip(values, found)
        ]

    times = grow("epoch_seconds", sizes=settings["examples"], repeats=settings["repeats"])
    for row in times:
        row["seconds_per_60000"] = rounded(row["seconds"] * 60_000 / row["examples"])
        row["seconds"] = rounded(row["seconds"])
    first, last = times[0], times[-1]
    power = math.log(last["seconds"] / first["seconds"]) / math.log(
        last["examples"] / first["examples"]
    )
    return {
        "threads": threads,
        "epoch": times,
        "epoch_power": rounded(power),  # seconds ~ examples ** power
        "fit": memory(
            "fit_memory", "epochs", settings["epochs"], examples=settings["memory_examples"]
        ),
        "log_marginal": memory(
            "log_marginal_memory",
            "num_samples",
            settings["num_samples"],
            examples=settings["test_examples"],
        ),
        "memmap": memory("memmap_memory", "rows", settings["rows"]),
        "freed_memory": {
            "kept": answer("faults.py", [], 1),
            "returned": answer("faults.py", ["without"], 1),
        },
        "nll": nll(settings, pythons),
    }


def nll(settings, pythons):
    """Seconds an image for log p(x), by the number of draws asked for and the number made."""
    names = ["log_marginal", "nll_products"] + (["get_nll"] if "pythae" in pythons else [])
    pythons = {"get_nll": pythons.get("pythae")}
    base = case("mlp", "mnist", 128, settings["threads"], settings["nll_examples"], 0)
    rows = []
    for asked in settings["nll_num_samples"]:
        task = base | {"num_samples": asked, "rounds": settings["nll_rounds"]}
        turns = take_turns(task, names, pythons)
        for name, facts in turns.items():
            seconds = statistics.median(epoch["seconds"] for epoch in facts["rounds"])
            products = turns["nll_products"]["rounds"]
            ratios = [a["seconds"] / b["seconds"] for a, b in zip(facts["rounds"], products)]
            drawn = facts["rounds"][-1]["drawn"]
            rows.append(
                {
                    "function": name,
                    "asked": asked,
                    "drawn": drawn,
                    "milliseconds_an_image": rounded(1e3 * seconds / base["examples"]),
                    "microseconds_a_draw": rounded(1e6 * seconds / base["examples"] / drawn),
                    "times_its_products": rounded(statistics.median(ratios)),
                    "log_px": rounded(facts["rounds"][-1]["objective"]),
                }
            )
    return rows


# Printing ----------------------------------------------------------------------------------------


def print_case(result):
    updates = math.ceil(result["examples"] / result["batch_size"])
    where = result["gpu"] or (
        "1 thread" if result["threads"] == 1 else f"{result['threads']} threads"
    )
    print(
        f"\n{result['net']} on {result['images']}, batch {result['batch_size']}, {where}; "
        f"{result['rounds']} rounds of {updates} updates"
    )
    ours = result["speed_of_ours_to"]
    head = "".join(f"{name + ' / it':>24}" for name in ours)
    print(f"{'':14}{'s a 60,000':>11}{'quartiles':>16}{'warm-up s':>11}{head}")
    for name, row in result["contenders"].items():
        seconds = row["seconds_per_60000"]
        line = f"{name:14}{seconds['median']:11.3g}{between(seconds, '.3g'):>16}"
        line += f"{row['warm_up_seconds']:11.2f}"
        for ratios in ours.values():
            cell = ""
            if name in ratios:
                cell = f"{ratios[name]['median']:.2f}  {between(ratios[name], '.2f')}"
            line += f"{cell:>24}"
        print(line)
    for name, row in result["contenders"].items():
        if name + BEFORE in result["contenders"]:
            before = result["contenders"][name + BEFORE]["rounds"]
            times = [now / then for now, then in zip(row["rounds"], before)]
            low, high = interval(times)
            print(
                f"{name} takes {statistics.median(times):.3f} of the time that it took before; "
                f"90 % interval {low:.3f} to {high:.3f}"
            )
    for name, row in result["contenders"].items():
        if "call" in row:
            call = row["call"]
            print(
                f"{name}'s call of {call['epochs']} epochs: {call['whole']:.2f} s, of which before "
                f"the first {call['before']:.3f}, its first beyond a later one "
                f"{call['first_epoch_extra']:.3f}, after the last {call['after']:.3f}"
            )
    sys.stdout.flush()


def between(row, form):
    low, high = row["quartiles"]
    return f"{low:{form}} - {high:{form}}"


def targets(results):
    """The targets, each with the ratio measured; empty where their case was not run."""
    found = [result for result in results if result["name"] == TARGET_CASE]
    rows = []
    for ours, theirs, target in TARGETS:
        for result in found:
            ratio = result["speed_of_ours_to"][ours].get(theirs)
            if ratio is not None:
                met = ratio["median"] >= target
                rows.append({"speed_of": ours, "to": theirs, "target": target, **ratio, "met": met})
    return rows


def print_targets(rows):
    print(f"\nTargets ({TARGET_CASE}), speeds:" if rows else "", end="\n" if rows else "")
    for row in rows:
        verdict = "met" if row["met"] else f"{row['median'] / row['target'] - 1:+.0%}"
        print(
            f"  {row['speed_of'] + ' / ' + row['to']:24}{row['median']:6.2f}  "
            f"({between(row, '.2f')})  target {row['target']:.2f}: {verdict}"
        )


def print_nats(result):
    print(
        f"\nNats after {result['epochs']} epochs of {result['examples']:,} images on fixed bits: "
        f"log p(x), K = {result['num_samples']}, {result['test_examples']:,} test images\n"
        f"({result['note']})"
    )
    for net, rows in result["contenders"].items():
        cells = [f"{name} {row['log_px']:.2f}" for name, row in rows.items()]
        print(f"  {net}: " + ", ".join(cells))
    sys.stdout.flush()


def print_growth(result):
    print("\nGrowth: an epoch of fit, s a 60,000, by examples")
    cells = [f"{r['examples']:,}: {r['seconds_per_60000']:.3g}" for r in result["epoch"]]
    print("  " + ", ".join(cells) + f"; seconds ~ examples^{result['epoch_power']:.2f}")
    print("Peak of RssAnon above that before the call, MB")
    for section, name in (("fit", "epochs"), ("log_marginal", "num_samples"), ("memmap", "rows")):
        cells = [f"{r[name]:,}: {r['peak_mb'] - r['before_mb']:.1f}" for r in result[section]]
        print(f"  {section} by {name}: " + ", ".join(cells))
    for way, row in result["freed_memory"].items():
        print(
            f"Freed memory {way}, conv on colour, 1 thread: {row['faults']:,.0f} page faults and "
            f"{row['milliseconds']:.0f} ms a step"
        )
    print("log p(x), draws asked for and made, ms an image, times the decoder's products")
    for row in result["nll"]:
        print(
            f"  {row['function']:13}{row['asked']:6,}{row['drawn']:7,}"
            f"{row['milliseconds_an_image']:9.3g}{row['times_its_products']:7.2f}"
            f"  (log p(x) {row['log_px']:.2f})"
        )
    sys.stdout.flush()


# The run -----------------------------------------------------------------------------------------


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
