"""The kind of op that says itself which primitives it consists of: `graph`.

What has no kind of its own, such as a module of somebody's network, is an op of this kind. Its one
attribute describes the primitives and what they read, without the shapes of its inputs and without
weights, so that equal computations have equal keys. `latlas_ops.module_import` writes such
descriptions from torch modules; they also come over the wire and are checked like any other input.

A description is compact JSON, a list of `[primitive, sources, attributes]` in execution order. A
source is the index of an input, or the number of inputs and the index of an earlier step. The last
step gives the output; every other step, and every input, is read by some step. Attributes are
positive integers (padding and start may be 0), those of the primitive's entry in `_PRIMITIVES`;
where one has a default, the description holds it only where it differs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from latlas_ops.errors import InvalidInputError
from latlas_ops.graph import ACTIVATIONS, GraphBuilder
from latlas_ops.kind_schema import Attribute, Kind
from latlas_ops.opspec import OpSpec

GRAPH = "graph"
"""Name of the kind, and of its attribute."""

_MAX_BYTES = 1 << 20
_MAX_STEPS = 10_000
_MAX_INTEGER = 1 << 40
_LIMITS = {"padding": (0, _MAX_INTEGER), "start": (0, _MAX_INTEGER), "causal": (1, 1)}
_ANY_RANK = (1, 2, 3)


@dataclass(frozen=True)
class Step:
    """One primitive of a description.

    Attributes:
        primitive: a name of `latlas_ops.graph.PRIMITIVES`.
        sources: indices of what it reads: the op's inputs first, then the steps.
        attributes: integers by name; defaults left out.
    """

    primitive: str
    sources: tuple[int, ...]
    attributes: Mapping[str, int] = field(default_factory=dict)


_Emit = Callable[[GraphBuilder, str, Sequence[str], Mapping[str, int]], str]


@dataclass(frozen=True)
class _Primitive:
    """What a step of one primitive needs.

    Attributes:
        emit: adds its node.
        n_sources: how many tensors it reads; None for two or more.
        required: attributes without default.
        optional: attributes by default; None where the builder decides.
        ranks: number of axes of what it reads, without the batch axis.
    """

    emit: _Emit
    n_sources: int | None = 1
    required: tuple[str, ...] = ()
    optional: Mapping[str, int | None] = field(default_factory=dict)
    ranks: tuple[int, ...] = _ANY_RANK


def _pool(mode: str) -> _Primitive:
    def emit(
        graph: GraphBuilder, part: str, tensors: Sequence[str], given: Mapping[str, int]
    ) -> str:
        if 2 * given["padding"] > given["kernel"]:
            raise InvalidInputError(f"{part}: the padding is more than half of the kernel")
        return graph.pool(
            part, tensors[0], mode, given["kernel"], given["stride"], given["padding"]
        )

    return _Primitive(emit, required=("kernel", "stride", "padding"), ranks=(3,))


def _activation(kind: str) -> _Primitive:
    return _Primitive(lambda graph, part, tensors, given: graph.activation(part, tensors[0], kind))


_PRIMITIVES: Mapping[str, _Primitive] = {
    "conv": _Primitive(
        lambda graph, part, tensors, given: graph.conv(part, tensors[0], **given),
        required=("out_channels", "kernel", "padding"),
        optional={"stride": 1, "groups": 1, "dilation": 1},
        ranks=(3,),
    ),
    "linear": _Primitive(
        lambda graph, part, tensors, given: graph.linear(part, tensors[0], given["out_features"]),
        required=("out_features",),
        ranks=(1, 2),
    ),
    **{name: _activation(name) for name in ACTIVATIONS[1:]},
    "max_pool": _pool("max"),
    "avg_pool": _pool("avg"),
    "global_avg_pool": _Primitive(
        lambda graph, part, tensors, given: graph.global_avg_pool(part, tensors[0]), ranks=(3,)
    ),
    "flatten": _Primitive(
        lambda graph, part, tensors, given: graph.flatten(part, tensors[0]), ranks=(3,)
    ),
    "add": _Primitive(lambda graph, part, tensors, given: graph.add(part, *tensors), 2),
    "mul": _Primitive(lambda graph, part, tensors, given: _mul(graph, part, *tensors), 2),
    "concat": _Primitive(
        lambda graph, part, tensors, given: graph.concat(part, tensors), None, ranks=(2, 3)
    ),
    "shuffle": _Primitive(
        lambda graph, part, tensors, given: graph.shuffle(part, tensors[0], given["groups"]),
        required=("groups",),
        ranks=(3,),
    ),
    "slice": _Primitive(
        lambda graph, part, tensors, given: graph.slice(
            part, tensors[0], given["start"], given["length"], graph.shape(tensors[0])[1]
        ),
        required=("start", "length"),
        ranks=(2,),
    ),
    "zero": _Primitive(lambda graph, part, tensors, given: graph.zero(part, tensors[0])),
    "layer_norm": _Primitive(
        lambda graph, part, tensors, given: graph.layer_norm(part, tensors[0], **given),
        optional={"epsilon": None},
        ranks=(2,),
    ),
    "softmax": _Primitive(
        lambda graph, part, tensors, given: graph.softmax(part, tensors[0]), ranks=(1, 2)
    ),
    "attention": _Primitive(
        lambda graph, part, tensors, given: graph.attention(
            part,
            tensors[0],
            tensors[1],
            tensors[2],
            given["heads"],
            causal="causal" in given,
        ),
        3,
        required=("heads",),
        optional={"causal": 0},
        ranks=(2,),
    ),
    "unflatten": _Primitive(
        lambda graph, part, tensors, given: graph.unflatten(part, tensors[0]), ranks=(1,)
    ),
    "tokens": _Primitive(
        lambda graph, part, tensors, given: graph.tokens(part, tensors[0]), ranks=(3,)
    ),
    "token_mean": _Primitive(
        lambda graph, part, tensors, given: graph.token_mean(part, tensors[0]), ranks=(2,)
    ),
}


def _mul(graph: GraphBuilder, part: str, tensor: str, scale: str) -> str:
    shape, factor = graph.shape(tensor), graph.shape(scale)
    of_channels = len(shape) == 3 and factor == (shape[0], 1, 1)
    if factor != shape and not of_channels:
        raise InvalidInputError(f"{part}: cannot multiply {shape} by {factor}")
    return graph.scale(part, tensor, scale)


def describe(steps: Sequence[Step]) -> str:
    """The description of steps: what `OpSpec.of("graph", *inputs, graph=...)` takes."""
    rows = []
    for step in steps:
        optional = _PRIMITIVES[step.primitive].optional
        kept = {
            name: value
            for name, value in step.attributes.items()
            if name not in optional or optional[name] != value
        }
        rows.append([step.primitive, list(step.sources), kept])
    return json.dumps(rows, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=4096)
def steps_of(description: str, n_inputs: int) -> tuple[Step, ...]:
    """The steps of a description.

    Args:
        description: as `describe` writes it.
        n_inputs: how many tensors the op reads.

    Raises:
        InvalidInputError: it is no such description; the step is named.
    """
    if len(description) > _MAX_BYTES:
        raise InvalidInputError(
            f"a graph is described in {len(description)} characters, of at most {_MAX_BYTES}"
        )
    try:
        rows = json.loads(description)
        steps = tuple(Step(*row) for row in rows)
        canonical = describe(steps) == description
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInputError(
            f"not the description of a graph: {description!r:.80} ({error!r:.80})"
        ) from error
    if not canonical or not 1 <= len(steps) <= _MAX_STEPS:
        raise InvalidInputError(
            f"not the canonical description of a graph of 1 to {_MAX_STEPS} steps: "
            f"{description!r:.80}"
        )
    read: set[int] = set()
    for index, step in enumerate(steps):
        _check(f"step {index} ({step.primitive})", step, n_inputs + index)
        read.update(step.sources)
    unread = set(range(n_inputs + len(steps) - 1)) - read
    if unread:
        first = min(unread)
        what = f"input {first}" if first < n_inputs else f"step {first - n_inputs}"
        raise InvalidInputError(f"nobody reads {what} of the graph")
    return steps


def _check(who: str, step: Step, n_tensors: int) -> None:
    schema = _PRIMITIVES[step.primitive]
    wanted = schema.n_sources
    if len(step.sources) < 2 if wanted is None else len(step.sources) != wanted:
        raise InvalidInputError(f"{who} reads {wanted or '2 or more'} tensors")
    for source in step.sources:
        if type(source) is not int or not 0 <= source < n_tensors:
            raise InvalidInputError(f"{who} reads {source!r:.20}, which is not before it")
    missing = sorted(set(schema.required) - set(step.attributes))
    surplus = sorted(set(step.attributes) - {*schema.required, *schema.optional})
    if missing or surplus:
        raise InvalidInputError(f"{who} needs {missing}" if missing else f"{who} has no {surplus}")
    for name, value in step.attributes.items():
        least, most = _LIMITS.get(name, (1, _MAX_INTEGER))
        if type(value) is not int or not least <= value <= most:
            raise InvalidInputError(
                f"{who}: {name}={value!r:.20} is no integer from {least} to {most}"
            )


def _lower_graph(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    tensors = list(inputs)
    for index, step in enumerate(steps_of(str(op.attribute(GRAPH)), len(inputs))):
        schema, part = _PRIMITIVES[step.primitive], f"{step.primitive}{index}"
        sources = [tensors[source] for source in step.sources]
        for source in sources:
            if len(graph.shape(source)) not in schema.ranks:
                raise InvalidInputError(f"{part} cannot read a tensor {graph.shape(source)}")
        tensors.append(schema.emit(graph, part, sources, step.attributes))
        shape = graph.shape(tensors[-1])
        if min(shape) < 1:
            raise InvalidInputError(f"{part}: nothing is left of {graph.shape(sources[0])}")
        if math.prod(shape) > _MAX_INTEGER:
            raise InvalidInputError(f"{part}: gives more than {_MAX_INTEGER} numbers")
    return tensors[-1]


GRAPH_KINDS: Mapping[str, Kind] = {
    GRAPH: Kind({GRAPH: Attribute(str)}, (_ANY_RANK,), _lower_graph, variadic=True)
}
