"""A simulated board with a known truth, and campaigns measured on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache

import numpy as np
import pytest

from latlas_latency.measurement import (
    PLAIN,
    PROFILED,
    WHOLE_NETWORK,
    Series,
    Target,
    Visit,
)
from latlas_latency.observations import Observation
from latlas_latency.table import LookupTable
from latlas_latency.table_building import build_table
from latlas_ops import ArchBatch, Network, OpSpec, SearchSpace, get_space
from latlas_ops.graph import Node
from latlas_ops.lowering import lower

_FUSED = ("relu", "relu6", "hswish", "hsigmoid")


@cache
def _kernels(op: OpSpec) -> tuple[tuple[tuple[Node, ...], float], ...]:
    """What a runtime makes of an op: groups of fused nodes, each with its true microseconds."""
    groups: list[list[Node]] = []
    for node in lower(Network.chain([op])).nodes:
        if node.primitive in _FUSED and groups:
            groups[-1].append(node)
        else:
            groups.append([node])
    return tuple((tuple(group), _kernel_us(group[0])) for group in groups)


def _kernel_us(node: Node) -> float:
    size = math.prod(node.shape)
    if not node.parameters:
        return 0.5 + size / 16_000
    weight = node.parameters[0].shape
    macs = math.prod(weight) * math.prod(node.shape[1:])
    if node.attributes.get("groups", 1) > 1:
        rate = {3: 15_000, 5: 10_800, 7: 4_200}[node.attributes["kernel"]]
    else:
        # Few channels leave vector lanes empty; big tensors leave the cache.
        rate = 54_000 * weight[0] / (weight[0] + 40) / (1 + 0.4 * (size > 80_000))
    return 1.5 + macs / rate


@cache
def _op_ms(op: OpSpec) -> float:
    return sum(us for _, us in _kernels(op)) / 1e3


@dataclass
class SimulatedBoard:
    """A device whose every op has a known latency, and whose measurements are as bad as real ones.

    Whole networks take `gap` times the sum of their ops plus `run_cost_us`; the profiler adds
    `node_cost_us` to every node and reports whole microseconds, cut off. Each round runs at a
    speed of its own (`drift`), each visit is off by `noise`, now and then by a burst.
    """

    seed: int = 0
    node_cost_us: float = 4.0
    run_cost_us: float = 15.0
    gap: float = 1.06
    noise: float = 0.01
    drift: float = 0.03
    burst_share: float = 0.02
    n_runs: int = 7
    device_id: str = "board-0"
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self._speeds = np.exp(self.rng.normal(0, self.drift, 100)) if self.drift else np.ones(100)

    def op_ms(self, op: OpSpec) -> float:
        """True latency of an op inside a network."""
        return _op_ms(op)

    def network_ms(self, network: Network) -> float:
        """True latency of a whole network."""
        return self.gap * sum(map(_op_ms, network.ops)) + self.run_cost_us / 1e3

    def _disturbance(self, round_: int) -> np.ndarray:
        """Factor of each run of one visit."""
        burst = self.rng.uniform(1.4, 3.0) if self.rng.random() < self.burst_share else 1.0
        visit = self._speeds[round_] * math.exp(self.rng.normal(0, self.noise)) * burst
        return visit * np.exp(np.abs(self.rng.normal(0, self.noise, self.n_runs)))

    def visit(self, network: Network, mode: str, round_: int, task_id: str) -> Visit:
        factors = self._disturbance(round_)
        nodes: list[Series] = []
        whole_us = self.network_ms(network) * 1e3 * factors
        if mode == PROFILED:
            tensors = [
                (position, group[-1].output, us)
                for position, op in enumerate(network.ops)
                for group, us in _kernels(op)
            ]
            names = _tensor_names(network)
            true_us = np.array([us for _, _, us in tensors])
            jitter = np.exp(self.rng.normal(0, 0.02, (len(tensors), self.n_runs)))
            times_us = true_us[:, None] * jitter * factors + self.node_cost_us
            samples = np.floor(times_us).astype(np.int64) * 1000
            for (position, output, _), row in zip(tensors, samples, strict=True):
                nodes.append(Series(names[position][output], row, node=f"{position}:Conv"))
            reorder = np.floor(3 + self.node_cost_us + self.rng.random(self.n_runs))
            nodes.append(Series("", reorder.astype(np.int64) * 1000, node="reorder:ReorderOutput"))
            whole_us = whole_us + len(nodes) * self.node_cost_us
        whole = Series(WHOLE_NETWORK, np.rint(whole_us * 1000).astype(np.int64))
        return Visit(
            task_id=task_id,
            device_id=self.device_id,
            round=round_,
            mode=mode,
            started_ns=1_700_000_000_000_000_000 + round_ * 60_000_000_000,
            duration_ns=int(whole.samples_ns.sum()),
            warmup_runs=2,
            series=(whole, *nodes),
        )


@lru_cache(maxsize=4096)
def _tensor_names(network: Network) -> list[dict[str, str]]:
    """Per position: tensor name of the op on its own → tensor name in the network."""
    by_position: list[list[Node]] = [[] for _ in network.ops]
    for node in lower(network).nodes:
        by_position[node.position].append(node)
    return [
        {
            alone.output: inside.output
            for alone, inside in zip(lower(Network.chain([op])).nodes, nodes, strict=True)
        }
        for op, nodes in zip(network.ops, by_position, strict=True)
    ]


@dataclass(frozen=True)
class Campaign:
    """One interleaved sitting, in the parts that building and validating take."""

    space: SearchSpace
    target: Target
    profiled: tuple[Observation, ...]
    plain: tuple[Observation, ...]
    calibration: tuple[Observation, ...]
    validation: tuple[Observation, ...]


@dataclass(frozen=True)
class Campaigner:
    """Measures architectures of a space on simulated boards."""

    space: SearchSpace
    target: Target

    def covers(self, n_passes: int = 1) -> ArchBatch:
        """Architectures that together hold every op of the space, layers at full depth."""
        rows = []
        n_resolutions = int(self.space.sizes[0])
        for choice in range(9 * n_passes * n_resolutions):
            shift, resolution = divmod(choice, n_resolutions)
            row = self.space.sizes - 1
            row[0] = resolution
            layers = [index for index, gene in enumerate(self.space.genes) if "layer" in gene.name]
            for turn, (kernel, expansion) in enumerate(zip(layers[::2], layers[1::2], strict=True)):
                row[kernel] = (shift + turn + shift // 9) % 3
                row[expansion] = (shift // 3 + turn) % 3
            rows.append(row)
        return ArchBatch(self.space, self.space.canonical(np.array(rows)))

    def stratified(self, n_archs: int, rng: np.random.Generator) -> ArchBatch:
        """Architectures spread evenly over the latencies of a random sample."""
        pool = self.space.sample(20 * n_archs, rng)
        size = [sum(map(_op_ms, self.space.ops(arch))) for arch in self.space.archs(pool)]
        ranks = np.linspace(0, len(pool) - 1, n_archs).round().astype(int)
        return ArchBatch(self.space, pool.genes[np.argsort(size)[ranks]])

    def observe(
        self, boards: Sequence[SimulatedBoard], batch: ArchBatch, mode: str, n_rounds: int
    ) -> tuple[Observation, ...]:
        observations = []
        for index, arch in enumerate(self.space.archs(batch)):
            network = self.space.network(arch)
            visits = tuple(
                board.visit(network, mode, round_, f"{mode}-{index}")
                for board in boards
                for round_ in range(n_rounds)
            )
            observations.append(
                Observation(
                    network, lower(network).tensor_positions(), visits, arch, target=self.target
                )
            )
        return tuple(observations)

    def run(
        self,
        *boards: SimulatedBoard,
        n_rounds: int = 3,
        n_passes: int = 1,
        n_calibration: int = 8,
        n_validation: int = 30,
    ) -> Campaign:
        rng = np.random.default_rng(boards[0].seed + 1000)
        covers = self.covers(n_passes)
        profiled = self.observe(boards, covers, PROFILED, n_rounds)
        plain = self.observe(boards, covers, PLAIN, n_rounds)
        calibration = (
            self.observe(boards, self.stratified(n_calibration, rng), PLAIN, n_rounds)
            if n_calibration
            else ()
        )
        validation = self.observe(boards, self.space.sample(n_validation, rng), PLAIN, n_rounds)
        return Campaign(self.space, self.target, profiled, plain, calibration, validation)


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    return get_space("digits")


@pytest.fixture(scope="session")
def target() -> Target:
    return Target(
        name="bench-ort-1t",
        device_model="simulated board",
        runtime="onnxruntime",
        runtime_version="1.32.0",
        provider="CPUExecutionProvider",
    )


@pytest.fixture(scope="session")
def other_target(target: Target) -> Target:
    return replace(target, name="bench-basic", graph_level="basic")


@pytest.fixture(scope="session")
def make_board() -> type[SimulatedBoard]:
    return SimulatedBoard


@pytest.fixture(scope="session")
def campaigner(space: SearchSpace, target: Target) -> Campaigner:
    return Campaigner(space, target)


@pytest.fixture(scope="session")
def campaign(campaigner: Campaigner) -> Campaign:
    """One ordinary sitting of three rounds on one board."""
    return campaigner.run(SimulatedBoard(seed=1))


@pytest.fixture(scope="session")
def table(campaign: Campaign) -> LookupTable:
    """The calibrated table of `campaign`."""
    return build_table(
        profiled=campaign.profiled,
        plain=campaign.plain,
        calibration=campaign.calibration,
        target=campaign.target,
        space=campaign.space,
    )
