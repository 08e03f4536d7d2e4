"""What bench.py runs: contenders, cases, the settings of nats and growth, and the targets."""

import os

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
