"""A lookup table in the form that Once-for-All and ProxylessNAS read.

A mapping from a block's key to `count`, `mean` and `std` in milliseconds. Keys of MBConv blocks are
`expanded_conv-input:HxWxC-output:HxWxC-expand:E-kernel:K-stride:S-idskip:0|1-se:0|1-hs:0|1` with
the expanded channel count as `E`. Stem and head are no blocks of that form; each is written
under `Conv-input:HxWxC-output:HxWxC` and `Logits-input:HxWxC-output:N`.
"""

from __future__ import annotations

from latlas_latency.table import LookupTable
from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec, Shape


def table_to_ofa_yaml(table: LookupTable) -> str:
    """The table as YAML; a network's latency is the intercept in the head line plus its blocks.

    Raises:
        InvalidInputError: two ops of the table have one key, or an op has no key of that form.
    """
    slope = table.calibration.fit.slope if table.calibration else 1.0
    intercept_ms = table.calibration.fit.intercept if table.calibration else 0.0
    lines = [
        f"# target {table.target.name}, milliseconds; network = {intercept_ms!r} + sum of means"
    ]
    lines += [f"# {caveat}" for caveat in table.caveats]
    seen: dict[str, OpSpec] = {}
    for entry in table.entries:
        key = block_key(entry.op)
        if key in seen:
            raise InvalidInputError(f"ofa-yaml cannot tell {entry.op} from {seen[key]}: {key}")
        seen[key] = entry.op
        lines += [
            f"{key}:",
            f"  count: {entry.n_visits}",
            f"  mean: {slope * entry.mean_ms!r}",
            f"  std: {slope * entry.spread_ms!r}",
        ]
    return "\n".join(lines) + "\n"


def block_key(op: OpSpec) -> str:
    """The key of one op; raises `InvalidInputError` where the form has none for its kind."""
    source, result = _shape(op.inputs[0]), _shape(op.outputs[0])
    if op.kind == "mbconv":
        return (
            f"expanded_conv-input:{source}-output:{result}"
            f"-expand:{op.integer('expanded_channels')}-kernel:{op.integer('kernel')}"
            f"-stride:{op.integer('stride')}-idskip:{int(bool(op.attribute('skip')))}"
            f"-se:{int(op.integer('se_channels') > 0)}"
            f"-hs:{int(op.attribute('activation') == 'hswish')}"
        )
    if op.kind == "stem":
        return f"Conv-input:{source}-output:{result}"
    if op.kind == "head":
        return f"Logits-input:{source}-output:{result}"
    raise InvalidInputError(f"ofa-yaml has no key for an op of kind {op.kind!r}; use csv")


def _shape(shape: Shape) -> str:
    """`HxWxC` of `(channels, height, width)`, `N` of a vector."""
    channels, *sides = shape
    return "x".join(map(str, (*sides, channels)))
