"""What careamics costs. Runs in the environment that environments.py makes for it.

    python careamics_side.py training|prediction CASE float32 THREADS

The step is that of its module (network, loss and optimiser as it configures them) without Lightning's loop and logging.
The prediction is that of ``CAREamist.predict`` without tiles, whose fixed overlap computes more, and without loading a
checkpoint. Its U-Net of the same depth and width has other layers in the middle, so its number of weights differs.
"""

from __future__ import annotations

import logging
import tempfile
import warnings

import numpy as np
import torch
from careamics import CAREamist, __version__
from careamics.config.factories import create_advanced_care_config
from careamics.lightning.data import CareamicsDataModule
from careamics.lightning.modules import create_module
from networks import FEATURES, LEARNING_RATE, Case
from protocol import Order, serve

VERSIONS = f"careamics {__version__}, torch {torch.__version__}"


def training(case: Case) -> None:
    module = create_module(configuration(case).algorithm_config)
    optimizer = module.configure_optimizers()["optimizer"]
    x, y = torch.rand(2, case.batch[0], 1, *case.batch[1:])

    def once() -> None:
        loss = module.loss_func(module.model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    serve(once, warm_up=4, parameters=count(module.model), versions=VERSIONS)


def prediction(case: Case) -> None:
    volume = np.random.default_rng(0).random(case.image, dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        careamist = CAREamist(configuration(case), work_dir=folder, enable_progress_bar=False)
        config = careamist.config.data_config.convert_mode(new_mode="predicting", new_batch_size=1)

        def once() -> None:
            data = CareamicsDataModule(data_config=config, pred_data=volume)
            careamist.trainer.predict(model=careamist.model, datamodule=data)

        serve(once, warm_up=1, parameters=count(careamist.model.model), versions=VERSIONS)


def configuration(case: Case):
    return create_advanced_care_config(
        experiment_name="speed",
        data_type="array",
        axes="SYX" if case.dims == 2 else "ZYX",
        patch_size=case.batch[1:],
        batch_size=case.batch[0],
        normalization="none",
        num_workers=0,
        trainer_params={"accelerator": "cpu", "enable_model_summary": False},
        model_params={
            "depth": case.depth,
            "num_channels_init": FEATURES,
            "residual": True,
            "use_batch_norm": False,
        },
        optimizer_params={"lr": LEARNING_RATE},
    )


def count(net: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    order = Order.from_command_line()
    torch.set_num_threads(order.threads)
    {"training": training, "prediction": prediction}[order.measure](order.case)
