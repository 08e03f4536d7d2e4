"""What bench.py measures with its contenders: speed, nats, and how time and memory grow."""

import json
import math
import random
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor

from cases import OURS, case
from processes import answer, take_turns

# Speed -------------------------------------------------------------------------------------------


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
