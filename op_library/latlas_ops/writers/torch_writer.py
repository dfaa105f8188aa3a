"""Networks as torch modules: the reference for the other writers, and a runtime of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latlas_ops.errors import MissingDependencyError
from latlas_ops.network import Network
from latlas_ops.weights import Weights
from latlas_ops.writers._prepare import prepare

if TYPE_CHECKING:
    from latlas_ops.writers._torch_module import NetworkModule


def torch_module(
    network: Network, weights: Weights | None = None, *, seed: int = 0
) -> NetworkModule:
    """The torch module of a network, in evaluation mode, float32, NCHW.

    Its children are one `OpModule` per op, named by position, so that a hook on a child sees
    exactly one op; the keys of its state dict are the names of the weights.

    Args:
        network: one op, a chain or a whole architecture.
        weights: parameter name → float32 array, copied; random ones if None.
        seed: seed of the random weights; without effect where `weights` is given.

    Raises:
        InvalidInputError: an op is not float32, or the weights do not fit.
        MissingDependencyError: torch is not installed.
    """
    try:
        from latlas_ops.writers._torch_module import NetworkModule
    except ImportError as error:
        raise MissingDependencyError(
            'building a torch module needs torch: pip install "latlas[torch]"'
        ) from error

    graph, weights = prepare(network, weights, seed)
    return NetworkModule(graph, weights).eval()
