"""A synthetic but plausible finished quickstart: three budgets, four latency models."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from latlas.quickstart.results import (
    Breakdown,
    DeviceFacts,
    Found,
    Front,
    ModelFacts,
    OpShare,
    ProfileFacts,
    Results,
    SupernetFacts,
)
from latlas_ops.space import ArchConfig
from latlas_ops.spaces import get_space

LEVEL = 0.9
LABEL_NOISE = 0.012
BUDGETS_MS = (1.6, 2.4, 3.3)
ERROR_OF = {"table": 0.013, "mlp": 0.027, "linear": 0.045, "macs": 0.11}


def _model(kind: str, measured_ms: NDArray[np.float64], rng: np.random.Generator) -> ModelFacts:
    noise = rng.normal(0, ERROR_OF[kind] * 1.25, size=len(measured_ms))
    predicted_ms = measured_ms * (1 + noise)
    error = np.abs(predicted_ms / measured_ms - 1)
    half_width = float(np.quantile(error, 0.92))
    lower_ms, upper_ms = predicted_ms / (1 + half_width), predicted_ms * (1 + half_width)
    residual, spread = measured_ms - predicted_ms, measured_ms - measured_ms.mean()
    ranks = [np.argsort(np.argsort(values)) for values in (measured_ms, predicted_ms)]
    return ModelFacts(
        kind=kind,
        measured_ms=measured_ms.tolist(),
        predicted_ms=predicted_ms.tolist(),
        lower_ms=lower_ms.tolist(),
        upper_ms=upper_ms.tolist(),
        mape=float(error.mean()),
        max_error=float(error.max()),
        spearman=float(np.corrcoef(*ranks)[0, 1]),
        r2=float(1 - (residual**2).sum() / (spread**2).sum()),
        share_within_5_percent=float((error <= 0.05).mean()),
        share_within_10_percent=float((error <= 0.1).mean()),
        interval_coverage=float(((lower_ms <= measured_ms) & (measured_ms <= upper_ms)).mean()),
        interval_level=LEVEL,
    )


def _accuracy_at(latency_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best accuracy that a latency buys in this made-up world."""
    return 0.962 - 0.16 * np.exp(-(latency_ms - 0.6) / 0.85)


def _found(budget_ms: float, latency_model: str, rng: np.random.Generator) -> Found:
    margin = {"table": 0.025, "mlp": 0.055}[latency_model]
    predicted_ms = budget_ms / (1 + margin) * 0.995
    accuracy = float(_accuracy_at(np.array(predicted_ms)))
    return Found(
        budget_ms=budget_ms,
        latency_model=latency_model,
        genes=[1, 2, 1, 0, *[1] * 18],
        description="resolution 40, depths 3-2-1, kernels 3 5 7 3 5 3, expansions 3 4 2 2 3 4",
        predicted_ms=predicted_ms,
        lower_ms=predicted_ms / (1 + margin),
        upper_ms=predicted_ms * (1 + margin),
        predicted_accuracy=accuracy,
        random_accuracy=accuracy - 0.009 - 0.004 * float(rng.random()),
        n_evaluated=20_000,
        search_seconds=3.1 + float(rng.random()),
        measured_ms=predicted_ms * (1 + float(rng.normal(0, 0.012))),
        measured_accuracy=accuracy + float(rng.normal(0, 0.004)),
        random_measured_accuracy=accuracy - 0.008 + float(rng.normal(0, 0.003)),
        onnx_file=f"networks/{latency_model}-{budget_ms:.1f}ms.onnx",
    )


def _breakdown(budget_ms: float, rng: np.random.Generator) -> Breakdown:
    space = get_space("digits")
    (arch,) = space.archs(space.sample(1, rng))
    ops = space.ops(ArchConfig(arch.space, arch.version, arch.genes))
    weights = rng.uniform(0.5, 2.0, size=len(ops))
    latencies_ms = 0.93 * budget_ms * weights / weights.sum()
    return Breakdown(
        budget_ms=budget_ms,
        intercept_ms=0.04 * budget_ms,
        ops=[
            OpShare(op.key, op.kind, float(latency))
            for op, latency in zip(ops, latencies_ms, strict=True)
        ],
    )


def _curve(rng: np.random.Generator) -> list[tuple[str, int, float]]:
    points = []
    step, loss = 0, 2.3
    for phase, floor in (("largest", 0.25), ("kernel", 0.4), ("depth", 0.5), ("expansion", 0.6)):
        loss = max(loss, floor * 1.6)
        for _ in range(30):
            loss += 0.12 * (floor - loss) + float(rng.normal(0, 0.03))
            points.append((phase, step, loss))
            step += 10
    return points


@pytest.fixture(scope="session")
def results() -> Results:
    """A quickstart that holds every bar."""
    rng = np.random.default_rng(3)
    measured_ms = np.sort(rng.uniform(0.8, 4.6, size=40))
    held_out_measured = rng.uniform(0.82, 0.96, size=30)
    held_out_predicted = held_out_measured + rng.normal(0, 0.012, size=30)
    random_latency_ms = rng.uniform(0.7, 4.8, size=1000)
    random_accuracy = _accuracy_at(random_latency_ms) - rng.gamma(2.0, 0.012, size=1000) - 0.004
    front_ms = np.linspace(0.75, 4.7, 40)
    return Results(
        device=DeviceFacts(
            device_model="Intel Xeon Gold 6348 (2 cores)",
            operating_system="Linux 6.1",
            target={
                "name": "this-machine",
                "device_model": "Intel Xeon Gold 6348 (2 cores)",
                "runtime": "onnxruntime",
                "runtime_version": "1.32.0",
                "provider": "CPUExecutionProvider",
                "power_mode": "default",
                "execution": "eager",
                "precision": "fp32",
                "graph_level": "all",
                "threads": 1,
                "cores": [0],
                "batch": 1,
                "allow_fallback": False,
            },
        ),
        profile=ProfileFacts(
            n_cover_networks=36,
            n_distinct_ops=247,
            n_training_networks=160,
            n_calibration_networks=10,
            n_validation_networks=40,
            n_rounds=4,
            device_seconds=148.0,
            label_noise=LABEL_NOISE,
            common_mode_free_noise=0.007,
            profiler_us_per_node=3.9,
            unattributed_share=0.004,
        ),
        models=[_model(kind, measured_ms, rng) for kind in ERROR_OF],
        supernet=SupernetFacts(
            training_seconds=171.0,
            smallest_accuracy=0.821,
            largest_accuracy=0.957,
            n_validation_images=720,
            n_test_images=3600,
            held_out_measured=held_out_measured.tolist(),
            held_out_predicted=held_out_predicted.tolist(),
            curve=_curve(rng),
        ),
        found=[_found(budget, model, rng) for budget in BUDGETS_MS for model in ("table", "mlp")],
        fronts=[
            Front("table", front_ms.tolist(), _accuracy_at(front_ms).tolist()),
            Front("mlp", (front_ms * 1.02).tolist(), (_accuracy_at(front_ms) - 0.002).tolist()),
        ],
        breakdowns=[_breakdown(budget, rng) for budget in BUDGETS_MS],
        random_latency_ms=random_latency_ms.tolist(),
        random_accuracy=random_accuracy.tolist(),
        session_drift=0.008,
        step_seconds={
            "profile": 165.0,
            "build": 9.0,
            "train": 195.0,
            "search": 22.0,
            "verify": 31.0,
        },
    )
