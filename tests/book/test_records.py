"""The records page says what the results say."""

import json

import records
from jobs import jobs
from vaelib.results import FOLDER


def test_the_stored_records_are_those_of_the_results():
    stored = json.loads((FOLDER / "records.json").read_text(encoding="utf-8"))
    assert stored == records.entries()


def test_a_record_is_the_mean_over_the_seeds_of_its_place():
    runs = json.loads((FOLDER / "mnist_minutes.json").read_text(encoding="utf-8"))["runs"]
    values = [run["10 minutes"]["nll"] for run in runs]
    (record,) = [r for r in records.entries() if r["task"].endswith("ten minutes")]
    assert abs(record["value"] - sum(values) / len(values)) < 1e-4
    assert record["seeds"] == len(values) and record["chapter"] == "07_evaluation"


def test_every_record_names_a_chapter_and_a_benchmark_of_the_book():
    there = jobs()
    for record in records.RECORDS:
        assert there[record.benchmark].stem == records.entry(record)["chapter"]
