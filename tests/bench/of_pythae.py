"""A contender: pythae's VAE and trainer, in a Python that has pythae (processes.py makes it)."""

import logging

import torch
from network import LATENT_DIM, Orders
from torch.utils.data import DataLoader

from vaelib.data import binarize


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
