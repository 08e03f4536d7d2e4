"""What people bring as data, each tried as they would try it: tables, counts, files, labels."""

import numpy as np
import pytest
import torch
from small import grey, small, table_vae, weights
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset, TensorDataset

import vaelib
from vaelib.data import Images

# Numbers and images ------------------------------------------------------------------------------


def test_a_float64_table_and_a_float32_model():
    table = np.random.default_rng(0).normal(size=(50, 6))  # as scikit-learn gives it
    model, same = table_vae(), table_vae()
    vaelib.fit(model, table, validation=table[:10], epochs=2)
    vaelib.fit(same, torch.from_numpy(table).float(), epochs=2)
    assert torch.equal(weights(model), weights(same))
    assert model.encode(table).mean.dtype == torch.float32
    assert vaelib.log_marginal(model, table, 20).values.shape == (50,)
    found = vaelib.report(model, table, table[:20], num_samples=20, ais_images=2)
    assert found["nll"].value > 0


def test_a_model_that_shares_nothing_with_vaelibs_gets_data_in_its_dtype():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = table_vae()

        def forward(self, x, num_samples=1):
            draw = self.inner(x, num_samples)
            assert x.dtype == torch.float32
            return vaelib.Draw.of(x, draw.px_z, *draw.latents)

    table = np.random.default_rng(0).normal(size=(50, 6))
    vaelib.fit(Own(), table, epochs=1)
    assert vaelib.log_marginal(Own(), table, 5).values.isfinite().all()
    assert vaelib.evaluate.active_units(Own(), table) >= 0


def test_a_float64_model_and_bytes():
    model = small().double()
    vaelib.fit(model, grey(), epochs=1)
    estimate = vaelib.log_marginal(model, grey(), 20)
    assert estimate.values.dtype == torch.float64
    assert model.encode(grey()).mean.dtype == torch.float64


def test_counts_stay_counts():
    """int64 data: a Poisson likelihood, and a network whose first layer casts."""

    def poisson(log_rate):
        return torch.distributions.Poisson(log_rate.exp())

    torch.manual_seed(0)
    counts = torch.poisson(torch.full((60, 6), 3.0)).long()
    seen = []

    class Spy(vaelib.VAE):
        def infer(self, x, num_samples=1, noise=None, y=None):
            seen.append(x)
            return super().infer(x, num_samples, noise, y)

    parts = vaelib.mlp_vae(2, (8,), x_shape=(6,))
    model = Spy(parts.encoder, parts.decoder, 2, poisson)
    vaelib.fit(model, counts, epochs=1, batch_size=20, lr=1e-3, clip=1.0)
    assert all(x.dtype == torch.int64 for x in seen)
    assert max(x.max() for x in seen) == counts.max()
    assert vaelib.log_marginal(model, counts, 5).values.isfinite().all()
    int32 = vaelib.log_marginal(model, counts.numpy().astype(np.int32), 5)
    assert torch.equal(int32.values, vaelib.log_marginal(model, counts, 5).values)


def test_nan_is_missing_where_the_model_says_so_and_an_error_elsewhere():
    class Observed(torch.distributions.Normal):
        def log_prob(self, value):
            known = ~value.isnan()
            return torch.where(known, super().log_prob(torch.where(known, value, self.loc)), 0.0)

    class Filled(nn.Linear):
        def forward(self, x):
            return super().forward(x.nan_to_num(0.0))

    def observed(mean):
        return Observed(mean, 0.5)

    torch.manual_seed(0)
    x = torch.randn(40, 6)
    x[::3, 1] = torch.nan
    model = vaelib.VAE(Filled(6, 4), nn.Linear(2, 6), 2, observed)
    with pytest.raises(ValueError, match=r"NaN or infinite.* missing = True"):
        vaelib.fit(model, x, epochs=1)
    with pytest.raises(ValueError, match="missing = True"):
        model.draw(x)
    model.missing = True
    history = vaelib.fit(model, x, validation=x, epochs=3)
    assert np.isfinite(history.train + history.validation).all()
    assert weights(model).isfinite().all()
    assert vaelib.log_marginal(model, x, 10).values.isfinite().all()
    bits = vaelib.data.binarize(torch.tensor([[0.0, torch.nan, 1.0]]), missing=True)
    assert_close(bits, torch.tensor([[0.0, torch.nan, 1.0]]), equal_nan=True)


def test_colour_photographs_under_the_default_likelihood_get_one_warning(recwarn):
    x = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    model = vaelib.mlp_vae(2, (8,), x_shape=(3, 8, 8))
    with pytest.warns(UserWarning, match=r"every pixel becomes a bit.*discretized_logistic"):
        vaelib.fit(model, x, epochs=2)
    assert len(recwarn) == 0
    vaelib.fit(model, (x > 127).float(), epochs=1)  # bits are bits
    continuous = vaelib.mlp_vae(
        2, (8,), x_shape=(3, 8, 8), likelihood=vaelib.likelihoods.discretized_logistic()
    )
    vaelib.fit(continuous, x, epochs=1)


# Labels ------------------------------------------------------------------------------------------


def test_examples_and_labels_of_different_number():
    with pytest.raises(ValueError, match="10 examples and 9 labels; expected a label for each"):
        Images(grey(10), torch.zeros(9))


def test_images_print_in_a_line():
    assert repr(Images(grey(10), torch.arange(10))) == (
        "Images(x: uint8 [10, 1, 4, 4], 1 to 254; y: int64 [10], 0 to 9)"
    )


def test_labels_are_missed_on_disk_as_elsewhere():
    class Semi(vaelib.VAE):
        labels = "learnt"

    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)))
    model = Semi(encoder, decoder, 2)
    for data in (OnDisk(grey()), grey()):
        with pytest.raises(ValueError, match=r"data have none; expected Images\(x, y\), a label"):
            vaelib.fit(model, data)
    model.labels = "Given"
    with pytest.raises(ValueError, match="labels is 'Given'; expected None, 'given' or 'learnt'"):
        vaelib.fit(model, Images(grey(), torch.zeros(40)))


# Data sets and arrays on disk --------------------------------------------------------------------


def test_a_data_loader_is_refused_with_the_way_out():
    loader = DataLoader(TensorDataset(grey()), batch_size=8)
    with pytest.raises(TypeError, match=r"a DataLoader; expected .* pass its .dataset"):
        vaelib.fit(small(), loader)
    vaelib.fit(small(), loader.dataset, epochs=1)


class OnDisk:
    """What h5py and zarr have in common: shape, dtype, and slices in order."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.reads = x.numpy(), tuple(x.shape), x.numpy().dtype, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        assert isinstance(rows, slice) and rows.step in (None, 1) and 0 <= rows.start < rows.stop
        self.reads.append(rows.stop - rows.start)
        return self.x[rows]


def test_an_array_on_disk_is_read_a_batch_at_a_time():
    resident, streamed, array = small(), small(), OnDisk(grey(40))
    vaelib.fit(resident, grey(40), epochs=2, batch_size=16)
    vaelib.fit(streamed, array, epochs=2, batch_size=16)
    assert torch.equal(weights(streamed), weights(resident))
    assert max(array.reads[1:]) <= 16 or max(array.reads) <= 40  # never more than was asked for
    assert sum(array.reads) == 3 * 40  # a sample beforehand, and two epochs
    assert_close(
        vaelib.log_marginal(streamed, array, 5).values,
        vaelib.log_marginal(resident, grey(40), 5).values,
    )


class Items(Dataset):
    def __init__(self, item, n=40):
        self.item, self.n = item, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.item(i)


def _raises(i):
    if i == 7:
        raise KeyError("label of 7")
    return grey()[i]


@pytest.mark.parametrize(
    ("item", "error", "says"),
    [
        (lambda i: grey()[i][:, : 4 - (i == 9)], ValueError, r"Example 9 has shape \[1, 3, 4\]"),
        (lambda i: {"image": grey()[i]}, TypeError, r"Example \d+ is a dict with image; expected"),
        (lambda i: "7.png", TypeError, r"Example \d+ is a str; expected a tensor"),
        (_raises, ValueError, r"failed to give example 7 \(KeyError: 'label of 7'\).*dataset\[7\]"),
    ],
)
def test_items_that_do_not_fit_are_named(item, error, says):
    with pytest.raises(error, match=says):
        vaelib.fit(small(), Items(item))
