"""Builds small Keras networks and exports them with tf2onnx into a folder: run as a program.

A process of its own: the engine cannot be loaded where TensorFlow is loaded already.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

BATCHES = (1, 3)
SIGNATURES = {"open": None, "one row": 1}


def cnn(x: Any, layers: Any) -> Any:
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D()(x)
    x = layers.DepthwiseConv2D(3)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(3, activation="softmax")(layers.Dropout(0.3)(x))


def residual(x: Any, layers: Any) -> Any:
    y = layers.Conv2D(2, 3, padding="same", activation="relu")(x)
    y = layers.BatchNormalization()(layers.Conv2D(2, 3, padding="same")(y))
    return layers.Flatten()(layers.ReLU()(layers.Add()([x, y])))


def padded(x: Any, layers: Any) -> Any:
    x = layers.ZeroPadding2D(1)(layers.ReLU()(x))
    x = layers.MaxPooling2D(3, strides=2)(x)
    x = layers.Conv2DTranspose(3, 2, strides=2)(x)
    return layers.AveragePooling2D(2)(layers.UpSampling2D(2)(x))


def dense(x: Any, layers: Any) -> Any:
    x = layers.Dense(6, activation="swish")(layers.Flatten()(x))
    x = layers.LayerNormalization()(x)
    left, right = layers.Dense(3)(x), layers.Dense(3, activation="tanh")(x)
    return layers.Concatenate()([left, layers.Multiply()([left, right])])


NETWORKS: dict[str, Callable[[Any, Any], Any]] = {
    "cnn": cnn,
    "residual": residual,
    "padded": padded,
    "dense": dense,
}


def inputs(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, 8, 8, 2)).astype(np.float32)


def build(network: Callable[[Any, Any], Any]) -> Any:
    """Make a network with statistics of its own."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 2), name="image")
    model = keras.Model(image, network(image, keras.layers))
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            values = [generator.uniform(0.5, 2, size=w.shape) for w in layer.get_weights()]
            layer.set_weights(values)
    return model


def export(name: str, folder: Path) -> None:
    """Write the models for each signature, and what the network computes."""
    import tensorflow as tf
    import tf2onnx

    model = build(NETWORKS[name])
    for kind, rows in SIGNATURES.items():
        signature = [tf.TensorSpec((rows, 8, 8, 2), tf.float32, name="image")]
        exported, _ = tf2onnx.convert.from_keras(model, input_signature=signature, opset=18)
        onnx.save_model(exported, folder / f"{name}, {kind}.onnx")
    results = {str(rows): model(inputs(rows)).numpy() for rows in BATCHES}
    np.savez(folder / f"{name}.npz", **results)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for network_name in NETWORKS:
        export(network_name, Path(sys.argv[1]))
