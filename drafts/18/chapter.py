# %% [markdown]
# # What lies between two pictures?
#
# Take two digits, go from the code of one to the code of the other in a straight line, and decode on the way. The picture turns smoothly from a 3 into an 8. It is the figure that everybody shows of a VAE. What is it a figure *of*: the model, or the coordinates that its code happens to have?
#
# The chapter tests C7 (continuous and smooth, interpolations are meaningful), C10 (similar things are near), C11 (style and content separate), C14 (features).

# %% [markdown]
# ## A turn that nobody can see
#
# Turn each code by an angle that depends on how long it is: $T(z) = R(a \lVert z \rVert^2)\, z$, in the plane of the first two latents, of the next two, and so on. Let the decoder turn back first.
#
# - Lengths stay, so the prior density stays, at each $z$.
# - $T$ squeezes nothing: its Jacobian has determinant 1. (Write it as $R (I + A z \nabla\theta^\top)$ with a skew $A$; the determinant is $1 + \nabla\theta^\top A z$, and $\nabla\theta$ lies along $z$, where $z^\top A z = 0$.)
# - So $p(x)$ stays, for each $x$. If $q$ is carried along, the ELBO stays as well, draw by draw.
#
# No likelihood, no ELBO, no sample can tell the two models apart. Straight lines can: a line of one is a spiral of the other.

# %%
class Twist(td.Transform):
    """z turned by a |z|^2 in each plane of two latents; [..., L]."""

    domain = codomain = td.constraints.real_vector
    bijective = True

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def turned(self, z, sign):
        angle = sign * self.rate * z.square().sum(-1, keepdim=True)
        a, b = z.unflatten(-1, (-1, 2)).unbind(-1)  # [..., L / 2]
        turned = a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()
        return torch.stack(turned, -1).flatten(-2)

    def _call(self, z):
        return self.turned(z, 1)

    def _inverse(self, z):
        return self.turned(z, -1)

    def log_abs_det_jacobian(self, z, turned):
        return z.new_zeros(z.shape[:-1])


class Twisted(vaelib.VAE):
    """A VAE in other coordinates: the same p(x), the same ELBO."""

    def __init__(self, model, rate):
        super().__init__(latent_dim=model.latent_dim, x_shape=model.x_shape)
        self.model, self.twist = model, Twist(rate)

    def encode(self, x, y=None):
        return td.TransformedDistribution(self.model.encode(x), [self.twist])

    def decode(self, z, y=None):
        return self.model.decode(self.twist.inv(z))

# %%
# check: log p(x|z), p, q, elbo(analytic=False) of one draw equal to 1e-5; det of jacobian 1 by autograd.

# %% [markdown]
# ## Straight, spherical, geodesic
#
# The decoder's mean g maps a curve of codes to a curve of pictures. Its length there, sum |g(z_{i+1}) - g(z_i)|, does not depend on coordinates. The shortest one is a geodesic of the pulled-back metric J'J (Arvanitidis et al., 2018; Shao et al., 2018; Chen et al., 2018). Discrete energy sum |g(z_{i+1}) - g(z_i)|^2, ends fixed, Adam on the points in between.

# %%
def straight(a, b, steps):
    t = torch.linspace(0, 1, steps)[:, None, None]
    return a + t * (b - a)  # [T, N, L]


def spherical(a, b, steps):
    """White (2016): along the great circle, lengths interpolated."""
    la, lb = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    cos = ((a / la) * (b / lb)).sum(-1, keepdim=True).clamp(-1, 1)
    w = cos.acos().clamp(min=1e-4)
    t = torch.linspace(0, 1, steps)[:, None, None]
    way = ((1 - t) * w).sin() / w.sin() * a / la + (t * w).sin() / w.sin() * b / lb
    return way * (la + t * (lb - la))


def energy(decode, path):
    pictures = decode(path).flatten(2)  # [T, N, D]
    return (pictures[1:] - pictures[:-1]).square().sum((0, 2))  # [N]


def geodesic(decode, path, iterations=300, lr=0.05):
    """Points between the ends moved until the curve's energy is least."""
    ends, middle = path[[0, -1]], path[1:-1].clone().requires_grad_()
    optimizer = torch.optim.Adam([middle], lr)
    for _ in range(iterations):
        whole = torch.cat([ends[:1], middle, ends[1:]])
        loss = energy(decode, whole).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.cat([ends[:1], middle.detach(), ends[1:]])

# %% [markdown]
# Measures of a path between test pictures of two classes (judge: digit_net, held out; its accuracy on reconstructions stated):
# - stretch: length in pictures / distance of its ends (1 is straight in pixels).
# - jump: the largest step over the mean step (1 is even).
# - between: share of points on the way that the judge gives one of the two classes, with >= 0.9 confidence (a real picture of either).
# - midpoint's Frechet distance to test pictures (bits drawn from the means, so that pixel mixtures are judged alike): floor: real halves; ceiling: reconstructions.
# - density: log p(x) (K = 100) of midpoints' drawn bits, against reconstructions' drawn bits.
# Rivals: pixel mixtures; an autoencoder of the same nets (codes' straight lines); autoencoder with unit-scaled codes.
# Rule C7 (draft): "meaningful": midpoints are nearer to real pictures than both the pixel mixture's and the autoencoder's, by Frechet, interval over 3 seeds; "smooth": jump below the autoencoder's. Then the twist: at the largest angle at which the ELBO is still equal to 1e-4, is the same claim still true of straight lines? If it holds at a = 0 and fails under a twist, "holds under a condition: in the coordinates that training with a diagonal q happens to choose"; geodesics are judged the same way and must not move.

# %% [markdown]
# ## Near in code, alike in kind? (C10)
#
# Precision at k: of the k nearest training pictures (by Euclidean distance of codes), the share of the query's class. MNIST and Fashion-MNIST; Olivetti by person (leave one out: the k = 5 nearest of 399, person as the class).
# Rivals, all with an index from a kept library (sklearn NearestNeighbors; exact): raw pixels; PCA to L; random projection to L; an autoencoder of the same nets and L; an untrained encoder; supervised features (digit_net, fashion_net: the ceiling).
# Distances of a VAE's code that a reader would try: means; means over posterior deviation (whitened by the average q); symmetric KL of posteriors; and twisted means (control: same model, other coordinates).
# Rule C10: precision at 10 of VAE's means, L = 16, against raw pixels AND PCA AND the autoencoder, each a question (yes / no / open by Student's interval over 3 seeds of the smallest lead, on test queries). "Similar things are near": holds if it is nearer than pixels, PCA and the autoencoder on both data sets; under a condition if beyond the random projection and pixels on one; and the twist must be stated: which share of the lead survives a = 0.3.
# Live: "find similar": a canvas or a strip of 200 test pictures; click one, its ten nearest by pixels and by code, precomputed (indices: 200 x 2 x 10 numbers, one film of thumbnails).

# %% [markdown]
# ## Adding a smile (attribute arithmetic)
#
# Mean code of faces with glasses less mean code without: add it to a face without. On rendered faces (chapter 14's reader): flips, moves others. Controls: the same arithmetic on pixels; on PCA; a random direction of the same length; and the direction from pictures matched in all other factors. Twist again.

# %% [markdown]
# ## Style and content (C11)
#
# Conditional VAE, labels = "given": p(x | y, z). Style transfer: encode x with its class, decode with another. Judges: digit_net says whether the class is the one asked for (independent of the model); style probes: slant and stroke width measured from pixels (moments; ink), correlation between source and result against that of random pairs of the same classes.
# Leakage, both ways: a probe (linear and small MLP) of the class from z (chance 10 %, the unconditional VAE's code as the ceiling), a probe of slant and width from y alone (floor) and from z.
# Rule C11: class kept in >= 95 % of transfers by the judge (its accuracy on reconstructions stated), AND correlation of slant and of width with the source above 0.5 and above the unconditional VAE's nearest-class control; leakage: class from z at most half way from chance to the unconditional code.

# %% [markdown]
# ## Features (C14)
#
# L = 2, 4, 8, 16, 32, 64: linear probe (evaluate.linear_probe) with 1,000 and all labels; trustworthiness at k = 10 (sklearn.manifold.trustworthiness on 2,000 test pictures). Rivals: PCA, random features, autoencoder, untrained encoder. UMAP and t-SNE for a picture only. MNIST, Fashion-MNIST, Olivetti (person as class: 5 pictures to learn, 5 to ask).
# Rule C14: two claims. Features: probe's accuracy above PCA's at equal L, by interval, at L = 16, both data sets. Reduction: trustworthiness above PCA's at L = 2 (where it is used as a map). Each yes / no / open; holds if all yes, under a condition if some.
#
# Jobs: `moving` (3 seeds: VAE, AE, CVAE on MNIST, Fashion; paths, retrieval, style), `sizes` (probe and trustworthiness over L).
