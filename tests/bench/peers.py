"""What bench.py times: ways to train one network, each in a process of its own.

    python tests/bench/peers.py CASE CONTENDER        CASE is JSON, see bench.py

All train the same modules, from the same weights, with Adam at 1e-3 in float32. A contender
calls `done` after each epoch, which hands the seconds over and waits until bench.py asks for the
next epoch: so the contenders take turns, and a machine that slows down slows all of them.
"""

import functools
import json
import logging
import math
import os
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import vaelib
from vaelib.arrays import scale_pixels
from vaelib.data import binarize, mnist

ROOT = Path(__file__).resolve().parents[2]
LATENT_DIM = 20


# Network and data --------------------------------------------------------------------------------


def build(case):
    """The network of a case, as a vaelib.VAE; contenders other than fit use its two modules."""
    torch.manual_seed(0)
    shape = (1, 28, 28) if case["images"] == "mnist" else (3, 32, 32)
    if case["net"] == "mlp":
        return vaelib.mlp_vae(LATENT_DIM, (400,), x_shape=shape)
    channels, side = shape[0], shape[1] // 4
    encoder = nn.Sequential(
        nn.Conv2d(channels, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * side * side, 2 * LATENT_DIM),
    )
    decoder = nn.Sequential(
        nn.Linear(LATENT_DIM, 64 * side * side),
        nn.ReLU(),
        nn.Unflatten(1, (64, side, side)),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(32, channels, 4, stride=2, padding=1),
    )
    return vaelib.VAE(encoder, decoder, LATENT_DIM, x_shape=shape)


def images(case):
    """uint8 [N, C, H, W]: MNIST's first N, or noise of CIFAR-10's shape (for speed alone)."""
    n = case["examples"]
    if case["images"] == "mnist":
        return mnist()[0].x[:n]
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)


class Orders:
    """A batch sampler with the order of the examples that `fit` draws from seed 0."""

    def __init__(self, n, batch_size):
        self.n, self.batch_size = n, batch_size
        self.generator = torch.Generator().manual_seed(0)

    def __iter__(self):
        order = torch.randperm(self.n, generator=self.generator)
        return iter([index.tolist() for index in order.split(self.batch_size)])

    def __len__(self):
        return math.ceil(self.n / self.batch_size)


class Pictures(Dataset):
    """What torchvision's data sets do for each image, for arrays that it has no class for."""

    def __init__(self, x):
        self.arrays = x.permute(0, 2, 3, 1).contiguous().numpy()
        try:
            from PIL import Image
            from torchvision.transforms import ToTensor

            self.to_image, self.to_tensor = Image.fromarray, ToTensor()
        except ImportError:
            self.to_tensor = None

    def __len__(self):
        return len(self.arrays)

    def __getitem__(self, i):
        array = self.arrays[i]
        if self.to_tensor is None:  # ToTensor's own steps
            return torch.from_numpy(array).permute(2, 0, 1).contiguous().div(255), 0
        grey = array.shape[-1] == 1
        return self.to_tensor(self.to_image(array[..., 0] if grey else array)), 0


def picture_loader(case, x):
    """The DataLoader of PyTorch's VAE example: torchvision's MNIST where there is one."""
    options = {"num_workers": 1, "pin_memory": True} if case["device"] == "cuda" else {}
    dataset = None
    if case["images"] == "mnist":
        try:
            from torchvision import datasets, transforms

            dataset = datasets.MNIST(ROOT / "data", download=True, transform=transforms.ToTensor())
            dataset.data = dataset.data[: len(x)]
            dataset.targets = dataset.targets[: len(x)]
        except (ImportError, RuntimeError):
            pass
    return DataLoader(
        dataset or Pictures(x), batch_size=case["batch_size"], shuffle=True, **options
    )


# Contenders --------------------------------------------------------------------------------------
#
# (case, model, x, done): x is uint8 images to be timed on, or, for the nats, bits as floats, which
# every contender then sees in fit's order.


def classic(case, model, x, done):
    """The loop of https://github.com/pytorch/examples/blob/main/vae/main.py."""
    loader = picture_loader(case, x)
    if x.is_floating_point():
        sampler = Orders(len(x), case["batch_size"])
        loader = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_sampler=sampler)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(case["epochs"]):
        train_loss = 0.0
        for grey, _ in loader:
            # The one line that the example lacks: it scores grey pixels, whose cross-entropy is
            # no likelihood. Bits make its nats comparable; ones and zeros stay as they are.
            data = torch.bernoulli(grey.to(case["device"]))
            optimizer.zero_grad()
            mu, log_var = model.encoder(data).chunk(2, 1)
            std = torch.exp(0.5 * log_var)
            recon = torch.sigmoid(model.decoder(mu + torch.randn_like(std) * std))
            bce = F.binary_cross_entropy(recon, data, reduction="sum")
            kld = -0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp())
            loss = bce + kld
            loss.backward()
            train_loss += loss.item()
            optimizer.step()
        done(-train_loss / len(x))


def resident(case, model, x, done):
    """A plain loop over data on the device, with torch's defaults throughout."""
    x = x.to(case["device"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(case["epochs"]):
        total = torch.zeros((), device=x.device)
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for index in order.split(case["batch_size"]):
            bits = torch.bernoulli(scale_pixels(x[index]))
            mu, log_var = model.encoder(bits).chunk(2, 1)
            z = mu + (0.5 * log_var).exp() * torch.randn_like(mu)
            logits = model.decoder(z)
            distortion = F.binary_cross_entropy_with_logits(logits, bits, reduction="sum")
            rate = -0.5 * (1 + log_var - mu**2 - log_var.exp()).sum()
            loss = (distortion + rate) / len(bits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(bits)
        done(-total.item() / len(x))


def fit(case, model, x, done, **options):
    vaelib.fit(
        model,
        x,
        epochs=case["epochs"],
        batch_size=case["batch_size"],
        lr=1e-3,
        callback=lambda model, history: done(history.train[-1], own=history.seconds[-1]),
        **options,
    )


def fit_compiled(case, model, x, done):
    fit(case, model, x, done, compile=True)


def fit_bf16(case, model, x, done):
    fit(case, model, x, done, precision="bf16")


def by_hand(case, model, x, done):
    """fit's training of a relu MLP with its derivatives written out: no autograd, no new memory.

    It draws fit's random numbers, so its weights are fit's to rounding.
    """
    if x.is_floating_point():
        x = (255 * x).to(torch.uint8)  # bits
    chance = 257 * x.flatten(1).to(torch.int16) - 2**15  # as draw_ink compares it with a word
    orders, random = (torch.Generator().manual_seed(seed) for seed in (0, 2**31))
    linear = [m for m in (*model.encoder, *model.decoder) if isinstance(m, nn.Linear)]
    weights, biases = [m.weight.detach() for m in linear], [m.bias.detach() for m in linear]
    first_of_decoder = sum(isinstance(m, nn.Linear) for m in model.encoder)
    parameters = weights + biases
    gradients, means, squares = ([torch.zeros_like(p) for p in parameters] for _ in range(3))
    dws, dbs = gradients[: len(linear)], gradients[len(linear) :]
    count = torch.zeros(())

    @functools.cache
    def memory(n):
        """For n examples: every layer's input, output and input's gradient, and the rest."""
        inputs, dinputs = ([torch.empty(n, m.in_features) for m in linear] for _ in range(2))
        outputs = [torch.empty(n, m.out_features) for m in linear]
        for i in range(1, len(linear)):
            if i != first_of_decoder:
                inputs[i] = outputs[i - 1]  # where relu works in place
        noise, sigma = (torch.empty(n, model.latent_dim) for _ in range(2))
        words = torch.empty(math.ceil(n * x[0].numel() / 4), dtype=torch.int64)
        least, part = torch.empty_like(chance[:n]), torch.empty_like(outputs[-1])
        return inputs, outputs, dinputs, noise, sigma, words, least, part

    def update(index):
        """The objective's sum over the batch, from before the update."""
        n = len(index)
        inputs, outputs, dinputs, noise, sigma, words, least, part = memory(n)
        bits, z, logits = inputs[0], inputs[first_of_decoder], outputs[-1]
        mu, log_var = outputs[first_of_decoder - 1].chunk(2, 1)
        torch.randn(noise.shape, generator=random, out=noise)
        words.random_(-(2**63), None, generator=random)
        uniform = words.view(torch.int16)[: bits.numel()].view(bits.shape).clamp_(max=2**15 - 2)
        torch.lt(uniform, torch.index_select(chance, 0, index, out=least), out=bits)

        for i in range(len(linear)):
            if i == first_of_decoder:
                torch.exp(torch.mul(log_var, 0.5, out=sigma), out=sigma)
                torch.addcmul(mu, sigma, noise, out=z)
            elif i > 0:
                inputs[i].relu_()
            torch.addmm(biases[i], inputs[i], weights[i].t(), out=outputs[i])
        # log p(x|z) = x l - softplus(l), and softplus(l) = max(l, 0) - log(max(s, 1 - s)) where
        # s = sigmoid(l); up to 16 pixels share a logarithm.
        log_px_z = torch.dot(bits.view(-1), logits.view(-1))
        log_px_z -= torch.clamp(logits, 0, out=part).sum()
        s = torch.sigmoid(logits, out=logits)
        torch.sub(s, 0.5, out=part).abs_().add_(0.5)
        log_px_z += part.view(math.gcd(part.numel(), 16), -1).prod(0).log_().sum()
        kl = 0.5 * (mu.square() + sigma.square() - 1 - log_var).sum()

        gradient = s.sub_(bits).div_(n)  # of the mean loss
        for i in reversed(range(len(linear))):
            torch.mm(gradient.t(), inputs[i], out=dws[i])
            torch.sum(gradient, 0, out=dbs[i])
            if i == 0:
                break
            gradient = torch.mm(gradient, weights[i], out=dinputs[i])
            if i == first_of_decoder:
                of_log_var = gradient * noise * sigma + (sigma.square() - 1) / n
                gradient = torch.cat((gradient + mu / n, 0.5 * of_log_var), 1)
            else:
                torch.ops.aten.threshold_backward(gradient, inputs[i], 0, grad_input=gradient)
        count.add_(1)
        torch._fused_adam_(
            parameters,
            gradients,
            means,
            squares,
            [],
            [count] * len(parameters),
            lr=1e-3,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
        return log_px_z - kl

    with torch.no_grad():
        for _ in range(case["epochs"]):
            total = 0.0
            for index in torch.randperm(len(x), generator=orders).split(case["batch_size"]):
                total += update(index)
            done(float(total) / len(x))


def floor(case, model, x, done):
    """What no implementation avoids, an update: it trains nothing.

    The products of the layers, forward and backward, without biases and activations; the batch
    gathered; sixteen random bits a pixel; softplus and its derivative over the outputs; one fused
    Adam step. Into memory that is there before, where torch's function takes it.
    """
    x = x.to(case["device"])
    size = min(case["batch_size"], len(x))
    batch = torch.rand(x[:size].shape, device=x.device)
    parameters = [p.detach() for p in model.parameters()]
    gradients = [torch.randn_like(p) for p in parameters]
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    steps = [torch.ones((), device=x.device) for _ in parameters]
    gradient_of = {p.data_ptr(): g for p, g in zip(parameters, gradients)}
    layers = products(model, batch, gradient_of)
    rows = torch.empty_like(x[:size])
    words = torch.empty(math.ceil(rows.numel() / 4), dtype=torch.int64, device=x.device)
    soft, slope = (torch.empty_like(layers[-1].gradient) for _ in range(2))

    def update(index):
        n = len(index)
        torch.index_select(x, 0, index, out=rows[:n])
        words.random_(-(2**63), None)
        h = batch[:n]
        for layer in layers:
            h = layer.forward(h)
        F.softplus(h, out=soft[:n])
        gradient = torch.sigmoid(h, out=slope[:n])
        for i, layer in reversed(list(enumerate(layers))):
            gradient = layer.backward(gradient, wants_dx=i > 0)
        torch._fused_adam_(
            parameters,
            gradients,
            first,
            second,
            [],
            steps,
            lr=0.0,  # the same work, and the numbers stay what they are
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    step = update
    if case["device"] == "cuda":
        step = replayed(update, torch.arange(size, device=x.device))
    with torch.no_grad():
        for _ in range(case["epochs"]):
            for index in torch.randperm(len(x)).to(x.device).split(size):
                (step if len(index) == size else update)(index)
            done(None)


class Product:
    """A layer's products. Each takes the last one's result, which is still in the cache."""

    def __init__(self, module, x, y, dw):
        self.weight, self.dw = module.weight.detach(), dw
        self.x, self.dx, self.y, self.gradient = x, torch.empty_like(x), y, torch.randn_like(y)
        self.linear = isinstance(module, nn.Linear)
        if not self.linear:
            transposed = isinstance(module, nn.ConvTranspose2d)
            geometry = (module.stride, module.padding, module.dilation)
            self.settings = (*geometry, transposed, module.output_padding, module.groups)

    def forward(self, x):
        n, width = len(x), self.x[0].numel()
        self.x = x.flatten(1)[:, :width].reshape(n, *self.x.shape[1:])  # of 2 L outputs, z's L
        if self.linear:
            return torch.mm(self.x, self.weight.t(), out=self.y[:n])
        return torch.convolution(self.x, self.weight, None, *self.settings)

    def backward(self, gradient, wants_dx):
        n = len(gradient)
        if gradient.numel() != self.gradient[:n].numel():
            gradient = self.gradient[:n]  # z's gradient, of L: the encoder's has 2 L
        gradient = gradient.reshape(n, *self.gradient.shape[1:])
        if not self.linear:
            arguments = (gradient, self.x, self.weight, None, *self.settings)
            wanted = [wants_dx, True, False]
            return torch.ops.aten.convolution_backward(*arguments, wanted)[0]
        torch.mm(gradient.t(), self.x, out=self.dw)
        return torch.mm(gradient, self.weight, out=self.dx[:n]) if wants_dx else None


def products(model, batch, gradient_of):
    """The layers that multiply, in order, with memory for a batch."""
    layers = []

    def note(module, inputs, output):
        dw = gradient_of[module.weight.data_ptr()]
        layers.append(Product(module, inputs[0], output, dw))

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        model.decoder(model.encoder(batch)[:, :LATENT_DIM].contiguous())
    for hook in hooks:
        hook.remove()
    return layers


def replayed(update, index):
    """The update as a CUDA graph: on a GPU launching kernels one by one can be avoided, too."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(side):
        for _ in range(3):
            update(index)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        update(index)

    def step(new_index):
        index.copy_(new_index)
        graph.replay()

    return step


def pythae_vae(case, model):
    """pythae's VAE around the case's two modules."""
    logging.disable(logging.INFO)
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = model.encoder

        def forward(self, x):
            mu, log_var = self.net(x).chunk(2, 1)
            return ModelOutput(embedding=mu, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = model.decoder

        def forward(self, z):
            return ModelOutput(reconstruction=torch.sigmoid(self.net(z)))

    config = VAEConfig(input_dim=model.x_shape, latent_dim=LATENT_DIM, reconstruction_loss="bce")
    return VAE(config, Encoder(), Decoder())


def pythae(case, model, x, done):
    """pythae's BaseTrainer, an epoch of its own `train_step` at a time.

    Its data set holds bits drawn once, since it has no place for drawing them anew: less work than
    the others do. Left out, in its favour: evaluation (no eval set), copies of the best model and
    saving (both in `train`, around `train_step`), logs, the progress bar. What remains is a
    disabled bar's `update` and its callbacks' calls, which no option turns off.
    """
    vae = pythae_vae(case, model)
    import tempfile

    from pythae.data.datasets import BaseDataset, collate_dataset_output
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    dataset = BaseDataset(binarize(x) if x.dtype == torch.uint8 else x, torch.zeros(len(x)))
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=case["epochs"],
            per_device_train_batch_size=case["batch_size"],
            learning_rate=1e-3,
            optimizer_cls="Adam",
            steps_saving=None,
            steps_predict=None,
            no_cuda=True,
        )
        trainer = BaseTrainer(vae, dataset, training_config=config)
        if x.is_floating_point():
            sampler = Orders(len(x), case["batch_size"])
            trainer.train_loader = DataLoader(
                dataset, batch_sampler=sampler, collate_fn=collate_dataset_output
            )
        trainer.prepare_training()
        for epoch in range(1, case["epochs"] + 1):
            done(-trainer.train_step(epoch))


# log p(x): here an epoch is one estimate for all the examples.


def log_marginal(case, model, x, done):
    bits, drawn = binarize(x), counted(model)
    for _ in range(case["epochs"]):
        mean = vaelib.log_marginal(model, bits, case["num_samples"]).mean
        done(mean, drawn=drawn() // len(x))


def get_nll(case, model, x, done):
    """pythae's: it returns plus log p(x). Without its gradients, which it does not turn off."""
    vae, bits, drawn = pythae_vae(case, model), binarize(x), counted(model)
    with torch.no_grad():
        for _ in range(case["epochs"]):
            mean = float(vae.get_nll(bits, n_samples=case["num_samples"]))
            done(mean, drawn=drawn() // len(x))


def nll_products(case, model, x, done):
    """The products of the decoder's layers for as many draws, into memory that is there before."""
    weights = [layer.weight.detach().T for layer in model.decoder if hasattr(layer, "weight")]
    rows = 2**19 // weights[-1].shape[1]  # as many at a time as log_marginal takes
    values = [torch.randn(rows, len(w)) for w in weights] + [torch.empty(rows, x[0].numel())]
    for _ in range(case["epochs"]):
        left = len(x) * case["num_samples"]
        while left > 0:
            n = min(rows, left)
            for weight, before, after in zip(weights, values, values[1:]):
                torch.mm(before[:n], weight, out=after[:n])
            left -= n
        done(0.0, drawn=case["num_samples"])


def counted(model):
    """A function that tells how many z were decoded since it was last asked."""
    rows = []
    model.decoder.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))

    def drawn():
        count = sum(rows)
        rows.clear()
        return count

    return drawn


CONTENDERS = {
    function.__name__: function
    for function in (
        *(classic, pythae, resident, by_hand, floor, fit, fit_compiled, fit_bf16),
        *(log_marginal, nll_products, get_nll),
    )
}


# The process -------------------------------------------------------------------------------------


class Turns:
    """Waits for its turn, times it, and tells."""

    def __init__(self, case, channel):
        self.case, self.channel, self.left = case, channel, case["epochs"]

    def tell(self, **facts):
        print(json.dumps(facts), file=self.channel, flush=True)

    def wait(self):
        if not sys.stdin.readline():
            sys.exit("bench.py has gone")
        self.started = time.perf_counter()

    def seconds(self):
        if self.case["device"] == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - self.started

    def done(self, objective, **facts):
        self.tell(seconds=self.seconds(), objective=objective, **facts)
        self.left -= 1
        if self.left:
            self.wait()
        else:
            self.started = time.perf_counter()


def time_in_turns(case, name, channel):
    model, x = build(case).to(case["device"]), images(case)
    # A process's first optimizer makes torch import its compiler, seconds that are nobody's.
    torch.optim.Adam(model.parameters())
    turns = Turns(case, channel)
    gpu = torch.cuda.get_device_name() if case["device"] == "cuda" else None
    turns.tell(gpu=gpu)
    turns.wait()
    CONTENDERS[name](case, model, x, turns.done)
    turns.tell(after=turns.seconds())  # what a call does after its last epoch


def nats(case, name, channel):
    """What the weights are worth after training on fixed bits, on test images."""
    train, test = mnist()
    model = build(case).to(case["device"])
    objectives = []
    CONTENDERS[name](
        case,
        model,
        binarize(train.x[: case["examples"]], seed=0),
        lambda objective, **facts: objectives.append(objective),
    )
    estimate = vaelib.log_marginal(model, test.x[: case["test_examples"]], case["num_samples"])
    result = {"log_px": estimate.mean, "mc_stderr": estimate.mc_stderr, "objective": objectives}
    print(json.dumps(result), file=channel, flush=True)


def main():
    # Whatever libraries print goes to stderr: stdout is for answers.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    case, name = json.loads(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(case["threads"])
    {"time": time_in_turns, "nats": nats}[case["task"]](case, name, channel)


if __name__ == "__main__":
    main()
