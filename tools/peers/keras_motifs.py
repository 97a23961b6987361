"""Learns to tell bound sequences with Keras; see motif_files.py and tools/bench_real.py."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from motif_files import Request, on_both_strands


def main() -> None:
    """Trains and scores the request of the command line."""
    asked = Request.of_command_line()
    keras.utils.set_random_seed(asked.seed)
    layers = keras.layers
    (x, y), held_out = asked.training, asked.held_out
    bases = keras.Input(x.shape[1:])
    best = [
        layers.GlobalMaxPooling1D()(layers.Conv1D(filters, width, activation="relu")(bases))
        for filters, width in asked.motifs
    ]
    units = layers.Dense(asked.hidden, activation="relu")(layers.Concatenate()(best))
    model = keras.Model(bases, layers.Dense(1)(layers.Dropout(asked.dropout)(units)))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(asked.step), loss)
    patient = keras.callbacks.EarlyStopping(patience=asked.patience, restore_best_weights=True)
    options = {"batch_size": asked.batch, "validation_data": held_out, "callbacks": [patient]}
    model.fit(x, y, epochs=asked.epochs, verbose=0, **options)

    def logits(x: np.ndarray) -> np.ndarray:
        return model.predict(x, batch_size=1024, verbose=0)[:, 0]

    asked.answer(on_both_strands(logits, asked.tested), model.count_params())


if __name__ == "__main__":
    main()
