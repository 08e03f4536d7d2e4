# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What does each layer hold?
#
# A flat code says everything at once: which digit, how it leans, where each stroke ends. So people stack layers, in the hope that they share the work. The top one would say *what*, those below *where exactly*. Does that happen? And does it buy nats?
#
# By the end you can write a hierarchy whose layers all work, say what each trick in it is worth, read off what each layer holds, and turn the bound into a file: images packed to the length that the ELBO promised, and back, bit for bit.
#
# The chapter tests [C12](../claims.md#c12): *several layers of latents capture abstract concepts*, and a claim of the book's own, [B4](../claims.md#b4): *at equal time, more layers reach a better likelihood*. It runs for about MINUTES minutes on two CPU cores. Where ± stands, it is the standard deviation over seeds.


# %% cellView="form" jupyter={"source_hidden": true} tags=["setup", "hide-input"]
SETUP


# %% tags=["parameters"]
budget = "full"
seed = 0


# %% tags=["imports", "tricks", "depth", "deep_record"]
import math
import time
from functools import partial

import constriction
import matplotlib.pyplot as plt
import numpy
import torch
import vaelib
from IPython.display import display
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal
from vaelib import evaluate
from vaelib.nets import call
from vaelib.optimizers import Muon, warm_cosine
from vaelib.plots import COLORS, WIDTH, image_grid
from vaelib.results import kept
from vaelib.tables import interval, plus_minus

vaelib.plots.use_style()
device = vaelib.device()
smoke = budget == "smoke"


# %% [markdown]
# ## A stack that is no stack
#
# The plainest hierarchy has two layers in a row. The top, $z_1$, is standard normal. It sets the mean of $z_2$, and $z_2$ alone sets the image:
#
# $$p(x, z_1, z_2) = p(z_1)\, p(z_2 \mid z_1)\, p(x \mid z_2).$$
#
# We count from the top, in the order in which the model dreams. Look at it from the decoder's side. It sees $z_2$, and $z_2$ has *some* distribution, $p(z_2) = \int p(z_2 \mid z_1)\, p(z_1)\, dz_1$. So this is a flat VAE whose prior is learnt. [Chapter 11](11_learned_priors.ipynb) measured what a learnt prior can save: two to three nats on digits, no more.
#
# In a linear world there is not even that. There everything is normal, so the prior of $z_2$ is a normal, and a linear decoder takes any normal in its stride. Here is such a world, with its exact posteriors in both orders: from the top down, $q(z_1 \mid x)\, q(z_2 \mid z_1, x)$, and from the bottom up, $q(z_2 \mid x)\, q(z_1 \mid z_2)$.
#
# > **Before you run it:** with exact posteriors each importance weight $p(x, z) / q(z \mid x)$ is $p(x)$ itself, whatever was drawn. Which of the two orders can reach that: one of them, or both?


# %%
torch.manual_seed(seed)
A, W = torch.randn(3, 2).double(), torch.randn(5, 3).double()
one, two, three = slice(0, 2), slice(2, 5), slice(5, 10)  # z1, z2, x
mix = torch.zeros(10, 10).double()  # (z1, z2, x) of independent noise
mix[one, one] = torch.eye(2)
mix[two, one], mix[two, two] = A, 0.5 * torch.eye(3)
mix[three, :5] = W @ mix[two, :5]
mix[three, three] = 0.3 * torch.eye(5)
covariance = mix @ mix.T


def given(a, b=None, value=None):
    """p(a | b) of the joint normal; without a value p(a)."""
    S = covariance[a][:, a]
    if value is None:
        return MultivariateNormal(torch.zeros(len(S)).double(), S)
    gain = torch.linalg.solve(covariance[b][:, b], covariance[b][:, a]).T
    S = S - gain @ covariance[b][:, a]
    return MultivariateNormal(value @ gain.T, (S + S.T) / 2)


# %%
# NBVAL_CHECK_OUTPUT
x = given(three).sample()
both = torch.cat([torch.arange(10)[one], torch.arange(10)[three]])


def weight(z1, z2, log_q):
    log_p = given(one).log_prob(z1) + given(two, one, z1).log_prob(z2)
    return log_p + given(three, two, z2).log_prob(x) - log_q


exact = given(three).log_prob(x)
for _ in range(2):
    q1 = given(one, three, x)
    z1 = q1.sample()
    q2 = given(two, both, torch.cat([z1, x]))
    z2 = q2.sample()
    down = weight(z1, z2, q1.log_prob(z1) + q2.log_prob(z2))
    q2 = given(two, three, x)
    z2 = q2.sample()
    q1 = given(one, two, z2)
    z1 = q1.sample()
    up = weight(z1, z2, q1.log_prob(z1) + q2.log_prob(z2))
    print(f"log p(x) {exact:.6f}, top down {down:.6f}, bottom up {up:.6f}")


# %% [markdown]
# Both, to the last digit. They are two ways to write one posterior. So the order is no matter of what *can* be said. It is a matter of what a diagonal normal can say: bottom up, $q(z_2 \mid x)$ must cover in one piece what top down may be many pieces, one for each $z_1$. And it is a matter of learning, as we shall see.
#
# Each layer has its price. By the chain rule of the KL
#
# $$\operatorname{KL}(q(z \mid x) \Vert p(z)) = \sum_l \mathbb{E}_{q(z_{<l} \mid x)} \operatorname{KL}\big(q(z_l \mid z_{<l}, x) \,\Vert\, p(z_l \mid z_{<l})\big),$$
#
# and the term of layer $l$ is its *rate*: what it adds, in nats, to what the layers above have said. A layer of rate zero says nothing.
#
# ### The plain stack on digits


# %% tags=["tricks", "depth", "deep_record"]
def normal(parameters):
    """A diagonal normal over the last axis, of mean and log σ."""
    mean, log_sigma = parameters
    each = Normal(mean, log_sigma.exp(), validate_args=False)
    return Independent(each, 1, validate_args=False)


def noise_of(model, x, num_samples, noise):
    """Standard normals for each layer, from the top: [K, B, dim]."""
    if noise is None:
        noise = x.new_empty(num_samples, len(x), model.noise_dim).normal_()
    return noise.split(model.dims, -1)


# %% tags=["tricks"]
class Stack(vaelib.VAE):
    """x -> z2 -> z1 and back; each network reads its neighbour alone."""

    def __init__(self, dims=(20, 40), width=200):
        super().__init__(latent_dim=dims[1], x_shape=(1, 28, 28))
        style = {"activation": "silu", "norm": "layer"}
        (top, low), n, mlp = dims, 784, partial(vaelib.nets.mlp, **style)
        self.noise_dim, self.dims = top + low, dims
        self.up2 = nn.Sequential(nn.Flatten(), mlp((n, width, 2 * low)))
        self.up1 = mlp((low, width, 2 * top))
        self.down2 = mlp((top, width, 2 * low))
        last = nn.Unflatten(-1, self.x_shape)
        self.out = nn.Sequential(mlp((low, width, n)), last)

    def infer(self, x, num_samples=1, noise=None, y=None):
        noise = noise_of(self, x, num_samples, noise)
        q2 = call(self.up2, x).chunk(2, -1)
        z2 = q2[0] + q2[1].exp() * noise[1]
        q1 = call(self.up1, z2).chunk(2, -1)
        z1 = q1[0] + q1[1].exp() * noise[0]
        p2 = call(self.down2, z1).chunk(2, -1)
        low = vaelib.Latent(z2, normal(q2), normal(p2), nested=False)
        return self.px(z2), low, vaelib.Latent(z1, normal(q1), self.pz1())

    def pz1(self):
        zero = self.up1[0].bias.new_zeros(self.dims[0])
        return normal((zero, zero))

    def px(self, z2):
        return Independent(self.likelihood(call(self.out, z2)), 3)

    def generate(self, n, y=None):
        z1 = self.pz1().sample((n,))
        z2 = normal(call(self.down2, z1).chunk(2, -1)).sample()
        return self.px(z2), z2, z1


# %% [markdown]
# `infer` begins with $z_2$: a model names first the latent whose posterior reads $x$ alone. And the price of $z_2$ reads $z_1$, which is drawn later, so `nested=False`: its closed-form KL is not its cost.
#
# ## From the top
#
# Now the other order ([Sønderby et al., 2016](https://arxiv.org/abs/1602.02282)). Encoder and decoder are no longer two chains. The encoder reads the image upwards, without any noise, and keeps a feature vector $d_l$ for each level. Then *one* pass runs down, and in it prior and posterior stand side by side. It carries a state $h$. At each level the prior sees $h$; the posterior sees $h$ and $d_l$; a draw $z_l$ is added to $h$, and on it goes. When the model dreams, the same pass runs without the posterior.


# %% tags=["tricks", "depth", "deep_record"]
def net(n_in, n_out, width):
    """A perceptron that starts at zero: LayerNorm, SiLU, linear, twice."""
    last = nn.Linear(width, n_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    first = nn.LayerNorm(n_in), nn.SiLU(), nn.Linear(n_in, width)
    return nn.Sequential(*first, nn.LayerNorm(width), nn.SiLU(), last)


class Block(nn.Module):
    """h + f(h), with f zero at first."""

    def __init__(self, width):
        super().__init__()
        self.net = net(width, width, width)

    def forward(self, h):
        return h + self.net(h)


# %% tags=["tricks", "depth", "deep_record"]
class Level(nn.Module):
    """One layer of the way down: p(z | h), q(z | h, d), and h with z."""

    def __init__(self, width, dim, merge="direct"):
        super().__init__()
        self.merge = merge
        self.prior = net(width, 2 * dim, width)
        self.posterior = net(2 * width, 2 * dim, width)
        self.read = nn.Linear(dim, width)
        self.block = Block(width)

    def p(self, h):
        return call(self.prior, h).chunk(2, -1)  # mean and log σ

    def q(self, h, d, p):
        own = call(self.posterior, torch.cat([h, d.expand_as(h)], -1))
        mean, log_sigma = own.chunk(2, -1)
        if self.merge == "relative":  # a shift and a scale of p
            return p[0] + p[1].exp() * mean, p[1] + log_sigma
        if self.merge == "product":  # of p and of what d says
            a, b = (-2 * p[1]).exp(), (-2 * log_sigma).exp()
            return (a * p[0] + b * mean) / (a + b), -(a + b).log() / 2
        return mean, log_sigma

    def forward(self, h, z):
        return self.block(h + self.read(z))


# %% tags=["tricks", "depth", "deep_record"]
class Deep(vaelib.VAE):
    """Features up, then one pass down in which p and q share h."""

    def __init__(self, dims, width=200, merge="direct", carry=True):
        super().__init__(latent_dim=dims[0], x_shape=(1, 28, 28))
        self.dims, self.noise_dim, self.carry = dims, sum(dims), carry
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(784, width))
        self.ups = nn.ModuleList(Block(width) for _ in dims)
        self.start = nn.Parameter(torch.zeros(width))
        levels = [Level(width, dim, merge) for dim in dims]
        self.levels = nn.ModuleList(levels)
        last = nn.Linear(width, 784), nn.Unflatten(-1, self.x_shape)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), *last)

    def features(self, x):
        h, found = call(self.first, x), []
        for block in self.ups:
            h = call(block, h)
            found.append(h)
        return reversed(found)  # for the levels, from the top

    def step(self, level, h, z):
        h = h if self.carry else torch.zeros_like(h)
        return call(level, h, z)

    def px(self, h):
        return Independent(self.likelihood(call(self.out, h)), 3)


# %% tags=["tricks", "depth", "deep_record"]
def infer(self, x, num_samples=1, noise=None, y=None):
    h, latents = self.start.expand(len(x), -1), []
    noise = noise_of(self, x, num_samples, noise)
    for level, d, e in zip(self.levels, self.features(x), noise, strict=True):
        p = level.p(h)
        q = level.q(h, d, p)
        z = q[0] + q[1].exp() * e
        latents.append(vaelib.Latent(z, normal(q), normal(p)))
        h = self.step(level, h, z)
    return self.px(h), *latents


def follow(self, codes):
    """p(x|z) of codes from the top; a whole number n: n draws of p."""
    h, found = self.start, []
    for level, z in zip(self.levels, codes, strict=True):
        if isinstance(z, int):
            p = level.p(h.expand(z, -1))
            z = normal(p).sample()
        h = self.step(level, h.expand(len(z), -1), z)
        found.append(z)
    return self.px(h), *found


def generate(self, n, y=None):
    return follow(self, [n] * len(self.levels))


Deep.infer, Deep.follow, Deep.generate = infer, follow, generate


# %% [markdown]
# The state $h$ is what makes this more than a stack. It carries *every* layer's draw down to the image, so a layer need not repeat what those above have said. Chapter 11's ceiling falls: the pixels read all layers.
#
# How shall the posterior use the prior beside it? Three ways are in use. It may ignore it (*direct*). It may say a shift and a scale of it (*relative*, [Vahdat and Kautz, 2020](https://arxiv.org/abs/2007.03898)), so that zero means "as the prior". Or it may be the product of the prior and what the image says, precisions added (*product*, the ladder of Sønderby et al.).
#
# Nothing in `fit`, in the objectives or in the estimates was told about levels. They read the draw.


# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(seed)
train, test = vaelib.data.mnist()
small = Deep((3, 4, 5), width=16)
draw = small.draw(vaelib.data.binarize(test.x[:4]), num_samples=2)
print("latents", [list(latent.z.shape) for latent in draw.latents])
print("rates of the untrained levels", draw.kl_parts.abs().sum(0).tolist())
for model in (small, Deep((3, 4), 16, "product"), Stack((3, 4), 16)):
    vaelib.check_model(model, train[:64])
print("check_model is content")


# %% [markdown]
# Every level starts silent: the last layers of all heads are zero, so at first $q = p$, and the rate is exactly nothing. Levels wake up one by one.
#
# ## What each trick is worth
#
# A hierarchy comes with a list of tricks, and papers ship them together. So take them away one at a time. *The recipe* has four levels of ten latents, a posterior that is read directly, the state $h$ carried past each draw, sticking the landing ([chapter 10](10_tighter_bounds.ipynb)) in each level, Muon, and a running mean of the weights. Each row changes one thing, and is trained for the same time, two minutes on one CPU thread, with three seeds. The plain stack stands beside them, and one level with all forty latents.
#
# > **Before you run it:** which single change costs most? Which do you expect to gain?


# %% tags=["tricks", "depth", "deep_record"]
def trained(model, data, epochs, objective=vaelib.stl, **style):
    """Train as all models of this chapter -> seconds."""
    ink = (data.x / 255.0).mean(0).clamp(1e-3, 1 - 1e-3)
    bias = [m for m in model.out.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():  # start from the average image
        bias[-1].bias.copy_(ink.logit().flatten())
    began = time.perf_counter()
    style = {"batch_size": 512, "optimizer": Muon, "ema": 0.99} | style
    style |= {"schedule": warm_cosine, "objective": objective, "seed": seed}
    history = vaelib.fit(model, data, epochs=epochs, **style)
    if history.ema is not None:
        model.load_state_dict(history.ema)
    return time.perf_counter() - began


# %% tags=["tricks", "depth", "deep_record"]
class Digits:
    """MNIST in parts; grey values are chances of ink."""

    def __init__(self):
        train, test = vaelib.data.mnist()
        self.data = train[: 2_000 if smoke else 55_000]
        self.validation = train[55_000 : 55_300 if smoke else 60_000]
        self.images = test[: 300 if smoke else 10_000]
        self.known = train[: 600 if smoke else 10_000]  # probes learn here


def scored(model, digits):
    """NLL, and what each level costs, tells and is worth."""
    k = 5 if smoke else 100
    row = {}
    for part in ("validation", "images"):
        found = vaelib.log_marginal(model, getattr(digits, part), k)
        row[part] = -found.mean
    row["last_gain"] = found.last_gain
    info = evaluate.information(model, digits.images, queries=100)
    rates = info.kl_parts if len(model.levels) > 1 else [info.rate]
    return row | {"rates": rates, "distortion": info.distortion}


# %% tags=["tricks"]
arms = {  # what is changed of the recipe: of the model, of the training
    "the recipe": ({}, {}),
    "q relative to p": ({"merge": "relative"}, {}),
    "q a product with p": ({"merge": "product"}, {}),
    "nothing carried past z": ({"carry": False}, {}),
    "ELBO, plain gradient": ({}, {"objective": vaelib.elbo}),
    "Adam": ({}, {"optimizer": None, "lr": 2e-3}),
    "no mean of weights": ({}, {"ema": None}),
    "gradient clipped": ({}, {"clip": 10.0}),
}


# %% tags=["tricks"]
trick_epochs = {  # of equal time, by a clock
    "Adam": 14,
    "plain stack": 27,
    "one level": 16,
}


def trick_row(name, digits):
    torch.manual_seed(seed)
    change, style = arms.get(name, ({}, {}))
    if name == "plain stack":
        model = Stack()
    elif name == "one level":
        model = Deep((40,))
    else:
        model = Deep((10, 10, 10, 10), **change)
    epochs = 1 if smoke else trick_epochs.get(name, 12)
    row = {"training": trained(model.to(device), digits.data, epochs, **style)}
    return row | scored(model, digits)


# %% tags=["tricks"]
if budget != "full":  # `make benchmark` runs it
    digits, result = Digits(), {"seed": seed}
    for name in ("plain stack", "one level", *arms):
        make = partial(trick_row, name, digits)
        result[name] = kept(name, make)


# %% cellView="form" jupyter={"source_hidden": true} tags=["hide-input"]
tricks = vaelib.results("tricks")
rows = []
for name in ("plain stack", "one level", *arms):
    own = partial(tricks.over_seeds, name)
    row = {"model": name, "NLL": plus_minus(own("images"))}
    loss = own("images") - tricks.over_seeds("the recipe", "images")
    row["above the recipe"] = plus_minus(loss)
    rates = torch.stack([torch.tensor(r[name]["rates"]) for r in tricks.runs])
    row["rates, from the top"] = ", ".join(f"{a:.1f}" for a in rates.mean(0))
    rows.append(row)
vaelib.table(rows, f"Two minutes each, nats; {tricks}")


# %% [markdown]
# READING-TRICKS


# %% [markdown]
# ## Does depth help?
#
# The same number of parameters, the same number of latents, the same seconds: one, two, four and eight levels. A deeper model is narrower, and makes fewer steps, since a step through more levels takes longer.
#
# **Rule for B4.** For each of three seeds all four are trained for the same time. The other two seeds' validation images choose the best of the deeper three; on test images we read how much lower its NLL ($K = 100$) is than that of the one level. Student's 95 % interval over the seeds: above half a nat, it holds; below, it does not; across, undecided. Half a nat, since chapter 10's remedies of inference moved less.
#
# > **Before you run it:** which number of levels wins, and by how much? Would it be another one if training were ten times longer?


# %% tags=["depth"]
def width_for(levels, dim, budget=900_000):
    """The width at which a model has about so many parameters."""
    sizes = {}
    for width in range(60, 400, 4):
        with torch.device("meta"):
            model = Deep((dim,) * levels, width)
        sizes[width] = sum(p.numel() for p in model.parameters())
    return min(sizes, key=lambda width: abs(sizes[width] - budget))


# %% tags=["depth"]
def codes_of(model, x):
    """A draw of each level, from the top: [N, dim] each."""
    torch.manual_seed(seed + 3)
    found = []
    with torch.no_grad():
        for bits in vaelib.data.binarize(x).split(1_000):
            draw = model(bits.to(device), 1)
            found.append([latent.z[0].cpu() for latent in draw.latents])
    return [torch.cat(level) for level in zip(*found, strict=True)]


def probed(learnt, asked):
    """Accuracy of the better of two probes, chosen on a fifth held out."""
    (codes, y), (others, other_y) = learnt, asked
    cut = len(codes) * 4 // 5
    some, rest = (codes[:cut], y[:cut]), (codes[cut:], y[cut:])
    probes = evaluate.linear_probe, evaluate.nearest_neighbours
    best = max(probes, key=lambda probe: probe(*some, *rest))
    return best(codes, y, others, other_y)


# %% tags=["depth"]
def pen(x):
    """Of images [N, 1, 28, 28]: stroke width and slant."""
    ink = (x.double() / 255)[:, 0]
    edge = (ink.diff(dim=1).abs().sum((1, 2)) + ink.diff(dim=2).abs().sum((1, 2)))
    width = 2 * ink.sum((1, 2)) / edge.clamp(min=1)
    rows = torch.arange(28.0, dtype=torch.float64)
    mass = ink / ink.sum((1, 2), keepdim=True)
    at_y, at_x = (mass.sum(2) * rows).sum(1), (mass.sum(1) * rows).sum(1)
    dy = rows[None, :, None] - at_y[:, None, None]
    dx = rows[None, None, :] - at_x[:, None, None]
    slant = -(mass * dx * dy).sum((1, 2)) / (mass * dy**2).sum((1, 2))
    return {"width": width, "slant": slant}


def explained(learnt, asked):
    """R² of a ridge regression of numbers on codes."""
    (codes, y), (others, other_y) = learnt, asked
    mean, sd = codes.mean(0), codes.std(0)
    A, B = ((c - mean) / sd for c in (codes, others))
    A = torch.cat([A, torch.ones(len(A), 1)], 1).double()
    B = torch.cat([B, torch.ones(len(B), 1)], 1).double()
    ridge = 1e-3 * len(A) * torch.eye(A.shape[1]).double()
    guess = B @ torch.linalg.solve(A.T @ A + ridge, A.T @ y)
    return (1 - (guess - other_y).var() / other_y.var()).item()


# %% tags=["depth"]
def told(model, digits):
    """Of each level's draws: probes of class, width and slant."""
    learnt, asked = (
        codes_of(model, part.x) for part in (digits.known, digits.images)
    )
    rows = []
    for a, b in zip(learnt, asked, strict=True):
        row = {"class": probed((a, digits.known.y), (b, digits.images.y))}
        others = pen(digits.images.x)
        for name, y in pen(digits.known.x).items():
            row[name] = explained((a, y), (b, others[name]))
        rows.append(row)
    return rows


# %% tags=["depth"]
@torch.no_grad()
def prefixes(model, x):
    """Images of the first n levels; the others follow the prior."""
    codes = [latent.z[0] for latent in model.draw(x).latents]
    shown = []
    for n in range(len(codes) + 1):
        rest = [len(x)] * (len(codes) - n)
        shown.append(model.follow(codes[:n] + rest)[0].mean)
    return torch.stack(shown)  # [levels + 1, N, 1, 28, 28]


@torch.no_grad()
def class_kept(model, digits, network, times=4):
    """Of the first n levels' images: the share of the right class."""
    few = digits.images[: 300 if smoke else 2_000]
    x, right = vaelib.data.binarize(few.x).to(device), few.y
    kept = []
    for n in range(len(model.levels) + 1):
        codes = [latent.z[0] for latent in model.draw(x).latents]
        rest = [len(x)] * (len(codes) - n)
        x_n = model.follow(codes[:n] + rest)[0].sample()
        said = network.head(network.features(x_n)).argmax(1).cpu()
        kept.append((said == right).double().mean().item())
    return kept


# %% tags=["depth"]
counts = (1, 2, 4, 8)  # levels, 40 latents in all
depth_epochs = {1: 40, 2: 33, 4: 24, 8: 14}  # of equal time, by a clock
betas = 2.0, 4.0, 8.0  # of flat codes whose rates lie around a top level's


def deep_row(count, digits):
    torch.manual_seed(seed)
    dim = 40 // count
    model = Deep((dim,) * count, width_for(count, dim)).to(device)
    epochs = 1 if smoke else depth_epochs[count]
    row = {"training": trained(model, digits.data, epochs)}
    row["parameters"] = sum(p.numel() for p in model.parameters())
    row |= scored(model, digits) | {"told": told(model, digits)}
    network = evaluate.digit_net().to(device)
    return row | {"class kept": class_kept(model, digits, network)}


def flat_row(beta, digits):
    """A flat code at another price of the rate: the control of C12."""
    torch.manual_seed(seed)
    model = Deep((40,), width_for(1, 40)).to(device)
    objective = partial(vaelib.elbo, beta=beta)
    epochs = 1 if smoke else depth_epochs[1]
    row = {"training": trained(model, digits.data, epochs, objective)}
    row |= scored(model, digits) | {"told": told(model, digits)}
    network = evaluate.digit_net().to(device)
    return row | {"class kept": class_kept(model, digits, network)}


# %% tags=["depth"]
if budget != "full":  # `make benchmark` runs it
    digits, result = Digits(), {"seed": seed}
    for count in counts:
        make = partial(deep_row, count, digits)
        result[f"{count}"] = kept(f"levels {count}", make)
    for beta in betas:
        make = partial(flat_row, beta, digits)
        result[f"beta {beta:g}"] = kept(f"beta {beta:g}", make)


# %% cellView="form" jupyter={"source_hidden": true} tags=["hide-input"]
depth = vaelib.results("depth")
rows = []
for count in counts:
    own = partial(depth.over_seeds, f"{count}")
    row = {"levels": count, "width": width_for(count, 40 // count)}
    row["epochs"] = depth_epochs[count]
    for title, key in (("NLL", "images"), ("distortion", "distortion")):
        row[title] = plus_minus(own(key))
    rates = own("rates").mean(0)
    row["rates, from the top"] = ", ".join(f"{a:.1f}" for a in rates)
    rows.append(row)
vaelib.table(rows, f"Equal parameters, latents and seconds; {depth}")


# %% [markdown]
# READING-DEPTH


# %% [markdown]
# ## What is where
#
# The survey says that several layers *capture abstract concepts*. Abstract must mean something that can fail. Here is what we take: the class of a digit is more abstract than its place in pixel space, since no pixel shows it. A level captures it if its code tells *more of the class than a flat code that costs as many nats*. For any code of some nats tells something; the hierarchy's promise is that its top sorts out what matters first.
#
# **Rule for C12.** For each of three seeds: encode, and read a *draw* of the top level. Its rate is $R$ nats. A probe (the better, on validation codes, of a linear one and of ten nearest neighbours) learns the class from 10,000 draws and is asked about the test images. Beside it, three flat models of the same size, with $\beta$ chosen so that their rates lie around $R$; their probes' accuracy, read off at $R$ by a line between neighbours. The difference, in points, with Student's interval: above zero the claim holds, below it does not, across it is undecided. The controls, pixels and an untrained encoder, say what the scale is.
#
# > **Before you run it:** ...


# %% cellView="form" jupyter={"source_hidden": true} mystnb={"image": {"alt": "ALT"}} tags=["hide-input", "figure-C12"]
figure, ax = plt.subplots(figsize=(WIDTH, 3.2))
def told_of(name, level, what):
    """What a level's draws tell, over seeds."""
    told = [run[name]["told"][level][what] for run in depth.runs]
    return torch.tensor(told)


flat = [f"beta {beta:g}" for beta in betas]
flat_rates = torch.stack([depth.over_seeds(n, "rates")[:, 0] for n in flat])
flat_class = torch.stack([told_of(n, 0, "class") for n in flat])
ax.plot(flat_rates.mean(1), flat_class.mean(1), "o-", color=COLORS["p"])
for count in (2, 4, 8):
    rates = depth.over_seeds(f"{count}", "rates")
    ax.plot(rates[:, 0], told_of(f"{count}", 0, "class"), "o")
    ax.text(rates[:, 0].mean(), 0.5, f"top of {count}")
ax.set(title="What a code's nats tell of the class")
ax.set(xlabel="rate of the code, nats", ylabel="accuracy of a probe")
plt.show()


# %% tags=[]
def difference(seed):
    """Of one seed: the top level's accuracy, less a flat code's at R."""
    run = depth.of_seed(seed)
    top = run["4"]
    pairs = sorted((run[n]["rates"][0], run[n]["told"][0]["class"]) for n in flat)
    rates, accuracy = zip(*pairs, strict=True)
    at = float(numpy.interp(top["rates"][0], rates, accuracy))
    return top["told"][0]["class"] - at


# %% [markdown]
# READING-WHERE


# %% [markdown]
# ## Packed to the ELBO
#
# The negative ELBO in bits is the length of a file. That is no figure of speech. *Bits back with ANS* ([Townsend et al., 2019](https://arxiv.org/abs/1901.04866)) writes it, and it needs a coder with one odd gift: a stack of bits from which one can also *decode* a symbol by any distribution, which takes bits away, and encode it again later, which puts them back.
#
# To push an image: *decode* $z$ from the bits that are there already, by $q(z \mid x)$. That removes about $-\log q(z \mid x)$ bits. Then encode $x$ by $p(x \mid z)$ and $z$ by $p(z)$. The stack has grown by
#
# $$-\log p(x \mid z) - \log p(z) + \log q(z \mid x),$$
#
# whose average is the negative ELBO. To pop it, do all that backwards: $z$ by the prior, $x$ by the decoder, and $z$ goes back onto the stack by $q(z \mid x)$, which the receiver can compute as soon as he has $x$. Nothing is lost, and the bits that were borrowed return.
#
# Numbers on a line cannot be coded, so each latent is cut into steps of 1/64. Prior and posterior pay the same for that, and it cancels.


# %%
coders, models = constriction.stream.stack, constriction.stream.model
steps = models.QuantizedGaussian(-4096, 4096)  # of 1/64
ink = models.Bernoulli(perfect=False)


def on_grid(parameters):
    """Mean and σ of a level, for one image, in steps."""
    mean, log_sigma = (a.double().flatten() for a in parameters)
    return (mean * 64).numpy(), (log_sigma.exp() * 64).numpy()


def chances(model, h):
    """The decoder's chance of ink, pixel by pixel."""
    p = call(model.out, h).double().sigmoid().flatten()
    return p.clamp(1e-6, 1 - 1e-6).numpy()


def put_back(index):
    return torch.tensor(index / 64, dtype=torch.float32)[None]


# %%
@torch.no_grad()
def push(model, stack, x):
    h, later = model.start[None], []
    for level, d in zip(model.levels, model.features(x[None]), strict=True):
        p = level.p(h)
        index = stack.decode(steps, *on_grid(level.q(h, d, p)))
        later.append((index, *on_grid(p)))
        h = model.step(level, h, put_back(index))
    pixels = x.flatten().int().numpy()
    stack.encode_reverse(pixels, ink, chances(model, h))
    for index, mean, sigma in reversed(later):
        stack.encode_reverse(index, steps, mean, sigma)


@torch.no_grad()
def pop(model, stack):
    h, later = model.start[None], []
    for level in model.levels:
        p = level.p(h)
        index = stack.decode(steps, *on_grid(p))
        later.append((level, index, h, p))
        h = model.step(level, h, put_back(index))
    x = torch.tensor(stack.decode(ink, chances(model, h))).float()
    x = x.view(model.x_shape)
    features = list(model.features(x[None]))
    for (level, index, h, p), d in reversed(list(zip(later, features))):
        stack.encode_reverse(index, steps, *on_grid(level.q(h, d, p)))
    return x


# %%
def packed(model, images):
    """Bits an image in a file, and whether all came back."""
    borrowed = numpy.random.default_rng(seed).integers(0, 2**32, 1_000)
    stack = coders.AnsCoder(borrowed.astype("uint32"), seal=True)
    before = stack.num_valid_bits()
    for x in images:
        push(model, stack, x)
    grown = stack.num_valid_bits() - before
    back = [pop(model, stack) for _ in images]
    same = torch.equal(torch.stack(back[::-1]), images)
    same &= stack.num_valid_bits() == before
    return grown / len(images), same


# %% [markdown]
# ## Photographs: a level for each scale
#
# On digits we looked for what the levels hold. On photographs we can *say* what they shall hold, and check what it is worth. Halve a photograph again and again: 32, 16, 8, 4, 2, 1 pixels a side. The last is one colour. Going back up, each step must add the detail that halving threw away. Let each level be that detail, nine numbers for each block of 2 × 2 pixels.
#
# Halving is linear, and so is the detail: an orthonormal matrix turns the twelve numbers of a block into three means and nine details. So $q$ needs no network at all. It is the exact detail, with a little noise:
#
# $$q(z_l \mid x) = \mathcal N(\text{detail}_l(x),\, \sigma_l^2).$$
#
# All learning is in the prior, $p(z_l \mid z_{<l})$: a network looks at the picture so far and says what detail to expect, as a mixture of three normals. Nothing is lost on the way, so nearly all bits are in the code.


# %% tags=["pyramid"]
def halves(low):
    """An orthonormal matrix [12, 12] for blocks of images [N, 3, s, s].

    Three rows are the channels' means times two; nine are the axes of
    what the means leave, largest first.
    """
    blocks = F.pixel_unshuffle(low.double(), 2).movedim(1, -1)
    blocks = blocks.flatten(0, 2)  # [N s s / 4, 12], four of each channel
    means = torch.eye(3).double().repeat_interleave(4, 1) / 2
    rest = blocks - blocks @ means.T @ means
    _, axes = torch.linalg.eigh(rest.T.cov())
    return torch.cat([means, axes.T.flip(0)[:9]]).float()


def apart(low, matrix):
    """Images [N, 3, 2s, 2s] -> half of the size, and detail [N, 9, s, s]."""
    blocks = F.pixel_unshuffle(low, 2)
    means, detail = F.conv2d(blocks, matrix[:, :, None, None]).split((3, 9), 1)
    return means / 2, detail


def together(low, detail, matrix):
    """The way back, also with leading axes: [..., 3, 2s, 2s]."""
    both = torch.cat([2 * low, detail], -3)
    blocks = F.conv_transpose2d(both.flatten(0, -4), matrix[:, :, None, None])
    return F.pixel_shuffle(blocks, 2).unflatten(0, both.shape[:-3])


# %% [markdown]
# The mixture is over a block's nine numbers together, since edges come as a whole: where one colour jumps, the others jump, too.


# %% cellView="form" jupyter={"source_hidden": true} tags=["hide-input", "pyramid"]
class Blocks(torch.distributions.Distribution):
    """Mixtures of M normals over the nine numbers of each place.

    logits [..., M, s, s]; loc, log_sigma [..., M, 9, s, s]; z is flat.
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, logits, loc, log_sigma):
        self.logits, self.loc, self.log_sigma = logits, loc, log_sigma
        event = torch.Size([loc.shape[-3:].numel()])
        super().__init__(logits.shape[:-3], event, validate_args=False)

    def log_prob(self, z):
        z = z.unflatten(-1, (1, *self.loc.shape[-3:]))
        each = Normal(self.loc, self.log_sigma.exp(), validate_args=False)
        parts = each.log_prob(z).sum(-3) + self.logits.log_softmax(-3)
        return parts.logsumexp(-3).sum((-1, -2))

    @torch.no_grad()
    def sample(self, shape=()):
        logits = self.logits.movedim(-3, -1)
        chosen = torch.distributions.Categorical(logits=logits).sample(shape)
        index = chosen[..., None, None, :, :]  # [..., 1, 1, s, s]
        loc, log_sigma = (
            t.expand(*shape, *t.shape)
            .gather(-4, index.expand(*index.shape[:-4], 1, *t.shape[-3:]))
            .squeeze(-4)
            for t in (self.loc, self.log_sigma)
        )
        return torch.normal(loc, log_sigma.exp()).flatten(-3)


# %% tags=["pyramid"]
class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        last = nn.Conv2d(width, width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        first = nn.Conv2d(width, width, 3, padding=1)
        self.net = nn.Sequential(nn.SiLU(), first, nn.SiLU(), last)

    def forward(self, h):
        return h + self.net(h)


class Detail(nn.Module):
    """p(detail of one scale | the picture so far)."""

    def __init__(self, scale, width=64, M=3, blocks=2):
        super().__init__()
        self.M = M
        self.register_buffer("scale", scale.view(9, 1, 1))
        first = nn.Conv2d(3, width, 3, padding=1)
        middle = [Residual(width) for _ in range(blocks)]
        last = nn.Conv2d(width, 19 * M, 1)
        with torch.no_grad():  # start from narrow and wide normals
            last.weight.mul_(0.1)
            last.bias.zero_().view(M, 19)[:, 10:] = torch.linspace(
                -1.5, 0.5, M
            )[:, None]
        self.net = nn.Sequential(first, *middle, nn.SiLU(), last)

    def forward(self, low):
        out = call(self.net, 4 * low.flatten(0, -4))
        out = out.unflatten(1, (self.M, 19)).unflatten(0, low.shape[:-3])
        logits, loc, change = out.split((1, 9, 9), -3)
        log_sigma = self.scale.log() + 4 * (change / 4).tanh()
        return Blocks(logits.squeeze(-3), self.scale * loc, log_sigma)


# %% tags=["pyramid"]
SIDES = 1, 2, 4, 8, 16


class Pyramid(vaelib.VAE):
    """A colour, then the detail of 1, 2, 4, 8 and 16 blocks a side."""

    def __init__(self, x, noise=0.5, **style):
        super().__init__(latent_dim=3, x_shape=(3, 32, 32))
        low, matrices, scales = x / 255 - 0.5, [], []
        for _ in SIDES:
            matrices.insert(0, halves(low))
            low, detail = apart(low, matrices[0])
            scales.insert(0, detail.std((0, 2, 3)))
        self.register_buffer("matrices", torch.stack(matrices))
        self.register_buffer("mean", low.flatten(1).mean(0))
        spread = torch.linalg.cholesky(low.flatten(1).T.cov())
        self.register_buffer("spread", spread)
        self.details = nn.ModuleList(Detail(s, **style) for s in scales)
        self.dims = 3, *(9 * s * s for s in SIDES)
        self.noise_dim = sum(self.dims)
        # The noise of q is half a grey level in each pixel, and an average
        # of four pixels has half as much.
        smaller = torch.tensor([32.0, *(16 / side for side in SIDES)])
        start = (noise / 255 / smaller).log()
        self.log_sigma = nn.Parameter(start)
        scale = math.log(noise / 255 * math.sqrt(3) / math.pi)
        self.log_scale = nn.Parameter(torch.full((3, 1, 1), scale))

    def codes(self, x):
        """The colour and the details of x [B, 3, 32, 32], each flat."""
        low, found = x - 0.5, []
        for matrix in self.matrices.flip(0):
            low, detail = apart(low, matrix)
            found.insert(0, detail.flatten(1))
        return [low.flatten(1), *found]


# %% tags=["pyramid"]
def finer(self, level, low, z):
    """The picture of twice the side."""
    side = SIDES[level - 1]
    detail = z.unflatten(-1, (9, side, side))
    return together(low, detail, self.matrices[level - 1])


def p(self, level, low):
    if level:
        return self.details[level - 1](low)
    return MultivariateNormal(self.mean, scale_tril=self.spread)


def px(self, picture):
    scale = self.log_scale.expand_as(picture)
    return Independent(DiscretizedLogistic(picture + 0.5, scale), 3)


def infer(self, x, num_samples=1, noise=None, y=None):
    noise, low, latents = noise_of(self, x, num_samples, noise), None, []
    for level, (mean, e) in enumerate(zip(self.codes(x), noise)):
        sigma = self.log_sigma[level].exp().expand_as(mean)
        z = mean + sigma * e
        q = normal((mean, sigma.log()))
        latents.append(vaelib.Latent(z, q, self.p(level, low)))
        low = self.finer(level, low, z) if level else z[..., None, None]
    return self.px(low), *latents


def generate(self, n, y=None):
    low, codes = None, []
    for level in range(len(self.dims)):
        p = self.p(level, low)
        z = p.sample((n,) if level == 0 else ())
        low = self.finer(level, low, z) if level else z[..., None, None]
        codes.append(z)
    return self.px(low), *codes


Pyramid.finer, Pyramid.p, Pyramid.px = finer, p, px
Pyramid.infer, Pyramid.generate = infer, generate



# %% [markdown]
# ## Move the levels
#
# One digit, four levels. Each slider swaps one level's draw: 0 keeps what the encoder said, the others are draws of the prior, given the levels above as they stand.

# %%
@torch.no_grad()
def moved(model, x, others=4):
    """A view for the widget: draws of each level, the encoder's first."""
    torch.manual_seed(seed)
    noise = torch.randn(others + 1, 1, model.noise_dim)

    def view(**at):
        h = model.start[None]
        features = list(model.features(x[None]))
        for (name, level), d, e in zip(levels.items(), features, es):
            p = level.p(h)
            mean, log_sigma = level.q(h, d, p) if at[name] == 0 else p
            z = mean + log_sigma.exp() * e[int(at[name])]
            h = model.step(level, h, z)
        return {"image": model.px(h).mean[0]}

    levels = {f"level_{i + 1}": m for i, m in enumerate(model.levels)}
    es = noise.split(model.dims, -1)
    return view, levels


# %% [markdown]
# ## Verdicts

# %%
def answer(values):
    """Student's 95 % interval over seeds: yes, no or open."""
    _, low, high = interval(values)
    says = "yes" if low > 0 else "no" if high < 0 else "open"
    return says, (low, high)


outcome = {"yes": "holds", "no": "does not hold", "open": "undecided"}
validation, test_nll = (
    {n: depth.over_seeds(f"{n}", part) for n in counts}
    for part in ("validation", "images")
)
gains = []
for s in range(len(depth.runs)):
    others = [i for i in range(len(depth.runs)) if i != s]
    best = min((2, 4, 8), key=lambda n: validation[n][others].mean())
    gains.append(test_nll[1][s] - test_nll[best][s])
gains = torch.stack(gains)
says, ends = answer(gains - 0.5)
print(f"B4: {says}; gain {plus_minus(gains)} nats, less 0.5:", end=" ")
print(f"{ends[0]:+.2f} to {ends[1]:+.2f}")
points = 100 * torch.tensor([difference(run["seed"]) for run in depth.runs])
told_says, told_ends = answer(points)
print(f"C12: {told_says}; {plus_minus(points, 1)} points", end=" ")
print(f"({told_ends[0]:+.1f} to {told_ends[1]:+.1f})")

# %%
vaelib.Verdict(
    claim="B4",
    title="at equal time, more levels reach a better likelihood",
    measured=(
        "at equal parameters, latents and seconds the best of two, four and "
        f"eight levels is {plus_minus(gains)} nats better than one"
    ),
    verdict=outcome[says],
    value=gains.mean().item(),
    unit="nats of NLL, MNIST",
    interval=(ends[0] + 0.5, ends[1] + 0.5),
    seeds=len(depth.runs),
    budget=budget,
    note="Of models with MINUTES of training.",
)

# %%
vaelib.Verdict(
    claim="C12",
    title="several layers of latents capture abstract concepts",
    measured=(
        "a draw of the top of four levels tells a probe "
        f"{plus_minus(points, 1)} points more of the class than a flat code "
        "of equal rate"
    ),
    verdict=outcome[told_says],
    value=points.mean().item(),
    unit="points of accuracy",
    interval=told_ends,
    seeds=len(depth.runs),
    budget=budget,
)
