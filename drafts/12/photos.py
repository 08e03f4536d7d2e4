# %% [markdown]
# ## Photographs: a level for each halving
#
# On digits we asked what the levels hold. On photographs we can *say* what they shall hold, and measure what it is worth. Halve a photograph: replace each pair of neighbouring columns by their mean. Then each pair of rows, then columns again, until one colour is left: ten halvings from 32 × 32. Going back up, each step must add the difference that its halving threw away. Let each level be those differences.
#
# A mean and a difference of two numbers are two numbers again, and with a factor of $\sqrt 2$ nothing is stretched. So $q$ needs no network at all. It is the exact difference, with a little noise:
#
# $$q(z_l \mid x) = \mathcal N(\text{difference}_l(x),\, \sigma_l^2).$$
#
# All learning is in the prior, $p(z_l \mid z_{<l})$: a network looks at the picture so far and says which differences to expect. Nothing is lost on the way, so nearly all bits are in the code, and the code comes in order: colour, then shape, then edges.
#
# > **Before you run it:** of ten thousand training photographs a flat code made 4.15 bits a number, most of them in the pixels ([chapter 08](08_likelihoods.ipynb)). Where will these land, and what share will the last halving cost?


# %% tags=["photographs"]
def apart(x, axis):
    """Pairs along an axis: their mean, and their difference over √2."""
    a, b = x.unflatten(axis, (-1, 2)).unbind(axis)
    return (a + b) / 2, (a - b) / math.sqrt(2)


def together(mean, detail, axis):
    """The way back, also with leading axes."""
    half = detail / math.sqrt(2)
    pair = torch.stack([mean + half, mean - half], axis)
    return pair.flatten(axis - 1, axis)


# %% [markdown]
# What differences does one expect? Mostly small ones, now and then an edge, and then in all three colours at once. So the prior of a place is a mixture of normals over its three numbers together, and each normal *leans*: green follows red, blue follows both.


# %% cellView="form" jupyter={"source_hidden": true} tags=["hide-input", "photographs"]
class Leaning(torch.distributions.Distribution):
    """Mixtures of M normals over three numbers a place; z is flat.

    logits [..., M, h, w]; loc, log_sigma and lean [..., M, 3, h, w].
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, logits, loc, log_sigma, lean):
        self.logits, self.loc = logits, loc
        self.log_sigma, self.lean = log_sigma, lean
        event = torch.Size([loc.shape[-3:].numel()])
        super().__init__(logits.shape[:-3], event, validate_args=False)

    def log_prob(self, z):
        r, g, b = z.unflatten(-1, (1, *self.loc.shape[-3:])).unbind(-3)
        rg, rb, gb = self.lean.unbind(-3)
        own = r.expand_as(rg), g - rg * r, b - rb * r - gb * g
        e = (torch.stack(own, -3) - self.loc) * (-self.log_sigma).exp()
        each = -e.square() / 2 - self.log_sigma - math.log(2 * math.pi) / 2
        parts = each.sum(-3) + self.logits.log_softmax(-3)
        return parts.logsumexp(-3).sum((-1, -2))


# The rest (sample, the network, Pyramid with infer and generate) stands in pyr.py, and passes check_model; it has not been trained:
# learning rate, width and number of normals are to be scouted (width 32, 160,000 parameters: 8 ms an image on one busy thread).
# Before the first step 5.89 bits, 4.82 of them in the code. Target: 3.95, at least half of it in the code.
