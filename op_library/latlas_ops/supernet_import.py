"""A torch network with marked choices as genes and slots; see `Space.from_supernet`.

Every choice is replaced by a marker while the network is exported once; the markers say which
shapes reach the candidates, and these are exported one by one. What stands between is cut where a
value has several readers, so that every piece has one output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from latlas_ops._aten import Arguments, Translator, Value
from latlas_ops._trace import Trace
from latlas_ops.errors import InvalidInputError, UnsupportedModuleError
from latlas_ops.module_import import as_tensors, cached_trace, op_of
from latlas_ops.network import NETWORK_INPUT
from latlas_ops.opspec import OpSpec
from latlas_ops.space import Gene
from latlas_ops.spaces.tabulated import PlacedOps

if TYPE_CHECKING:
    import torch
    from torch import nn

_MARKER = "latlas::choice"
_CHOSEN = -1
"""In place of a reader that is a choice."""


def placed_ops(
    net: nn.Module, example_input: torch.Tensor | Sequence[int]
) -> tuple[tuple[Gene, ...], tuple[PlacedOps, ...]]:
    """Genes and slots of a network; see `Space.from_supernet`, also for errors."""
    examples = as_tensors([example_input])
    choices = _choices(net)
    from latlas_ops._export import trace_module

    with _marked(net, choices):
        trace = trace_module(net, examples, {_MARKER: _choice})
    genes: list[Gene] = []
    gene_of: dict[int, int] = {}
    placed: list[PlacedOps] = []
    slot_of = {0: NETWORK_INPUT}
    paths = list(choices)
    for root, refs, sources in _pieces(trace):
        reads = tuple(slot_of[source] for source in sources)
        shapes = [trace.shape(source) for source in sources]
        step = trace.steps[root - 1]
        if step.primitive == _MARKER:
            number = step.attributes["index"]
            path, candidates = paths[number], choices[paths[number]]
            if number not in gene_of:
                gene_of[number] = len(genes)
                genes.append(Gene.named(f"{path}.block", list(candidates)))
            ops = _candidate_ops(path, candidates, shapes)
            placed.append(PlacedOps(path, (gene_of[number],), ops, reads))
        else:
            op = op_of(trace.part(refs, sources, shapes))
            placed.append(PlacedOps(f"fixed{len(placed)}", (), (op,), reads))
        slot_of[root] = len(placed) - 1
    unused = sorted(path for number, path in enumerate(paths) if number not in gene_of)
    if unused:
        raise InvalidInputError(f"the output does not depend on the choice {unused[0]!r}")
    return tuple(genes), tuple(placed)


def _choices(net: nn.Module) -> dict[str, dict[str, nn.Module]]:
    """The candidates of every choice by name, the choices by path.

    Raises:
        InvalidInputError: there is none, one has no candidates, or one stands in another.
    """
    from torch import nn

    found: dict[str, dict[str, nn.Module]] = {}
    for path, module in net.named_modules():
        candidates = getattr(module, "candidates", None)
        if not isinstance(candidates, nn.ModuleList | nn.ModuleDict):
            continue
        outer = next((one for one in found if path.startswith(f"{one}.") or not one), None)
        if outer is not None:
            raise InvalidInputError(f"the choice {path!r} stands inside of the choice {outer!r}")
        if isinstance(candidates, nn.ModuleDict):
            found[path] = dict(candidates.items())
        else:
            found[path] = {f"{i}_{type(one).__name__}": one for i, one in enumerate(candidates)}
        if not found[path]:
            raise InvalidInputError(f"the choice {path!r} has no candidates")
    if not found:
        raise InvalidInputError(
            f"{type(net).__name__} has no choice: a choice is a submodule with an attribute "
            "`candidates`, an nn.ModuleList or nn.ModuleDict"
        )
    return found


@cache
def _marker() -> Any:
    """The operator that stands for a choice: any tensors in, zeros of a shape out."""
    from torch import library

    def choose(tensors: list[torch.Tensor], index: int, shape: list[int]) -> torch.Tensor:
        return tensors[0].new_zeros(shape)

    made = library.custom_op(
        _MARKER,
        choose,
        mutates_args=(),
        schema="(Tensor[] tensors, int index, int[] shape) -> Tensor",
    )
    made.register_fake(choose)
    return made


@contextmanager
def _marked(net: nn.Module, choices: Mapping[str, Mapping[str, nn.Module]]) -> Iterator[None]:
    """Every choice answers with the marker; afterwards it is as it was."""
    changed = []
    try:
        for index, (path, candidates) in enumerate(choices.items()):
            own = net.get_submodule(path).__dict__
            changed.append((own, own.get("forward")))
            own["forward"] = _answer(index, next(iter(candidates.values())))
        yield
    finally:
        for own, forward in changed:
            del own["forward"]
            if forward is not None:
                own["forward"] = forward


def _answer(index: int, first: nn.Module) -> Callable[..., torch.Tensor]:
    """The `forward` of a choice while it is marked; its first candidate tells the shape."""
    marker = _marker()

    def forward(*tensors: torch.Tensor) -> torch.Tensor:
        given: torch.Tensor = marker(list(tensors), index, list(first(*tensors).shape))
        return given

    return forward


def _choice(of: Translator, node: Any, given: Arguments) -> Value:
    """A marker as a step."""
    tensors = [of.tensor(one) for one in given["tensors"]]
    return of.step(_MARKER, tensors, of.shape_of(node), {"index": given["index"]})


def _candidate_ops(
    path: str, candidates: Mapping[str, nn.Module], shapes: Sequence[tuple[int, ...]]
) -> tuple[OpSpec | None, ...]:
    """The op of each candidate of a choice; None where it gives its only input as it is."""
    examples = as_tensors(shapes)
    ops: list[OpSpec | None] = []
    for label, candidate in candidates.items():
        try:
            trace = cached_trace(candidate, examples)
            if not trace.steps and len(shapes) > 1:
                raise UnsupportedModuleError("it gives one of its inputs as it is")
            ops.append(op_of(trace) if trace.steps else None)
        except InvalidInputError as error:
            raise type(error)(f"candidate {label!r} of {path!r}: {error}") from error
    return tuple(ops)


def _pieces(trace: Trace) -> Iterator[tuple[int, list[int], list[int]]]:
    """Cuts a trace into choices and fixed pieces that have one output each.

    A step belongs to the piece of its readers if these are all in one; otherwise, and where a
    choice reads it, it is the output of a piece.

    Yields:
        Output, steps and sources of a piece, in execution order; indices count inputs first.
    """
    n_inputs, n_all = len(trace.input_shapes), len(trace.input_shapes) + len(trace.steps)
    readers: dict[int, set[int]] = {ref: set() for ref in range(n_all)}
    root_of: dict[int, int] = {}
    for ref in reversed(range(n_inputs, n_all)):
        step = trace.steps[ref - n_inputs]
        roots = {_CHOSEN if _is_choice(trace, one) else root_of[one] for one in readers[ref]}
        alone = len(roots) != 1 or _CHOSEN in roots or step.primitive == _MARKER
        root_of[ref] = ref if alone else roots.pop()
        for source in step.sources:
            readers[source].add(ref)
    pieces: dict[int, list[int]] = {}
    for ref, root in sorted(root_of.items()):
        pieces.setdefault(root, []).append(ref)
    for root in sorted(pieces):
        inside = set(pieces[root])
        read = [one for ref in pieces[root] for one in trace.steps[ref - n_inputs].sources]
        if _is_choice(trace, root):
            yield root, pieces[root], read
        else:
            yield root, pieces[root], list(dict.fromkeys(one for one in read if one not in inside))


def _is_choice(trace: Trace, ref: int) -> bool:
    return trace.steps[ref - len(trace.input_shapes)].primitive == _MARKER
