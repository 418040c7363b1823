"""Networks that tf2onnx exports from Keras."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from cipherlearn.onnx import execute, prepare
from tests.onnx_models import dimensions, op_types

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def keras() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("tf2onnx", reason="tf2onnx is not installed: extra `exporters`")
        pytest.importorskip("tensorflow", reason="tensorflow is not installed: extra `exporters`")
        return pytest.importorskip("keras")


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


def build(keras: Any, network: Callable[[Any, Any], Any], rows: int | None) -> tuple[Any, Any]:
    """Make a network with statistics of its own, and export it."""
    import tensorflow as tf
    import tf2onnx

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 2), name="image")
    model = keras.Model(image, network(image, keras.layers))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            generator = np.random.default_rng(0)
            values = [generator.uniform(0.5, 2, size=w.shape) for w in layer.get_weights()]
            layer.set_weights(values)
    signature = [tf.TensorSpec((rows, 8, 8, 2), tf.float32, name="image")]
    exported, _ = tf2onnx.convert.from_keras(model, input_signature=signature, opset=18)
    return model, exported


@pytest.mark.parametrize("rows", [None, 1])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore")
def test_networks_run_at_any_batch_size(keras: ModuleType, name: str, rows: int | None) -> None:
    original, exported = build(keras, NETWORKS[name], rows)
    assert isinstance(exported, onnx.ModelProto)
    model = prepare(exported)
    assert model.graph.input[0].name == "image"
    assert isinstance(dimensions(model.graph.input[0])[0], str)
    assert not {"BatchNormalization", "Pad", "Shape"} & set(op_types(model))
    for count in (1, 3):
        x = np.random.default_rng(count).normal(size=(count, 8, 8, 2)).astype(np.float32)
        (found,) = execute(model, x)
        np.testing.assert_allclose(found, original(x).numpy(), rtol=1e-4, atol=1e-5)
