# %%
def agreement(one, other):
    """Of two codes of the same pictures: is each latent of one found in
    a single latent of the other? 0 to 1 (Duan et al., 2020)."""
    R = torch.corrcoef(torch.cat([one, other], 1).T)
    R = R[: one.shape[1], one.shape[1] :].abs()
    best = R.amax(0).square() / R.sum(0), R.amax(1).square() / R.sum(1)
    return (torch.cat(best).mean()).item()


def ranks_of(row):
    """Ranks of an arm's latents that move: [256, l]."""
    raw = torch.tensor(list(base64.b64decode(row["ranks"])))
    ranks = raw.view(-1, len(row["spread"])).double()
    return ranks[:, torch.tensor(row["spread"]) > 0.01]


def pairs_of(name, score):
    """A score of each two seeds of an arm: [seeds, seeds]."""
    codes = [ranks_of(run[name]) for run in many.runs]
    return torch.tensor([[score(a, b) for b in codes] for a in codes])

# %%
ENTROPY = SIZES.double().log()
LEFT = (40 / torch.tensor([4.0, 2.0, 1.0])).log()  # of a turn, by shape


def own_dimension(row):
    """Of each factor: has it a dimension of its own? [5]"""
    told, left = torch.tensor(row["told"]).double(), ENTROPY.clone()
    told[:, 2] = torch.tensor(row["turns told"]).mean(0)
    left[2] = LEFT.mean()
    best, second = told.topk(2, 0).values
    return (best >= left / 2) & (second <= best / 2)

# %% cellView="form" jupyter={"source_hidden": true} tags=["hide-input"]
many = vaelib.results("sprites")
names = [name for name in many.runs[0] if name not in ("seed", "seconds")]
rows = []
for name in names:
    own = partial(many.over_seeds, name)
    mine = torch.stack([own_dimension(run[name]) for run in many.runs])
    row = {"objective": name, "MIG": plus_minus(own("MIG"))}
    row["disentanglement"] = plus_minus(own("disentanglement"))
    row["FactorVAE"] = plus_minus(own("FactorVAE"))
    row["modularity"] = plus_minus(own("modularity"))
    row["rate"] = f"{own('rate').mean():.1f}"
    counts = mine.sum(1).tolist()
    row["own dimensions"] = f"{min(counts)} to {max(counts)}"
    rows.append(row)
print(many)
vaelib.table(rows, "Five seeds; own dimensions: of five factors")

# %%
def of_seeds(values):
    """Share of the variance of values [arms, seeds] within arms."""
    within = (values - values.mean(1, keepdim=True)).square().sum()
    return (within / (values - values.mean()).square().sum()).item()
