import math, sys, time
from functools import partial
import torch, vaelib
from torch import nn
from torch.nn import functional as F
from torch.distributions import Independent, MultivariateNormal, Normal
from vaelib.nets import call
from vaelib.optimizers import Muon, warm_cosine
from vaelib.distributions import DiscretizedLogistic
torch.set_num_threads(1)

def normal(parameters):
    mean, log_sigma = parameters
    each = Normal(mean, log_sigma.exp(), validate_args=False)
    return Independent(each, 1, validate_args=False)

def noise_of(model, x, num_samples, noise):
    if noise is None:
        noise = x.new_empty(num_samples, len(x), model.noise_dim).normal_()
    return noise.split(model.dims, -1)

def apart(x, axis):
    """Pairs along an axis: their mean, and their difference / sqrt 2."""
    a, b = x.unflatten(axis, (-1, 2)).unbind(axis)
    return (a + b) / 2, (a - b) / math.sqrt(2)

def together(mean, detail, axis):
    half = detail / math.sqrt(2)
    pair = torch.stack([mean + half, mean - half], axis)
    return pair.flatten(axis - 1, axis)

class Mixture(torch.distributions.Distribution):
    """M normals of three numbers a place, each with a lean; z is flat."""
    arg_constraints = {}
    def __init__(self, logits, loc, log_sigma, lean):
        self.logits, self.loc = logits, loc
        self.log_sigma, self.lean = log_sigma, lean
        event = torch.Size([loc.shape[-3:].numel()])
        super().__init__(logits.shape[:-3], event, validate_args=False)

    def log_prob(self, z):
        r, g, b = z.unflatten(-1, (1, *self.loc.shape[-3:])).unbind(-3)
        x, y, w = self.lean.unbind(-3)
        one = r.expand_as(x)
        own = torch.stack([one, g - x * r, b - y * r - w * g], -3)
        own = (own - self.loc) * (-self.log_sigma).exp()
        each = -own.square() / 2 - self.log_sigma - math.log(2*math.pi) / 2
        parts = each.sum(-3) + self.logits.log_softmax(-3)
        return parts.logsumexp(-3).sum((-1, -2))

    @torch.no_grad()
    def sample(self, shape=()):
        logits = self.logits.movedim(-3, -1)
        chosen = torch.distributions.Categorical(logits=logits).sample(shape)
        index = chosen[..., None, None, :, :]
        loc, log_sigma, lean = (
            t.expand(*shape, *t.shape).gather(-4, index.expand(*index.shape[:-4], 1, *t.shape[-3:])).squeeze(-4)
            for t in (self.loc, self.log_sigma, self.lean))
        r, g, b = torch.normal(loc, log_sigma.exp()).unbind(-3)
        x, y, w = lean.unbind(-3)
        g = g + x * r
        return torch.stack([r, g, b + y * r + w * g], -3).flatten(-3)

class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        last = nn.Conv2d(width, width, 1)
        nn.init.zeros_(last.weight); nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), last)
    def forward(self, h):
        return h + self.net(h)

class Detail(nn.Module):
    def __init__(self, scale, width=32, M=4, blocks=2):
        super().__init__()
        self.M = M
        self.register_buffer("scale", scale.view(3, 1, 1))
        first = nn.Conv2d(3, width, 3, padding=1)
        middle = [Residual(width) for _ in range(blocks)]
        last = nn.Conv2d(width, 10 * M, 1)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_().view(M, 10)[:, 4:7] = torch.linspace(-2.0, 0.5, M)[:, None]
        self.net = nn.Sequential(first, *middle, nn.SiLU(), last)
    def forward(self, low):
        out = call(self.net, 4 * low.flatten(0, -4))
        out = out.unflatten(1, (self.M, 10)).unflatten(0, low.shape[:-3])
        logits, loc, change, lean = out.split((1, 3, 3, 3), -3)
        log_sigma = self.scale.log() + 5 * (change / 5).tanh()
        return Mixture(logits.squeeze(-3), self.scale * loc, log_sigma, lean)

AXES = [-2, -1] * 5  # from the top
class Pyramid(vaelib.VAE):
    def __init__(self, x, noise=0.5, width=32, fine=None, **style):
        super().__init__(latent_dim=3, x_shape=(3, 32, 32))
        low, scales, shapes = x / 255 - 0.5, [], []
        for axis in AXES[::-1]:
            low, detail = apart(low, axis)
            scales.insert(0, detail.std((0, 2, 3))); shapes.insert(0, detail.shape[1:])
        self.shapes = shapes
        self.register_buffer("mean", low.flatten(1).mean(0))
        self.register_buffer("spread", torch.linalg.cholesky(low.flatten(1).T.cov()))
        widths = [min(width, 16 if s.numel() < 3*16 else width) for s in shapes]
        self.details = nn.ModuleList(Detail(s, w, **style) for s, w in zip(scales, widths))
        self.dims = 3, *(s.numel() for s in shapes)
        self.noise_dim = sum(self.dims)
        halved = torch.zeros(len(self.dims))
        halved[0], halved[1:] = len(AXES), torch.arange(len(AXES) - 1, -1, -1.0)
        start = math.log(noise / 255) - halved * math.log(2) / 2
        self.log_sigma = nn.Parameter(start)
        scale = math.log(noise / 255 * math.sqrt(3) / math.pi)
        self.log_scale = nn.Parameter(torch.full((3, 1, 1), scale))
    def codes(self, x):
        low, found = x - 0.5, []
        for axis in AXES[::-1]:
            low, detail = apart(low, axis)
            found.insert(0, detail.flatten(1))
        return [low.flatten(1), *found]
    def finer(self, level, low, z):
        if level == 0: return z[..., None, None]
        return together(low, z.unflatten(-1, self.shapes[level - 1]), AXES[level - 1])
    def p(self, level, low):
        if level: return self.details[level - 1](low)
        return MultivariateNormal(self.mean, scale_tril=self.spread)
    def px(self, picture):
        scale = self.log_scale.expand_as(picture)
        return Independent(DiscretizedLogistic(picture + 0.5, scale), 3)
    def infer(self, x, num_samples=1, noise=None, y=None):
        noise, low, latents = noise_of(self, x, num_samples, noise), None, []
        for level, (mean, e) in enumerate(zip(self.codes(x), noise)):
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

def bits(model, x):
    tot, code = 0., 0.
    with torch.no_grad():
        for b in x.split(100):
            d = model(b, 1)
            tot += -(d.log_w).sum().item(); code += (d.log_qz_x - d.log_pz).sum().item()
    k = len(x) * 3072 * math.log(2)
    return tot / k, code / k

if __name__ == '__main__':
    train, test = vaelib.data.cifar10(subset=True)
    x = train.x[:9000]; val = train.x[9000:]
    width, lr, bs, epochs, opt = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    torch.manual_seed(0)
    model = Pyramid(x[:2000].float(), width=width)
    print(sum(p.numel() for p in model.parameters()), bits(model, val), flush=True)
    data = torch.cat([x, x.flip(-1)])
    t0 = time.time()
    def note(m, h):
        print(h.epoch[-1], round(time.time() - t0), [round(a, 3) for a in bits(m, val[:300])], flush=True)
    optimizer = partial(Muon, lr=lr) if opt == 'muon' else None
    vaelib.fit(model, data, objective=partial(vaelib.elbo, analytic=False), epochs=epochs, batch_size=bs, lr=lr, optimizer=optimizer, schedule=warm_cosine, ema=0.99 if 0 else None, callback=note)
    print(width, lr, bs, epochs, opt, bits(model, val), model.log_sigma.exp() * 255, model.log_scale.flatten())
