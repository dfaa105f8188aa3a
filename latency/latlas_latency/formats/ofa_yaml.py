"""A lookup table in the form that Once-for-All reads, and ProxylessNAS before it.

A YAML mapping from the key of a block to `count`, `mean` and `std` (milliseconds). Keys have the
form of the tables that both projects publish:

- `Conv-input:HxWxC-output:HxWxC`, the first convolution;
- `expanded_conv-input:HxWxC-output:HxWxC-expand:E-kernel:K-stride:S-idskip:0|1-se:0|1-hs:0|1`, a
  block, with the expanded channel count as E;
- `Conv_1-input:HxWxC-output:HxWxC`, the last 1×1 convolution;
- `AvgPool2D-input:HxWxC-output:1x1xC`;
- `Conv_2-input:1x1xC-output:1x1xC`, feature mixing, where the head has it;
- `Logits-input:1x1xC-output:N`, the classifier.

There is no constant in this form: a reader sums the means of a network's blocks. So that its sum is
our calibrated latency, every mean carries the calibration's slope, and `Conv`, which every network
has once, carries the intercept. Our stem is `Conv` with the block that follows it, and our head
the last four: their latency is divided by the work in the parts (MACs; pooling: elements). Parts
that several heads have in common (one `Logits` for all resolutions, say) get the least that one of
these heads would give them, and the `Conv_1` of each head the remainder. Sums are exact; the single
parts of stem and head are not measured. An interpolated entry has a `count` of 0 and a comment that
says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from latlas_latency.entries import INTERPOLATED, TableEntry
from latlas_latency.table import LookupTable
from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec, Shape


@dataclass(frozen=True)
class _Line:
    key: str
    count: int
    mean_ms: float
    std_ms: float
    interpolated: bool


@dataclass(frozen=True)
class _Part:
    """A part of a stem or head: its key and its work."""

    key: str
    work: int


def table_to_ofa_yaml(table: LookupTable) -> str:
    """The table as YAML text.

    Raises:
        InvalidInputError: an op has no key of this form, or the form cannot tell two ops apart.
    """
    slope, intercept_ms = 1.0, 0.0
    if table.calibration is not None:
        slope, intercept_ms = table.calibration.fit.slope, table.calibration.fit.intercept
    lines: dict[str, _Line] = {}
    for line in _lines(table.entries, slope, intercept_ms):
        if lines.setdefault(line.key, line) != line:
            raise InvalidInputError(
                f"ofa-yaml cannot hold this table: two ops share the key {line.key}; use csv"
            )
    conditions = ", ".join(f"{name}={value}" for name, value in table.target.conditions().items())
    text = [f"# target {table.target.name}: {conditions}"]
    text += [f"# {remark}" for remark in table.remarks]
    for line in sorted(lines.values(), key=lambda line: line.key):
        text += [
            f"{line.key}:" + ("  # interpolated" if line.interpolated else ""),
            f"  count: {line.count}",
            f"  mean: {line.mean_ms!r}",
            f"  std: {line.std_ms!r}",
        ]
    return "\n".join(text) + "\n"


def _lines(entries: Sequence[TableEntry], slope: float, intercept_ms: float) -> Iterator[_Line]:
    heads = [entry for entry in entries if entry.op.kind == "head"]
    common = _common_lines(heads, slope)
    yield from common.values()
    for entry in entries:
        if entry.op.kind == "mbconv":
            yield _line(block_key(entry.op), entry, slope)
        elif entry.op.kind == "stem":
            parts = _stem_parts(entry.op)
            total = sum(part.work for part in parts)
            first, *others = (_line(part.key, entry, slope * part.work / total) for part in parts)
            yield replace(first, mean_ms=first.mean_ms + intercept_ms)
            yield from others
        elif entry.op.kind == "head":
            first_part, *rest = _head_parts(entry.op)
            mean_ms = slope * entry.mean_ms - sum(common[part.key].mean_ms for part in rest)
            yield replace(_line(first_part.key, entry, slope), mean_ms=mean_ms)
        else:
            raise InvalidInputError(
                f"ofa-yaml cannot hold this table: it has no key for {entry.op}; use csv"
            )


def _line(key: str, entry: TableEntry, factor: float) -> _Line:
    return _Line(
        key,
        entry.n_visits,
        factor * entry.mean_ms,
        factor * entry.spread_ms,
        entry.kind == INTERPOLATED,
    )


def _common_lines(heads: Sequence[TableEntry], slope: float) -> dict[str, _Line]:
    """Lines of all parts of heads but the first, which alone tells heads apart."""
    lines: dict[str, _Line] = {}
    for entry in heads:
        parts = _head_parts(entry.op)
        total = sum(part.work for part in parts)
        for part in parts[1:]:
            line = _line(part.key, entry, slope * part.work / total)
            if part.key in lines:
                other = lines[part.key]
                least = min(line, other, key=lambda each: each.mean_ms)
                line = replace(
                    least,
                    count=line.count + other.count,
                    interpolated=line.interpolated and other.interpolated,
                )
            lines[part.key] = line
    return lines


def block_key(op: OpSpec) -> str:
    """The key of an MBConv block."""
    return (
        f"{_key('expanded_conv', op.inputs[0], op.outputs[0])}"
        f"-expand:{op.integer('expanded_channels')}-kernel:{op.integer('kernel')}"
        f"-stride:{op.integer('stride')}-idskip:{int(bool(op.attribute('skip')))}"
        f"-se:{int(op.integer('se_channels') > 0)}"
        f"-hs:{int(op.attribute('activation') == 'hswish')}"
    )


def _stem_parts(op: OpSpec) -> list[_Part]:
    source, result = op.inputs[0], op.outputs[0]
    positions = math.prod(result[1:])
    parts = [
        _Part(
            _key("Conv", source, result),
            op.integer("kernel") ** 2 * source[0] * result[0] * positions,
        )
    ]
    if op.attribute("separable"):
        channels = result[0]
        block = OpSpec.of(
            "mbconv",
            result,
            out_channels=channels,
            expanded_channels=channels,
            expand=False,
            kernel=3,
            activation="relu",
            skip=True,
        )
        parts.append(_Part(block_key(block), (9 * channels + channels**2) * positions))
    return parts


def _head_parts(op: OpSpec) -> list[_Part]:
    channels, height, width = op.inputs[0]
    expanded, features = op.integer("expanded_channels"), op.integer("feature_channels")
    classes = op.integer("classes")
    wide, pooled = (expanded, height, width), (expanded, 1, 1)
    parts = [
        _Part(_key("Conv_1", op.inputs[0], wide), channels * math.prod(wide)),
        _Part(_key("AvgPool2D", wide, pooled), math.prod(wide)),
    ]
    if features:
        mixed = (features, 1, 1)
        parts.append(_Part(_key("Conv_2", pooled, mixed), expanded * features))
        pooled = mixed
    parts.append(_Part(_key("Logits", pooled, (classes,)), pooled[0] * classes))
    return parts


def _key(name: str, source: Shape, result: Shape) -> str:
    return f"{name}-input:{_shape(source)}-output:{_shape(result)}"


def _shape(shape: Shape) -> str:
    """`HxWxC` of `(channels, height, width)`, `N` of a vector."""
    channels, *sides = shape
    return "x".join(map(str, (*sides, channels)))
