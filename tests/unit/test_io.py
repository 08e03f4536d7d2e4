"""Files: what was saved comes back; what was damaged never loads."""

import json
import pickle
import struct
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

import vaelib


@pytest.fixture
def model():
    torch.manual_seed(0)
    return vaelib.mlp_vae(3, (8, 6), x_shape=(1, 4, 4), activation="silu", norm="layer")


@pytest.fixture
def path(tmp_path, model):
    vaelib.save(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("likelihood", [vaelib.bernoulli, vaelib.gaussian(0.2)])
def test_a_factorys_model_comes_back_whole(tmp_path, likelihood):
    model = vaelib.mlp_vae(3, (8,), x_shape=(2, 4, 4), likelihood=likelihood)
    vaelib.save(model, str(tmp_path / "m.safetensors"))
    loaded = vaelib.load(str(tmp_path / "m.safetensors"))
    x, noise = torch.zeros(2, 2, 4, 4), torch.randn(1, 2, 3)
    assert_close(loaded.draw(x, noise=noise).log_w, model.draw(x, noise=noise).log_w)
    assert loaded.likelihood == likelihood
    assert not loaded.training


def test_what_was_rebuilt_can_be_moved(path):
    model = vaelib.load(path).to(torch.device("cpu")).double()
    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))


def test_own_parts_need_a_model_to_fill(tmp_path):
    model = vaelib.VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2)
    vaelib.save(model, tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match=r"load\(path, into=model\)"):
        vaelib.load(tmp_path / "own.safetensors")
    other = vaelib.VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2)
    assert vaelib.load(tmp_path / "own.safetensors", into=other) is other
    assert_close(other.state_dict(), model.state_dict())


def test_a_changed_part_makes_it_your_own(tmp_path, model):
    model.decoder = nn.Sequential(nn.Linear(3, 16), nn.Unflatten(1, (1, 4, 4)))
    vaelib.save(model, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="own parts"):
        vaelib.load(tmp_path / "m.safetensors")


def test_another_models_weights_are_refused_and_nothing_is_lost(path):
    other = vaelib.mlp_vae(4, (8,), x_shape=(1, 4, 4))
    before = {name: t.clone() for name, t in other.state_dict().items()}
    with pytest.raises(ValueError, match="holds another model: '"):
        vaelib.load(path, into=other)
    assert_close(other.state_dict(), before, rtol=0, atol=0)


def test_every_flipped_byte_is_found(path):
    content = path.read_bytes()
    for position in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[position] ^= 0x40
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged|not written by vaelib|describes no model"):
            vaelib.load(path)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_truncated_file_never_loads(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="damaged"):
        vaelib.load(path)


def test_a_lengthened_file_never_loads(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="damaged"):
        vaelib.load(path)


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


def test_a_pickle_is_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.safetensors").write_bytes(pickle.dumps(Bomb()))
    torch.save({"weights": Bomb()}, tmp_path / "bomb.pt")
    for name in ("bomb.safetensors", "bomb.pt"):
        with pytest.raises(ValueError, match="Pickles are never opened"):
            vaelib.load(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_a_strangers_safetensors_is_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="not written by vaelib"):
        vaelib.load(tmp_path / "a.safetensors")


FLOW = {
    "name": "AutoregressiveFlow",
    "latent_dim": 3,
    "context_dim": 2,
    "hidden": 4,
    "num_layers": 2,
}


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": [10**9, 10**9]},
        {"hidden": [1] * 10**5},
        {"latent_dim": 10**12},
        {"x_shape": [10**6, 10**6, 10**6]},
        {"factory": "os.system"},
        {"activation": "__import__('os')"},
        {"hidden": "many"},
        {"likelihood": {"name": "gaussian", "scale": -1}},
        {"likelihood": {"name": "open"}},
        {"likelihood": {"name": "logistic_mixture", "num_components": 10**15}},
        {"surprise": 1},
        {"prior": {"name": "FlowPrior", "latent_dim": 2, "hidden": 10**15, "num_layers": 4}},
        {"prior": {"name": "FlowPrior", "latent_dim": 2, "hidden": 4, "num_layers": 10**15}},
        {"prior": {"name": "FlowPrior", "latent_dim": [2] * 10**6, "hidden": 4, "num_layers": 4}},
        {"prior": {"name": "mlp"}},
        {"prior": {"name": "AutoregressivePrior", "latent_dim": 3, "hidden": 4, "num_layers": 2}},
        {"posterior": FLOW | {"hidden": 10**15}},
        {"posterior": FLOW | {"num_layers": 10**15}},
        {"posterior": FLOW | {"context_dim": 10**15}},
        {"posterior": FLOW | {"context_dim": -(10**15)}},
        {"posterior": FLOW | {"latent_dim": 10**12}},
        {"posterior": FLOW | {"name": "CouplingFlow", "hidden": [2] * 10**6}},
        {"posterior": FLOW | {"name": "CouplingFlow"}},
        {"posterior": FLOW | {"name": "BentNormal"}},
        {"posterior": {"name": "NormalMixture", "num_components": 10**15}},
        {"posterior": {"name": "NormalMixture", "num_components": 0}},
        {"posterior": {"name": "full_covariance"}},
        {"posterior": {"name": "latent"}},
        {"posterior": {"name": "reparameterized"}},
        {"posterior": {"name": "__builtins__"}},
        {"posterior": 3},
    ],
)
def test_a_hostile_architecture_allocates_nothing(path, change):
    """Its hash is right, as a forger's would be; only its description is not."""
    tensors, description = vaelib.io.read_tensors(path)
    description["architecture"] |= change
    vaelib.io.write_tensors(path, tensors, description)
    with pytest.raises(ValueError, match="describes no model|holds another model"):
        vaelib.load(path)


def test_a_huge_header_is_refused(path):
    content = path.read_bytes()
    path.write_bytes(struct.pack("<Q", 2**60) + content[8:])
    with pytest.raises(ValueError, match="damaged"):
        vaelib.load(path)


def test_the_architecture_is_readable_json(path):
    size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    header = json.loads(path.read_bytes()[8 : 8 + size])
    description = json.loads(header["__metadata__"]["description"])
    assert description["architecture"]["hidden"] == [8, 6]


def test_missing_and_unwritable_paths_say_so(tmp_path, model):
    with pytest.raises(FileNotFoundError, match="nothing.safetensors is not a file"):
        vaelib.load(tmp_path / "nothing.safetensors")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="could not be written"):
        vaelib.save(model, tmp_path / "file" / "m.safetensors")
    with pytest.raises(TypeError, match="expected a model, then a path"):
        vaelib.save(tmp_path / "m.safetensors", model)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_no_permission_to_write_says_so(model):
    with pytest.raises(OSError, match="could not be written"):
        vaelib.save(model, "/proc/vaelib/m.safetensors")


def test_a_failed_write_leaves_the_old_file(path, model, monkeypatch):
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vaelib.io.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        vaelib.save(model, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
