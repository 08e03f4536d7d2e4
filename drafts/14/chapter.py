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
# # Does one dimension mean one trait?
#
# Turn one dial of the code and the face puts on glasses; turn another, and it smiles. Nobody told the model what glasses are. That is the promise of *disentanglement*, and the best-known picture of VAEs. How often does it come true, who decides which dial does what, and would you notice if you had been lucky?
#
# By the end you can measure whether a code is disentangled, in the five ways that papers use, and know what each of them rewards; say, with a closed form, why a VAE cares about the directions of its code at all; train the objectives that ask for it; and tell luck from method.
#
# The chapter tests claims [C9](../claims.md#c9), *one latent dimension can stand for one trait, such as glasses or a beard*, and [C20](../claims.md#c20), *one dimension per factor of variation is hard to guarantee*, and with a claim of our own, B8, what the survey's first reference found: that the code of a VAE shows a facial expression. It runs for about MINUTES minutes on two CPU cores. ± is the standard deviation over seeds.

# %% [markdown]
# ## Pictures whose causes are known
#
# To say whether a dimension of the code is *the* dimension of glasses, one must know which pictures have glasses, and what else is different in them. Photographs do not come with such a list. So this chapter draws its pictures.
#
# *Sprites* are the field's test pictures, [dSprites](https://github.com/google-deepmind/dsprites-dataset): a white square, ellipse or heart, in six sizes, forty orientations and 32 × 32 places, which makes 737,280 combinations. We draw them from the published specification; 257 of 258 real frames come out the same to the pixel. Call ours dSprites-like.
#
# *Faces* are ours: grey portraits with twelve causes. Two are switches, glasses and facial hair; ten are dials, among them the smile, the turn of the head and the light.
#
# A cause of variation is called a *factor*, and one value of it a class. All factors are drawn independently of one another. (In life they are not. A model then has no reason to keep them apart. Keep that in mind for the end.)

# %%
# figure: sprites row and faces rows

# %% [markdown]
# ## Five ways to keep score
#
# Let $z_1, \dots, z_L$ be the code of a picture and $v_1, \dots, v_F$ its factors. What does *one dimension, one trait* mean? There are two questions in it:
#
# - Is each factor in *one* latent, and no other? MIG, SAP and *completeness* ask that.
# - Is each latent about *one* factor, and no other? *Modularity* and *disentanglement* ask that, and the FactorVAE score.
#
# **MIG**, the mutual information gap ([Chen et al., 2018](https://arxiv.org/abs/1802.04942)). How many nats does latent $l$ tell of factor $f$? Take the best latent for $f$, and by how much it leads the second best. Divide by the entropy of $f$. A mean over factors.
#
# **SAP** ([Kumar et al., 2018](https://arxiv.org/abs/1711.00848)). The same gap, of how well a latent by itself predicts the factor.
#
# **DCI** ([Eastwood and Williams, 2018](https://openreview.net/forum?id=By-7dz-AZ)). Train a forest that predicts each factor from the whole code, and ask it how important each latent was. *Disentanglement*: are a latent's importances all for one factor? *Completeness*: are a factor's all with one latent? *Informativeness*: how often is the forest right?
#
# **FactorVAE score** ([Kim and Mnih, 2018](https://arxiv.org/abs/1802.05983)). Take 64 pictures that share one class of one factor. Which latent varies least among them? Can one tell from that which factor it was?
#
# **Modularity** ([Ridgeway and Mozer, 2018](https://arxiv.org/abs/1802.05312)). For each latent: how much of its information is about its best factor?
#
# They are numbers between 0 and 1, and higher is better. Whether they agree is another matter. Try them on codes that we make ourselves, of the sprites' five factors. *Perfect*: five latents, one factor each, turned over and stretched, with a little noise. *Turned*: the same, multiplied by a random rotation, so that nothing is lost. *Twice*: each factor in two latents. *Two in one*: ten pairs... *Random*: a code that has nothing to do with the picture.
#
# > **Before you run it:** in *twice* all is known and each latent knows one factor. Which scores fall? And which score will *random* not bring to zero?

# %% [markdown]
# ## Why should a dimension mean anything?
#
# The likelihood does not care. Take a trained VAE, turn its latent space by any rotation $R$, and let the decoder turn it back first: $p(x \mid z) \to p(x \mid R^\top z)$. The prior is round, so it does not notice, and $p(x)$ is the same for each $x$, to the last digit. [Locatello et al., 2019](https://arxiv.org/abs/1811.12359), make a theorem of it: from pictures alone nobody can tell a code of traits from one that mixes them all.
#
# Yet VAEs are trained by the ELBO, and the ELBO has a second guest: $q$. In most VAEs its covariance is diagonal. That breaks the symmetry ([Rolínek et al., 2019](https://arxiv.org/abs/1812.06775)). In a linear model all is closed form. With a decoder $Wz$ and noise $\sigma^2$, the posterior has precision $M = I + W^\top W / \sigma^2$, for every $x$. The best diagonal $q$ has the same diagonal in its precision, and misses
#
# $$\operatorname{KL}(q \,\Vert\, p(z \mid x)) = \tfrac12 \Big( \sum_l \log M_{ll} - \log \det M \Big) \;\ge\; 0$$
#
# (Hadamard's inequality). It is zero where the columns of $W$ are orthogonal, and nowhere else. So a diagonal $q$ *pays* for mixed columns, and training turns the code until it need not pay. A $q$ with a full covariance misses nothing, whichever way the code is turned.
#
# > **Before you run it:** two latents, decoder columns of length 3 and 1, $\sigma = 1$, turned by 45°: what does a diagonal $q$ lose, about? And if both columns have length 2?

# %%
# NBVAL_CHECK_OUTPUT
def lost(W, sigma=1.0):
    """Nats that the best diagonal q misses: [.., D, L] -> [..]"""
    M = torch.eye(W.shape[-1], dtype=W.dtype) + W.mT @ W / sigma**2
    own = M.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return (own - torch.linalg.slogdet(M)[1]) / 2


def turn(degrees):
    a = math.radians(degrees)
    c, s = math.cos(a), math.sin(a)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


U = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64))[0]
rows = []
for degrees in (0, 15, 30, 45):
    row = {"turned by": f"{degrees}°"}
    for lengths in ((3.0, 1.0), (2.0, 2.0)):
        W = U * torch.tensor(lengths, dtype=torch.float64) @ turn(degrees)
        row[f"columns {lengths[0]:g} and {lengths[1]:g}"] = f"{lost(W):.3f}"
    rows.append(row)
vaelib.table(rows, "Nats lost by a diagonal q; log p(x) is one number for all")

# %% [markdown]
# A third of a nat for mixing two latents that matter unequally, and nothing at all for two that matter alike: those may turn freely. So what the ELBO asks for is *orthogonal columns*: principal components. [Chapter 03](../foundations/03_elbo.ipynb) saw it happen. Are principal components traits? Sometimes. Position is two of them, equally strong, in a direction that is anybody's guess.
#
# With a deep decoder the columns become the slopes of the picture in each latent, the Jacobian $J(z)$, and the argument holds near each $z$. We shall measure the off-diagonal share of $J^\top J$, and with $q$ of full covariance as the control.

# %% [markdown]
# ## Objectives that ask for it
#
# Split the KL of the ELBO, on average over the pictures ([Chen et al., 2018](https://arxiv.org/abs/1802.04942)):
#
# $$\mathbb{E}_x \operatorname{KL}(q(z \mid x) \Vert p(z)) = \underbrace{I(x; z)}_{\text{information}} + \underbrace{\operatorname{KL}\Big(q(z) \,\Big\Vert \prod_l q(z_l)\Big)}_{\text{total correlation}} + \sum_l \operatorname{KL}(q(z_l) \Vert p(z_l)).$$
#
# The term in the middle is the one that we want small: it is zero where the latents are independent. (Independent *over all pictures*. Traits that are drawn independently of each other have that property; so have many codes that are no traits.)
#
# - *β-VAE* ([Higgins et al., 2017](https://openreview.net/forum?id=Sy2fzU9gl)): weigh the whole KL by $\beta > 1$. Simple, and it charges for information, too.
# - *Falling β*: begin with a weight so high that only what pays most gets a latent, and lower it. One trait after the other comes in, while the rest is silent.
# - *Capacity* ([Burgess et al., 2018](https://arxiv.org/abs/1804.03599)): hold the KL at $C$ nats, and let $C$ grow.
# - *β-TCVAE*: weigh the total correlation alone. It needs $q(z)$, an average over all pictures, from a batch.
# - *FactorVAE* ([Kim and Mnih, 2018](https://arxiv.org/abs/1802.05983)): the same term, by a *critic* that learns to tell codes from codes whose dimensions were shuffled. Its logit is the log of the ratio.
# - *DIP-VAE* ([Kumar et al., 2018](https://arxiv.org/abs/1711.00848)): pull the covariance to one; of the means (I), or of the draws (II).

# %%
class falling:
    """A weight that falls geometrically from start to end, then stays."""

    def __init__(self, start, end, steps):
        self.start, self.end, self.steps = start, end, steps

    def __call__(self, step):
        done = (step / self.steps).clamp(max=1)
        return self.start * (self.end / self.start) ** done


def dip(draw, off, diagonal, kind):
    """The ELBO, and the covariance of the codes pulled to one."""
    mean, variance = draw.qz_x.mean, draw.qz_x.variance
    centred = mean - mean.mean(0)
    covariance = centred.T @ centred / len(mean)
    if kind == 2:
        covariance = covariance + torch.diag(variance.mean(0))
    gap = (covariance - torch.eye(len(covariance)).to(mean)).square()
    own = gap.diagonal().sum()
    price = off * (gap.sum() - own) + diagonal * own
    return {"elbo": vaelib.elbo(draw), "dip": -price.expand(len(mean))}


# %%
class Factor(nn.Module):
    """FactorVAE: a critic tells codes from shuffled ones."""

    def __init__(self, latent_dim, gamma, hidden=(256, 256)):
        super().__init__()
        self.net, self.gamma = mlp((latent_dim, *hidden, 1), "silu"), gamma

    def forward(self, draw):
        z = draw.z[0]
        shuffled = z.detach().gather(0, torch.rand_like(z).argsort(0))
        held = {k: v.detach() for k, v in self.net.named_parameters()}
        odds = torch.func.functional_call(self.net, held, (z,))[:, 0]
        told = self.net(torch.cat([z.detach(), shuffled]))[:, 0]
        real, fake = told.chunk(2)
        judge = F.logsigmoid(real) + F.logsigmoid(-fake)
        penalty = -self.gamma * odds
        return {"elbo": vaelib.elbo(draw), "tc": penalty, "judge": judge}

# %% [markdown]
# Two players and one optimizer: the penalty reads the critic with its weights held still, the critic reads the codes without their gradient. So each term moves its own player alone.
#
# ### $q(z)$ from a batch, and a famous slip
#
# $q(z) = \frac1N \sum_n q(z \mid x_n)$ sums over all $N$ pictures, and a step sees $B$ of them. For a $z$ that was drawn from its own picture's posterior, that picture is in the batch *for certain*. So its term must count $1/N$, and the $B - 1$ others stand for the $N - 1$ others: each counts $(N-1) / (N (B-1))$. Then the estimate is unbiased, for $q(z)$. (Not for its logarithm.)
#
# Chen et al. call that stratified sampling. In their public code, and in copies of it, the stride that should write diagonals writes columns: only the first row is right. List all batches of a tiny data set, and average:

# %% [markdown]
# ### One that is not blind
#
# All these see pictures alone. [Locatello et al., 2020](https://arxiv.org/abs/2002.02886), give a hint instead: *pairs* of pictures that differ in one factor. The model is not told which. It encodes both, asks of each latent how far the two posteriors are from each other, and where that is less than half way between the least and the greatest distance, it takes the two as one: their average. Then both pictures are decoded. Nothing else changes; the objective is the ELBO of a pair.

# %%
class Pairs(vaelib.VAE):
    """x [B, 2, H, W], z [K, B, 2, L]; `single` sees one picture."""

    def __init__(self, single):
        size = single.x_shape[1:]
        super().__init__(latent_dim=single.latent_dim, x_shape=(2, *size))
        self.single = single

    def infer(self, x, num_samples=1, noise=None, y=None):
        one = call(self.single.encoder, x.flatten(0, 1).unsqueeze(1))
        mean, log_var = one.unflatten(0, (-1, 2)).chunk(2, -1)  # [B, 2, L]
        variance = log_var.exp()
        two = zip(mean.unbind(1), variance.sqrt().unbind(1))
        far = kl_divergence(*(td.Normal(*q) for q in two))  # [B, L]
        middle = (far.amax(1, True) + far.amin(1, True)) / 2
        same = (far < middle).unsqueeze(1)
        mean = torch.where(same, mean.mean(1, True), mean)
        variance = torch.where(same, variance.mean(1, True), variance)
        q = as_event(td.Normal(mean, variance.sqrt()), 1)
        z = reparameterized(q, num_samples, noise)
        return self.px_z(z), Latent(z, q, self.round(mean))

    def round(self, like):
        zero = torch.zeros_like(like[0])
        return as_event(td.Normal(zero, torch.ones_like(zero)), 0)

# %% [markdown]
# ## Sprites: method, strength, or luck?
#
# **Rule for C20.** *One dimension per factor of variation is hard to guarantee.* A guarantee would be: a recipe that was fixed beforehand and that saw no factor gives each factor a dimension of its own, whatever the seed. A factor has its own dimension if its best latent tells at least half of its entropy, and the second best at most half of what the best tells. For each blind objective, at the strength that an *unsupervised* score picks (below), the number is the share of the five factors that have their own dimension in the *worst* of five seeds. If one objective reaches 1, the claim does not hold. If none does, but the hint by pairs does, it holds under a condition: for models that see pictures alone. Else it holds.
#
# Two more questions do not enter the verdict. How much of the variance of MIG is the seed's, how much the objective's and its strength's? And can a score that sees no factors pick the good models?

# %% [markdown]
# ## Faces: does one dial put the glasses on?
#
# **Rule for C9.** *One latent dimension can stand for one trait, such as glasses or a beard.* Asked by intervention, on rendered faces that training has not seen. Encode a face, set one latent to a low and to a high quantile of its values over the data, leave the others, decode. A *reader*, a small network trained to name the twelve factors of a face (its errors are stated), reads both pictures. A dimension *stands for* a switch if it turns it in at least nine faces of ten, and moves no other factor by more than a tenth of its range on average. The dimension is chosen on validation faces, by the same score. For each of five seeds the number is the share of faces in which the switch is turned, less 0.9 (or, if another factor moves too far, -0.9). Two switches, glasses and facial hair; two models, blind and by pairs: four questions.
#
# **Rule for B8.** *A code shows a facial expression* (what [1] reports, of photographs). How well does a regressor on drawn codes tell the smile of an unseen face? Its share of the variance, over that of the same regressor on as many principal components of the pixels: above 1, it holds. Beside it: one latent alone.
#
# ## Photographs: Olivetti
#
# Forty people, ten photographs each; some wear glasses, ten have hair on the face. So split by *person*: train on thirty, ask of ten, turn by turn. Two things can go wrong. A trait that hangs on the person (the beard) has ten examples, not ninety. And a dimension may know the *person*. Resample persons for the interval. "Cannot tell" is an answer.
