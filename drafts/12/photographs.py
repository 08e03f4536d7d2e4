# A section for chapter 12, after "From coarse to fine": cells in jupytext's percent form. It takes `normal` and `noise_of` from
# the chapter. Before the first step it makes 4.46 bits a number of 200 held-out photographs, 3.39 of them in the code.

# %% [markdown]
# ## Photographs: a level for each halving
#
# On digits we asked what the levels hold. On photographs we can *say* what they shall hold, and measure what it is worth. Halve a photograph: replace each pair of neighbouring columns by their mean. Then each pair of rows, then columns again, until one colour is left: ten halvings from 32 × 32. Going back up, each step must add the difference that its halving threw away. Let each level be those differences.
#
# A mean and a difference of two numbers are two numbers again. So $q$ needs no network at all. It is the exact difference, with a little noise:
#
# $$q(z_l \mid x) = \mathcal N(\text{difference}_l(x),\, \sigma_l^2).$$
#
# All learning is in the prior, $p(z_l \mid z_{<l})$. It looks at the coarser picture, here and next door on all sides, and at the differences of its own level that came before it in reading order. [Chapter 08](08_likelihoods.ipynb) looked at pixels that way, and let the code fall silent. Here what is written *is* the code.
#
# > **Before you run it:** chapter 08's flat code made 4.15 bits a number, most of them in the pixels. Where will these land, what share of it is code, and what share of *that* is the last halving's?

# %% tags=["photographs"]
AXES = (-2, -1) * 5  # which way each level doubles, from the top


def apart(x, axis):
    """Pairs along an axis: their mean, and their difference / sqrt 2."""
    a, b = x.unflatten(axis, (-1, 2)).unbind(axis)
    return (a + b) / 2, (a - b) / math.sqrt(2)


def together(mean, detail, axis):
    """The way back, also with leading axes."""
    half = detail / math.sqrt(2)
    pair = torch.stack([mean + half, mean - half], axis)
    return pair.flatten(axis - 1, axis)


AROUND, UP, SIDE = 2, 2, 2  # coarser picture; own level: rows, columns
BEFORE = range(UP * (2 * SIDE + 1) + SIDE)  # in reading order


def seen_of(low, z):
    """What a place may see, of the coarser picture and of the places
    before it: [N, 3, H, W] twice -> [N, H W, n]."""
    a = F.unfold(low, 2 * AROUND + 1, padding=AROUND)
    b = F.pad(z, (SIDE, SIDE, UP, 0))
    b = F.unfold(b, (UP + 1, 2 * SIDE + 1)).unflatten(1, (3, -1))
    return torch.cat([a, b[:, :, BEFORE].flatten(1, 2)], 1).mT

# %% [markdown]
# Algebra first, as in chapter 08: the best *linear* guess of a difference from all that may be seen, and the width of what is left. A small network adds changes to it, and its last layer is zero, so training begins at the linear guess. What is left over is mostly small, now and then an edge, and then in all three colours at once: hence mixtures of three normals over the three colours, in which green leans on red, and blue on both.

# %% tags=["photographs"]
def linear_guess(seen, z):
    """Each colour of z [N, P, 3] from what is seen, a one, and the
    colours before it: weights, and the logs of what is left."""
    ones = torch.ones_like(seen[..., :1])
    rows = torch.cat([seen, ones, z], -1).flatten(0, 1).double()
    gram, n = rows.T @ rows / len(rows), seen.shape[-1] + 1
    gram.diagonal().add_(1e-7)  # windows beyond the rim are all zero
    weights, lean, left = [], [], []
    for c in range(3):
        use, target = [*range(n + c)], gram[: n + c, n + c]
        w = torch.linalg.solve(gram[use][:, use], target)
        weights.append(w[:n].float())
        lean.append(w[n:].float())
        left.append((gram[n + c, n + c] - w @ target).clamp(min=1e-8))
    log_sigma = torch.stack(left).log().float() / 2
    return torch.stack(weights), torch.cat(lean), log_sigma


# %% tags=["photographs"]
class Details(nn.Module):
    """p(z | low): [..., 3, H, W] -> a distribution over flat z."""

    def __init__(self, low, z, width=64, normals=3):
        super().__init__()
        self.normals, seen = normals, seen_of(low, z)
        parts = linear_guess(seen, z.flatten(2).mT)
        for name, part in zip(("weights", "lean", "log_sigma"), parts):
            self.register_buffer(name, part)
        spread = seen.flatten(0, 1).std(0).clamp(min=1e-3)
        self.register_buffer("spread", spread)
        sizes = (seen.shape[-1], width, width, width, 10 * normals)
        self.net = mlp(sizes, "silu")
        with torch.no_grad():
            self.net[-1].weight.zero_()
            start = torch.linspace(-1.2, 0.4, normals)  # narrow to wide
            start = F.pad(start[:, None].expand(-1, 3), (4, 3))
            self.net[-1].bias.copy_(start.flatten())

    def forward(self, low):
        return Reading(self, low)

    def said(self, seen):
        """Logits [..., M], and loc, log_sigma and lean [..., M, 3]."""
        out = call(self.net, seen / self.spread)
        out = out.unflatten(-1, (self.normals, 10))
        logits, loc, change, lean = out.split((1, 3, 3, 3), -1)
        guess = F.linear(seen, self.weights[:, :-1], self.weights[:, -1])
        loc = guess.unsqueeze(-2) + self.log_sigma.exp() * loc
        log_sigma = self.log_sigma + 4 * (change / 4).tanh()
        return logits.squeeze(-1), loc, log_sigma, self.lean + lean / 2


# %% cellView="form" jupyter={"source_hidden": true} tags=["hide-input", "photographs"]
def leaning(z, lean):
    """z [..., 3], each colour less what it leans on the ones before."""
    r, g, b = z.unbind(-1)
    rg, rb, gb = lean.unbind(-1)
    parts = r.expand_as(rg), g - rg * r, b - rb * r - gb * g
    return torch.stack(parts, -1)


class Reading(torch.distributions.Distribution):
    """Place after place, in reading order."""

    arg_constraints: ClassVar = {}

    def __init__(self, net, low):
        self.net, self.low = net, low
        event = torch.Size([low.shape[-3:].numel()])
        super().__init__(low.shape[:-3], event, validate_args=False)

    def log_prob(self, value):
        z = value.unflatten(-1, self.low.shape[-3:])
        low = self.low.expand_as(z).flatten(0, -4)
        z = z.flatten(0, -4)
        logits, loc, log_sigma, lean = self.net.said(seen_of(low, z))
        z = leaning(z.flatten(2).mT.unsqueeze(-2), lean)
        normals = Normal(loc, log_sigma.exp(), validate_args=False)
        each = normals.log_prob(z).sum(-1) + logits.log_softmax(-1)
        return each.logsumexp(-1).sum(1).view(value.shape[:-1])

    @torch.no_grad()
    def sample(self, sample_shape=()):
        shape = torch.Size(sample_shape) + self.low.shape
        low = self.low.expand(shape).flatten(0, -4)
        around = F.unfold(low, 2 * AROUND + 1, padding=AROUND)
        wide = F.pad(torch.zeros_like(low), (SIDE, SIDE, UP, 0))
        z = wide[..., UP:, SIDE:-SIDE]  # the same memory
        for i, row in enumerate(around.unflatten(-1, z.shape[-2:]).unbind(-2)):
            for j, known in enumerate(row.unbind(-1)):
                window = wide[..., i : i + UP + 1, j : j + 2 * SIDE + 1]
                window = window.flatten(2)[:, :, BEFORE].flatten(1)
                z[..., i, j] = self.drawn(torch.cat([known, window], 1))
        z = z.flatten(1)
        return z.view(*shape[:-3], -1)

    def drawn(self, seen):
        """One place: [N, n] -> [N, 3]."""
        logits, loc, log_sigma, lean = self.net.said(seen)
        one = td.Categorical(logits=logits).sample()[:, None, None]
        one = one.expand(-1, 1, 3)
        loc, log_sigma, lean = (
            t.gather(1, one)[:, 0] for t in (loc, log_sigma, lean)
        )
        r, g, b = torch.normal(loc, log_sigma.exp()).unbind(-1)
        rg, rb, gb = lean.unbind(-1)
        g = g + rg * r
        return torch.stack([r, g, b + rb * r + gb * g], -1)

# %% [markdown]
# The model of the whole: the top is one colour, a normal; ten levels of differences; and the pixels, discretized logistics around the picture that the noisy code makes. Each $\sigma_l$ is learnt. They begin at half a step of the pixels' 256, as the halvings carry it up.

# %% tags=["photographs"]
class Pyramid(vaelib.VAE):
    """Codes: a colour, then ten levels of differences; from the top."""

    def __init__(self, x, noise=0.5, **style):  # x: some photographs
        super().__init__(latent_dim=3, x_shape=(3, 32, 32))
        low, details = x / 255 - 0.5, []
        low = low + noise / 255 * torch.randn_like(low)
        for axis in reversed(AXES):
            low, z = apart(low, axis)
            details.insert(0, Details(low, z, **style))
        self.details = nn.ModuleList(details)
        low = low.flatten(1)
        self.register_buffer("mean", low.mean(0))
        self.register_buffer("tril", torch.linalg.cholesky(low.T.cov()))
        halved = torch.tensor([10, *range(9, -1, -1)])
        start = math.log(noise / 255) - halved * math.log(2) / 2
        self.log_sigma = nn.Parameter(start)
        start = math.log(noise / 255 * math.sqrt(3) / math.pi)
        self.log_scale = nn.Parameter(torch.full((3, 1, 1), start))
        sizes = [3 * 2**k for k in range(10)]
        self.dims = 3, *sizes
        self.noise_dim = sum(self.dims)

    def p(self, level, low):
        if level:
            return self.details[level - 1](low)
        return MultivariateNormal(self.mean, scale_tril=self.tril)

    def finer(self, level, low, z):
        if level == 0:
            return z[..., None, None]
        z = z.unflatten(-1, low.shape[-3:])
        return together(low, z, AXES[level - 1])

    def px(self, picture):
        scale = self.log_scale.expand_as(picture)
        logistic = DiscretizedLogistic(picture + 0.5, scale)
        return Independent(logistic, 3, validate_args=False)


# %% tags=["photographs"]
def infer(self, x, num_samples=1, noise=None, y=None):
    noise, codes, low = noise_of(self, x, num_samples, noise), [], x - 0.5
    for axis in reversed(AXES):
        low, z = apart(low, axis)
        codes.insert(0, z.flatten(1))
    codes.insert(0, low.flatten(1))
    latents, low = [], None
    for level, (mean, e) in enumerate(zip(codes, noise)):
        log_sigma = self.log_sigma[level].expand_as(mean)
        z = mean + log_sigma.exp() * e
        q = normal((mean, log_sigma))
        latents.append(vaelib.Latent(z, q, self.p(level, low)))
        low = self.finer(level, low, z)
    return self.px(low), *latents


def generate(self, n, y=None):
    low, codes = None, []
    for level in range(len(self.dims)):
        z = self.p(level, low).sample((n,) if level == 0 else ())
        low = self.finer(level, low, z)
        codes.append(z)
    return self.px(low), *codes


Pyramid.infer, Pyramid.generate = infer, generate

# %% tags=["photographs"]
def trained_pyramid(photos, epochs, lr=1e-3, width=64):
    """By photographs and their mirror images."""
    torch.manual_seed(seed)
    model = Pyramid(photos[:1_500].float(), width=width).to(device)
    both = torch.cat([photos, photos.flip(-1)])
    style = {"batch_size": 32, "lr": lr, "schedule": warm_cosine, "clip": 5.0}
    style |= {"objective": partial(vaelib.elbo, analytic=False)}
    began = time.perf_counter()
    vaelib.fit(model, both, epochs=epochs, seed=seed, **style)
    return model, time.perf_counter() - began


@torch.no_grad()
def bits_by_level(model, x):
    """Bits a number: of each level's code, and of the pixels, [12]."""
    total = 0.0
    for rows in x.split(100):
        draw = model(rows)
        code = [s.q.log_prob(s.z) - s.p.log_prob(s.z) for s in draw.latents]
        parts = torch.stack([*code, -draw.log_px_z])[:, 0]
        total = total + parts.double().sum(1).cpu()
    return total / (len(x) * 3_072 * math.log(2))

# %%
# What is to come: check_model at x of 8 x 8 or few examples (it samples often); the job `photographs` (three seeds, ten minutes each on
# one thread: bits_by_level and log_marginal at K = 16 of 2,000 test images, as chapter 08; pictures as WebP); a table of levels; a
# figure of one photograph from its first 1, 4, 7, 10 levels (the coarse picture, repeated) and of samples; chapter 08's flat code, PNG
# and WebP beside the total.
# To scout on images 9,000 to 9,999: width 64 or 96, Adam 1e-3 or 2e-3 or Muon, batch 32 or 64, noise 0.5 (learnt), epochs for ten
# minutes.
