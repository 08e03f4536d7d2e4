"""A contender: fit's training of an MLP with its derivatives written out."""

import functools
import math

import torch
from network import adam
from torch import nn


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
        adam(parameters, gradients, means, squares, [count] * len(parameters))
        return log_px_z - kl

    with torch.no_grad():
        for _ in range(case["epochs"]):
            total = 0.0
            for index in torch.randperm(len(x), generator=orders).split(case["batch_size"]):
                total += update(index)
            done(float(total) / len(x))
