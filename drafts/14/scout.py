import sys, time, json, math
import torch, vaelib
from functools import partial
from torch.nn import functional as F
from vaelib.optimizers import Muon, warm_cosine
from objectives_and_pairs import *
torch.set_num_threads(1)
from vaelib.sprites import sprites, random_sprites

def small(x): return (F.avg_pool2d(x.float(), 2)).round().to(torch.uint8)

def mi(z, y, bins=20):  # [N, L], [N, F] -> nats [L, F], and entropies [F]
    lo, hi = z.min(0).values, z.max(0).values
    b = ((z - lo) / (hi - lo) * bins).long().clamp(0, bins - 1)
    out = torch.zeros(z.shape[1], y.shape[1]); H = torch.zeros(y.shape[1])
    for f in range(y.shape[1]):
        n = int(y[:, f].max()) + 1
        for l in range(z.shape[1]):
            p = torch.bincount(b[:, l] * n + y[:, f], minlength=bins * n).double().view(bins, n); p /= p.sum()
            out[l, f] = torch.special.entr(p.sum(0)).sum() + torch.special.entr(p.sum(1)).sum() - torch.special.entr(p).sum()
        H[f] = torch.special.entr(p.sum(0)).sum()
    return out, H

def mig(I, H):
    top = I.topk(2, 0).values
    return (top[0] - top[1]) / H

def make(L=10, hidden=(256, 128), act="silu", norm="layer", posterior=vaelib.posteriors.normal):
    return vaelib.mlp_vae(L, hidden, x_shape=(1, 32, 32), activation=act, norm=norm, posterior=posterior)

def evaluate(model, test):
    x, y = test
    with torch.no_grad():
        q = [model.encode(b) for b in vaelib.data.binarize(x).split(2000)]
        mean = torch.cat([a.mean for a in q]); var = torch.cat([a.variance for a in q])
    I, H = mi(mean, y)
    g = mig(I, H)
    kl = (0.5 * (mean**2 + var - 1 - var.log())).mean(0)
    best = (I.max(0).values / H)
    return dict(mig=g.mean().item(), each=[round(v, 2) for v in g.tolist()], best=[round(v, 2) for v in best.tolist()], kl=[round(v, 1) for v in kl.tolist()])

def orientation(model, mod_test):
    pass

if __name__ == "__main__":
    name, seed, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    N = 100_000
    t = time.time()
    data = random_sprites(N + 10_000, 0)
    x, y = small(data.x), data.y[:, 1:]
    print("data", time.time() - t, flush=True)
    train, test = x[:N], (x[N:], y[N:])
    torch.manual_seed(seed)
    steps = epochs * math.ceil(N / 256)
    lr = 2e-3; bs = 256
    settings = {
        "vae": vaelib.elbo,
        "beta4": partial(vaelib.elbo, beta=4.0),
        "beta16": partial(vaelib.elbo, beta=16.0),
        "fall": partial(vaelib.elbo, beta=falling(80.0, 6.0, 0.75 * steps)),
        "fall2": partial(vaelib.elbo, beta=falling(80.0, 2.0, 0.75 * steps)),
        "fall150": partial(vaelib.elbo, beta=falling(150.0, 3.0, 0.85 * steps)),
        "cap": partial(vaelib.elbo, beta=100.0, capacity=vaelib.objectives.linear(int(0.75 * steps), 0.0, 25.0)),
        "factor10": Factor(10, 10.0), "factor40": Factor(10, 40.0),
        "tc6": partial(tcvae, N=N, beta=6.0), "tc20": partial(tcvae, N=N, beta=20.0),
        "dip1": partial(dip, off=10.0, diagonal=100.0, kind=1), "dip2": partial(dip, off=20.0, diagonal=20.0, kind=2),
    }
    model = make()
    t = time.time()
    note = lambda m, h: print(h.epoch[-1] if hasattr(h, "epoch") else "", round(time.time() - t), evaluate(m, test), flush=True) if True else None
    if name == "pairs":
        f = data.y[:N].clone(); g = torch.Generator().manual_seed(1)
        sizes = torch.tensor([1, 3, 6, 40, 32, 32]); which = torch.randint(1, 6, (N,), generator=g)
        new = (torch.rand(N, generator=g) * sizes[which]).long(); f.scatter_(1, which[:, None], new[:, None])
        both = torch.cat([train, small(sprites(f))], 1)
        pair = Pairs(model)
        vaelib.fit(pair, both, epochs=epochs, batch_size=bs, lr=lr, seed=seed, objective=partial(vaelib.elbo, beta=float(sys.argv[4]) if len(sys.argv) > 4 else 1.0), callback=lambda m, h: note(m.single, h))
    else:
        vaelib.fit(model, train, epochs=epochs, batch_size=bs, lr=lr, seed=seed, objective=settings[name], callback=note)
    print("RESULT", name, seed, epochs, round(time.time() - t), json.dumps(evaluate(model, test)), flush=True)
