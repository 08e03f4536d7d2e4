"""One thread: two gain nothing for models this small, and lose much on a busy machine. No bars."""

import os

import torch

os.environ["VAELIB_PROGRESS"] = "0"
torch.set_num_threads(1)
