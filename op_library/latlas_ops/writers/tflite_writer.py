"""Networks as TFLite models: FlatBuffers written node by node, without TensorFlow.

TFLite computes in NHWC. The input of a model is `(batch, height, width, channels)`, and so is its
output where it is an image; vectors are `(batch, features)`, sequences `(batch, length, features)`.
Transposed, the outputs are those of the other writers on the same weights.

What converters fuse is fused: a ReLU or ReLU6 that alone reads a convolution, linear layer, sum,
product or pooling becomes part of it. Such a node writes the activation's tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

from latlas_ops.errors import MissingDependencyError
from latlas_ops.network import Network
from latlas_ops.weights import Weights
from latlas_ops.writers._prepare import prepare


@dataclass(frozen=True)
class TfliteProgram:
    """A TFLite model and where its tensors come from.

    Attributes:
        model_bytes: the FlatBuffer; equal networks and weights give equal bytes.
        tensor_positions: name of every tensor that a node of the model writes → position in the
            network of the op it belongs to. A node that an activation of another op was fused into
            belongs to the op that it belonged to before, and the other op has no tensor.
    """

    model_bytes: bytes
    tensor_positions: dict[str, int]


def write_tflite(
    network: Network,
    weights: Weights | None = None,
    *,
    batch: int = 1,
    seed: int = 0,
    name: str = "latlas",
) -> TfliteProgram:
    """The TFLite model of a network, with tensors `input` and `output`, float32, NHWC.

    Args:
        network: one op, a chain or a whole architecture.
        weights: parameter name → float32 array, as the other writers take them; random ones if
            None.
        batch: size of the batch axis, fixed in the model.
        seed: seed of the random weights; without effect where `weights` is given.
        name: name of the graph inside the model.

    Raises:
        InvalidInputError: an op is not float32, the weights do not fit, `batch` is not positive,
            or the model would exceed the 2 GB of a FlatBuffer.
        MissingDependencyError: the package `ai-edge-litert` is not installed.
    """
    try:
        from latlas_ops.writers._tflite_nodes import build
    except ImportError as error:
        raise MissingDependencyError(
            'writing a TFLite model needs ai-edge-litert: pip install "latlas[litert]"'
        ) from error

    graph, weights = prepare(network, weights, seed, batch)
    return TfliteProgram(*build(graph, weights, batch, name))
