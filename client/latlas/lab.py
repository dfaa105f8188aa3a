"""`Lab`: a coordinator and what it holds, as plain Python. Start here: `latlas.connect()`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING

from latlas import messages
from latlas.connection import DEFAULT_ADDRESS, Connection
from latlas.records import (
    CAREFUL,
    TAILED,
    CampaignStatus,
    DeviceState,
    Measurement,
    ModelInfo,
    Sampling,
    Suspicions,
)
from latlas_latency.details_wire import details_from_message
from latlas_latency.judgement_wire import revalidation_from_message
from latlas_latency.measurement.target import Target
from latlas_latency.measurement.visit import input_shapes
from latlas_latency.model import Prediction
from latlas_latency.program_details import ProgramDetails
from latlas_latency.wire import shapes_to_messages, target_from_message, target_to_message
from latlas_ops.errors import (
    InvalidInputError,
    LatlasError,
    NotFoundError,
    UnreachableError,
)
from latlas_ops.network import Network
from latlas_ops.space import ArchBatch, ArchConfig
from latlas_protos.v1 import query_pb2 as pb

if TYPE_CHECKING:
    from latlas_latency.model import LatencyModel
    from latlas_latency.revalidation import Revalidation

TRANSFER_TIMEOUT_S = 600.0
"""Limit for calls that move files or compute for long: uploads, downloads, fits, predictions."""

PATIENCE_S = 120.0
"""How long `Lab.watch` waits for a coordinator that went away."""

_RETRY_S = 0.5
_CHUNK_BYTES = 1 << 20


def connect(address: str = DEFAULT_ADDRESS, *, wait_s: float = 0.0) -> Lab:
    """Connects to a coordinator and makes sure that it answers.

    Args:
        address: `HOST:PORT`, or `HOST` for the usual port.
        wait_s: keep trying this long, for a coordinator that is just starting.

    Raises:
        InvalidInputError: the address is malformed.
        UnreachableError: no coordinator answers there.
        ProtocolError: something else does, or another version.
    """
    lab = Lab(Connection(address))
    deadline = time.monotonic() + wait_s
    while True:
        try:
            lab.targets()
        except LatlasError as error:
            late = time.monotonic() + _RETRY_S > deadline
            if late or not isinstance(error, UnreachableError):
                lab.close()
                raise
            time.sleep(_RETRY_S)
        else:
            return lab


class Lab:
    """Devices, targets, campaigns and latency models of one coordinator.

    Every method raises the `LatlasError` that the coordinator raised, and `UnreachableError` if
    it does not answer. A context manager that closes the connection.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        sleep_s: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = connection
        self._stub = connection.stub
        self._clock_s = clock_s
        self._sleep_s = sleep_s

    @property
    def address(self) -> str:
        """`HOST:PORT` of the coordinator."""
        return self._connection.address

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- devices and targets -----------------------------------------------------------------

    def devices(self) -> list[DeviceState]:
        """Every device that was ever connected."""
        reply = self._connection.call(self._stub.ListDevices, pb.ListDevicesRequest())
        return [messages.device_state(message) for message in reply.devices]

    def targets(self) -> list[Target]:
        """Every target that was added."""
        reply = self._connection.call(self._stub.ListTargets, pb.ListTargetsRequest())
        return [target_from_message(message) for message in reply.targets]

    def add_target(
        self,
        name: str,
        *,
        runtime: str = "onnxruntime",
        device_model: str = "",
        runtime_version: str = "",
        provider: str = "",
        power_mode: str = "",
        execution: str = "eager",
        precision: str = "fp32",
        graph_level: str = "all",
        threads: int = 1,
        cores: Iterable[int] = (),
        batch: int = 1,
        allow_fallback: bool = False,
    ) -> Target:
        """Names what figures shall be valid for; see `Target` for the fields.

        What is left empty is taken from the only connected device that fits. Adding the same
        target again changes nothing.

        Raises:
            InvalidInputError: a field is malformed, or several devices fit what is left empty.
            RuntimeUnavailableError: no connected device offers what the target needs.
            ConflictError: the name stands for another target.
        """
        target = Target(
            name=name,
            device_model=device_model,
            runtime=runtime,
            runtime_version=runtime_version,
            provider=provider,
            power_mode=power_mode,
            execution=execution,
            precision=precision,
            graph_level=graph_level,
            threads=threads,
            cores=tuple(cores),
            batch=batch,
            allow_fallback=allow_fallback,
        )
        request = pb.AddTargetRequest(target=target_to_message(target))
        return target_from_message(self._connection.call(self._stub.AddTarget, request))

    # -- campaigns ---------------------------------------------------------------------------

    def upload(self, program: bytes, program_format: str = "onnx") -> str:
        """Hands a program to the coordinator; returns its SHA-256 for `start_measure`.

        Raises:
            InvalidInputError: it is empty, or the coordinator does not take such a file.
        """
        if not program:
            raise InvalidInputError("an empty program cannot be measured")
        chunks = (
            pb.UploadProgramRequest(program_format="" if start else program_format, data=data)
            for start, data in _chunks(program)
        )
        return self._connection.run(
            lambda: self._stub.UploadProgram(chunks, timeout=TRANSFER_TIMEOUT_S)
        ).sha256

    def start_profile(
        self,
        name: str,
        space: str,
        target: str,
        *,
        n_training_networks: int = 160,
        n_calibration_networks: int = 10,
        n_validation_networks: int = 40,
        min_occurrences: int = 3,
        seed: int = 0,
        method: str | None = None,
        resolutions: Sequence[int] = (),
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    ) -> CampaignStatus:
        """Starts to profile a search space: what a table and a predictor need.

        Starting the same campaign again returns the one that is there.

        Args:
            name: what to call the campaign.
            space: name of the search space.
            target: name of the target.
            n_training_networks: whole networks that predictors learn from.
            n_calibration_networks: whole networks that calibrate a table.
            n_validation_networks: whole networks that no fit sees.
            min_occurrences: each distinct op occurs in at least this many cover networks.
            seed: of the networks that are drawn.
            method: how ops are measured: `in-situ` (node times of whole networks), `chained` (each
                op repeated inside one model, for runtimes without node times) or `alone` (biased).
                None: in situ where the runtime times single nodes, else chained.
            resolutions: input resolutions at which ops are measured, to save time: what lies
                between can be interpolated (see `build_table`); none for all of the space.
            sampling: how each network is timed.

        Raises:
            NotFoundError: no such space or target.
            ConflictError: another campaign has that name.
            RuntimeUnavailableError: the target's runtime cannot be measured like that.
        """
        plan = pb.ProfilePlan(
            space=space,
            n_training_networks=n_training_networks,
            n_calibration_networks=n_calibration_networks,
            n_validation_networks=n_validation_networks,
            min_occurrences=min_occurrences,
            seed=seed,
            method=method or "",
            resolutions=sorted(set(resolutions)),
        )
        return self._start(
            pb.StartCampaignRequest(
                name=name,
                target=target,
                profile=plan,
                sampling=messages.sampling_message(sampling),
            )
        )

    def start_validation(
        self,
        name: str,
        table: str,
        target: str,
        *,
        n_random_networks: int = 30,
        n_selected_networks: int = 30,
        n_spread_networks: int = 10,
        stand_alone: bool = True,
        seed: int = 0,
        sampling: Sampling = CAREFUL,
    ) -> CampaignStatus:
        """Starts to measure networks that a table was not made from.

        Starting the same campaign again returns the one that is there.

        Args:
            name: what to call the campaign.
            table: name of the table.
            target: name of the target; for random and selected networks the table's own.
            n_random_networks: networks with every gene uniform.
            n_selected_networks: networks that searches with this table find, where it errs low.
            n_spread_networks: networks spread over the range of predicted latency, which say how
                fast the device is in this session.
            stand_alone: also measure every op of the space alone, for two of the baselines.
            seed: of the networks that are drawn.
            sampling: how each network is timed.

        Raises:
            NotFoundError: no such table or target.
            InvalidInputError: the table belongs to no search space.
            TargetMismatchError: it was made for another target.
            ConflictError: another campaign has that name.
        """
        plan = pb.ValidationPlan(
            table=table,
            n_random_networks=n_random_networks,
            n_selected_networks=n_selected_networks,
            n_spread_networks=n_spread_networks,
            stand_alone=stand_alone,
            seed=seed,
        )
        return self._start(
            pb.StartCampaignRequest(
                name=name,
                target=target,
                validation=plan,
                sampling=messages.sampling_message(sampling),
            )
        )

    def start_measure(
        self,
        name: str,
        target: str,
        programs: Sequence[tuple[str, str]],
        sampling: Sampling = TAILED,
        *,
        with_nodes: bool = False,
        shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> CampaignStatus:
        """Starts to measure whole programs that were uploaded.

        Starting the same campaign again returns the one that is there.

        Args:
            name: what to call the campaign.
            target: name of the target.
            programs: SHA-256 from `upload` and a label for listings, per program.
            sampling: how each program is timed.
            with_nodes: also time single nodes, where the target's runtime can.
            shapes: of the programs' inputs with free axes, by name, batch axis included.

        Raises:
            NotFoundError: no such target, or a program was not uploaded.
            ConflictError: another campaign has that name.
        """
        plan = pb.MeasurePlan(
            programs=[pb.MeasuredProgram(sha256=sha256, label=label) for sha256, label in programs],
            with_nodes=with_nodes,
            shapes=shapes_to_messages(input_shapes(shapes or {})),
        )
        return self._start(
            pb.StartCampaignRequest(
                name=name,
                target=target,
                measure=plan,
                sampling=messages.sampling_message(sampling),
            )
        )

    def _start(self, request: pb.StartCampaignRequest) -> CampaignStatus:
        reply = self._connection.call(self._stub.StartCampaign, request, TRANSFER_TIMEOUT_S)
        return messages.campaign_status(reply)

    def campaigns(self) -> list[CampaignStatus]:
        """Every campaign."""
        reply = self._connection.call(self._stub.ListCampaigns, pb.ListCampaignsRequest())
        return [messages.campaign_status(message) for message in reply.campaigns]

    def campaign(self, name: str) -> CampaignStatus:
        """One campaign; raises `NotFoundError` if there is none of that name."""
        reply = self._connection.call(self._stub.GetCampaign, pb.CampaignRequest(name=name))
        return messages.campaign_status(reply)

    def watch(self, name: str, *, patience_s: float = PATIENCE_S) -> Iterator[CampaignStatus]:
        """The campaign now and after every change, until it is finished or cancelled.

        A coordinator that goes away is waited for: the campaign is in its store.

        Args:
            name: the campaign.
            patience_s: how long to wait for a coordinator that does not answer.

        Raises:
            NotFoundError: no campaign has that name.
            UnreachableError: the coordinator stayed away for `patience_s`.
        """
        request = pb.CampaignRequest(name=name)
        last: CampaignStatus | None = None
        heard_s = self._clock_s()
        while True:
            try:
                answers = self._connection.stream(self._stub.WatchCampaign, request)
                with closing(answers):
                    for status in map(messages.campaign_status, answers):
                        if status != last:
                            last = status
                            yield status
                        heard_s = self._clock_s()
            except UnreachableError:
                if self._clock_s() + _RETRY_S > heard_s + patience_s:
                    raise
            if last is not None and not last.is_running:
                return
            self._sleep_s(_RETRY_S)

    def cancel(self, name: str) -> CampaignStatus:
        """Ends a campaign; what was measured stays."""
        reply = self._connection.call(self._stub.CancelCampaign, pb.CampaignRequest(name=name))
        return messages.campaign_status(reply)

    def measurements(self, name: str) -> list[Measurement]:
        """What a campaign measured so far, one record per program and mode."""
        reply = self._connection.call(
            self._stub.ListMeasurements, pb.CampaignRequest(name=name), TRANSFER_TIMEOUT_S
        )
        return [messages.measurement(message) for message in reply.measurements]

    def program_details(self, name: str) -> list[ProgramDetails]:
        """Tails, first run, memory and node times of the programs of `start_measure`.

        Raises:
            NotFoundError: no campaign has that name.
            InvalidInputError: it measures no programs that were uploaded.
        """
        reply = self._connection.call(
            self._stub.DescribePrograms, pb.CampaignRequest(name=name), TRANSFER_TIMEOUT_S
        )
        return [details_from_message(message) for message in reply.programs]

    # -- latency models ----------------------------------------------------------------------

    def build_table(self, name: str, campaign: str, interpolate: bool = False) -> ModelInfo:
        """Builds the calibrated latency lookup table of a profiled space.

        Args:
            name: what to call it.
            campaign: a campaign that profiled a space.
            interpolate: give ops that were not measured, but lie between measured ones,
                interpolated entries, marked as such.

        Raises:
            NotFoundError: no such campaign.
            InvalidInputError: the campaign lacks what a table needs.
        """
        request = pb.BuildTableRequest(name=name, campaign=campaign, interpolate=interpolate)
        reply = self._connection.call(self._stub.BuildTable, request, TRANSFER_TIMEOUT_S)
        return messages.model_info(reply)

    def validate_table(self, name: str, campaign: str) -> ModelInfo:
        """Judges a table by a campaign of `start_validation` and keeps the result with it.

        Raises:
            NotFoundError: no such table or campaign.
            InvalidInputError: the campaign still runs, or judges another table.
        """
        request = pb.JudgeTableRequest(name=name, campaign=campaign)
        reply = self._connection.call(self._stub.ValidateTable, request, TRANSFER_TIMEOUT_S)
        return messages.model_info(reply)

    def revalidate_table(self, name: str, campaign: str) -> Revalidation:
        """Whether a table still holds, by the spread networks of a campaign of `start_validation`.

        Raises:
            NotFoundError: no such table or campaign.
            InvalidInputError: the campaign still runs, judges another table, or measured too few
                networks.
        """
        request = pb.JudgeTableRequest(name=name, campaign=campaign)
        reply = self._connection.call(self._stub.RevalidateTable, request, TRANSFER_TIMEOUT_S)
        return revalidation_from_message(reply)

    def suspicions(self, name: str, *, requeue: bool = False) -> Suspicions:
        """What in a table, or in the visits behind it, cannot be right.

        Args:
            name: the table.
            requeue: have it visited once more; build the table anew when the campaign has ended.

        Raises:
            NotFoundError: no such table.
            InvalidInputError: it is a predictor, or `requeue` is asked of an imported table.
        """
        request = pb.FindSuspicionsRequest(name=name, requeue=requeue)
        reply = self._connection.call(self._stub.FindSuspicions, request, TRANSFER_TIMEOUT_S)
        return messages.suspicions(reply)

    def fit_predictor(
        self, name: str, campaign: str, kind: str = "mlp", seed: int = 0
    ) -> ModelInfo:
        """Fits a latency predictor to a campaign's training networks.

        Args:
            name: what to call it.
            campaign: a campaign that profiled a space.
            kind: `mlp`, `linear` or `macs`.
            seed: of the fit.

        Raises:
            NotFoundError: no such campaign.
            InvalidInputError: unknown kind, or the campaign lacks training networks.
        """
        request = pb.FitPredictorRequest(name=name, campaign=campaign, kind=kind, seed=seed)
        reply = self._connection.call(self._stub.FitPredictor, request, TRANSFER_TIMEOUT_S)
        return messages.model_info(reply)

    def latency_models(self) -> list[ModelInfo]:
        """Every table and predictor."""
        reply = self._connection.call(self._stub.ListLatencyModels, pb.ListLatencyModelsRequest())
        return [messages.model_info(message) for message in reply.models]

    def model_info(self, name: str) -> ModelInfo:
        """One table or predictor; raises `NotFoundError` if there is none of that name."""
        found = self.latency_models()
        for info in found:
            if info.name == name:
                return info
        there = ", ".join(info.name for info in found) or "none"
        raise NotFoundError(f"no table or predictor {name!r} at {self.address}; there are: {there}")

    def latency_model(self, name: str) -> LatencyModel:
        """Downloads a table or predictor, to predict without a coordinator."""
        from latlas_latency.formats import load_latency_model

        data, _ = self.export(name, "latlas")
        return load_latency_model(data)

    def export(self, name: str, fmt: str) -> tuple[bytes, str]:
        """A table or predictor as a file.

        Args:
            name: the model.
            fmt: `latlas` (the model's own file), `csv` or `ofa-yaml`.

        Returns:
            Content and suggested file name.

        Raises:
            NotFoundError: no such model.
            InvalidInputError: this kind of model has no such format.
        """
        request = pb.ExportLatencyModelRequest(name=name, format=fmt)
        chunks = self._connection.run(
            lambda: list(self._stub.ExportLatencyModel(request, timeout=TRANSFER_TIMEOUT_S))
        )
        file_name = chunks[0].file_name if chunks else name
        return b"".join(chunk.data for chunk in chunks), file_name

    def import_latency_model(self, name: str, data: bytes) -> ModelInfo:
        """Hands a model's own file to the coordinator.

        Raises:
            InvalidInputError: it is no such file, or a broken one.
            ConflictError: another model has that name.
        """
        if not data:
            raise InvalidInputError(f"latency model {name!r}: the file is empty")
        chunks = (
            pb.ImportLatencyModelRequest(name="" if start else name, data=part)
            for start, part in _chunks(data)
        )
        reply = self._connection.run(
            lambda: self._stub.ImportLatencyModel(chunks, timeout=TRANSFER_TIMEOUT_S)
        )
        return messages.model_info(reply)

    def predict(
        self,
        model: str,
        subjects: ArchBatch | Sequence[ArchConfig] | Sequence[Network],
        level: float = 0.9,
        allow_estimates: bool = False,
        interpolate: bool = False,
    ) -> Prediction:
        """Latencies from a model of the coordinator; see `LatencyModel.predict`.

        Args:
            model: name of the table or predictor.
            subjects: architectures of one space, or networks.
            level: coverage of the interval, in (0, 1).
            allow_estimates: answer for ops that were never measured by a stated estimate.
            interpolate: answer for ops that were not measured, but lie between measured ones of a
                table, by interpolation.

        Raises:
            NotFoundError: no such model.
            InvalidInputError: nothing to predict, a mixture of architectures and networks, or a
                predictor that is to interpolate.
            SpaceMismatchError: the model belongs to another space, or the architectures to
                several.
            UnknownOpError: an op has no figure and estimates are not allowed.
        """
        answers = []
        for request in messages.predict_requests(subjects):
            request.model = model
            request.level = level
            request.allow_estimates = allow_estimates
            request.interpolate = interpolate
            answers.append(self._connection.call(self._stub.Predict, request, TRANSFER_TIMEOUT_S))
        return messages.prediction(answers)


def _chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    for start in range(0, len(data), _CHUNK_BYTES):
        yield start, data[start : start + _CHUNK_BYTES]
