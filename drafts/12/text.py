DIAGRAM = r'''
def arrows(ax, places, pairs, color, bend):
    for a, b in pairs:
        style = {"arrowstyle": "-|>", "color": color, "lw": 1.4}
        style |= {"shrinkA": 13, "shrinkB": 13}
        style["connectionstyle"] = f"arc3,rad={bend}"
        ax.annotate("", places[b], places[a], arrowprops=style)


stack = {"$x$": (1, 0), "$z_2$": (1, 1), "$z_1$": (1, 2)}
down = {"$x$": (1, 0), "$d_2$": (0, 1), "$d_1$": (0, 2)}
down |= {"$z_2$": (1, 1), "$z_1$": (1, 2)}
down |= {"$h_3$": (2, 0), "$h_2$": (2, 1), "$h_1$": (2, 2)}
up = [("$x$", "$z_2$"), ("$z_2$", "$z_1$")]
seen = [("$x$", "$d_2$"), ("$d_2$", "$d_1$")]
seen += [("$d_1$", "$z_1$"), ("$d_2$", "$z_2$")]
dreamt = [("$h_1$", "$h_2$"), ("$h_2$", "$h_3$"), ("$h_3$", "$x$")]
dreamt += [("$h_1$", "$z_1$"), ("$h_2$", "$z_2$")]
dreamt += [("$z_1$", "$h_2$"), ("$z_2$", "$h_3$")]
figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
for ax, places, q, p, bend, title in (
    (axes[0], stack, up, [(b, a) for a, b in up], 0.3, "a stack"),
    (axes[1], down, seen, dreamt, 0.0, "from the top"),
):
    arrows(ax, places, q, COLORS["q"], bend)
    arrows(ax, places, p, COLORS["p"], bend)
    for name, (x, y) in places.items():
        ax.text(x, y, name, ha="center", va="center", fontsize=13)
    ax.set(title=title, xlim=(-0.5, 2.5), ylim=(-0.4, 2.4))
    ax.set_axis_off()
plt.show()
'''
ALT_DIAGRAM = "Two diagrams. Left, a stack: arrows from x up to z2 and on to z1 and back down the same way. Right, from the top: features d2 and d1 are computed upwards from x; on the way down a state h passes from level to level, each level's z is drawn from d and h, and h takes z along down to x."
INTRO = r'''
# What does each layer hold?

A flat code says everything at once: which digit, how it leans, where each stroke ends. So people stack layers, in the hope that they share the work. The top one would say *what*, those below *where exactly*. Does that happen? And does it buy nats?

By the end you can write a hierarchy whose layers all work, say what depth is worth and what it only brings along, read off what each layer holds, and turn the bound into a file: images packed to the length that the ELBO promised, and back, bit for bit.

The chapter tests [C12](../claims.md#c12): *several layers of latents capture abstract concepts*, and a claim of the book's own, [B4](../claims.md#b4): *at equal time, more layers reach a better likelihood*. It runs for about MINUTES minutes on two CPU cores. ± is the standard deviation over seeds.
'''
HEAD_CHANGES = [
 ('We count from the top, in the order in which the model dreams. Look at it from the decoder\'s side. It sees $z_2$, and $z_2$ has *some* distribution, $p(z_2) = \\int p(z_2 \\mid z_1)\\, p(z_1)\\, dz_1$. So this is a flat VAE whose prior is learnt. [Chapter 11](11_learned_priors.ipynb) measured what a learnt prior can save: two to three nats on digits, no more.',
  'We count from the top, in the order in which one draws from the model. Look at it from the decoder\'s side. It sees $z_2$, and $z_2$ has *some* distribution, $p(z_2) = \\int p(z_2 \\mid z_1)\\, p(z_1)\\, dz_1$. So this is a flat VAE whose prior is learnt, and we know what that can do: on digits [chapter 11](11_learned_priors.ipynb) saved three nats of rate before a frozen encoder, and more than four nats of NLL where the encoder learnt along.'),
 ('There everything is normal, so the prior of $z_2$ is a normal, and a linear decoder takes any normal in its stride.',
  'There everything is normal, so $z_2$ is some normal, which is a matrix $L$ times standard normal noise. The decoder is a matrix as well, and can take $L$ in. So the flat model with a standard normal is just as good.'),
 ('They are two ways to write one posterior. So the order is no matter of what *can* be said. It is a matter of what a diagonal normal can say: bottom up, $q(z_2 \\mid x)$ must cover in one piece what top down may be many pieces, one for each $z_1$. And it is a matter of learning, as we shall see.',
  'They are two ways to write one posterior, so both orders can say the same things. They differ in what a *diagonal normal* must cover. Top down, $z_1$ must fit into one, and $z_2$ gets one for each $z_1$. Bottom up, $z_2$ must fit into one, and $z_1$ gets one for each $z_2$. And they differ in how they learn, as we shall see.'),
 ('`infer` begins with $z_2$: a model names first the latent whose posterior reads $x$ alone. And the price of $z_2$ reads $z_1$, which is drawn later, so `nested=False`: its closed-form KL is not its cost.',
  '`infer` begins with $z_2$: a model names first the latent whose posterior reads $x$ alone. What is `nested=False`? The prior of $z_2$ is $p(z_2 \\mid z_1)$, and this $z_1$ is drawn from $q(z_1 \\mid z_2)$, later. So the draw of $z_2$ moves its own prior, the mean of $\\log q - \\log p$ is no KL between two fixed normals, and vaelib must take it from the draws.'),
 ('It carries a state $h$. At each level', 'It carries a state $h$ ([Kingma et al., 2016](https://arxiv.org/abs/1606.04934)). At each level'),
 ('When the model dreams, the same pass runs without the posterior.\n', 'To draw from the model, the same pass runs without the posterior.\n\n\n' + code(DIAGRAM, '', True, ALT_DIAGRAM) + md('Orange is what sees, blue what dreams. In code a level has three small networks: one for the prior, one for the posterior, and one that takes $h$ along.')),
 ('The state $h$ is what makes this more than a stack. It carries *every* layer\'s draw down to the image, so a layer need not repeat what those above have said. Chapter 11\'s ceiling falls: the pixels read all layers.',
  'The state $h$ is what makes this more than a stack. It carries *every* layer\'s draw down to the image, so a layer need not repeat what those above have said, and the pixels read all of them.'),
 ('or it may be the product of the prior and what the image says, precisions added (*product*, the ladder of Sønderby et al.).', 'or it may be the product of the prior and what the image says, precisions added (*product*, the ladder of Sønderby et al.). From here on we read it directly; exercise 4 compares the three.') if False else ('Or it may be the product of the prior and what the image says, precisions added (*product*, the ladder of Sønderby et al.).', 'Or it may be the product of the prior and what the image says, precisions added (*product*, the ladder of Sønderby et al.). From here on we take it directly; exercise 4 compares the three.'),
 ('Every level starts silent: the last layers of all heads are zero, so at first $q = p$, and the rate is exactly nothing. Levels wake up one by one.',
  'Every level starts silent. The last layer of each network is zero at first, so $q = p$, and the rate is exactly nothing. A level has to earn its first nat. (The product is not silent: twice the same normal, multiplied, is a narrower one. It starts at a tenth of a nat a latent.)'),
]
ORDERS = r'''
### Two orders, one minute

Does the order matter where $q$ is learnt? Train four models for about a minute each, all with twenty latents above forty. *Bottom up* is the plain stack. *Bottom up, skipping* is the same, but its decoder reads $z_1$ beside $z_2$. *Top down* is a `Deep` of two levels. *Top down, a chain* is that without its memory: each level reads the one above it alone, as in the stack. All have about 400,000 parameters. The rest is the recipe of this chapter: sticking the landing ([chapter 10](10_tighter_bounds.ipynb)) in each layer, Muon, a running mean of the weights.

> **Before you run it:** in which of the four will the top layer stay silent?
'''
SKIPPING = r'''
class Skipping(Stack):
    """The decoder reads z2 and z1."""

    def __init__(self, dims=(20, 40), width=200):
        super().__init__(dims, width)
        style = {"activation": "silu", "norm": "layer"}
        mlp = vaelib.nets.mlp((sum(dims), width, 784), **style)
        self.out = nn.Sequential(mlp, nn.Unflatten(-1, self.x_shape))

    def px(self, z2, z1):
        return super().px(torch.cat([z2, z1], -1), z1)


vaelib.check_model(Skipping((3, 4), 16), train[:64])
orders = {  # a model; epochs of about the same time
    "bottom up": (Stack, 12),
    "bottom up, skipping": (Skipping, 12),
    "top down": (partial(Deep, (20, 40), 112), 9),
    "top down, a chain": (partial(Deep, (20, 40), 112, carry=False), 9),
}
'''
ORDERS_RUN = r'''
digits, in_order = Digits(), {}
for name, (make, epochs) in orders.items():
    torch.manual_seed(seed)
    model = make().to(device)
    trained(model, digits.data, 1 if smoke else epochs)
    nll = -vaelib.log_marginal(model, digits.images, 5 if smoke else 50).mean
    in_order[name] = nll, *costs(model, digits.images.x)
'''
ORDERS_TABLE = r'''
rows = []
for name, (nll, each, pixels) in in_order.items():
    if name.startswith("bottom"):  # it names z2 first
        each = each[::-1]
    row = {"model": name, "NLL": f"{nll:.2f}"}
    row |= {"z1 costs": f"{each[0]:.1f}", "z2 costs": f"{each[1]:.1f}"}
    rows.append(row | {"pixels cost": f"{pixels:.1f}"})
vaelib.table(rows, "A minute each, one seed; test images, nats (K = 50)")
'''
READ_ORDERS = 'READING-ORDERS'
TRICKS = r'''
## What each trick is worth

A hierarchy comes with a list of tricks, and papers ship them together. So take them away one at a time. *The recipe* has four levels of ten latents, a posterior that is read directly, the state $h$ carried past each draw, sticking the landing ([chapter 10](10_tighter_bounds.ipynb)) in each level, Muon, and a running mean of the weights. Each row changes one thing and trains for the same time, about seventy seconds of one CPU thread. Where a change might ask for another learning rate, two are tried, and validation images choose. At the end stand one level with all forty latents and the plain stack. All have about 400,000 parameters.

> **Before you run it:** which single change costs most? Which do you expect to gain?
'''
TRICKS_TABLE = r'''
tricks = vaelib.results("tricks")
rows = []
for name in arms:
    own = partial(tricks.over_seeds, name)
    loss = own("images") - tricks.over_seeds("the recipe", "images")
    rates = own("rates").mean(0).tolist()
    if name == "plain stack":  # it names z2 first
        rates.reverse()
    row = {"model": name, "NLL": plus_minus(own("images"))}
    row["above the recipe"] = plus_minus(loss)
    row["rate"] = f"{sum(rates):.1f}"
    row["of each level, from the top"] = ", ".join(f"{a:.1f}" for a in rates)
    rows.append(row)
print(tricks)
vaelib.table(rows, "Equal time, test images, nats (K = 50)")
'''
READ_TRICKS = 'READING-TRICKS'
DEPTH = r'''
## Does depth help?

The same number of parameters, the same number of latents, the same seconds: one, two, four and eight levels. A deeper model is narrower, and makes fewer steps, since a step through more levels takes longer.

**Rule for B4.** For each of three seeds all four are trained for the same time, about three minutes on one quiet CPU thread; a clock set their epochs beforehand. The best of the deeper three is chosen by the validation NLL of the other two seeds; on test images we read how much lower its NLL ($K = 50$) is than that of the one level. Student's 95 % interval over the seeds: above half a nat, it holds; below, it does not; across, undecided. Half a nat, since no remedy of chapter 10 gained more.

> **Before you run it:** which number of levels wins, and by how much?
'''
WIDTHS = r'''
# NBVAL_CHECK_OUTPUT
widths = {count: width_for(count, 40 // count) for count in (1, 2, 4, 8)}
for count, width in widths.items():
    with torch.device("meta"):
        parameters = Deep((40 // count,) * count, width).parameters()
    many = sum(p.numel() for p in parameters)
    print(f"{count} levels of width {width}: {many:,} parameters")
'''
CHAIN = r'''
# NBVAL_CHECK_OUTPUT
kl = torch.distributions.kl_divergence
latents = slice(0, 5)
whole = kl(given(latents, at_x, x), given(latents))
q1 = given(at_z1, at_x, x)
z1 = q1.sample((1_000_000,))
here = torch.cat([z1, x.expand(len(z1), -1)], -1)
first = kl(q1, given(at_z1))
second = kl(given(at_z2, at_z1_x, here), given(at_z2, at_z1, z1)).mean()
print(f"layer 1 costs {first:.3f} nats, layer 2 {second:.3f}:", end=" ")
print(f"{first + second:.3f}; both in one piece {whole:.3f}")
'''
PROBES = r'''
### What does "abstract" mean?

The same models answer the survey's claim, that several layers *capture abstract concepts*. Abstract must mean something that can fail. We take the class of a digit: no single pixel shows it, and ten people would give it the same name. A level has captured it if its code tells *more of the class than a flat code that costs as many nats*. After all, any code tells something. The promise of a hierarchy is that its top sorts out what matters first.

**Rule for C12.** For each of three seeds: encode, and read a *draw* of the top of four levels. Its rate is $R$ nats. A probe learns the class from 10,000 draws and is asked about the test images: a linear one or the vote of ten nearest neighbours, whichever does better on held-out draws; latents whose posterior mean does not move ([chapter 09](09_posterior_collapse.ipynb)'s count) are left out, for to a neighbour they are noise. Beside it stand flat models of the same size and time, at $\beta = 1, 2, 4, 8$, so that their rates lie around $R$; their probes' accuracy is read off at $R$ by a line between neighbours. The difference in points, with Student's interval: above two points the claim holds, below two it does not, across it is undecided; and so it is where $R$ lies outside of the flat rates. Two points, since less would be no reason to build a hierarchy.

So that a level's share of *style* is seen, too, a ridge regression guesses the width of the stroke and its slant from the same draws.
'''
FLOW = r'''
More levels bring two things along that are not levels. First, a prior: each level below the top has one that is learnt, and one level has a normal. Part of what depth gains may be what chapter 11 gains without it. Second, blocks: four levels have four of them on the way up and four on the way down, one level has one. Three controls tell them apart, at the same time and about the same size: one level and four, each with chapter 11's flow on top, and one level with four blocks each way. (Updates with a gradient longer than 1,000 are left out; chapter 11 shows what one of them can do to a flow.)
'''
DEPTH_TABLE = r'''
depth = vaelib.results("depth")
control = vaelib.results("depth_controls")
rows = []
for record, names in ((depth, counts), (control, controls)):
    for name in names:
        own = partial(record.over_seeds, f"{name}")
        row = {"levels": f"{name}", "NLL": plus_minus(own("images"))}
        row["last doubling"] = plus_minus(own("last_gain"))
        row["distortion"] = plus_minus(own("distortion"), 1)
        row["rate"] = plus_minus(own("rates").sum(1), 1)
        row["price × epochs"] = f"{spent[name]:.0f}"
        rows.append(row)
    print(record)
vaelib.table(rows, "Equal parameters, latents and seconds; nats (K = 50)")
'''
CLOCK = r'''
def prices(rounds=1 if smoke else 5, batches=2 if smoke else 10):
    """Of an arm's epochs, in epochs of the four levels."""
    threads, some = torch.get_num_threads(), digits.data[: 512 * batches]
    torch.set_num_threads(1)
    makers = {n: partial(Deep, (40 // n,) * n, widths[n]) for n in counts}
    makers |= {name: make for name, (make, _) in controls.items()}
    spent = {name: [] for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():  # they take turns
            history = trained(make().to(device), some, 1)
            spent[name].append(sum(history.seconds))
    torch.set_num_threads(threads)
    spent = {name: torch.tensor(s) for name, s in spent.items()}
    return {n: (s / spent[4]).median().item() for n, s in spent.items()}


epochs = depth_epochs | {name: n for name, (_, n) in controls.items()}
spent = {name: price * epochs[name] for name, price in prices().items()}
'''
ALT_B4 = 'ALT-B4'
RATES_FIGURE = r'''
figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.0))
for i, count in enumerate(counts):
    nll = depth.over_seeds(f"{count}", "images")
    left.plot([i] * len(nll), nll, "o", color=COLORS["p"], mfc="none")
    rates, top = depth.over_seeds(f"{count}", "rates").mean(0), 0.0
    for level, rate in enumerate(rates.tolist()):
        style = {"color": COLORS["q"], "alpha": 0.9 - 0.6 * level / count}
        right.bar(i, rate, bottom=-top - rate, edgecolor="white", **style)
        top += rate
for ax in (left, right):
    ax.set_xticks(range(len(counts)), [f"{count}" for count in counts])
    ax.set(xlabel="levels")
left.set(title="NLL of test images, three seeds", ylabel="nats")
right.set(title="Rate of each level, top level first", ylabel="nats")
right.set_yticks([0, -10, -20], ["0", "10", "20"])
plt.show()
'''
READ_DEPTH = r"""
READING-CONTROLS (first: is it levels, a learnt prior, or blocks?)

A second level takes two nats off the NLL, four levels two and a half to three; no remedy of chapter 10 gained half a nat, though at another horizon. Eight levels are a good nat worse than four. They are narrower, they made fewer steps, and their last level is silent; which of these costs the nat, we did not test.

Two and four levels pay a nat less for the code at most, and their pixels cost two nats less. The rates fall from the top, roughly: the first level says most, and in eight levels the sixth, seventh and eighth together say what the fifth says alone.
"""
WHERE = r'''
## What is where

Now look inside. One of these models is trained again here, four levels. A level's prior moves with the levels above, so what a level *adds* is the step of its draw away from its prior, in deviations of that prior. We take these steps for ten digits, draw the step of one level anew, and keep those of the others.

> **Before you run it:** draw the step of the *top* level anew, and keep the three below. Does a 7 become another digit? Draw that of the *last* level anew. What changes?
'''
LIVE = r'''
live, seconds = deep(4, digits)
'''
AGREE = r'''
found = vaelib.log_marginal(live, digits.images, 5 if smoke else 50)
live_rates, distortion = costs(live, digits.images.x)
stored = depth.over_seeds("4", "images")
print(f"four levels, {seconds:.0f} s: NLL {-found.mean:.2f} nats;", end=" ")
print(f"stored, {len(stored)} seeds: {plus_minus(stored)}")
each = ", ".join(f"{rate:.1f}" for rate in live_rates)
print(f"rates from the top: {each} nats; the pixels cost {distortion:.1f}")
'''
READ_AGREE = 'READING-AGREE'
SWAP = r'''
@torch.no_grad()
def steps_of(model, x):
    """Each level's draw, in deviations of its prior: [N, dim] each."""
    latents = model.draw(x).latents
    return [((a.z - a.p.mean) / a.p.stddev)[0] for a in latents]


@torch.no_grad()
def walked(model, steps):
    """p(x|z) at the end of such steps."""
    h = model.start.expand(len(steps[0]), -1)
    for level, step in zip(model.levels, steps, strict=True):
        mean, log_sigma = level.p(h)
        h = model.step(level, h, mean + log_sigma.exp() * step)
    return model.px(h)


def redrawn(model, x, level):
    """p(x|z) with the step of one level drawn anew."""
    steps = steps_of(model, x)
    steps[level] = torch.randn_like(steps[level])
    return walked(model, steps)
'''
ALT_SWAP = 'ALT-SWAP'
SWAP_FIGURE = r'''
torch.manual_seed(seed + 5)
y = digits.images.y
ten = torch.stack([(y == label).nonzero()[0, 0] for label in range(10)])
some = vaelib.data.binarize(digits.images.x[ten]).to(device)
shown = {"test images": some}
for level in range(4):
    shown[f"level {level + 1} anew"] = redrawn(live, some, level).mean
figure, axes = plt.subplots(len(shown), figsize=(WIDTH, 3.6))
for ax, (name, x) in zip(axes, shown.items(), strict=True):
    image_grid(x, ax)
    ax.text(-6, 14, name, ha="right", va="center", fontsize=9)
plt.show()
'''
SWAP_TABLE = r'''
torch.manual_seed(seed + 9)
many = digits.images[:1_000]
x = vaelib.data.binarize(many.x).to(device)
judge, pens, rows = evaluate.digit_net().to(device), pen(255 * x.cpu()), []
drawn = {"none": walked(live, steps_of(live, x))}
for level in range(4):
    drawn[f"level {level + 1}"] = redrawn(live, x, level)
for name, px in drawn.items():
    other = px.sample()
    said = judge.head(judge.features(other)).argmax(1).cpu()
    same = (said == many.y).double().mean().item()
    row = {"drawn anew": name, "class stays": f"{100 * same:.0f} %"}
    for what, now in pen(255 * other.cpu()).items():
        both = torch.stack([pens[what], now])
        row[f"{what} stays"] = f"{both.corrcoef()[0, 1]:.2f}"
    rows.append(row)
vaelib.table(rows, "1,000 test images; width and slant: correlation")
'''
READ_SWAP = 'READING-SWAP'
MOVE = r'''
def moved(model, x, others=3):
    """A view for sliders: each level's own step, or one drawn."""
    own = steps_of(model, x)
    noise = torch.randn(others, 1, model.noise_dim, device=device)
    drawn = noise.split(model.dims, -1)

    def view(**at):
        steps = [
            steps[int(k) - 1] if k else mine
            for mine, steps, k in zip(own, drawn, at.values())
        ]
        return {"image": walked(model, steps).mean[0]}

    return view
'''
WIDGET = r'''
torch.manual_seed(seed + 6)
vaelib.sliders(
    moved(live, some[7:8]),
    title="Four levels of one digit",
    alt="A 7 whose levels can be exchanged one by one.",
    x=("", 0, 1),
    y=("", 0, 1),
    colors={},
    start=(0, 0, 0, 0),
    image="What the decoder draws",
    **{f"level_{i + 1}": range(4) for i in range(4)},
)
'''
READ_WIDGET = 'READING-WIDGET'
TOLD = r'''
### What the levels tell

Pictures persuade too easily. So ask the probes. Two controls give the scale: the pixels themselves, and the draws of an untrained encoder.

> **Before you run it:** the top level of four costs about ten nats. Ten classes take $\ln 10 = 2.3$. Will a probe read the class off the top level better than off a flat code of ten nats?
'''
CONTROLS = r'''
torch.manual_seed(seed)
blank = Deep((10,) * 4, widths[4]).to(device)
for level in blank.levels:  # they begin silent: give them a voice
    level.posterior[-1].reset_parameters()
parts = digits.known, digits.images
pixels = [vaelib.data.binarize(part.x).flatten(1) for part in parts]
noise = [
    torch.cat([z for z, _ in codes_of(blank, part.x)], 1) for part in parts
]
controls, drawn = {}, [codes_of(live, part.x) for part in parts]
for n in range(1, 5):
    first = [torch.cat([z for z, _ in part[:n]], 1) for part in drawn]
    name = "level 1" if n == 1 else f"levels 1 to {n}"
    controls[name] = told_by(*first, digits)
controls["untrained, four levels"] = told_by(*noise, digits)
controls["pixels"] = told_by(*pixels, digits)
'''
TOLD_TABLE = r'''
def told_row(name, rate, told):
    row = {"code": name, "rate": rate, "class": f"{100 * told['class']:.1f} %"}
    return row | {k: f"{told[k]:.2f}" for k in ("width", "slant")}


def over_runs(name, level):
    """The mean over seeds of a level's rate and of what it tells."""
    told = depth.over_seeds
    keys = "class", "width", "slant"
    mean = {k: told(name, "told", level, k).mean().item() for k in keys}
    return f"{told(name, 'rates')[:, level].mean():.1f}", mean


flat = ["1", *(f"beta {beta:g}" for beta in betas)]
rows = []
for level in range(4):
    rows.append(told_row(f"level {level + 1} of 4", *over_runs("4", level)))
for beta, name in zip((1.0, *betas), flat, strict=True):
    rows.append(told_row(f"flat, β = {beta:g}", *over_runs(name, 0)))
display(vaelib.table(rows, "Probes of draws, three seeds; width, slant: R²"))
rows = [told_row(name, "", told) for name, told in controls.items()]
vaelib.table(rows, "Of the model trained here, and controls")
'''
ALT_C12 = 'ALT-C12'
C12_FIGURE = r'''
figure, ax = plt.subplots(figsize=(WIDTH, 3.4))
at = torch.stack([depth.over_seeds(name, "rates")[:, 0] for name in flat])
right = [depth.over_seeds(name, "told", 0, "class") for name in flat]
right = 100 * torch.stack(right)
for i in range(at.shape[1]):
    ax.plot(at[:, i], right[:, i], "o-", color=COLORS["p"], lw=1, mfc="none")
for count, marker in zip((2, 4, 8), "v^s", strict=True):
    rates = depth.over_seeds(f"{count}", "rates")[:, 0]
    top = 100 * depth.over_seeds(f"{count}", "told", 0, "class")
    style = {"color": COLORS["q"], "label": f"top of {count} levels"}
    ax.plot(rates, top, marker, **style)
ax.plot([], [], "o-", color=COLORS["p"], mfc="none", label="flat codes")
ax.set(title="What the nats of a code tell of the class")
ax.set(xlabel="rate of the code, nats", ylabel="accuracy of a probe, %")
ax.legend()
plt.show()
'''
READ_TOLD = r"""
The top of the hierarchy tells *less* of the class than a flat code of its price, by four to nine points. The tops of two and of eight levels lie below the line as well. So the claim, as we defined it, fails.

READING-TOLD-LIVE (levels 1 to n together; the classifier's view below)

The top is not empty: it tells most of the class and of the slant. What it tells little of is the pen. A flat code of ten nats knows the width of the stroke well; the top of four levels knows a fifth of it, in the mean over seeds, and the levels below know more. So the levels do share the work, only not by what we would call abstract.

Read a row of the lower levels with care. Its rate is what the level *adds*, but a draw also repeats what the levels above have said, since its prior moves with them. The last level of eight shows it: a rate of a thousandth of a nat, and a probe reads the class off it in one case of four.

Our probes are simple, and a cleverer one would read more from both codes. Four levels of ten latents are not the deep models of photographs either. What the rule rules out is the short cut from *several layers* to *abstract on top*.
"""
COARSE = r'''
## From coarse to fine

A hierarchy can stop early. Tell the receiver the first level alone, and let them draw the rest from the prior; tell two; tell all, and at last the pixels, which makes it lossless. As a budget, each step costs what the level's rate says. (An ideal code for draws would need no more. The coder of the next section cannot stop early: it gets its bits back only when the receiver has the image.)

> **Before you run it:** after how many levels is the digit the right one?
'''
COARSE_CELL = r'''
@torch.no_grad()
def by_prefix(model, x):
    """Mean images of the first n levels, n = 0, 1, ...: [n, N, 1, 28, 28].

    The levels below follow the prior.
    """
    codes = [latent.z[0] for latent in model.draw(x).latents]
    shown = []
    for n in range(len(codes) + 1):
        rest = [len(x)] * (len(codes) - n)
        shown.append(model.follow(codes[:n] + rest)[0].mean)
    return torch.stack(shown)
'''
ALT_COARSE = 'ALT-COARSE'
COARSE_FIGURE = r'''
torch.manual_seed(seed + 7)
shown = by_prefix(live, some)
figure, axes = plt.subplots(len(shown) + 1, figsize=(WIDTH, 4.3))
for n, (ax, x) in enumerate(zip(axes, [*shown, some], strict=True)):
    image_grid(x, ax)
    name = f"{n} level{'s' * (n != 1)}" if n < len(shown) else "pixels, too"
    ax.text(-6, 14, name, ha="right", va="center", fontsize=9)
plt.show()
'''
COARSE_TABLE = r'''
few = digits.images[: 300 if smoke else 2_000]
x = vaelib.data.binarize(few.x).to(device)
right = (judge.head(judge.features(x)).argmax(1).cpu() == few.y).double()
torch.manual_seed(seed + 8)
errors = (by_prefix(live, x) - x).square().flatten(2).sum(2).mean(1)
told_so_far = torch.tensor([0.0, *live_rates]).cumsum(0) / math.log(2)
here, stored = class_kept(live, digits), depth.over_seeds("4", "class kept")
rows = []
for n in range(5):
    row = {"levels": f"{n}", "rate so far, bits": f"{told_so_far[n]:.1f}"}
    row["squared error"] = f"{errors[n]:.1f}"
    row["right class"] = f"{100 * here[n]:.1f} %"
    row["three seeds"] = f"{plus_minus(100 * stored[:, n], 1)} %"
    rows.append(row)
whole = told_so_far[-1] + distortion / math.log(2)
row = {"levels": "4, and pixels", "rate so far, bits": f"{whole:.1f}"}
row |= {"squared error": "0", "right class": f"{100 * right.mean():.1f} %"}
rows.append(row | {"three seeds": ""})
vaelib.table(rows, "One draw of the rest; class as a classifier sees it")
'''
READ_COARSE = 'READING-COARSE'
BITS = r'''
## Packed to the ELBO

The negative ELBO in bits is the length of a file. That is no figure of speech. *Bits back with ANS* ([Townsend et al., 2019](https://arxiv.org/abs/1901.04866)) writes it. It needs a coder that is a *stack*: what was pushed last comes off first. Then decoding is the exact inverse of encoding, and one may also *decode* from bits that nobody has encoded: that draws a symbol, and takes bits away.

To push an image, first *decode* $z$ from the bits that lie there already, by $q(z \mid x)$. That removes about $-\log q(z \mid x)$. Then encode $x$ by $p(x \mid z)$ and $z$ by $p(z)$. The stack has grown by

$$-\log p(x \mid z) - \log p(z) + \log q(z \mid x),$$

whose average is the negative ELBO. To pop it, do all that backwards: $z$ by the prior, $x$ by the decoder, and $z$ goes back onto the stack by $q(z \mid x)$, which the receivers can compute as soon as they have $x$. The bits that were borrowed return. With several levels, all are decoded by $q$ from the top down, then encoded by $p$ from the bottom up.

The coder itself is short. *Asymmetric numeral systems* ([Duda, 2013](https://arxiv.org/abs/1311.2540)) keep the whole file as one whole number $n$. A symbol owns $w$ of $2^{24}$ slots, from slot $s$ on. Pushing it makes

$$n' = \lfloor n / w \rfloor \cdot 2^{24} + s + (n \bmod w),$$

about $2^{24} / w$ times as large: $-\log_2 (w / 2^{24})$ bits. Popping finds the symbol that owns the slot $n' \bmod 2^{24}$, and solves for $n$.

> **Before you run it:** by how many percent will the file miss the ELBO, and in which direction?
'''
ANS = r'''
SLOTS = 24  # a distribution shares out 2 to this power


class Bits:
    """A stack of symbols, kept as one whole number.

    A row says where each symbol's slots begin, and at last their number.
    """

    def __init__(self, number):
        self.number = number

    def push(self, symbol, row):
        start, end = row[symbol : symbol + 2].tolist()
        high, low = divmod(self.number, end - start)
        self.number = (high << SLOTS) + start + low

    def pop(self, row):
        high, slot = divmod(self.number, 1 << SLOTS)
        symbol = int(numpy.searchsorted(row, slot, side="right")) - 1
        start, end = row[symbol : symbol + 2].tolist()
        self.number = (end - start) * high + slot - start
        return symbol

'''
ANS2 = r'''
# NBVAL_CHECK_OUTPUT
def push_all(bits, symbols, rows):
    for symbol, row in zip(symbols, rows, strict=True):
        bits.push(symbol, row)


def pop_all(bits, rows):
    found = [bits.pop(row) for row in rows[::-1]]  # the last comes first
    return found[::-1]


row = numpy.array([0, 14, 15, 16]) << 20  # chances 14/16, 1/16, 1/16
symbols = ([0] * 14 + [1, 2]) * 100
bits = Bits(1)
push_all(bits, symbols, [row] * len(symbols))
entropy = 14 / 16 * math.log2(16 / 14) + 2 / 16 * 4
print(f"{len(symbols)} symbols: {bits.number.bit_length()} bits;", end=" ")
print(f"by their entropy {entropy * len(symbols):.1f}")
print("popped again:", pop_all(bits, [row] * len(symbols)) == symbols)
print("what is left:", bits.number)
'''
TABLES = r'''
STEPS, FAR = 64, 16  # z in steps of 1/64, from -16 to 16


def slots_of(cdf):
    """Cumulative chances [D, V + 1] -> rows; each symbol owns a slot."""
    symbols = cdf.shape[-1] - 1
    free = 2**SLOTS - symbols  # the rest: one for each
    starts = (cdf * free).floor().long()
    starts[:, 0], starts[:, -1] = 0, free
    return (starts + torch.arange(symbols + 1)).numpy()


def level_rows(parameters):
    """A level's normals, for one image."""
    mean, log_sigma = (a.double().cpu().view(-1, 1) for a in parameters)
    edges = torch.arange(-FAR * STEPS, FAR * STEPS + 1).double() - 0.5
    return slots_of(Normal(mean, log_sigma.exp()).cdf(edges / STEPS))


def ink_rows(model, h):
    """The decoder's pixels: 0 or 1."""
    ink = call(model.out, h).double().sigmoid().cpu().view(-1, 1)
    none = torch.zeros_like(ink)
    return slots_of(torch.cat([none, 1 - ink, none + 1], 1))
'''
PUSH = r'''
def latent(symbols):
    z = torch.tensor(symbols, dtype=torch.float32, device=device)
    return (z / STEPS - FAR)[None]


@torch.no_grad()
def push(model, bits, x, features=None):
    h, later = model.start[None], []
    features = features or model.features(x[None])
    for level, d in zip(model.levels, features, strict=True):
        p = level.p(h)
        z = pop_all(bits, level_rows(level.q(h, d, p)))  # bits borrowed
        later.append((z, level_rows(p)))
        h = model.step(level, h, latent(z))
    push_all(bits, x.flatten().int().tolist(), ink_rows(model, h))
    for z, rows in reversed(later):  # so that pop meets the top first
        push_all(bits, z, rows)
'''
POP = r'''
@torch.no_grad()
def pop(model, bits):
    h, later = model.start[None], []
    for level in model.levels:
        p = level.p(h)
        z = pop_all(bits, level_rows(p))
        later.append((level, z, h, p))
        h = model.step(level, h, latent(z))
    x = torch.tensor(pop_all(bits, ink_rows(model, h)), device=device)
    x = x.float().view(model.x_shape)
    pairs = list(zip(later, model.features(x[None]), strict=True))
    for (level, z, h, p), d in reversed(pairs):  # the loan goes back
        push_all(bits, z, level_rows(level.q(h, d, p)))
    return x
'''
PACKED = r'''
import random

random.seed(seed)
loan = random.getrandbits(20_000)  # for the first image to borrow
some_bits = digits.images.x[: 5 if smoke else 200]
some_bits = vaelib.data.binarize(some_bits).to(device)
bits = Bits(loan)
for x in some_bits:
    push(live, bits, x)
file = bits.number.to_bytes(bits.number.bit_length() // 8 + 1, "big")
bits = Bits(int.from_bytes(file, "big"))
back = torch.stack([pop(live, bits) for _ in some_bits]).flip(0)
print("decoded to the bit:", torch.equal(back, some_bits))
print("the loan is back:", bits.number == loan)
'''
FILES = r'''
import bz2
import lzma
import zlib

pixels = some_bits.flatten().cpu().bool().numpy()
raw, n = numpy.packbits(pixels).tobytes(), len(some_bits)
grown = 8 * len(file) - loan.bit_length()
ink = (digits.data.x / 255.0).double().mean(0).clamp(1e-3, 1 - 1e-3)
codeless = torch.distributions.Bernoulli(ink).log_prob(some_bits.cpu())
codeless = -codeless.sum().item() / math.log(2)
with torch.no_grad():
    log_w = live.draw(some_bits, 64).log_w.double() / math.log(2)
sizes = {
    "one bit a pixel": 8 * len(raw),
    "zlib": 8 * len(zlib.compress(raw, 9)),
    "lzma": 8 * len(lzma.compress(raw)),
    "bz2, a byte a pixel": 8 * len(bz2.compress(pixels.tobytes())),
    "the average image": codeless,
    "bits back": grown,
    "bits back, loan not returned": 8 * len(file),
    "negative ELBO": -log_w.mean(0).sum().item(),
}
rows = []
for name, size in sizes.items():
    rows.append({"coder": name, "bits an image": f"{size / n:.1f}"})
error = log_w.var(0).sum().sqrt().item() / sizes["negative ELBO"]
print(f"the file is {grown / sizes['negative ELBO'] - 1:+.2%}", end=" ")
print(f"off the ELBO; one draw an image makes it miss by ± {error:.2%}")
vaelib.table(rows, f"{n} test images, black and white")
'''
READ_FLOATS = r'''
Three things keep this from being a product. The loan: somebody must own 20,000 bits that are worth sending, or the first images are dear. The weights: the receiver has them already, and they are not in the file. And the floats: sender and receiver must compute the same numbers, to the last bit. Here is what happens if the sender computes the features of all images in one batch, which rounds differently.
'''
FLOATS = r'''
bits, few = Bits(loan), some_bits[:5]
with torch.no_grad():
    features = list(live.features(few))
for i, x in enumerate(few):
    push(live, bits, x, [d[i : i + 1] for d in features])
back = torch.stack([pop(live, bits) for _ in few]).flip(0)
came = (back == few).flatten(1).all(1).sum().item()
print(f"{came} of {len(few)} images came back; the loan:", bits.number == loan)
'''
READ_BITS = 'READING-BITS'
BREAK = r'''
## Break it: the plateau

People who train deep hierarchies report a plateau ([openai/vdvae, issue 8](https://github.com/openai/vdvae/issues/8)): the loss stops far too high and stays for a long time. One of them suspects that every level is silent. Let us make one, with eight levels. All runs start from the average image, as our models do, and none lowers its learning rate. First Adam at 0.0001, the rate that the report names. Then the usual medicine, a KL that is warmed up. Then thirty times that rate, and then Muon.

And a second break, which no loss curve shows: Muon again, but with the state $h$ dropped at each draw, so that each level sees the one above it alone.

> **Before you run it:** at how many nats does the plateau lie? You can compute it without any network.
'''
BREAK_CELL = r'''
def warmed(draw, step):
    """The ELBO, its KL weighed from 0 to 1 in the first 200 steps."""
    return vaelib.elbo(draw, beta=(step / 200).clamp(max=1.0))


slow, fast = (partial(FusedAdam, lr=lr) for lr in (1e-4, 3e-3))
broken = {
    "Adam, 0.0001": {"optimizer": slow},
    "the same, KL warmed up": {"optimizer": slow, "objective": warmed},
    "Adam, 0.003": {"optimizer": fast},
    "Muon": {"optimizer": Muon},
    "Muon, nothing carried past z": {"optimizer": Muon, "carry": False},
}
few, curves, ends = digits.data[: 512 if smoke else 5_120], {}, {}
ink = (few.x.double() / 255).mean(0)
for name, style in broken.items():
    torch.manual_seed(seed)
    small = Deep((5,) * 8, 48, carry=style.pop("carry", True)).to(device)
    with torch.no_grad():
        small.out[2].bias.copy_(ink.clamp(1e-3, 1 - 1e-3).logit().flatten())
    style |= {"epochs": 2 if smoke else 24, "seed": seed}  # of ten steps
    history = vaelib.fit(small, few, batch_size=512, **style)
    curves[name] = [-value for value in history.elbo]
    ends[name] = costs(small, digits.images.x[:500])
'''
ALT_BREAK = 'ALT-BREAK'
BREAK_FIGURE = r'''
plateau = -(ink.xlogy(ink) + (1 - ink).xlogy(1 - ink)).sum().item()
figure, ax = plt.subplots(figsize=(WIDTH, 3.2))
for name, curve in curves.items():
    ax.plot(10 * torch.arange(1, len(curve) + 1), curve, label=name)
vaelib.plots.exact_line(plateau, ax, label="the average image")
ax.set(title="The first steps of eight levels")
ax.set(xlabel="step", ylabel="negative ELBO, nats")
ax.legend(fontsize=8)
plt.show()
'''
BREAK_PRINT = r'''
print(f"the average image, pixel by pixel: {plateau:.1f} nats")
for name, (rates, pixels_cost) in ends.items():
    each = " ".join(f"{abs(rate):.1f}" for rate in rates)
    print(f"{name}: pixels {pixels_cost:.0f}, levels {each}")
'''
READ_BREAK = r"""
The plateau lies at the average image: what each pixel costs if nothing is known but how often it is ink. There the slow run sits, with all eight levels silent, and nothing else is wrong with it. Nobody listens to the code, so it pays to say nothing; nothing is said, so nobody learns to listen. READING-BREAK

Whether this was the cause in that report, we cannot know; the rate is theirs, the model is not, and somebody there has tried rates in vain. So this is one way to get such a log, and here is how to tell it: a loss at the average image, rates of zero, and a way out by a higher rate. [Chapter 09](09_posterior_collapse.ipynb) has others, which no rate helps.

The last curve looks like a normal run that is some nats worse. Only the rates show that seven of eight levels are dead: without $h$ a level can reach the image only through all the levels below it. So log the rate of *each* level, always.
"""
VERDICT_CODE = r'''
def answer(values, threshold):
    """Student's 95 % interval over seeds, against a threshold."""
    _, low, high = interval(values)
    if low > threshold:
        return "holds", (low, high)
    return "does not hold" if high < threshold else "undecided", (low, high)


found = {
    part: torch.stack([depth.over_seeds(f"{n}", part) for n in counts])
    for part in ("validation", "images")
}
gains, chosen = [], []
for i in range(len(depth.runs)):
    others = [j for j in range(len(depth.runs)) if j != i]
    best = found["validation"][1:, others].mean(1).argmin() + 1
    chosen.append(counts[best])
    gains.append(found["images"][0, i] - found["images"][best, i])
gains = torch.stack(gains)
says, ends = answer(gains, 0.5)
print(f"B4 {says}: chosen {chosen} levels, gain {plus_minus(gains)} nats")
by_flow = [
    control.over_seeds(name, "images")
    for name in ("1 and a flow", "4 and a flow")
]
late = by_flow[0] - by_flow[1]
_, low, high = interval(late)
print(f"with a flow on top of both: {plus_minus(late)}", end=" ")
print(f"({low:+.2f} to {high:+.2f}) nats for four levels over one")
'''
VERDICT_DIFF = r'''
def difference(run):
    """Of one seed: points of the top of four above a flat code at R."""
    pairs = sorted(
        (run[name]["rates"][0], run[name]["told"][0]["class"])
        for name in flat
    )
    rates, accuracy = zip(*pairs, strict=True)
    R = run["4"]["rates"][0]
    if not rates[0] <= R <= rates[-1]:
        return math.nan
    at = numpy.interp(R, rates, accuracy)
    return 100 * float(run["4"]["told"][0]["class"] - at)


points = torch.tensor([difference(run) for run in depth.runs])
if points.isfinite().all():
    told_says, told_ends = answer(points, 2.0)
else:  # a rate outside of the flat codes': no line to read off
    points, told_says, told_ends = points.nan_to_num(), "undecided", None
print(f"C12 {told_says}: {plus_minus(points, 1)} points")
'''
VERDICT_B4 = r'''
vaelib.Verdict(
    claim="B4",
    title="at equal time, more layers reach a better likelihood",
    measured=(
        "at equal parameters, latents and seconds the best of two, four "
        f"and eight levels is {plus_minus(gains)} nats better than one "
        f"(seeds chose {', '.join(map(str, chosen))})"
    ),
    verdict=says,
    value=gains.mean().item(),
    unit="nats of NLL, MNIST",
    interval=ends,
    seeds=len(depth.runs),
    budget=budget,
    note=(
        "Of perceptrons with about three minutes of training. A control, "
        "not part of the rule: with a flow as the prior of the top, four "
        f"levels are {plus_minus(late)} nats better than one."
    ),
)
'''
VERDICT_C12 = r'''
vaelib.Verdict(
    claim="C12",
    title="several layers of latents capture abstract concepts",
    measured=(
        "a draw of the top of four levels tells a probe "
        f"{plus_minus(points, 1)} points more of the class of a digit than "
        "a flat code of equal rate"
    ),
    verdict=told_says,
    value=points.mean().item(),
    unit="points of accuracy",
    interval=told_ends,
    seeds=len(depth.runs),
    budget=budget,
    note=(
        "Judged by the nat. That the top tells much of the class is not "
        "denied; a flat code of its price tells as much or more."
        if told_says == "does not hold"
        else ""
    ),
)
'''
KEEP = r'''
## What to keep

- A hierarchy is a list of latents. Its cost is a sum, a rate for each layer, and a layer of rate zero says nothing. Log them all.
- Top down and bottom up can both be exact. A state that carries every draw to the image keeps all levels alive.
- At equal parameters, latents and seconds more levels gave a better likelihood, up to the number that the time could train.
- The top level need not hold what we call abstract. Measure what it tells beside a flat code of the same rate.
- The negative ELBO is the length of a file. Bits back writes it.
- A loss that stands still at the average image, with all rates at zero, can be a learning rate that is too low. One level at zero may be a level that nobody hears.

In code: a subclass of `vaelib.VAE` whose `infer` returns several `Latent`s; `fit`, `log_marginal` and `check_model` need nothing else.

## Exercises
'''
EXERCISES = [
 ('Exercise 1: silence is made', 'Two minutes. Every level began at a rate of zero, since the last layers of its networks are zero. Build a `Deep((10,) * 4, 92)` whose last layers begin as torch would make them, and print the rate of each level before the first step. What do these nats buy?', [r'''
torch.manual_seed(seed)
loud = Deep((10,) * 4, 92).to(device)
for level in loud.levels:
    level.prior[-1].reset_parameters()
    level.posterior[-1].reset_parameters()
each, pixels_cost = costs(loud, digits.images.x[:500])
print("rates:", ", ".join(f"{rate:.2f}" for rate in each), "nats")
print(f"pixels: {pixels_cost:.0f}. They buy nothing yet: no decoder listens.")
''']),
 ('Exercise 2: draws and means', 'Five minutes. The probes read *draws*. Many papers probe the mean of $q$ instead. Do both for each level of `live`. By how many points does a mean flatter a level, and which one most? Which of the two does the rate pay for?', [r'''
pairs = [codes_of(live, part.x) for part in (digits.known, digits.images)]
for level, (known, asked) in enumerate(zip(*pairs, strict=True)):
    scores = [
        class_told((known[k], digits.known.y), (asked[k], digits.images.y))
        for k in (0, 1)
    ]
    drawn_one, mean = (f"{100 * score:.1f} %" for score in scores)
    print(f"level {level + 1}: drawn {drawn_one}, mean {mean}")
print("The rate pays for a draw. A mean can hide any number of digits.")
''']),
 ('Exercise 3: coarser steps', 'Ten minutes. The coder cuts each latent into steps of 1/64. A finer step costs more under the prior, and lends more under the posterior, so on balance it costs nothing. How coarse may a step be before the file grows? Try 1/16, 1/4 and 1.', [r'''
for STEPS in (64, 16, 4, 1):
    bits = Bits(loan)
    for x in some_bits[:50]:
        push(live, bits, x)
    grown = bits.number.bit_length() - loan.bit_length()
    each = grown / len(some_bits[:50])
    print(f"steps of 1/{STEPS}: {each:.1f} bits an image")
STEPS = 64
''']),
 ('Exercise 4: beside, or on top of the prior', 'An evening. `merge` has three values. Train a `Deep` of four levels with each of them, a minute or two each, with learning rates of 0.01 and 0.03 (`optimizer=partial(Muon, lr=...)`). Choose the rate by validation images, and compare on test images. Which of the three do you expect to lose most by the higher rate?', [r'''
few = digits.validation[:2_000]
for merge in ("direct", "relative", "product"):
    for lr in (0.01, 0.03):
        torch.manual_seed(seed)
        model = Deep((10,) * 4, 16 if smoke else 92, merge).to(device)
        style = {"epochs": 1 if smoke else 8}
        trained(model, digits.data, optimizer=partial(Muon, lr=lr), **style)
        nll = -vaelib.log_marginal(model, few, 5 if smoke else 50).mean
        print(f"{merge}, {lr}: {nll:.2f} nats")
''']),
]
SOURCES = r'''
## Sources

- C. K. Sønderby, T. Raiko, L. Maaløe, S. K. Sønderby, O. Winther, *Ladder variational autoencoders*, NeurIPS 2016, [arXiv:1602.02282](https://arxiv.org/abs/1602.02282): the way from the top, the product of precisions, the KL warmed up.
- D. P. Kingma, T. Salimans, R. Jozefowicz, X. Chen, I. Sutskever, M. Welling, *Improved variational inference with inverse autoregressive flow*, NeurIPS 2016, [arXiv:1606.04934](https://arxiv.org/abs/1606.04934): a bidirectional hierarchy with a deterministic path.
- S. Zhao, J. Song, S. Ermon, *Learning hierarchical features from generative models*, ICML 2017, [arXiv:1702.08396](https://arxiv.org/abs/1702.08396): why a stack's lowest layer is enough, and what to build instead.
- A. Vahdat, J. Kautz, *NVAE: a deep hierarchical variational autoencoder*, NeurIPS 2020, [arXiv:2007.03898](https://arxiv.org/abs/2007.03898): posteriors relative to the prior.
- R. Child, *Very deep VAEs generalize autoregressive models and can outperform them on images*, ICLR 2021, [arXiv:2011.10650](https://arxiv.org/abs/2011.10650): depth, long gradients skipped, a mean of the weights.
- J. Townsend, T. Bird, D. Barber, *Practical lossless compression with latent variables using bits back coding*, ICLR 2019, [arXiv:1901.04866](https://arxiv.org/abs/1901.04866); F. H. Kingma, P. Abbeel, J. Ho, *Bit-Swap*, ICML 2019, [arXiv:1905.06845](https://arxiv.org/abs/1905.06845): the same, layer by layer, with fewer bits to borrow.
- J. Duda, *Asymmetric numeral systems*, 2013, [arXiv:1311.2540](https://arxiv.org/abs/1311.2540).
'''
