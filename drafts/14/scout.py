"""Scout of chapter 14's sprites job: NAME SEED EPOCHS."""
import base64, json, math, sys, time
from functools import partial
sys.path.insert(0, "drafts/14")
import torch, vaelib
from torch import nn
from torch.nn import functional as F
from torch.distributions import Independent, Normal, kl_divergence
from vaelib.nets import call, mlp
from vaelib.optimizers import Muon, FusedAdam, warm_cosine
sys.path.insert(0, ".")
torch.set_num_threads(1)
from objectives_and_pairs import falling, tcvae, Factor, dip, Pairs
import importlib.util
def load(name):  # drafts import .arrays etc.
    spec = importlib.util.spec_from_file_location("vaelib." + name, f"drafts/14/{name}.py")
    m = importlib.util.module_from_spec(spec); sys.modules["vaelib." + name] = m; spec.loader.exec_module(m); return m
S, D, P = load("sprites"), load("disentanglement"), load("predictability")
NAMES = "shape", "scale", "orientation", "x", "y"

def drawn(factors):
    x = torch.cat([F.avg_pool2d(S.sprites(f).float(), 2).round().byte() for f in factors.split(5000)])
    return x

class Labelled(vaelib.VAE):
    labels = "given"
    def __init__(self, single, cells):
        super().__init__(latent_dim=single.latent_dim, x_shape=single.x_shape)
        self.single = single
        self.mean = nn.Embedding(cells, single.latent_dim); self.log_var = nn.Embedding(cells, single.latent_dim)
        nn.init.normal_(self.mean.weight, std=0.1); nn.init.zeros_(self.log_var.weight)
    def infer(self, x, num_samples=1, noise=None, y=None):
        q = self.single.encode(x)
        z = vaelib.posteriors.reparameterized(q, num_samples, noise)
        p = Independent(Normal(self.mean(y), (self.log_var(y) / 2).exp(), validate_args=False), 1)
        return self.single.decode(z), vaelib.Latent(z, q, p)
    def generate(self, n, y=None):
        z = Normal(self.mean(y), (self.log_var(y) / 2).exp()).sample()
        return self.single.decode(z), z

def cell_of(y):
    shape, scale, _, x, yy = y.unbind(1)
    return ((shape * 2 + scale // 3) * 4 + x // 8) * 4 + yy // 8

def make(posterior=vaelib.posteriors.normal, hidden=(256, 128)):
    return vaelib.mlp_vae(10, hidden, x_shape=(1, 32, 32), activation="silu", norm="layer", posterior=posterior)

@torch.no_grad()
def means(vae, x):
    q = [vae.encode(part) for part in vaelib.data.binarize(x).split(2_000)]
    return torch.cat([a.mean for a in q])

def lost(M):
    return (M.diagonal(dim1=-2, dim2=-1).log().sum(-1) - torch.linalg.slogdet(M)[1]) / 2

def mixing(vae, z):
    eta = lambda a: vae.decoder(a[None]).flatten()
    J = torch.func.vmap(torch.func.jacfwd(eta))(z)
    p = torch.func.vmap(eta)(z).sigmoid()
    G = J.mT @ ((p * (1 - p))[..., None] * J)
    off = G.square().sum((1, 2)) - G.square().diagonal(dim1=1, dim2=2).sum(1)
    M = G + torch.eye(len(G[0]))
    return {"off": (off / G.square().sum((1, 2))).mean().item(), "lost": lost(M.double()).mean().item()}

def scores(vae, seen, test):
    (x, y), (known_x, known_y) = test, seen
    z, known = means(vae, x), means(vae, known_x)
    I = D.factor_information(z, y)
    row = {"information": I.tolist(), "mig": D.mig(z, y), "modularity": D.modularity(z, y)}
    row["orientation"] = [D.factor_information(z[y[:, 0] == s], y[y[:, 0] == s][:, [2]])[:, 0].tolist() for s in range(3)]
    t = time.time(); row |= P.dci(known, known_y, z, y); print("dci", time.time() - t)
    t = time.time(); row["factorvae"] = D.factor_vae_score(z, y, votes=2000, test_votes=2000); print("fv", time.time() - t)
    t = time.time(); row["sap"] = P.sap(known, known_y, z, y); print("sap", time.time() - t)
    row |= mixing(vae, z[:64])
    with torch.no_grad():
        draws = [vae.draw(p) for p in vaelib.data.binarize(x).split(2000)]
        row["rate"] = torch.cat([d.rate for d in draws]).mean().item()
        row["distortion"] = -torch.cat([d.log_px_z[0] for d in draws]).mean().item()
        if draws[0].kl_parts is not None and draws[0].kl_parts.shape[1] > 1: row["kl"] = torch.cat([d.kl_parts for d in draws]).mean(0).tolist()
    return row

if __name__ == "__main__":
    name, seed, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    N = 100_000
    path = "data.pt"
    import os
    if not os.path.exists(path):
        t = time.time()
        total = math.prod(S.FACTORS.values())
        index = torch.randperm(total, generator=torch.Generator().manual_seed(0))[: N + 10_000]
        f = torch.stack(torch.unravel_index(index, tuple(S.FACTORS.values())), -1)
        x = drawn(f)
        g = torch.Generator().manual_seed(1)
        sizes = torch.tensor(list(S.FACTORS.values())); which = torch.randint(1, 6, (N,), generator=g)
        new = (torch.rand(N, generator=g) * sizes[which]).long()
        f2 = f[:N].clone().scatter_(1, which[:, None], new[:, None])
        torch.save((x, f[:, 1:], drawn(f2)), path); print("data", time.time() - t)
    x, y, x2 = torch.load(path)
    train, test = x[:N], (x[N:], y[N:])
    bs, lr, opt = int(os.environ.get("BS", 256)), float(os.environ.get("LR", 2e-3)), os.environ.get("OPT", "adam")
    steps = epochs * math.ceil(N / bs)
    fall = lambda a, b, s: partial(vaelib.elbo, beta=falling(a, b, s * steps))
    arms = {
        "vae": vaelib.elbo, "beta4": partial(vaelib.elbo, beta=4.0), "beta16": partial(vaelib.elbo, beta=16.0),
        "fall6": fall(80., 6., .75), "fall2": fall(80., 2., .75), "fall150": fall(150., 4., .85), "fall40": fall(40., 4., .75),
        "cap": partial(vaelib.elbo, beta=100.0, capacity=vaelib.objectives.linear(int(0.75 * steps), 0.0, 25.0)),
        "factor10": Factor(10, 10.0), "factor40": Factor(10, 40.0),
        "tc6": partial(tcvae, N=N, beta=6.0), "tc20": partial(tcvae, N=N, beta=20.0),
        "dip1": partial(dip, off=10.0, diagonal=100.0, kind=1), "dip2": partial(dip, off=20.0, diagonal=20.0, kind=2),
        "full": vaelib.elbo, "pairs": vaelib.elbo, "pairs4": partial(vaelib.elbo, beta=4.0), "labelled": vaelib.elbo,
        "fall40_1": fall(40., 1., .8), "fall80_1": fall(80., 1., .8), "fall20_1": fall(20., 1., .8),
        "fallA": fall(40., 1., .5), "fallB": fall(40., .5, .7), "fallC": fall(20., .5, .6),
        "pairsfall": fall(80., 4., .5),
    }
    torch.manual_seed(seed)
    vae = make(vaelib.posteriors.full_covariance if name == "full" else vaelib.posteriors.normal, tuple(map(int, os.environ.get("HID", "256,128").split(","))))
    style = dict(epochs=epochs, batch_size=bs, optimizer=partial(Muon if opt == "muon" else FusedAdam, lr=lr), seed=seed, objective=arms[name], clip=float(os.environ.get("CLIP", 100)))
    if os.environ.get("COS"): style["schedule"] = warm_cosine
    t = time.process_time()
    if name.startswith("pairs"): vaelib.fit(Pairs(vae), torch.cat([train, x2], 1), **style)
    elif name == "labelled": vaelib.fit(Labelled(vae, 96), vaelib.data.Images(train, cell_of(y[:N])), **style)
    else: vaelib.fit(vae, train, **style)
    t = time.process_time() - t
    row = scores(vae, (x[:10_000], y[:10_000]), test)
    H = torch.tensor([math.log(s) for s in (3, 6, 40, 32, 32)])
    I = torch.tensor(row["information"]); top = I.topk(2, 0).values
    short = {k: round(v, 3) for k, v in row.items() if isinstance(v, float)}
    print("RESULT", sys.argv[1:], bs, lr, opt, f"{t:.0f} s", short, "best", (top[0] / H).round(decimals=2).tolist(), "second", (top[1] / H).round(decimals=2).tolist(), "hearts", round(max(row["orientation"][2]) , 2), "kl", [round(v, 1) for v in row.get("kl", [])], flush=True)
