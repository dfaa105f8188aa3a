"""How `benchmark_model` is called on a phone, and what comes back from the phone's shell."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from latlas_agent.phone_conditions import READ_FILES
from latlas_agent.tasks import Task
from latlas_latency.measurement import PROFILED, RuntimeCapability

DELEGATED, BUILTIN = "tflite-benchmark", "tflite-benchmark-builtin"
"""Runtimes of a phone: programs handed to a delegate, which hides its nodes, or to no delegate."""

FOLDER = "/data/local/tmp/latlas"
"""Where everything of Latlas lies on a phone; whoever may use adb may write and run files there."""

_PROVIDER_FLAGS = {
    "xnnpack": ("--use_xnnpack=true",),
    "gpu": ("--use_gpu=true", "--gpu_precision_loss_allowed=false"),
    "nnapi": ("--use_nnapi=true", "--nnapi_allow_fp16=false"),
    "builtin": ("--use_xnnpack=false",),
}
_NS_PER_S = 1_000_000_000
_PARTS = re.compile(r"^@latlas (\w+) ?(.*)$", re.M)


@dataclass(frozen=True)
class BenchmarkModel:
    """The tool on a phone: its path there, and its version, the start of its SHA-256."""

    path: str
    version: str

    def capabilities(self) -> tuple[RuntimeCapability, ...]:
        """What it offers; the delegates' nodes have no names, so that they are not timed singly."""

        def offers(name: str, *providers: str, per_node_times: bool) -> RuntimeCapability:
            return RuntimeCapability(
                name, self.version, providers, ("fp32",), ("all",), ("tflite",), per_node_times
            )

        return (
            offers(DELEGATED, "xnnpack", "gpu", "nnapi", per_node_times=False),
            offers(BUILTIN, "builtin", per_node_times=True),
        )


def sha256_version(data: bytes) -> str:
    """The version of a tool that tells none."""
    return hashlib.sha256(data).hexdigest()[:12]


def command_line(tool: str, program: str, task: Task, flags: Sequence[str]) -> str:
    """The command that makes one visit, pinned where the target is; `flags` are the program's."""
    target = task.target
    words = [
        tool,
        f"--graph={program}",
        f"--num_threads={target.threads}",
        f"--warmup_runs={task.warmup_runs}",
        "--warmup_min_secs=0",
        f"--num_runs={task.min_runs}",
        f"--min_secs={task.min_duration_ns / _NS_PER_S:g}",
        f"--max_secs={task.timeout_ns / _NS_PER_S:g}",
        *flags,
        *_PROVIDER_FLAGS[target.provider],
    ]
    if target.provider != "builtin" and not target.allow_fallback:
        words.append("--require_full_delegation=true")
    if task.mode == PROFILED:
        words.append("--enable_op_profiling=true")
    if target.cores:
        words[:0] = ["taskset", f"{sum(1 << core for core in target.cores):x}"]
    return " ".join(words)


def visit_script(command: str) -> str:
    """The script of one visit: the phone's state, the command, the state again.

    All in one, so that as little as possible lies between the last inference and the second look.
    """
    return "\n".join(
        (
            f"cd {FOLDER} || exit 1",
            # What an agent left running that was killed, or unplugged, would compute beside it.
            "if grep -q benchmark_model /proc/$(cat pid)/cmdline",
            "then kill -9 $(cat pid); fi 2>/dev/null",
            "rm -f pid",
            f"echo '@latlas before'; times; {READ_FILES}",
            f"echo; echo '@latlas run'; sh -c 'echo $$ >pid; exec {command}' 2>&1; s=$?",
            f'echo; echo "@latlas after $s"; {READ_FILES}; times',
            "echo '@latlas end'",
        )
    )


def split_parts(text: str) -> dict[str, tuple[str, str]]:
    """What a script printed after each `@latlas NAME VALUE`: name → value and text."""
    found = list(_PARTS.finditer(text))
    ends = [match.start() for match in found] + [len(text)]
    return {
        match[1]: (match[2], text[match.end() : end])
        for match, end in zip(found, ends[1:], strict=True)
    }
