"""Checkpoints damaged between two runs: the one before is taken, or the run stops untouched."""

import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file
from torture import KEYWORDS, Cut, contents, grey, measured, same_bits, small, state

import vaelib


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


def cut_run(folder):
    """Two checkpoints, of steps 8 and 12 of 16."""

    def cut(model, history):
        if len(history.epoch) == 3:
            raise Cut

    with pytest.raises(Cut):
        vaelib.fit(small(), grey(), out=folder, callback=cut, **KEYWORDS)
    paths = sorted(folder.glob("step_*.safetensors"))
    assert [p.name for p in paths] == ["step_000000008.safetensors", "step_000000012.safetensors"]
    return paths


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def flipped_in_the_header(path):
    content = bytearray(path.read_bytes())
    content[content.index(b'"step') + 3] ^= 1
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


def zeroed(path):
    """As some file systems leave a file after a power cut."""
    path.write_bytes(b"\0" * path.stat().st_size)


def lengthened(path):
    path.write_bytes(path.read_bytes() + b"\0")


def with_a_huge_header(path):
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])


def a_strangers_safetensors(path):
    save_file({"model.encoder.1.weight": torch.zeros(8, 16)}, path)


def a_saved_model(path):
    vaelib.save(small(), path)


def a_pickle(path):
    path.write_bytes(pickle.dumps(Bomb()))


def a_torch_file(path):
    torch.save({"weights": Bomb()}, path)


def a_text(path):
    path.write_text("step 12: all is well\n")


DAMAGES = [
    truncated,
    halved,
    flipped,
    flipped_in_the_header,
    emptied,
    zeroed,
    lengthened,
    with_a_huge_header,
    a_strangers_safetensors,
    a_saved_model,
    a_pickle,
    a_torch_file,
    a_text,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_damaged_the_run_goes_on_from_the_one_before(
    tmp_path, monkeypatch, whole, damage
):
    monkeypatch.chdir(tmp_path)
    _, newest = cut_run(tmp_path)
    damage(newest)
    model = small(seed=9)
    with pytest.warns(UserWarning, match=r"step_000000008\.safetensors") as caught:
        history = vaelib.fit(model, grey(), out=tmp_path, **KEYWORDS)
    assert len(caught) == 1
    assert str(newest) in str(caught[0].message)  # which file, and why
    assert same_bits(state(model), whole[0])
    assert same_bits(history.ema, whole[1].ema)
    assert measured(history) == measured(whole[1])
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_all_damaged_the_run_stops_and_overwrites_nothing(tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    paths = cut_run(tmp_path)
    for path in paths:
        damage(path)
    before, model = contents(tmp_path), small()
    with pytest.raises(ValueError, match="holds no checkpoint that can be read") as caught:
        vaelib.fit(model, grey(), out=tmp_path, **KEYWORDS)
    assert str(paths[1]) in str(caught.value)
    assert "remove the folder or choose another out" in str(caught.value)
    assert contents(tmp_path) == before
    assert same_bits(state(model), state(small()))


def test_the_older_one_damaged_nobody_minds(tmp_path, whole):
    older, _ = cut_run(tmp_path)
    halved(older)
    model = small(seed=9)
    vaelib.fit(model, grey(), out=tmp_path, **KEYWORDS)
    assert same_bits(state(model), whole[0])


@pytest.mark.filterwarnings("ignore:.* is damaged")
def test_a_refused_call_leaves_a_damaged_folder_as_it_was(tmp_path):
    """Other settings are refused; until the call is right, nothing may be removed."""
    _, newest = cut_run(tmp_path)
    halved(newest)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="begun with batch_size"):
        vaelib.fit(small(), grey(), out=tmp_path, **(KEYWORDS | {"batch_size": 10}))
    assert contents(tmp_path) == before


def test_a_models_file_of_yours_in_the_folder_is_no_checkpoint(tmp_path, whole):
    """Whatever its name: it is neither read as one nor removed, and it displaces none."""
    names = ["best.safetensors", "step_best.safetensors", "step_12.safetensors"]
    model = small()
    for name in names:
        vaelib.save(model, tmp_path / name)
    before = {name: (tmp_path / name).read_bytes() for name in names}
    with pytest.raises(Cut):
        vaelib.fit(model, grey(), out=tmp_path, callback=_cut_at_two, **KEYWORDS)
    resumed = small(seed=9)
    vaelib.fit(resumed, grey(), out=tmp_path, **KEYWORDS)
    assert same_bits(state(resumed), whole[0])
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    assert (tmp_path / "step_000000016.safetensors").exists()


def _cut_at_two(model, history):
    if len(history.epoch) == 2:
        raise Cut


def test_a_checkpoint_is_no_model_to_load_and_says_so(tmp_path):
    _, newest = cut_run(tmp_path)
    with pytest.raises(ValueError, match="not a saved model"):
        vaelib.load(newest)
