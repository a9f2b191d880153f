"""What csbdeep costs. Runs in the environment that environments.py makes for it.

    python csbdeep_side.py training|prediction CASE float32 THREADS

Of the ways csbdeep offers, the one that was cheapest in CPU seconds when they were compared: Keras' step on a batch in
memory instead of ``fit`` on csbdeep's shuffling wrapper, no tiles (which compute more), no percentiles.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from csbdeep import __version__
from csbdeep.models import CARE, Config
from networks import FEATURES, LEARNING_RATE, Case
from protocol import Order, serve

VERSIONS = f"csbdeep {__version__}, tensorflow {tf.__version__}"


def training(case: Case) -> None:
    care = model(case)
    care.prepare_for_training()
    x, y = np.random.default_rng(0).random((2, *case.batch, 1), dtype=np.float32)
    net = care.keras_model
    # The first steps trace the graph.
    serve(lambda: net.train_on_batch(x, y), warm_up=4, parameters=net.count_params(), versions=VERSIONS)


def prediction(case: Case) -> None:
    care = model(case)
    volume = np.random.default_rng(0).random(case.image, dtype=np.float32)
    images, axes = (volume, "YX") if case.dims == 2 else ([volume], "ZYX")

    def once() -> None:
        for image in images:
            care.predict(image, axes, normalizer=None, resizer=None)

    serve(once, warm_up=1, parameters=care.keras_model.count_params(), versions=VERSIONS)


def model(case: Case) -> CARE:
    config = Config(
        "ZYX"[-case.dims :],
        unet_n_depth=case.depth,
        unet_n_first=FEATURES,
        unet_kern_size=3,
        train_learning_rate=LEARNING_RATE,
        train_batch_size=case.batch[0],
        train_tensorboard=False,
    )
    return CARE(config, "speed", basedir=None)


if __name__ == "__main__":
    order = Order.from_command_line()
    tf.config.threading.set_intra_op_parallelism_threads(order.threads)
    tf.config.threading.set_inter_op_parallelism_threads(order.threads)
    {"training": training, "prediction": prediction}[order.measure](order.case)
