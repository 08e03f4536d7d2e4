"""What bench.py prints of a result, and its targets beside what was measured."""

import math
import statistics
import sys

from cases import BEFORE, TARGET_CASE, TARGETS
from measures import interval


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
