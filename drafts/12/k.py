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
# @title Setup: nothing where vaelib is there; on Colab, fetch the book.
import importlib.util
import subprocess
import sys
from pathlib import Path

REPOSITORY = ""
if importlib.util.find_spec("vaelib") is None:
    if not REPOSITORY:
        raise ModuleNotFoundError(
            "vaelib is not installed, and this copy of the book does not"
            " know where to fetch it: in a checkout of the book run"
            " `make lab`, or `pip install -e .` in its top folder."
        )
    clone = Path("measured-vae").resolve()
    if not clone.exists():
        git = ["git", "clone", "--depth", "1", REPOSITORY, str(clone)]
        subprocess.run(git, check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "-e", str(clone)]
    subprocess.run(pip, check=True)
    sys.path.insert(0, str(clone))  # pip's own entry needs a new kernel

# %% tags=["parameters"]
budget = "full"
seed = 0


# %% tags=["imports", "tricks", "depth"]
import math
from functools import partial

import matplotlib.pyplot as plt
import numpy
import torch
import vaelib
from IPython.display import display
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal
from vaelib import evaluate
from vaelib.nets import call
from vaelib.objectives import stopped_q
from vaelib.optimizers import FusedAdam, Muon, warm_cosine
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
at_z1, at_z2, at_x = slice(0, 2), slice(2, 5), slice(5, 10)
mix = torch.zeros(10, 10).double()  # (z1, z2, x) of independent noise
mix[at_z1, at_z1] = torch.eye(2)
mix[at_z2, at_z1], mix[at_z2, at_z2] = A, 0.5 * torch.eye(3)
mix[at_x, :5] = W @ mix[at_z2, :5]
mix[at_x, at_x] = 0.3 * torch.eye(5)
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
x = given(at_x).sample()
at_z1_x = torch.cat([torch.arange(10)[at_z1], torch.arange(10)[at_x]])


def weight(z1, z2, log_q):
    log_p = given(at_z1).log_prob(z1) + given(at_z2, at_z1, z1).log_prob(z2)
    return log_p + given(at_x, at_z2, z2).log_prob(x) - log_q


exact = given(at_x).log_prob(x)
for _ in range(2):
    q1 = given(at_z1, at_x, x)
    z1 = q1.sample()
    q2 = given(at_z2, at_z1_x, torch.cat([z1, x]))
    z2 = q2.sample()
    down = weight(z1, z2, q1.log_prob(z1) + q2.log_prob(z2))
    q2 = given(at_z2, at_x, x)
    z2 = q2.sample()
    q1 = given(at_z1, at_z2, z2)
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


# %% tags=["tricks", "depth"]
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
        top = vaelib.Latent(z1, normal(q1), self.pz1())
        return self.px(z2, z1), low, top

    def pz1(self):
        return normal([self.up1[0].bias.new_zeros(self.dims[0])] * 2)

    def px(self, z2, z1):
        return Independent(self.likelihood(call(self.out, z2)), 3)

# %% tags=["tricks"]
def generate(self, n, y=None):
    z1 = self.pz1().sample((n,))
    z2 = normal(call(self.down2, z1).chunk(2, -1)).sample()
    return self.px(z2, z1), z2, z1


Stack.generate = generate


# %% [markdown]
# `infer` begins with $z_2$: a model names first the latent whose posterior reads $x$ alone. And the price of $z_2$ reads $z_1$, which is drawn later, so `nested=False`: its closed-form KL is not its cost.
#
# ## From the top
#
# Now the other order ([Sønderby et al., 2016](https://arxiv.org/abs/1602.02282)). Encoder and decoder are no longer two chains. The encoder reads the image upwards, without any noise, and keeps a feature vector $d_l$ for each level. Then *one* pass runs down, and in it prior and posterior stand side by side. It carries a state $h$. At each level the prior sees $h$; the posterior sees $h$ and $d_l$; a draw $z_l$ is added to $h$, and on it goes. When the model dreams, the same pass runs without the posterior.


# %% tags=["tricks", "depth"]
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


# %% tags=["tricks", "depth"]
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


# %% tags=["tricks", "depth"]
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


# %% tags=["tricks", "depth"]
def infer(self, x, num_samples=1, noise=None, y=None):
    h, latents = self.start.expand(len(x), -1), []
    noise = noise_of(self, x, num_samples, noise)
    for level, d, e in zip(
        self.levels, self.features(x), noise, strict=True
    ):
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
            z = normal(level.p(h.expand(z, -1))).sample()
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


# %% tags=["tricks", "depth"]
def width_for(levels, dim, budget=400_000):
    """The width at which a `Deep` has about so many parameters."""
    sizes = {}
    for width in range(40, 300, 4):
        with torch.device("meta"):
            model = Deep((dim,) * levels, width)
        sizes[width] = sum(p.numel() for p in model.parameters())
    return min(sizes, key=lambda width: abs(sizes[width] - budget))


def trained(model, data, epochs, objective=vaelib.stl, **style):
    """Train as all models of this chapter -> the history."""
    ink = (data.x / 255.0).mean(0).clamp(1e-3, 1 - 1e-3)
    last = [m for m in model.out.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():  # start from the average image
        last.bias.copy_(ink.logit().flatten())
    style = {"optimizer": Muon, "ema": 0.99, "batch_size": 512} | style
    style |= {"schedule": warm_cosine, "objective": objective, "seed": seed}
    history = vaelib.fit(model, data, epochs=epochs, **style)
    if history.ema is not None:
        model.load_state_dict(history.ema)
    return history


# %% cellView="form" jupyter={"source_hidden": true} tags=["hide-input", "tricks", "depth"]
class Digits:
    """MNIST in parts; grey values are chances of ink."""

    def __init__(self):
        train, test = vaelib.data.mnist()
        self.data = train[: 2_000 if smoke else 55_000]
        self.validation = train[55_000 : 55_300 if smoke else 60_000]
        self.images = test[: 300 if smoke else 10_000]
        self.known = train[: 600 if smoke else 10_000]  # probes learn here


# %% tags=["tricks", "depth"]
@torch.no_grad()
def costs(model, x, times=8):
    """Nats that each latent costs, in infer's order, and the pixels."""
    torch.manual_seed(seed + 2)
    rates, distortion = 0.0, 0.0
    for bits in vaelib.data.binarize(x).split(1_000):
        draw = model(bits.to(device), times)
        each = [a.q.log_prob(a.z) - a.p.log_prob(a.z) for a in draw.latents]
        rates = rates + torch.stack(each).double().mean(1).sum(1)
        distortion -= draw.log_px_z.double().mean(0).sum().item()
    return (rates / len(x)).tolist(), distortion / len(x)


def scored(model, digits):
    """NLL of unseen images, and where the nats go."""
    row, K = {}, 5 if smoke else 50
    for part in ("validation", "images"):
        found = vaelib.log_marginal(model, getattr(digits, part), K)
        row[part] = -found.mean
    row["last_gain"] = found.last_gain
    row["rates"], row["distortion"] = costs(model, digits.images.x)
    return row


# %% tags=["tricks"]
def warmed(draw, step):
    """The ELBO, its KL weighed from 0 to 1 in the first 200 steps."""
    return vaelib.elbo(draw, beta=(step / 200).clamp(max=1.0))


arms = {  # what is changed of the recipe
    "the recipe": {},
    "q relative to p": {"merge": "relative"},
    "q a product with p": {"merge": "product"},
    "nothing carried past z": {"carry": False},
    "plain gradient": {"objective": vaelib.elbo},
    "plain gradient, KL warmed up": {"objective": warmed},
    "Adam": {},
    "no mean of weights": {"ema": None},
    "long gradients skipped": {"skip": 200.0},
    "one level": {},
    "plain stack": {},
}
other_epochs = {"Adam": 11, "one level": 11, "plain stack": 12}
some_rates = {  # learning rates; validation images choose
    "q relative to p": (0.01, 0.03),
    "q a product with p": (0.01, 0.03),
    "Adam": (1e-3, 3e-3),
    "plain stack": (0.01, 0.03),
}


# %% tags=["tricks"]
def tried(name, rate, digits):
    """A model of this arm, trained at one learning rate, and its facts."""
    torch.manual_seed(seed)
    style = dict(arms[name])
    how = {
        key: style.pop(key) for key in ("merge", "carry") if key in style
    }
    if name == "plain stack":
        model = Stack()
    elif name == "one level":
        model = Deep((40,), width=144)
    else:
        model = Deep((10,) * 4, width=92, **how)
    style["optimizer"] = partial(
        FusedAdam if name == "Adam" else Muon, lr=rate
    )
    epochs = 1 if smoke else other_epochs.get(name, 8)
    history = trained(model.to(device), digits.data, epochs, **style)
    facts = {"rate": rate, "training": sum(history.seconds)}
    return model, facts | {"skipped": sum(history.skipped)}


def trick_row(name, digits):
    runs, some = [], digits.validation[:2_000]
    for rate in some_rates.get(name, (0.03,))[: 1 if smoke else None]:
        model, facts = tried(name, rate, digits)
        nll = -vaelib.log_marginal(model, some, 10).mean
        runs.append((nll, facts, model))
    _, facts, model = min(runs, key=lambda run: run[0])
    return facts | scored(model, digits)


# %% tags=["tricks"]
if budget != "full":  # `make benchmark` runs it
    digits, result = Digits(), {"seed": seed}
    for name in arms:
        result[name] = kept(name, partial(trick_row, name, digits))


# %% [markdown]
# ## Does depth help?
#
# The same number of parameters, the same number of latents, the same seconds: one, two, four and eight levels. A deeper model is narrower, and makes fewer steps, since a step through more levels takes longer.
#
# **Rule for B4.** For each of three seeds all four are trained for the same time, three minutes on one CPU thread. The other two seeds' validation images choose the best of the deeper three; on test images we read how much lower its NLL ($K = 50$) is than that of the one level. Student's 95 % interval over the seeds: above half a nat, it holds; below, it does not; across, undecided. Half a nat, since chapter 10's remedies of inference moved less.
#
# > **Before you run it:** which number of levels wins, and by how much? Would it be another one if training were ten times longer?


# %% [markdown]
# **Rule for C12.** For each of three seeds: encode, and read a *draw* of the top of four levels. Its rate is $R$ nats. A probe learns the class from 10,000 draws and is asked about the test images: the better of a linear one and the vote of ten nearest neighbours, by draws held out; latents whose posterior mean does not move ([chapter 09](09_posterior_collapse.ipynb)'s count) are left out, for to a neighbour they are noise. Beside it stand flat models of the same size and time, at $\\beta = 1, 2, 4, 8$, so that their rates lie around $R$; their probes' accuracy is read off at $R$ by a line between neighbours. The difference in points, with Student's interval: above two points the claim holds, below two it does not, across it is undecided; and so it is where $R$ lies outside of the flat rates. Two points, since less would be no reason to build a hierarchy.


# %% tags=["depth"]
def codes_of(model, x):
    """A draw of each level and q's mean, from the top: [N, dim] each."""
    torch.manual_seed(seed + 3)
    found = []
    with torch.no_grad():
        for bits in vaelib.data.binarize(x).split(1_000):
            latents = model(bits.to(device)).latents
            pairs = [(a.z[0], a.q.mean.expand_as(a.z)[0]) for a in latents]
            found.append([torch.stack(pair).cpu() for pair in pairs])
    return [torch.cat(level, 1) for level in zip(*found, strict=True)]


def class_told(learnt, asked):
    """Accuracy of the better of two probes, chosen on a fifth held out."""
    (codes, y), (others, other_y) = learnt, asked
    cut = len(codes) * 4 // 5
    some, rest = (codes[:cut], y[:cut]), (codes[cut:], y[cut:])
    probes = evaluate.linear_probe, evaluate.nearest_neighbours
    best = max(probes, key=lambda probe: probe(*some, *rest))
    return best(codes, y, others, other_y)


# %% cellView="form" jupyter={"source_hidden": true} tags=["hide-input", "depth"]
def pen(x):
    """Of images [N, 1, 28, 28]: stroke width and slant, [N] each."""
    ink = (x.double() / 255)[:, 0]
    edge = ink.diff(dim=1).abs().sum((1, 2))
    edge += ink.diff(dim=2).abs().sum((1, 2))
    width = 2 * ink.sum((1, 2)) / edge.clamp(min=1)
    at = torch.arange(28.0, dtype=torch.float64)
    mass = ink / ink.sum((1, 2), keepdim=True)
    y, x = (mass.sum(2) * at).sum(1), (mass.sum(1) * at).sum(1)
    dy = at[None, :, None] - y[:, None, None]
    dx = at[None, None, :] - x[:, None, None]
    slant = -(mass * dx * dy).sum((1, 2)) / (mass * dy**2).sum((1, 2))
    return {"width": width, "slant": slant}


def explained(learnt, asked):
    """R² of a ridge regression of numbers on codes."""
    (codes, y), (others, other_y) = learnt, asked
    mean, sd = codes.mean(0), codes.std(0) + 1e-6
    A, B = ((c.flatten(1) - mean) / sd for c in (codes, others))
    A, B = (
        torch.cat([c, c.new_ones(len(c), 1)], 1).double() for c in (A, B)
    )
    ridge = 1e-3 * len(A) * torch.eye(A.shape[1], dtype=torch.float64)
    guess = B @ torch.linalg.solve(A.T @ A + ridge, A.T @ y)
    return (1 - (guess - other_y).var() / other_y.var()).item()


# %% tags=["depth"]
def told_by(codes, others, digits):
    """What codes of known images tell of unseen ones."""
    known, asked = digits.known, digits.images
    told = {"class": class_told((codes, known.y), (others, asked.y))}
    right = pen(asked.x)
    for name, y in pen(known.x).items():
        told[name] = explained((codes, y), (others, right[name]))
    return told


def told(model, digits):
    """Of each level's draws: what they tell of class, width, slant."""
    rows = []
    levels = (codes_of(model, p.x) for p in (digits.known, digits.images))
    for (z, mean), (others, _) in zip(*levels, strict=True):
        active = mean.var(0) > 0.01  # to a neighbour the rest is noise
        active = active if active.any() else ~active
        row = told_by(z[:, active], others[:, active], digits)
        rows.append(row | {"active": active.sum().item()})
    return rows


# %% tags=["depth"]
@torch.no_grad()
def class_kept(model, digits):
    """Of images by the first n levels: the share of the right class."""
    few = digits.images[: 300 if smoke else 2_000]
    network, kept = evaluate.digit_net().to(device), []
    torch.manual_seed(seed + 4)
    draw = model(vaelib.data.binarize(few.x).to(device))
    codes = [latent.z[0] for latent in draw.latents]
    for n in range(len(codes) + 1):
        rest = [len(few)] * (len(codes) - n)
        x = model.follow(codes[:n] + rest)[0].sample()
        said = network.head(network.features(x)).argmax(1).cpu()
        kept.append((said == few.y).double().mean().item())
    return kept


# %% tags=["depth"]
def priced(draw, beta):
    """The recipe's objective, with each nat of rate at a price."""
    log_qz_x = sum(stopped_q(a).log_prob(a.z) for a in draw.latents)
    return draw.mean(draw.log_px_z + beta * (draw.log_pz - log_qz_x))


counts = (1, 2, 4, 8)  # levels, 40 latents in all
depth_epochs = {1: 28, 2: 25, 4: 21, 8: 16}  # of equal time, by a clock
betas = 2.0, 4.0, 8.0  # of flat codes whose rates lie around a top level's


def deep(count, digits, objective=vaelib.stl):
    """A model of so many levels, trained, and the seconds it took."""
    torch.manual_seed(seed)
    dim = 40 // count
    model = Deep((dim,) * count, width_for(count, dim)).to(device)
    epochs = 1 if smoke else depth_epochs[count]
    history = trained(model, digits.data, epochs, objective)
    return model, sum(history.seconds)


def deep_row(count, digits, objective=vaelib.stl):
    model, seconds = deep(count, digits, objective)
    row = {"training": seconds} | scored(model, digits)
    row["parameters"] = sum(p.numel() for p in model.parameters())
    row["told"] = told(model, digits)
    return row | {"class kept": class_kept(model, digits)}


# %% tags=["depth"]
if budget != "full":  # `make benchmark` runs it
    digits, result = Digits(), {"seed": seed}
    for count in counts:
        make = partial(deep_row, count, digits)
        result[f"{count}"] = kept(f"levels {count}", make)
    for beta in betas:
        objective = partial(priced, beta=beta)
        make = partial(deep_row, 1, digits, objective)
        result[f"beta {beta:g}"] = kept(f"beta {beta:g}", make)
