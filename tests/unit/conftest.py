"""One thread: two gain nothing for models this small, and lose much on a busy machine."""

import torch

torch.set_num_threads(1)
