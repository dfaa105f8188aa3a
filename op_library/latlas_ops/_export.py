"""Runs `torch.export` and hands the graph to the translator. Imports torch: load it lazily."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from latlas_ops._aten import Arguments, Handler, Translator, Value, operator_of, scope_of
from latlas_ops._aten_ops import HANDLERS
from latlas_ops._trace import State, Tensor, Trace, Weight, conv_or_linear, rows
from latlas_ops.errors import InvalidInputError, UnsupportedModuleError

_Special = dict[Any, Callable[[Translator], Value]]
_SIMPLE = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_SHARES = ("aten::softmax", "aten::scaled_dot_product_attention")
_HOOKS = ("_backward", "_forward", "_state", "_load_state")


def trace_module(
    module: nn.Module,
    examples: Sequence[torch.Tensor],
    handlers: Mapping[str, Handler] | None = None,
) -> Trace:
    """The steps of a module in evaluation mode.

    Args:
        module: left as it was.
        examples: one tensor per input, batch axis first.
        handlers: translations of further operators.

    Raises:
        InvalidInputError: the module does not run on the examples, or gives several outputs.
        UnsupportedModuleError: an operator has no primitive, or torch cannot export the module.
    """
    name = type(module).__name__
    with evaluating(module):
        try:
            with torch.no_grad():
                module(*examples)
        except Exception as error:
            raise InvalidInputError(
                f"{name} does not run on inputs of shape "
                f"{[tuple(one.shape) for one in examples]}: {_line(error)}"
            ) from error
        try:
            exported = torch.export.export(module, tuple(examples), strict=False)
        except Exception as error:
            raise UnsupportedModuleError(
                f"{name}: torch.export cannot trace it ({_line(error)}); what its forward does "
                "must not depend on the values of tensors"
            ) from error
    signature = exported.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    nodes = list(exported.graph.nodes)
    translator = Translator(
        nodes, names, signature.user_inputs, {**HANDLERS, **(handlers or {})}, name
    )
    return translator.run(_attention_modules(module, nodes))


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; afterwards every part of it in the mode it had."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def module_state(module: nn.Module) -> State:
    """Parameters and buffers of a module as float32 arrays; shared ones under each of their names.

    Arrays are copies.
    """
    tensors = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    return {
        name: np.array(tensor.detach().cpu().float().numpy(), dtype=np.float32)
        for name, tensor in tensors.items()
    }


def content_of(module: nn.Module, examples: Sequence[torch.Tensor]) -> tuple[object, ...] | None:
    """A key that equal modules share, without the values of their weights.

    None where an attribute of some part is not plain data, so that the key would not tell.
    """
    parts: list[object] = [tuple((tuple(one.shape), one.dtype) for one in examples)]
    first: dict[int, int] = {}  # identity of a tensor or part → when it came first: tied or not

    def tied(value: object) -> int:
        return first.setdefault(id(value), len(first))

    for path, part in module.named_modules(remove_duplicate=False):
        values: list[object] = []
        for name, value in sorted(vars(part).items()):
            if name in ("_parameters", "_buffers"):
                found = {
                    key: None if t is None else (t.shape, t.dtype, tied(t))
                    for key, t in value.items()
                }
                values.append((name, tuple(found.items())))
            elif name.startswith("_forward") and value:
                return None  # hooks, which may change what it computes
            elif name != "_modules" and not name.startswith(_HOOKS):
                plain = () if name == "training" else _plain(value)
                if plain is None:
                    return None
                values.append((name, plain))
        parts.append((path, type(part), tied(part), tuple(values)))
    return tuple(parts)


def _plain(value: object) -> tuple[object, ...] | None:
    """A hashable copy of plain data; None for anything else."""
    if isinstance(value, _SIMPLE):
        return (type(value), value)
    if isinstance(value, list | tuple | set | frozenset):
        parts = [_plain(one) for one in value]
        return None if None in parts else (type(value), *parts)
    if isinstance(value, dict):
        return _plain([one for item in value.items() for one in item])
    if callable(value) and (getattr(value, "__module__", None) or "").startswith("torch."):
        return (value,)  # such as the activation of a TransformerEncoderLayer
    return None


# -- nn.MultiheadAttention -------------------------------------------------------------------------


def _attention_modules(module: nn.Module, nodes: Sequence[Any]) -> _Special:
    """For every call of an `nn.MultiheadAttention`, a translation of the node that is its result.

    Its own code swaps batch and length; what it computes is known without looking at that.
    """
    special: _Special = {}
    calls: list[tuple[str, list[Any]]] = []
    for node in nodes:
        path, kind = scope_of(node)
        if node.op != "call_function" or not kind.endswith(".MultiheadAttention"):
            continue
        if not calls or calls[-1][0] != path or _starts_anew(node, calls[-1][1]):
            calls.append((path, []))
        calls[-1][1].append(node)
    for path, inside in calls:
        part = module.get_submodule(path)
        assert isinstance(part, nn.MultiheadAttention)
        outside = [
            node
            for node in inside
            if any(user not in inside for user in node.users)  # torch itself computes more
        ]
        for node in inside:
            special[node] = _nothing
        for node in outside:
            special[node] = _attention(path, part, inside, len(outside))
    return special


def _starts_anew(node: Any, inside: list[Any]) -> bool:
    """Whether a node begins a second call of the module right after the first."""
    last, (path, _) = inside[-1], scope_of(node)
    return all(source not in inside for source in node.all_input_nodes) and any(
        scope_of(user)[0] != path for user in last.users
    )


def _nothing(translator: Translator) -> Value:
    return ()


def _attention(
    path: str, part: nn.MultiheadAttention, inside: Sequence[Any], n_results: int
) -> Callable[[Translator], Value]:
    """Queries, keys and values, attention, and the projection of what it gives."""

    def translate(of: Translator) -> Value:
        if not part.batch_first or n_results != 1:
            raise of.refuse("there is no attention but that with batch_first and no weights given")
        if part.bias_k is not None or part.add_zero_attn:
            raise of.refuse("there is no attention with bias_k or add_zero_attn")
        starts = []
        for node in inside:  # the code begins with a transposition of each different input
            if operator_of(node) != "aten::transpose" or node.args[0] in inside:
                break
            starts.append(node.args[0])
        dot, width = f"{path}." if path else "", part.embed_dim
        _require_plain(of, inside, starts, dot)
        given = [of.tensor(node) for node in starts]
        sources = {1: given * 3, 2: given + given[1:], 3: given}.get(len(given))
        if sources is None:
            raise of.refuse("its inputs are not the usual ones")
        projected: list[Tensor] = []
        for index, (source, letter) in enumerate(zip(sources, "qkv", strict=True)):
            shape = (*source.shape[:-1], width)
            bias = f"{dot}in_proj_bias" if part.in_proj_bias is not None else None
            if part.in_proj_weight is not None:
                recipe = conv_or_linear(f"{dot}in_proj_weight", bias)
                recipe = rows(recipe, index * width, (index + 1) * width)
            else:
                recipe = _separate(f"{dot}{letter}_proj_weight", bias, index, width)
            attributes = {"out_features": width}
            projected.append(of.step("linear", (source,), shape, attributes, recipe))
        shape = projected[0].shape
        mixed = of.step("attention", projected, shape, {"heads": part.num_heads})
        bias = f"{dot}out_proj.bias" if part.out_proj.bias is not None else None
        return of.linear(mixed, f"{dot}out_proj.weight", bias, width)

    return translate


def _require_plain(of: Translator, inside: Sequence[Any], starts: list[Any], dot: str) -> None:
    """Refuses a mask, and whatever else is more than attention to the inputs."""
    shares = [node for node in inside if operator_of(node) in _SHARES]
    if len(shares) != 1 or Arguments(shares[0]).get("is_causal"):
        raise of.refuse("there is no attention but softmax(q k / sqrt(width of a head)) v")
    for node in inside:
        for source in node.all_input_nodes:
            value = of.values.get(source)
            own = isinstance(value, Weight) and value.name.startswith(dot)
            if not own and source not in inside and source not in starts:
                raise of.refuse("there is no attention with a mask")


def _separate(weight: str, bias: str | None, index: int, width: int) -> Any:
    def recipe(state: State) -> tuple[Any, Any]:
        if bias is None:
            return state[weight], np.zeros(width, np.float32)
        return state[weight], state[bias][index * width : (index + 1) * width]

    return recipe
