"""A prior over maps of codes, one code after another: what a map costs."""

import math
from typing import ClassVar

import torch
from torch import nn
from torch.distributions import Distribution
from torch.nn import functional as F

# %% One block, which looks back alone


class Block(nn.Module):
    """x + attention, then x + perceptron; [N, T, width] -> the same."""

    def __init__(self, width, num_heads):
        super().__init__()
        self.heads = num_heads
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.look = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.think = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x, past=()):
        """x, and what later places will look at: past with x's own."""
        split = (self.heads, x.shape[-1] // self.heads)
        parts = self.look(self.norms[0](x)).chunk(3, -1)
        q, *new = [t.unflatten(-1, split).transpose(1, 2) for t in parts]
        causal = not past  # a place that comes alone may look at all before
        past = [torch.cat(p, 2) for p in zip(past, new)] if past else new
        seen = F.scaled_dot_product_attention(q, *past, is_causal=causal)
        x = x + self.mix(seen.transpose(1, 2).flatten(2))
        return x + self.think(self.norms[1](x)), past


# %% The network of a prior


class CausalPrior(nn.Module):
    """p(code), a map of codes as a sequence in raster order.

    shape: of a map, such as (7, 7); a further axis, the levels of a
    residual quantizer, varies fastest. The sequence begins with a learnt
    start: by that shift, and the blocks' mask, a place reads earlier codes.
    """

    def __init__(
        self, shape, codebook_size, width=64, num_layers=2, num_heads=4
    ):
        super().__init__()
        self.shape, T = torch.Size(shape), math.prod(shape)
        self.embed = nn.Embedding(codebook_size, width)
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.place = nn.Parameter(0.02 * torch.randn(T, width))
        blocks = [Block(width, num_heads) for _ in range(num_layers)]
        self.blocks, self.norm = nn.ModuleList(blocks), nn.LayerNorm(width)
        self.head = nn.Linear(width, codebook_size)
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.zeros_(self.head.weight)  # it begins with fair codes
        nn.init.zeros_(self.head.bias)

    def next_logits(self, seen):
        """Of places 0 to t, from the t embeddings before: [N, t + 1, V]."""
        start = self.start.expand(len(seen), 1, -1)
        x = torch.cat([start, seen], 1)
        x = x + self.place[: x.shape[1]]
        for block in self.blocks:
            x, _ = block(x)
        return self.head(self.norm(x))

    def forward(self):
        return CodeMap(self)


# %% The prior as a distribution


class CodeMap(Distribution):
    """log_prob: [..., *shape] -> [...], nats; sample: a code at a time."""

    arg_constraints: ClassVar = {}

    def __init__(self, net):
        self.net = net
        super().__init__(event_shape=net.shape, validate_args=False)

    def log_prob(self, value):
        leading = value.shape[: value.dim() - len(self.event_shape)]
        code = value.reshape(-1, self.event_shape.numel())
        logits = self.net.next_logits(self.net.embed(code[:, :-1]))
        logits = logits.transpose(1, 2)
        nats = F.cross_entropy(logits, code, reduction="none")
        return -nats.sum(1).view(leading)

    @torch.no_grad()
    def sample(self, sample_shape=()):
        net, shape = self.net, torch.Size(sample_shape)
        x = net.start.expand(shape.numel(), 1, -1)
        pasts, codes = [()] * len(net.blocks), []
        for place in net.place:
            x = x + place
            for i, block in enumerate(net.blocks):
                x, pasts[i] = block(x, pasts[i])
            chance = net.head(net.norm(x[:, -1])).softmax(-1)
            codes.append(torch.multinomial(chance, 1))
            x = net.embed(codes[-1])
        return torch.cat(codes, 1).view(shape + self.event_shape)


# %% Trained on codes that are computed once


def fit_prior(prior, code, epochs, batch_size=128, lr=3e-3, seed=0):
    """Maximise log p(code) over maps [N, *shape]; nats a map, an epoch.

    The encoder is done, so its codes are data: each map is encoded once.
    """
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(prior.parameters(), lr, fused=True)
    steps = epochs * -(-len(code) // batch_size)
    slow = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps)
    history = []
    for _ in range(epochs):
        total = 0.0
        shuffled = torch.randperm(len(code), generator=order)
        for rows in shuffled.split(batch_size):
            loss = -prior().log_prob(code[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            slow.step()
            total += loss.item() * len(rows)
        history.append(total / len(code))
    return history


# %% What an image costs


@torch.no_grad()
def total_bits(model, x, batch_size=500):
    """Bits an image: of the code under the prior, of the image given it.

    Their sum is -log2 p(x, code(x)), which no -log2 p(x) exceeds: a sender
    who writes the code, then x by p(x|z), needs no more.
    """
    parts = []
    for rows in x.split(batch_size):
        draw = model(rows)
        parts.append(torch.stack([draw.rate, -draw.log_px_z[0]]))
    code, rest = torch.cat(parts, 1).double() / math.log(2)
    return {"code": code, "distortion": rest, "total": code + rest}
