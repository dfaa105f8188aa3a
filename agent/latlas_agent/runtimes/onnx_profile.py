"""onnxruntime's profile: kernel times per inference, as series anchored to the program's tensors.

The profile is a list of Chrome trace events, one per line. Each inference is a `model_run` event,
and each node in it leaves an event `<name>_kernel_time` with a duration in whole microseconds.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas_agent.runtimes.onnx_attribution import Anchor, Originals
from latlas_agent.runtimes.onnx_graph import OnnxNode
from latlas_latency.measurement import Series
from latlas_ops.errors import MeasurementError

_KERNEL_SUFFIX = "_kernel_time"
_NS_PER_US = 1000


@dataclass(frozen=True)
class KernelEvent:
    """One execution of one node; times in microseconds since the profile began.

    `shapes` are those of inputs and outputs, as in `Series`.
    """

    name: str
    op_type: str
    node_index: str
    provider: str
    start_us: int
    duration_us: int
    shapes: str = ""


def read_profile(lines: Iterable[str]) -> list[list[KernelEvent]]:
    """The kernels of each inference, in order of execution.

    A kernel that runs inside another one (the body of a Loop or If) is part of it: its time is
    already in the outer one's and is not counted twice.

    Raises:
        MeasurementError: the profile cannot be read.
    """
    kernels: list[KernelEvent] = []
    starts: list[int] = []
    try:
        for line in lines:
            text = line.strip().rstrip(",")
            if not text.startswith("{"):
                continue
            event = json.loads(text)
            if event["name"] == "model_run":
                starts.append(int(event["ts"]))
            elif event["name"].endswith(_KERNEL_SUFFIX):
                details = event["args"]
                kernels.append(
                    KernelEvent(
                        name=event["name"].removesuffix(_KERNEL_SUFFIX),
                        op_type=details["op_name"],
                        node_index=details["node_index"],
                        provider=details["provider"],
                        start_us=int(event["ts"]),
                        duration_us=int(event["dur"]),
                        shapes=_shapes(details),
                    )
                )
    except (ValueError, KeyError, TypeError) as error:
        raise MeasurementError(f"the runtime's profile cannot be read: {error!r}") from error
    starts.sort()
    kernels.sort(key=lambda kernel: (kernel.start_us, -kernel.duration_us))
    runs: list[list[KernelEvent]] = [[] for _ in starts]
    busy_until_us = 0
    for kernel in kernels:
        run = bisect_right(starts, kernel.start_us) - 1
        if run >= 0 and kernel.start_us >= busy_until_us:
            runs[run].append(kernel)
            busy_until_us = kernel.start_us + kernel.duration_us
    return runs


def _shapes(details: Mapping[str, Any]) -> str:
    """Shapes of inputs and outputs; empty in the profile of an older onnxruntime."""
    sides = [details.get("input_type_shape") or (), details.get("output_type_shape") or ()]
    if not all(sides):
        return ""
    return " > ".join(
        " ".join(
            "x".join(map(str, shape)) or "scalar" for tensor in side for shape in tensor.values()
        )
        for side in sides
    )


def node_series(
    runs: Sequence[Sequence[KernelEvent]],
    nodes: Sequence[OnnxNode],
    anchors: Sequence[Anchor],
    originals: Originals,
) -> tuple[Series, ...]:
    """The kernel times of all inferences, one series per node in order of execution.

    Args:
        runs: the kernels of each inference, from `read_profile`.
        nodes: the nodes of the optimised graph, in the order of execution.
        anchors: one per node.
        originals: the original model's names, for kernels that are not in the optimised graph.

    Returns:
        Series with `len(runs)` samples each. A node that did not run in an inference has a zero
        there; a node without an anchor has the label "".
    """
    columns: dict[tuple[str, str], NDArray[np.int64]] = {}
    first: dict[tuple[str, str], KernelEvent] = {}
    for position, kernels in enumerate(runs):
        for kernel in kernels:
            key = (kernel.node_index, kernel.name)
            if key not in columns:
                columns[key] = np.zeros(len(runs), dtype=np.int64)
                first[key] = kernel
            columns[key][position] += kernel.duration_us * _NS_PER_US
    executed = list(first.values())
    labels = _labels(executed, nodes, anchors, originals)
    return tuple(
        Series(label, column, f"{kernel.op_type} {kernel.name}", kernel.provider, kernel.shapes)
        for label, kernel, column in zip(labels, executed, columns.values(), strict=True)
    )


def _labels(
    executed: Sequence[KernelEvent],
    nodes: Sequence[OnnxNode],
    anchors: Sequence[Anchor],
    originals: Originals,
) -> list[str]:
    """Labels of kernels: by position where both orders agree, else by the nodes' names."""
    if len(executed) == len(nodes) and all(map(_is_kernel_of, executed, nodes)):
        return [anchor.label for anchor in anchors]
    by_name: dict[str, str] = {}
    shared: set[str] = set()
    for node, anchor in zip(nodes, anchors, strict=True):
        if node.name in by_name:
            shared.add(node.name)
        by_name[node.name] = anchor.label
    return [
        by_name[kernel.name]
        if kernel.name in by_name and kernel.name not in shared
        else originals.by_name(kernel.name)
        for kernel in executed
    ]


def _is_kernel_of(kernel: KernelEvent, node: OnnxNode) -> bool:
    """Whether a kernel may be a node's; onnxruntime makes up a name for a node that has none."""
    return kernel.op_type == node.op_type and node.name in ("", kernel.name)
