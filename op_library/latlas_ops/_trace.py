"""What is known of a torch graph while it is translated: tensors, views of them, steps, weights.

Free of torch: nodes of a graph are looked at, never run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas_ops.graph_kind import Step

Array = NDArray[np.float32]
State = Mapping[str, Array]
"""Parameters and buffers of a module by their names in it."""

Recipe = Callable[[State], tuple[Array, Array]]
"""Weight and bias of a step out of the state of the module."""


@dataclass(frozen=True)
class Tensor:
    """What a step or an input gives.

    Attributes:
        ref: index of it, inputs first.
        shape: batch axis included.
        origin: the node of the torch graph that made it.
    """

    ref: int
    shape: tuple[int, ...]
    origin: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class Viewed:
    """A tensor in another shape: `base` reshaped to `sizes`, its axes then in the order `axes`."""

    base: Tensor
    sizes: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Batch axis included."""
        return tuple(self.sizes[axis] for axis in self.axes)

    @property
    def in_order(self) -> bool:
        """Whether it is a mere reshape of its base."""
        return self.axes == tuple(range(len(self.axes)))


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer of the module."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """Products of queries and keys in heads, times `scale`; shares after a softmax."""

    query: Viewed
    key: Viewed
    scale: float = 1.0
    shares: bool = False


@dataclass
class Trace:
    """Steps of a module, in execution order, and the recipes of their weights.

    Attributes:
        input_shapes: of the module, batch axis included.
        steps: primitives; more than the output needs, until `pruned`.
        recipes: one per step, None where the primitive has no weights.
        shapes: of what each step gives, batch axis included.
        output: index of the output, inputs first.
    """

    input_shapes: tuple[tuple[int, ...], ...]
    steps: list[Step] = field(default_factory=list)
    recipes: list[Recipe | None] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    output: int = -1

    def add(self, step: Step, recipe: Recipe | None, shape: tuple[int, ...]) -> int:
        """Appends a step; returns its index, inputs first."""
        self.steps.append(step)
        self.recipes.append(recipe)
        self.shapes.append(shape)
        return len(self.input_shapes) + len(self.steps) - 1

    def shape(self, ref: int) -> tuple[int, ...]:
        """Shape of an input or of what a step gives, by index with inputs first."""
        return (*self.input_shapes, *self.shapes)[ref]

    def pruned(self) -> Trace:
        """Without the steps that the output does not need."""
        n_inputs = len(self.input_shapes)
        needed = {self.output}
        for index in reversed(range(len(self.steps))):
            if n_inputs + index in needed:
                needed.update(self.steps[index].sources)
        kept = [index for index in range(len(self.steps)) if n_inputs + index in needed]
        return self.part([n_inputs + index for index in kept], range(n_inputs), self.input_shapes)

    def part(
        self, refs: Sequence[int], sources: Sequence[int], shapes: Sequence[tuple[int, ...]]
    ) -> Trace:
        """Some of the steps as a trace of their own, whose output is the last of them.

        Args:
            refs: the steps, by index with inputs first, in execution order.
            sources: what becomes the inputs, by index.
            shapes: their shapes, batch axis included.
        """
        n_inputs = len(self.input_shapes)
        found = Trace(tuple(shapes))
        place = {ref: index for index, ref in enumerate(sources)}
        for ref in refs:
            old = ref - n_inputs
            step = self.steps[old]
            moved = Step(
                step.primitive, tuple(place[source] for source in step.sources), step.attributes
            )
            place[ref] = found.add(moved, self.recipes[old], self.shapes[old])
        found.output = place[refs[-1]] if refs else place[self.output]
        return found


def conv_or_linear(weight: str, bias: str | None) -> Recipe:
    """Weights as they are; a bias of zeros where there is none."""

    def recipe(state: State) -> tuple[Array, Array]:
        array = state[weight]
        return array, np.zeros(len(array), np.float32) if bias is None else state[bias]

    return recipe


def rows(inner: Recipe, start: int, stop: int) -> Recipe:
    """Some of the outputs of a linear layer."""

    def recipe(state: State) -> tuple[Array, Array]:
        weight, bias = inner(state)
        return weight[start:stop], bias[start:stop]

    return recipe


def layer_norm(width: int, weight: str | None, bias: str | None) -> Recipe:
    """Scale and shift of a layer norm, 1 and 0 where there are none."""

    def recipe(state: State) -> tuple[Array, Array]:
        return (
            np.ones(width, np.float32) if weight is None else state[weight],
            np.zeros(width, np.float32) if bias is None else state[bias],
        )

    return recipe


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm that does not learn any more: a scale and a shift per channel."""

    channels: int
    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float

    def _scale_and_shift(self, state: State) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scale = 1 / np.sqrt(state[self.variance].astype(np.float64) + self.epsilon)
        if self.weight is not None:
            scale = scale * state[self.weight]
        shift = -state[self.mean] * scale
        return scale, shift if self.bias is None else shift + state[self.bias]

    def alone(self) -> Recipe:
        """As a depthwise convolution of kernel 1."""

        def recipe(state: State) -> tuple[Array, Array]:
            scale, shift = self._scale_and_shift(state)
            return scale.astype(np.float32)[:, None, None, None], shift.astype(np.float32)

        return recipe

    def folded(self, inner: Recipe) -> Recipe:
        """Folded into the convolution or linear layer before it."""

        def recipe(state: State) -> tuple[Array, Array]:
            weight, bias = inner(state)
            scale, shift = self._scale_and_shift(state)
            spread = scale.reshape(-1, *(1,) * (weight.ndim - 1))
            return (weight * spread).astype(np.float32), (bias * scale + shift).astype(np.float32)

        return recipe
