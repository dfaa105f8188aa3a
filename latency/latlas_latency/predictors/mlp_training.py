"""Training of `MlpPredictor`'s networks. The one module of this package that imports torch."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray

HIDDEN_UNITS = 32
N_HIDDEN_LAYERS = 3

_N_STEPS = 300
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-2
_LAST_LAYER_GAIN = 0.1
"""Networks begin near zero: a residual that cannot be learnt stays as it is."""

Arrays = tuple[NDArray[np.float32], ...]


def train_members(
    inputs: NDArray[np.float32],
    targets: NDArray[np.float64],
    seen: NDArray[np.bool_],
    *,
    seed: int,
) -> tuple[Arrays, Arrays]:
    """Trains one small ReLU network per member, all at once, on full batches.

    Huber loss, AdamW (Loshchilov and Hutter, ICLR 2019) with one learning-rate cycle.

    Args:
        inputs: `(n_samples, n_inputs)`.
        targets: `(n_members, n_samples)`, of unit scale.
        seen: `(n_members, n_samples)`, the samples that each member may learn from.
        seed: seed of the initial weights.

    Returns:
        Weights `(n_members, n_in, n_out)` and biases `(n_members, 1, n_out)`, one per layer.
    """
    n_threads = torch.get_num_threads()
    # The matrices are small: more threads only wait for each other.
    torch.set_num_threads(1)
    try:
        return _train(inputs, targets, seen, seed)
    finally:
        torch.set_num_threads(n_threads)


def _train(
    inputs: NDArray[np.float32], targets: NDArray[np.float64], seen: NDArray[np.bool_], seed: int
) -> tuple[Arrays, Arrays]:
    generator = torch.Generator().manual_seed(seed)
    n_members, sizes = len(targets), [inputs.shape[1], *[HIDDEN_UNITS] * N_HIDDEN_LAYERS, 1]
    weights, biases = [], []
    for n_in, n_out in itertools.pairwise(sizes):
        deviation = math.sqrt(2 / n_in) * (_LAST_LAYER_GAIN if n_out == 1 else 1)
        weight = deviation * torch.randn(n_members, n_in, n_out, generator=generator)
        weights.append(weight.requires_grad_())
        biases.append(torch.zeros(n_members, 1, n_out, requires_grad=True))
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": _WEIGHT_DECAY},
            {"params": biases, "weight_decay": 0.0},
        ],
        lr=_LEARNING_RATE,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LEARNING_RATE, total_steps=_N_STEPS, pct_start=0.1
    )
    x = torch.from_numpy(inputs).expand(n_members, -1, -1)
    y = torch.from_numpy(targets.astype(np.float32))
    share = torch.from_numpy((seen / seen.sum(axis=1, keepdims=True)).astype(np.float32))
    for _ in range(_N_STEPS):
        hidden = x
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            hidden = torch.relu(torch.baddbmm(bias, hidden, weight))
        outputs = torch.baddbmm(biases[-1], hidden, weights[-1])[..., 0]
        losses = torch.nn.functional.huber_loss(outputs, y, reduction="none")
        optimizer.zero_grad()
        torch.autograd.backward((losses * share).sum())
        optimizer.step()
        schedule.step()
    return _arrays(weights), _arrays(biases)


def _arrays(tensors: list[torch.Tensor]) -> Arrays:
    return tuple(tensor.detach().numpy().copy() for tensor in tensors)
