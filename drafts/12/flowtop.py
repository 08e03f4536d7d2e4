# %% tags=["depth_controls"]
from dataclasses import replace


class Zeros(nn.Module):
    """In place of a prior's network: a standard normal."""

    def __init__(self, n_out):
        super().__init__()
        self.n_out = n_out

    def forward(self, h):
        return h.new_zeros(*h.shape[:-1], self.n_out)


class FlowTop(Deep):
    """A `Deep` whose top level has chapter 11's flow as its prior."""

    def __init__(self, dims, width):
        super().__init__(dims, width)
        self.levels[0].prior = Zeros(2 * dims[0])
        self.flow = vaelib.priors.FlowPrior(dims[0], 128, 8)

    def infer(self, x, num_samples=1, noise=None, y=None):
        px, top, *rest = super().infer(x, num_samples, noise, y)
        return px, replace(top, p=self.flow()), *rest

    def generate(self, n, y=None):
        rest = [n] * (len(self.levels) - 1)
        return self.follow([self.flow().sample((n,)), *rest])


# %% tags=["depth_controls"]
def tall(width):
    """One latent of 40, but as many blocks as four levels have."""
    model = Deep((40,), width)
    up, down = (
        nn.Sequential(*(Block(width) for _ in range(4))) for _ in "ab"
    )
    model.ups, model.levels[0].block = nn.ModuleList([up]), down
    return model


controls = {  # a model of about 400,000 parameters; epochs of equal time
    "1 and a flow": (lambda: FlowTop((40,), 136), 27),
    "4 and a flow": (lambda: FlowTop((10,) * 4, 92), 20),
    "1, of four blocks": (lambda: tall(104), 22),
}


def control_row(make, epochs, digits):
    torch.manual_seed(seed)
    model = make().to(device)
    style = {"epochs": 1 if smoke else epochs, "skip": 1_000.0}
    history = trained(model, digits.data, **style)
    row = {"training": sum(history.seconds)} | scored(model, digits)
    row["skipped"] = sum(history.skipped)
    row["parameters"] = sum(p.numel() for p in model.parameters())
    return row


# %% tags=["depth_controls"]
if budget != "full":  # `make benchmark` runs it
    digits, result = Digits(), {"seed": seed}
    for name, (make, epochs) in controls.items():
        row = partial(control_row, make, epochs, digits)
        result[name] = kept(name, row)
