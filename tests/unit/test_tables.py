"""Tables and stored results: what a chapter shows is what the cells hold."""

import json

import pytest
import torch

import vaelib
from vaelib.results import kept
from vaelib.tables import answer, interval, plus_minus

ROWS = [{"model": "VAE <small>", "nats": "-97.3"}, {"model": "PCA", "nats": "-205.1 ± 0.2"}]


def test_html_and_text_hold_every_cell():
    table = vaelib.table(ROWS, caption="Test images & bits")
    assert "VAE &lt;small&gt;" in table._repr_html_()
    assert ">Test images &amp; bits</caption>" in table._repr_html_()
    assert table._repr_html_().count("<td class=number style=text-align:right>") == 2
    assert table._repr_html_().count("<td style=text-align:left>") == 2
    assert str(table).splitlines() == [
        "Test images & bits",
        "model                nats",
        "VAE <small>         -97.3",
        "PCA          -205.1 ± 0.2",
    ]


def test_a_corner_without_a_name_is_no_head():
    head = vaelib.table([{"": "VAE", "NLL": 84.2}])._repr_html_().partition("<tbody>")[0]
    assert head.count("<td") == 1 and head.count("<th ") == 1


def test_numbers_are_written_as_the_docstring_says():
    row = {"int": 60_000, "float": 1 / 3, "tensor": torch.tensor(2.0), "flag": True}
    assert str(vaelib.table([row])).split()[-4:] == ["60,000", "0.3333", "2", "True"]


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        vaelib.table([])
    with pytest.raises(ValueError, match="row 1 has the columns"):
        vaelib.table([{"a": 1}, {"b": 1}])


def test_plus_minus():
    assert plus_minus(torch.tensor([1.0, 2.0, 3.0]), 1) == "2.0 ± 1.0"
    assert plus_minus(torch.tensor([1.0]), 1) == "1.0"


def test_results(tmp_path):
    runs = [{"seed": s, "seconds": 60.0, "nll": [84.0, 85.0 + s]} for s in (0, 1)]
    facts = {"commit": "c" * 40, "date": "2026-01-01", "device": "cpu", "threads": 1}
    (tmp_path / "demo.json").write_text(json.dumps({"chapter": "05", "runs": runs} | facts))
    found = vaelib.results("demo", tmp_path)
    assert found.over_seeds("nll", 1).tolist() == [85.0, 86.0]
    assert found.over_seeds("nll").shape == (2, 2)
    assert found.of_seed(1) == runs[1] and found.of_seed(7) is None
    assert str(found).startswith("2 seeds, 1 minutes each on 1 thread of cpu")
    (tmp_path / "gpu.json").write_text(
        json.dumps({"chapter": "05", "runs": runs} | facts | {"device": "NVIDIA H200"})
    )
    assert " each on NVIDIA H200, commit" in str(vaelib.results("gpu", tmp_path))
    with pytest.raises(KeyError, match="at 'kl' there is seed, seconds, nll"):
        found.over_seeds("kl")
    with pytest.raises(FileNotFoundError, match="expected one of demo"):
        vaelib.results("other", tmp_path)


@pytest.mark.parametrize("runs", [2, 3, 10])
def test_a_95_percent_interval_holds_the_mean_in_95_of_100_times(runs):
    torch.manual_seed(0)
    times = 4_000
    held = 0
    for values in 3 + torch.randn(times, runs):
        mean, low, high = interval(values)
        assert low <= mean <= high
        held += low <= 3 <= high
    error = (0.95 * 0.05 / times) ** 0.5
    assert abs(held / times - 0.95) < 4 * error


@pytest.mark.parametrize("shape", [(1,), (11,), (3, 2)])
def test_an_interval_wants_a_few_runs(shape):
    with pytest.raises(ValueError, match="2 to 10 of them"):
        interval(torch.zeros(shape))


def test_an_answer_is_the_side_on_which_the_whole_interval_lies():
    half = interval(torch.tensor([-1.0, 0.0, 1.0]))[2]  # of any three runs that far apart
    for mean, said in [(half + 0.01, "yes"), (half - 0.01, "open"), (-half - 0.01, "no")]:
        assert answer(mean + torch.tensor([-1.0, 0.0, 1.0])) == said
    assert answer(torch.zeros(3)) == "open"


def test_a_part_of_a_benchmark_is_made_once_where_a_folder_keeps_it(tmp_path, monkeypatch):
    made = []

    def part():
        made.append(1)
        return {"nll": 97.3, "curve": [1, 2]}

    monkeypatch.delenv("VAELIB_KEPT", raising=False)
    assert kept("a VAE", part) == kept("a VAE", part) == {"nll": 97.3, "curve": [1, 2]}
    assert len(made) == 2
    monkeypatch.setenv("VAELIB_KEPT", str(tmp_path / "new folder"))
    assert kept("a VAE", part) == kept("a VAE", part)
    assert len(made) == 3
    kept("another VAE", part)
    assert len(made) == 4 and len(list((tmp_path / "new folder").iterdir())) == 2


def test_a_part_that_failed_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELIB_KEPT", str(tmp_path))
    with pytest.raises(TypeError):
        kept("a tensor", lambda: torch.zeros(2))
    assert list(tmp_path.iterdir()) == []
    assert kept("a tensor", lambda: 1) == 1


def test_processes_that_share_a_seed_take_each_part_once(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELIB_KEPT", str(tmp_path))
    monkeypatch.setenv("VAELIB_SHARED", "1")

    def part():  # while it is made, another process asks for it
        return {"nll": 97.3, "another gets": kept("a VAE", part)}

    made = {"nll": 97.3, "another gets": {}}
    assert kept("a VAE", part) == made
    assert kept("a VAE", dict) == made
    (tmp_path / "a_VAE.json").unlink()  # its process was killed
    assert kept("a VAE", dict) == {}
    monkeypatch.delenv("VAELIB_SHARED")
    assert kept("a VAE", lambda: {"nll": 97.5}) == {"nll": 97.5}
