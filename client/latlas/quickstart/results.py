"""What a finished quickstart found, as plain records in `results.json`.

The report page and `bench/loop.py` read this file and nothing else, so every figure they show can
be traced to it. Fractions are fractions (0.02 is 2 %), latencies milliseconds.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latlas.files import write_atomically
from latlas_latency.measurement.statistics import kendall_tau_b
from latlas_ops.errors import InvalidInputError

FORMAT = "latlas-quickstart"
VERSION = 2


@dataclass(frozen=True)
class DeviceFacts:
    """The device and target the figures are valid for."""

    device_model: str
    operating_system: str
    target: dict[str, Any]


@dataclass(frozen=True)
class ProfileFacts:
    """What was measured, in one interleaved sitting.

    Attributes:
        n_cover_networks: networks profiled per node.
        n_distinct_ops: ops of the space, all of which occur in the cover networks.
        n_training_networks: whole networks that the predictors learn from.
        n_calibration_networks: whole networks that calibrate the table.
        n_validation_networks: whole networks that no fit has seen.
        n_rounds: visits per network and mode.
        device_seconds: time the device spent in timed inferences.
        label_noise: median over the networks of the difference between one half of the rounds and
            the other.
        common_mode_free_noise: the same after dividing each round by its median ratio.
        profiler_us_per_node: what profiling adds to a node, removed from the entries.
        unattributed_share: share of node time that no op could be named for.
    """

    n_cover_networks: int
    n_distinct_ops: int
    n_training_networks: int
    n_calibration_networks: int
    n_validation_networks: int
    n_rounds: int
    device_seconds: float
    label_noise: float
    common_mode_free_noise: float
    profiler_us_per_node: float
    unattributed_share: float


@dataclass(frozen=True)
class ModelFacts:
    """One latency model on the validation networks.

    Attributes:
        kind: `table`, `mlp`, `linear` or `macs`.
        measured_ms, predicted_ms, lower_ms, upper_ms: one value per validation network.
        mape, max_error: errors of the mean prediction.
        spearman: rank correlation.
        r2: coefficient of determination.
        share_within_5_percent, share_within_10_percent: shares of networks.
        interval_coverage: share of networks inside the interval promised at `interval_level`.
    """

    kind: str
    measured_ms: list[float]
    predicted_ms: list[float]
    lower_ms: list[float]
    upper_ms: list[float]
    mape: float
    max_error: float
    spearman: float
    r2: float
    share_within_5_percent: float
    share_within_10_percent: float
    interval_coverage: float
    interval_level: float


@dataclass(frozen=True)
class SupernetFacts:
    """The trained supernet and the predictor of its subnets' accuracy.

    Training, validation and test images are distorted versions of different originals.

    Attributes:
        training_seconds: wall time of progressive shrinking.
        smallest_accuracy, largest_accuracy: of the extreme subnets on the test images.
        n_validation_images: behind every label, and so behind every predicted accuracy.
        n_test_images: behind every measured accuracy of a found or random subnet.
        held_out_measured, held_out_predicted: accuracies of the labelled subnets on the validation
            images, each predicted by a predictor that was fitted without it.
        curve: `(phase, step, loss)` while training.
    """

    training_seconds: float
    smallest_accuracy: float
    largest_accuracy: float
    n_validation_images: int
    n_test_images: int
    held_out_measured: list[float]
    held_out_predicted: list[float]
    curve: list[tuple[str, int, float]]

    @property
    def n_labelled(self) -> int:
        """Subnets labelled, all of which the predictor was fitted to in the end."""
        return len(self.held_out_measured)

    @property
    def kendall_tau(self) -> float | None:
        """Rank correlation (tau-b) of the held-out accuracies; None where one side is constant."""
        tau = kendall_tau_b(self.held_out_measured, self.held_out_predicted)
        return tau if math.isfinite(tau) else None


@dataclass(frozen=True)
class Found:
    """One search under one budget with one latency model, and what the device said to it.

    Attributes:
        budget_ms: the hard limit, held against `upper_ms`.
        latency_model: `table` or `mlp`.
        genes: the architecture found.
        description: the architecture in words.
        predicted_ms, lower_ms, upper_ms: by that latency model.
        predicted_accuracy: on the validation images, by the accuracy predictor.
        random_accuracy: best predicted accuracy of as many random feasible subnets.
        n_evaluated: architectures the search scored.
        search_seconds: wall time of the search.
        measured_ms: latency of the extracted subnet on the device.
        measured_accuracy: accuracy of the extracted subnet on the test images.
        random_measured_accuracy: accuracy of the best random subnet on the test images.
        onnx_file: the exported network, relative to the folder.
    """

    budget_ms: float
    latency_model: str
    genes: list[int]
    description: str
    predicted_ms: float
    lower_ms: float
    upper_ms: float
    predicted_accuracy: float
    random_accuracy: float
    n_evaluated: int
    search_seconds: float
    measured_ms: float
    measured_accuracy: float
    random_measured_accuracy: float
    onnx_file: str


@dataclass(frozen=True)
class OpShare:
    """One op of a found network: its table entry and its share."""

    op: str
    kind: str
    latency_ms: float


@dataclass(frozen=True)
class Breakdown:
    """The per-op breakdown of one found network by the table."""

    budget_ms: float
    intercept_ms: float
    ops: list[OpShare]


@dataclass(frozen=True)
class Front:
    """A Pareto front by one latency model: rising latency, rising predicted accuracy."""

    latency_model: str
    latency_ms: list[float]
    accuracy: list[float]


@dataclass(frozen=True)
class Results:
    """Everything a finished quickstart found."""

    device: DeviceFacts
    profile: ProfileFacts
    models: list[ModelFacts]
    supernet: SupernetFacts
    found: list[Found]
    fronts: list[Front]
    breakdowns: list[Breakdown]
    random_latency_ms: list[float]
    random_accuracy: list[float]
    session_drift: float
    step_seconds: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes the record as JSON, whole or not at all."""
        record = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Results:
        """The record of `save`.

        Raises:
            InvalidInputError: no such file, or not a quickstart's results of this version.
        """
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:
            raise InvalidInputError(
                f"{path} does not exist; run `latlas quickstart` to the end first"
            ) from None
        except ValueError as error:
            raise InvalidInputError(f"{path} is not JSON: {error}") from error
        try:
            if (record["format"], record["version"]) != (FORMAT, VERSION):
                raise InvalidInputError(f"{path} is not a {FORMAT} file of version {VERSION}")
            return cls._from_record(record)
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInputError(
                f"{path} is not a whole {FORMAT} file ({error!r}); run `latlas quickstart` again"
            ) from error

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Results:
        return cls(
            device=DeviceFacts(**record["device"]),
            profile=ProfileFacts(**record["profile"]),
            models=[ModelFacts(**model) for model in record["models"]],
            supernet=SupernetFacts(
                **{
                    **record["supernet"],
                    "curve": [tuple(point) for point in record["supernet"]["curve"]],
                }
            ),
            found=[Found(**found) for found in record["found"]],
            fronts=[Front(**front) for front in record["fronts"]],
            breakdowns=[
                Breakdown(**{**row, "ops": [OpShare(**op) for op in row["ops"]]})
                for row in record["breakdowns"]
            ],
            random_latency_ms=record["random_latency_ms"],
            random_accuracy=record["random_accuracy"],
            session_drift=record["session_drift"],
            step_seconds=record["step_seconds"],
        )
