"""What the book's best recipes reach, from the results of benchmarks: data/results/records.json.

    python tools/records.py        `make benchmark` does it, too

A record names its task, and the place in a benchmark's results where the figure lies.
"""

import json
from dataclasses import dataclass
from functools import partial

from vaelib.results import FOLDER, results


@dataclass(frozen=True)
class Record:
    """A task, and where its figure, that figure's error and its training seconds lie."""

    task: str
    benchmark: str
    model: str | None  # whose results lie in a dictionary of its own
    figure: str  # a key of the model's results, or keys with " / " between them
    unit: str
    error: str | None = None


SOME, NATS, MANY = (f"nats, K = {k}, 10,000 test images" for k in (50, 200, 500))
BITS = "bits per dimension, 2,000 test images"
FRECHET = "Frechet distance, DigitNet's features, squared"
MINUTES = "MNIST, bits, one layer of latents"
MIG = "mutual information gap, 20 bins, 10,000 new sprites"
COLOUR = "CIFAR-10, 10,000 images, pixels given"
CLOTHES = "Fashion-MNIST, bits, four codes of 512 and a transformer, three minutes"
RECORDS = (
    Record(f"{MINUTES}, two minutes", "mnist_minutes", "2 minutes", "nll", NATS, "stderr"),
    Record(f"{MINUTES}, ten minutes", "mnist_minutes", "10 minutes", "nll", NATS, "stderr"),
    Record(f"{MINUTES}, ten minutes of both cores", "ten_minutes", None, "test", MANY),
    Record(
        "Samples of the ten minutes on one core against 5,000 test digits",
        "mnist_minutes",
        "10 minutes",
        "frechet",
        FRECHET,
    ),
    Record(f"{COLOUR} the code", "cifar_minutes", "algebra, long", "bits", BITS, "error"),
    Record(
        f"{COLOUR} their neighbours",
        "cifar_minutes",
        "neighbours, long",
        "bits",
        BITS,
        "error",
    ),
    Record(f"{COLOUR} ten levels of differences", "photographs", None, "bits", BITS, "error"),
    Record("MNIST, bits, four levels, three minutes of a quiet core", "depth", "4", "images", SOME),
    Record(
        "MNIST, bits, one level under a flow, three minutes of a quiet core",
        "depth_controls",
        "1 and a flow",
        "images",
        SOME,
    ),
    Record(CLOTHES, "totals", "VQ", "transformer / total", "nats, the bound by one code"),
    Record(
        f"{CLOTHES}: samples against 5,000 test images",
        "totals",
        "VQ",
        "transformer / frechet",
        "Frechet distance, FashionNet's features, squared",
    ),
    Record("Sprites of 32 x 32, from pictures alone", "sprites", "β falls to 4", "MIG", MIG),
    Record("Sprites of 32 x 32, by pairs", "sprites", "pairs, β falls to 1", "MIG", MIG),
)


def entry(record: Record) -> dict:
    """The record with its numbers: a mean over seeds, its spread, and the error over images."""
    found = results(record.benchmark)
    own = partial(found.over_seeds, *([record.model] if record.model else []))
    values = own(*record.figure.split(" / "))
    error = round(own(record.error).mean().item(), 4) if record.error else None
    content = json.loads((FOLDER / f"{record.benchmark}.json").read_text(encoding="utf-8"))
    return {
        "task": record.task,
        "value": round(values.mean().item(), 4),
        "spread over seeds": round(values.std().item(), 4),
        "standard error over images": error,
        "unit": record.unit,
        "seeds": len(values),
        "training seconds": round(own("training").mean().item()),
        "device": found.device,
        "date": found.date,
        "commit": found.commit,
        "command": f"python tools/benchmark.py {record.benchmark}",
        "chapter": content["chapter"],
    }


def entries() -> list[dict]:
    return [entry(record) for record in RECORDS]


def main() -> None:
    text = json.dumps(entries(), indent=2, ensure_ascii=False) + "\n"
    (FOLDER / "records.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
