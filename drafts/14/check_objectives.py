import torch, vaelib, itertools, math
from functools import partial
torch.set_num_threads(1)
from objectives_and_pairs import *
torch.manual_seed(0)
x = torch.rand(64,1,8,8).round()
def vae(): return vaelib.mlp_vae(4,(32,),x_shape=(1,8,8),activation="silu",norm="layer")
for name, ob in {"tc": partial(tcvae,N=1000,beta=4.), "factor": Factor(4,10.), "dip1": partial(dip,off=10.,diagonal=100.,kind=1),
   "dip2": partial(dip,off=10.,diagonal=10.,kind=2), "fall": partial(vaelib.elbo, beta=falling(80,6,100))}.items():
    try:
        vaelib.check_model(vae(), x, objective=ob); print(name,"ok")
    except Exception as e: print(name, type(e), str(e)[:300])
try:
    vaelib.check_model(Pairs(vae()), torch.rand(64,2,8,8).round()); print("pairs ok")
except Exception as e: print("pairs", type(e), str(e)[:400])
# unbiasedness of q(z): all batches that hold i, listed
N, B, L = 6, 3, 2
mu, s = torch.randn(N, L).double(), torch.rand(N, L).double() + .3
z = mu + s*torch.randn(N, L).double()
lq = Normal(mu, s).log_prob(z[:,None])  # [z, x, L]
exact = lq.sum(-1).logsumexp(1) - math.log(N)
acc = torch.zeros(N).double(); cnt = torch.zeros(N)
for b in itertools.combinations(range(N), B):
    b = list(b)
    est = log_aggregate(lq[b][:, b].sum(-1), N).exp()
    acc[b] += est; cnt[b] += 1
print((acc/cnt/exact.exp()))
