"""Walks an exported torch graph and turns it into a `Trace`. How each operator is translated
stands in `latlas_ops._aten_ops`. Free of torch: it looks at nodes and never runs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from latlas_ops._trace import Recipe, Scores, Tensor, Trace, Viewed, Weight, conv_or_linear, rows
from latlas_ops.errors import InvalidInputError, UnsupportedModuleError
from latlas_ops.graph_kind import Step

Value = Tensor | Viewed | Weight | Scores | tuple["Value", ...]
Handler = Callable[["Translator", Any, "Arguments"], Value]

_WAY_OUT = (
    "so that onnxruntime, TFLite and torch cannot take it from Latlas; replace it, or measure the "
    "whole network as a file that torch.onnx.export wrote (latlas measure)"
)


class Arguments:
    """The arguments of an operator by name, defaults filled in."""

    def __init__(self, node: Any) -> None:
        self._by_name: dict[str, Any] = {}
        for index, argument in enumerate(node.target._schema.arguments):
            if index < len(node.args):
                value = node.args[index]
            else:
                value = node.kwargs.get(argument.name, argument.default_value)
            self._by_name[argument.name] = value

    def __getitem__(self, name: str) -> Any:
        return self._by_name[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The argument, or `default` where the operator has none of that name."""
        return self._by_name.get(name, default)


def scope_of(node: Any) -> tuple[str, str]:
    """Path and type of the innermost module that a node comes from."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return stack[-1] if stack else ("", "")


class Translator:
    """Translates the nodes of one graph, one after another."""

    def __init__(
        self,
        nodes: Sequence[Any],
        weight_names: Mapping[str, str],
        input_names: Sequence[str],
        handlers: Mapping[str, Handler],
        root: str,
    ) -> None:
        """Args: the nodes; placeholder → name of its weight; placeholders of the inputs in order;
        handlers by operator; what the module is called in errors.
        """
        self._nodes = nodes
        self._weight_names = weight_names
        self._handlers = handlers
        self._root = root
        self.values: dict[Any, Value] = {}
        self.node: Any = None
        by_name = {node.name: node for node in nodes if node.op == "placeholder"}
        self.trace = Trace(tuple(tuple(by_name[name].meta["val"].shape) for name in input_names))
        for index, name in enumerate(input_names):
            shape = self.trace.input_shapes[index]
            self.values[by_name[name]] = Tensor(index, shape, by_name[name])

    # -- errors and look-ups ---------------------------------------------------------------------

    def refuse(self, reason: str) -> UnsupportedModuleError:
        """The error that the node of the moment cannot be translated."""
        path, kind = scope_of(self.node)
        where = f"{self._root}.{path}" if path else self._root
        kind = f" ({kind.rsplit('.', 1)[-1]})" if path and kind else ""
        return UnsupportedModuleError(
            f"{where}{kind}: {operator_of(self.node)}: {reason}, {_WAY_OUT}"
        )

    def value(self, node: Any) -> Value:
        """What a node gives."""
        found = self.values.get(node)
        if found is None:
            raise self.refuse(f"it reads {node}, which is a constant of the graph")
        return found

    def tensor(self, node: Any) -> Tensor:
        """What a node gives, as a tensor that a step may read."""
        if not hasattr(node, "meta"):
            raise self.refuse(f"there is no primitive with the number {node}")
        value = self.value(node)
        if isinstance(value, Viewed):
            return self.settled(value)
        if isinstance(value, Weight):
            raise self.refuse(f"there is no primitive that computes with the weight {value.name}")
        if not isinstance(value, Tensor):
            raise self.refuse("there is no primitive for part of attention or of a split tensor")
        return value

    def weight(self, node: Any) -> str | None:
        """Name of the weight that a node gives; None for no node."""
        if node is None:
            return None
        value = self.values.get(node)
        if not isinstance(value, Weight):
            raise self.refuse("its weights are computed, not stored")
        return value.name

    def shape_of(self, node: Any) -> tuple[int, ...]:
        """Shape that a node has in the exported graph, batch axis included."""
        return tuple(int(size) for size in node.meta["val"].shape)

    # -- steps -----------------------------------------------------------------------------------

    def step(
        self,
        primitive: str,
        sources: Sequence[Tensor],
        shape: Sequence[int],
        attributes: Mapping[str, int] | None = None,
        recipe: Recipe | None = None,
    ) -> Tensor:
        """A new step and the tensor that it gives, `shape` with the batch axis."""
        made = Step(primitive, tuple(one.ref for one in sources), dict(attributes or {}))
        return Tensor(self.trace.add(made, recipe, tuple(shape)), tuple(shape), self.node)

    def step_of(self, tensor: Tensor) -> tuple[Step, Recipe | None] | None:
        """The step that gives a tensor, and its recipe; None for an input."""
        index = tensor.ref - len(self.trace.input_shapes)
        if index < 0:
            return None
        return self.trace.steps[index], self.trace.recipes[index]

    def reads_alone(self, tensor: Tensor) -> bool:
        """Whether the node of the moment is the only reader of a tensor that a step gave."""
        node = self.node.args[0]
        while node is not tensor.origin:
            if len(node.users) != 1 or not node.args:
                return False
            node = node.args[0]
        return len(node.users) == 1

    def linear(self, tensor: Tensor, weight: str, bias: str | None, features: int) -> Tensor:
        """A linear layer."""
        return self.step(
            "linear",
            (tensor,),
            (*tensor.shape[:-1], features),
            {"out_features": features},
            conv_or_linear(weight, bias),
        )

    def slice_of_linear(self, tensor: Tensor, start: int, stop: int) -> Tensor:
        """Outputs `start` to `stop` of a linear layer, as a layer of its own."""
        found = self.step_of(tensor)
        if found is None or found[0].primitive != "linear" or found[1] is None:
            raise self.refuse("there is no primitive that splits what no linear layer gave")
        source = Tensor(found[0].sources[0], ())
        shape = (*tensor.shape[:-1], stop - start)
        attributes = {"out_features": stop - start}
        return self.step("linear", (source,), shape, attributes, rows(found[1], start, stop))

    # -- views -----------------------------------------------------------------------------------

    def reshaped(self, value: Value, shape: Sequence[int]) -> Tensor | Viewed:
        """A value in another shape; a step where one is known that does it."""
        if isinstance(value, Viewed) and not value.in_order:
            whole = value.base.shape
            channels_split = len(whole) == 4 and value.sizes[3:] == whole[2:]
            if value.axes == (0, 2, 1, 3, 4) and channels_split and tuple(shape) == whole:
                return self.step("shuffle", (value.base,), whole, {"groups": value.sizes[1]})
            if math.prod(value.shape[1:-1]) == shape[1] and len(shape) == 3:
                return self.settled(value, tuple(shape))
            raise self.refuse(f"there is no primitive that reorders {value.shape} as {shape}")
        base = value.base if isinstance(value, Viewed) else value
        if not isinstance(base, Tensor):
            raise self.refuse("there is no primitive that reshapes this")
        if shape[0] != base.shape[0]:
            raise self.refuse(f"it moves the batch axis, {base.shape} to {tuple(shape)}")
        if math.prod(shape) != math.prod(base.shape):
            raise self.refuse(f"it makes {tuple(shape)} of {base.shape}")
        if tuple(shape) == base.shape:
            return base
        return Viewed(base, tuple(shape), tuple(range(len(shape))))

    def settled(self, view: Viewed, shape: tuple[int, ...] | None = None) -> Tensor:
        """A view as a tensor that a step may read, by a step that reorders it."""
        wanted, rank = shape or view.shape, len(view.base.shape)
        if view.in_order and rank == 4 and len(wanted) == 2:
            return self.step("flatten", (view.base,), wanted)
        if view.in_order and rank == 2 and wanted == (*view.base.shape, 1, 1):
            return self.step("unflatten", (view.base,), wanted)
        if rank == 4 and len(wanted) == 3:
            last = view.sizes[view.axes[-1]]
            channels_last = view.axes in ((0, 2, 1), (0, 2, 3, 1))
            if channels_last and view.sizes[1] == view.base.shape[1] == last:
                return self.step("tokens", (view.base,), wanted)
        raise self.refuse(
            f"there is no primitive for a tensor of shape {wanted}, which is {view.base.shape} in "
            "another order"
        )

    # -- the walk --------------------------------------------------------------------------------

    def run(self, special: Mapping[Any, Callable[[Translator], Value]]) -> Trace:
        """Translates everything that the output depends on.

        Args:
            special: nodes with a translation of their own.

        Raises:
            UnsupportedModuleError: an operator has no primitive; module and operator are named.
        """
        live = _live(self._nodes)
        for node in self._nodes:
            self.node = node
            if node in special:
                if node in live:
                    self.values[node] = special[node](self)
            elif node.op == "placeholder":
                if node.name in self._weight_names and "val" in node.meta:
                    shape = tuple(node.meta["val"].shape)
                    self.values[node] = Weight(self._weight_names[node.name], shape)
            elif node.op == "call_function" and node in live:
                self._call(node)
            elif node.op == "output":
                self._finish(node)
        return self.trace.pruned()

    def _call(self, node: Any) -> None:
        if not hasattr(node.target, "_schema"):
            source = self.value(node.args[0]) if node.args else None
            if operator_of(node) != "getitem" or not isinstance(source, tuple):
                raise self.refuse("there is no primitive for it")
            self.values[node] = source[node.args[1]]
            return
        name = operator_of(node)
        in_place = _is_in_place(node)
        handler = self._handlers.get(name[:-1] if in_place else name)
        if handler is None:
            raise self.refuse("there is no primitive for it")
        before = self.values.get(node.args[0]) if in_place else None
        self.values[node] = after = handler(self, node, Arguments(node))
        if in_place:
            self._replace(node, before, after)

    def _replace(self, node: Any, before: Value | None, after: Value) -> None:
        """What was changed in place is read as changed by whoever comes after `node`."""
        place = self._nodes.index(node)
        base = before.base if isinstance(before, Viewed) else before
        for other, value in list(self.values.items()):
            if value is before:
                self.values[other] = after
            elif (value is base or (isinstance(value, Viewed) and value.base is base)) and any(
                self._nodes.index(user) > place for user in other.users
            ):
                raise self.refuse("it changes in place what is read in another shape, too")

    def _finish(self, node: Any) -> None:
        (given,) = node.args
        outputs = list(given) if isinstance(given, list | tuple) else [given]
        if len(outputs) != 1 or not hasattr(outputs[0], "meta"):
            raise InvalidInputError(
                f"{self._root} gives {len(outputs)} outputs; an op gives one tensor"
            )
        self.node = outputs[0]
        self.trace.output = self.tensor(outputs[0]).ref


def operator_of(node: Any) -> str:
    """Name of what a node calls, such as `aten::conv2d`."""
    schema = getattr(node.target, "_schema", None)
    return str(schema.name) if schema is not None else getattr(node.target, "__name__", str(node))


def _is_in_place(node: Any) -> bool:
    return hasattr(node.target, "_schema") and operator_of(node).endswith("_")


def _live(nodes: Sequence[Any]) -> set[Any]:
    """Everything that the output depends on, what is changed in place included."""
    live: set[Any] = set()
    for node in reversed(nodes):
        if node.op == "output" or node in live or (_is_in_place(node) and node.args[0] in live):
            live.add(node)
            live.update(node.all_input_nodes)
    return live
