"""Precisions that a runtime is known not to compute in, or to compute wrongly. Pure.

A device says which precisions its runtime has; whether one is really used depends on provider and
graph level as well. A runtime that takes a program in one precision and computes in another gives
figures that look like an answer, so such a target is refused.
"""

from __future__ import annotations

from latlas_latency.measurement.target import Target
from latlas_ops.errors import RuntimeUnavailableError

_TFLITE = ("litert", "tflite-runtime", "tflite-benchmark", "tflite-benchmark-builtin")
_UNFUSED = ("disabled", "basic")


def require_computed(target: Target) -> None:
    """Refuses a target whose runtime is known not to compute in its precision.

    Raises:
        RuntimeUnavailableError: it does not; the message names runtime, precision, reason and way
            out.
    """
    reason = objection(target)
    if reason:
        raise RuntimeUnavailableError(
            f"target {target.name!r} asks for precision {target.precision!r}, in which "
            f"{target.runtime} does not compute here: {reason}"
        )


def objection(target: Target) -> str:
    """Why a target's runtime does not compute in its precision, and what to do; empty if it may."""
    if target.precision == "fp16":
        return _against_fp16(target)
    if target.precision == "int8":
        return _against_int8(target)
    return ""


def _against_fp16(target: Target) -> str:
    if target.runtime == "onnxruntime" and target.provider == "CPUExecutionProvider":
        return (
            "on the CPU it casts fp16 to fp32 and computes in that, which is slower; take "
            "--precision fp32, or a provider that has fp16"
        )
    if target.runtime in _TFLITE:
        return (
            "it unpacks fp16 weights and computes in fp32, unless a delegate is told otherwise, "
            "which cannot be done from here; take --precision fp32 or int8"
        )
    if target.runtime == "torch" and target.provider == "cpu":
        return (
            "most CPUs have no fp16 arithmetic, and torch computes in fp32 between two casts; take "
            "--precision fp32, or --provider cuda"
        )
    return ""


def _against_int8(target: Target) -> str:
    if target.runtime == "onnxruntime" and target.graph_level in _UNFUSED:
        return (
            "below graph level 'extended' it computes in fp32 between conversions; take "
            "--graph-level extended or all"
        )
    if target.runtime == "onnxruntime" and target.provider == "CUDAExecutionProvider":
        return (
            "its CUDA provider computes in fp32 between conversions; take --precision fp32, or "
            "--provider CPUExecutionProvider"
        )
    if target.runtime == "torch":
        return (
            "Latlas has no int8 programs for it; take --precision fp32, or --runtime onnxruntime "
            "or litert"
        )
    return ""
