"""Trains with Keras, plain or under MirroredStrategy; see protocol.py and tools/bench_peers.py."""

import json
import os
import sys
import time
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from protocol import one_hot, rank_auroc, serve, timed_epochs, until


def build(network: dict[str, Any], shape: tuple[int, ...]) -> keras.Model:
    """Returns the compiled network with the report's settings."""
    layers = keras.layers
    stack: list[Any] = [keras.Input(shape)]
    if network["name"] == "motif_cnn":
        stack += [
            layers.Conv1D(network["filters"], network["width"], activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(1, activation="sigmoid"),
        ]
        loss = "binary_crossentropy"
    else:
        for filters in map(
            int, network.get("filters", "").split(",") if "filters" in network else []
        ):
            stack += [
                layers.Conv2D(filters, 3, padding=network["padding"], activation="relu"),
                layers.Conv2D(filters, 3, activation="relu"),
                layers.MaxPooling2D(),
            ]
        stack.append(layers.Flatten())
        for units in map(int, network["dense"].split(",")):
            stack.append(layers.Dense(units, activation="relu"))
            if network["dropout"]:
                stack.append(layers.Dropout(network["dropout"]))
        stack.append(layers.Dense(10, activation="softmax"))
        loss = "sparse_categorical_crossentropy"
    model = keras.Sequential(stack)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    return model


def main() -> None:
    """Serves the request of the command line."""
    request = json.loads(sys.argv[1])
    replicas = request.get("replicas", 1)
    if replicas > 1:
        [cpu] = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
        )
        names = [device.name for device in tf.config.list_logical_devices("CPU")]
        strategy = tf.distribute.MirroredStrategy(names)
    else:
        strategy = tf.distribute.get_strategy()
    data, network, batch = np.load(request["data"]), request["network"], request["batch"]
    bases = network["name"] == "motif_cnn"
    x, held_out = (
        one_hot(part) if bases else np.float32(part) / 255
        for part in (data["x"], data["x_validation"])
    )
    y = data["y"]
    with strategy.scope():
        model = build(network, x.shape[1:])

    def train(epochs: int) -> None:
        model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0)

    def to_auroc(wanted: float, most: float, seed: float) -> dict[str, Any]:
        keras.utils.set_random_seed(int(seed))
        start = time.perf_counter()
        fresh = build(network, x.shape[1:])
        fresh.optimizer.build(fresh.trainable_variables)
        variables = [*fresh.variables, *fresh.optimizer.variables]
        initial = [variable.numpy() for variable in variables]
        fresh.fit(x[:batch], y[:batch], batch_size=batch, verbose=0)  # compiles
        fresh.predict(held_out, batch_size=1024, verbose=0)
        for variable, value in zip(variables, initial, strict=True):
            variable.assign(value)

        def auroc() -> float:
            scores = fresh.predict(held_out, batch_size=1024, verbose=0)[:, 0]
            return rank_auroc(data["y_validation"], scores)

        def epoch() -> None:
            fresh.fit(x, y, batch_size=batch, verbose=0)

        return until(start, epoch, auroc, wanted, most)

    answers = {"train": timed_epochs(train, len(x)), "until": to_auroc}
    serve({"parameters": model.count_params(), "version": tf.__version__}, answers)


if __name__ == "__main__":
    main()
