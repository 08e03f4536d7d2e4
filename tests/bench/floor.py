"""A contender that trains nothing: the time of what no implementation avoids."""

import math

import torch
import torch.nn.functional as F
from network import LATENT_DIM, adam
from torch import nn


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
        # lr 0: the same work, and the numbers stay what they are.
        adam(parameters, gradients, first, second, steps, lr=0.0)

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
