"""Mutated files: ValueError or OSError, or the very weights that were saved; nothing else, ever."""

import contextlib
import json
import random
import struct
import sys

import pytest
import torch
from torture import amount, grey, same_bits, small

import vaelib
from vaelib.io import read_tensors, write_tensors

COUNT = amount(300, 10_000)
EVENTS = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect")
EVENTS += ("pickle.find_class", "exec", "compile", "import", "os.remove", "os.rename", "os.mkdir")
watched = None


def hook(event, arguments):
    if watched is not None and (event in EVENTS or (event == "open" and arguments[1] not in "rb")):
        watched.append((event, str(arguments)[:200]))


@contextlib.contextmanager
def nothing_run():
    """No code made or imported, no process, no connection, no file changed."""
    global watched
    watched = []
    try:
        yield
        assert watched == []
    finally:
        watched = None


@pytest.fixture(scope="module", autouse=True)
def hooked():
    sys.addaudithook(hook)  # it cannot be removed, but it can be told not to look


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A saved model and a checkpoint."""
    folder = tmp_path_factory.mktemp("fuzz")
    model = small()
    vaelib.save(model, folder / "model.safetensors")
    vaelib.fit(model, grey(), epochs=1, ema=0.9, out=folder / "run")
    return folder / "model.safetensors", folder / "run/step_000000001.safetensors"


def flips(content, dice):
    for _ in range(dice.choice([1, 1, 2, 10, 100])):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)


def flips_in_the_header(content, dice):
    size = struct.unpack("<Q", content[:8])[0]
    for _ in range(dice.choice([1, 2, 5])):
        content[dice.randrange(8 + size)] = dice.choice(b'0123456789{}[]",:\\ \0\xff')


def digit(content, dice):
    """Another number in the header, or in the description within: valid JSON again."""
    size = struct.unpack("<Q", content[:8])[0]
    content[dice.choice([i for i in range(8, 8 + size) if content[i : i + 1].isdigit()])] = (
        dice.choice(b"0123456789")
    )


def truncation(content, dice):
    del content[dice.randrange(len(content)) :]


def insertion(content, dice):
    at = dice.randrange(len(content) + 1)
    content[at:at] = dice.randbytes(dice.choice([1, 2, 8, 1000]))


def removal(content, dice):
    at = dice.randrange(len(content))
    del content[at : at + dice.choice([1, 2, 8, 1000])]


def exchange(content, dice):
    """Two stretches change places."""
    n = dice.choice([1, 4, 64])
    a, b = (dice.randrange(len(content) - n) for _ in range(2))
    content[a : a + n], content[b : b + n] = content[b : b + n], content[a : a + n]


def header_length(content, dice):
    size = struct.unpack("<Q", content[:8])[0]
    sizes = [0, 1, size - 1, size + 1, size + 8, len(content), 10**8, 2**31, 2**63, 2**64 - 1]
    content[:8] = struct.pack("<Q", dice.choice(sizes))


def header_fields(content, dice):
    """Valid JSON again, the header's length right: shapes, types, offsets and metadata edited."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    name = dice.choice(sorted(header))
    field = dice.choice(sorted(header[name]))
    edits = [-1, 0, 1, 2**31, 2**63, 2**64, 1e300, None, True, "", "F64", "I8", "F4", "C64", [], {}]
    edits += [[0, 2**63], [2**40, 2**40], [1] * 1000, [0, 0], [2**64 - 1, 0], {"a": 1}]
    what = dice.randrange(5)
    if what == 0:
        header[name][field] = dice.choice(edits)
    elif what == 1:
        header[name] = dice.choice(edits)
    elif what == 2:
        header[dice.choice(["", "a", "__metadata__", "\0", name + "2"])] = header.pop(name)
    elif what == 3 and isinstance(header[name][field], list):
        header[name][field] = [*header[name][field][:-1], dice.choice(edits)]
    elif what == 4:
        del header[name][field]
    text = json.dumps(header).encode()
    content[: 8 + size] = struct.pack("<Q", len(text)) + text


MUTATIONS = [flips, flips_in_the_header, truncation, insertion, removal, exchange, header_length]
MUTATIONS += [header_fields, header_fields, digit]


@pytest.mark.parametrize("which", ["a model", "a checkpoint"])
def test_a_mutated_file_never_loads_as_another(tmp_path, files, little_memory, which):
    source = files[which == "a checkpoint"]
    read = read_tensors if which == "a checkpoint" else _load
    expected, expected_description = read(source)
    original, dice = source.read_bytes(), random.Random(3)
    path, outcomes = tmp_path / "mutated.safetensors", {"refused": 0, "the same": 0}
    for i in range(COUNT):
        content, mutation = bytearray(original), dice.choice(MUTATIONS)
        mutation(content, dice)
        path.write_bytes(content)
        try:
            with nothing_run():
                tensors, description = read(path)
        except (ValueError, OSError):
            outcomes["refused"] += 1
            continue
        except BaseException as error:
            raise AssertionError(f"Mutation {i}, {mutation.__name__}: {error!r}") from error
        assert same_bits(tensors, expected), f"mutation {i}, {mutation.__name__}"
        assert description == expected_description, f"mutation {i}, {mutation.__name__}"
        outcomes["the same"] += 1
    assert outcomes["refused"] > COUNT / 2


def _load(path):
    model = vaelib.load(path)
    return model.state_dict(), model.architecture


HOSTILE = [
    None, True, 0, -1, 5, 2**31, 10**12, 10**400, 0.5, 1e-320, 1e308, float("inf"), float("nan"),
    "", "a", "architecture", "relu", "bernoulli", "__import__('os')", "\ud800", "\0", "a" * 10**5,
    [], {}, [[]], ["a", 10**10], [[0], 10**10], [1] * 10**4, [10**9] * 3, [0], [-1, -16], [4, 4],
    {"gaussian": 0.1}, {"gaussian": "1"}, {"gaussian": [1]}, {"factory": "mlp_vae"},
    {"a": {"a": 1}}, ["architecture"], {"architecture": None}, {"architecture": []},
]  # fmt: skip
TEXTS = ["", "{", "[" * 10**5, '{"a":' * 10**5, "9" * 5000, "NaN", "\0", '{"a": 1, "a": 2}', "nul"]
TEXTS += ['{"architecture": ' + "[" * 10**4 + "]" * 10**4 + "}"]


def hostile_edit(value, dice):
    """The value with something in it replaced, added or removed."""
    if dice.random() < 0.2 or not isinstance(value, dict | list) or not value:
        return dice.choice(HOSTILE)
    value = value.copy()
    keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
    key = dice.choice(keys)
    what = dice.random()
    if what < 0.7:
        value[key] = hostile_edit(value[key], dice)
    elif what < 0.8 and isinstance(value, dict):
        value[dice.choice(["prior", "factory", "a", "hidden", ""])] = dice.choice(HOSTILE)
    elif what < 0.9 and isinstance(value, list):
        value.append(dice.choice(HOSTILE))
    else:
        del value[key]
    return value


def hostile_tensors(tensors, dice):
    """Other types and shapes, tensors too many or too few; mostly as they were."""
    tensors, name = dict(tensors), dice.choice(sorted(tensors))
    what = dice.randrange(12)
    dtypes = [torch.int64, torch.bool, torch.complex64, torch.float16, torch.uint8, torch.float64]
    if what == 0:
        dtype = dice.choice(dtypes)
        tensors = {n: t.to(dtype) for n, t in tensors.items()}
    elif what == 1:
        tensors[name] = tensors[name].to(dice.choice(dtypes))
    elif what == 2:
        tensors[name] = tensors[name].flatten()
    elif what == 3:
        del tensors[name]
    elif what == 4:
        tensors[name + "_"] = tensors[name]
    return tensors


def test_a_forged_file_with_a_right_hash_is_refused_or_harmless(
    tmp_path, files, little_memory, monkeypatch
):
    """Its author knows the format: the description is whatever JSON, or none, its SHA-256 right."""
    tensors, description = read_tensors(files[0])
    dice, path, real = random.Random(4), tmp_path / "forged.safetensors", json.dumps
    texts = [*TEXTS]
    for name in description["architecture"]:  # each value in each place, then several at random
        for value in HOSTILE:
            texts.append(real({"architecture": description["architecture"] | {name: value}}))
    refused, count = 0, len(texts) + COUNT
    for i in range(count):
        forged, text = tensors, None
        if i < len(texts):
            text = texts[i]
        else:
            forged, edited = hostile_tensors(tensors, dice), description
            for _ in range(dice.choice([0, 1, 1, 2, 3])):
                edited = hostile_edit(edited, dice)
            text = real(edited)
        with monkeypatch.context() as patch:
            patch.setattr(json, "dumps", lambda *_, t=text, **__: t)
            write_tensors(path, forged, None)
        for into in (None, small(), small(dtype=torch.float64)):
            before = None if into is None else {n: t.clone() for n, t in into.state_dict().items()}
            try:
                with nothing_run():
                    model = vaelib.load(path, into=into)
            except (ValueError, OSError):
                refused += 1
                assert into is None or same_bits(into.state_dict(), before)
                continue
            except BaseException as error:
                raise AssertionError(f"Forgery {i}, {text[:300]}: {error!r}") from error
            for name, t in model.state_dict().items():
                assert torch.equal(t, forged[name].to(t.dtype))
            assert all(p.is_floating_point() for p in model.parameters())
    assert refused > count / 2


def test_shapes_that_overflow_are_refused(tmp_path):
    """No tensor of 2^63 elements: none is allocated, and the error is ours."""
    for shape in ([0, 2**63], [0, 2**64 - 1], [2**62, 2**62], [2**40, 2**40, 0], [1] * 10**4):
        header = {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
        header["__metadata__"] = {"format": "vaelib 1", "description": "{}", "sha256": ""}
        text = json.dumps(header).encode()
        path = tmp_path / "a.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        with pytest.raises(ValueError):
            read_tensors(path)


def test_a_mutated_checkpoint_never_changes_a_runs_end(tmp_path, files):
    """By way of `fit`: the run goes on with the bits saved, or it does not go on."""
    source = files[1]
    original, dice = source.read_bytes(), random.Random(6)
    expected = small()
    vaelib.fit(expected, grey(), epochs=2, ema=0.9)
    path = tmp_path / source.name
    for _ in range(amount(20, 500)):
        content = bytearray(original)
        dice.choice(MUTATIONS)(content, dice)
        for other in tmp_path.glob("step_*"):
            other.unlink()
        path.write_bytes(content)
        model = small(seed=3)
        try:
            vaelib.fit(model, grey(), epochs=2, ema=0.9, out=tmp_path)
        except ValueError:
            assert path.read_bytes() == content
            assert same_bits(model.state_dict(), small(seed=3).state_dict())
        else:
            assert same_bits(model.state_dict(), expected.state_dict())
