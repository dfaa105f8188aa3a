"""The query service: what people and programs ask of a coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc.aio
import numpy as np

from latlas_coordinator import messages
from latlas_coordinator.domain import CampaignState, check_name
from latlas_coordinator.handlers import (
    campaigns,
    judging,
    latency_models,
    measurements,
    suspicion,
    targets,
)
from latlas_coordinator.handlers.coverage import TimedKernels
from latlas_coordinator.live.coordinator import Coordinator, stopping_error
from latlas_latency.details_wire import details_to_message
from latlas_latency.judgement_wire import revalidation_to_message
from latlas_latency.model import Subjects
from latlas_latency.wire import target_to_message
from latlas_ops.errors import InvalidInputError, SpaceMismatchError
from latlas_ops.network import Network
from latlas_ops.space import ArchBatch
from latlas_ops.spaces import get_space
from latlas_protos.v1 import measurement_pb2, query_pb2, query_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_LEVEL = 0.9
"""Coverage of intervals where a request names none."""

_CHUNK_BYTES = 1 << 20
_MAX_MODEL_BYTES = 1 << 28
_LEAST_WATCH_INTERVAL_S = 0.1


class QueryServicer(query_pb2_grpc.QueryServiceServicer):
    """Translates messages and calls handlers on the threads they belong to."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._store = coordinator.store
        self._workers = coordinator.workers
        self._models = latency_models.ModelCache()
        self._timed = TimedKernels()

    # -- devices and targets ---------------------------------------------------------------

    async def ListDevices(
        self, request: query_pb2.ListDevicesRequest, context: Context
    ) -> query_pb2.ListDevicesResponse:
        """See `query.proto`."""
        found = await self._workers.store(self._store.list_devices)
        return query_pb2.ListDevicesResponse(
            devices=[messages.device_state_message(record) for record in found]
        )

    async def AddTarget(
        self, request: query_pb2.AddTargetRequest, context: Context
    ) -> measurement_pb2.Target:
        """See `query.proto`."""
        wanted = messages.target_request_from_message(request.target)
        return target_to_message(await self._workers.store(targets.add_target, self._store, wanted))

    async def ListTargets(
        self, request: query_pb2.ListTargetsRequest, context: Context
    ) -> query_pb2.ListTargetsResponse:
        """See `query.proto`."""
        found = await self._workers.store(self._store.list_targets)
        return query_pb2.ListTargetsResponse(
            targets=[target_to_message(target) for target in found]
        )

    # -- programs and campaigns ------------------------------------------------------------

    async def UploadProgram(
        self,
        request_iterator: AsyncIterator[query_pb2.UploadProgramRequest],
        context: Context,
    ) -> query_pb2.UploadProgramResponse:
        """See `query.proto`."""
        program_format, data = "", bytearray()
        async for message in request_iterator:
            program_format = program_format or message.program_format
            campaigns.require_program_size(len(data) + len(message.data))
            data += message.data
        sha256 = await self._workers.store(
            campaigns.keep_program, self._store, program_format, bytes(data)
        )
        return query_pb2.UploadProgramResponse(sha256=sha256)

    async def StartCampaign(
        self, request: query_pb2.StartCampaignRequest, context: Context
    ) -> query_pb2.Campaign:
        """See `query.proto`."""
        definition = messages.definition_from_message(request)
        status = await self._workers.compute(
            campaigns.start_campaign, self._store, definition, self._coordinator.clock_ns()
        )
        self._coordinator.dispatcher.wake()
        return messages.campaign_message(status)

    async def ListCampaigns(
        self, request: query_pb2.ListCampaignsRequest, context: Context
    ) -> query_pb2.ListCampaignsResponse:
        """See `query.proto`."""
        found = await self._workers.store(self._store.list_campaigns)
        return query_pb2.ListCampaignsResponse(
            campaigns=[messages.campaign_message(status) for status in found]
        )

    async def GetCampaign(
        self, request: query_pb2.CampaignRequest, context: Context
    ) -> query_pb2.Campaign:
        """See `query.proto`."""
        status = await self._workers.store(self._store.get_campaign, request.name)
        return messages.campaign_message(status, in_full=True)

    async def WatchCampaign(  # type: ignore[override]  # the stubs know generators only
        self, request: query_pb2.CampaignRequest, context: Context
    ) -> None:
        """See `query.proto`."""
        changes, told = self._coordinator.changes, None
        while True:
            version = changes.version
            if self._coordinator.stopping:
                raise stopping_error()
            status = await self._workers.store(self._store.get_campaign, request.name)
            if status != told:
                await context.write(messages.campaign_message(status))
                told = status
            if status.campaign.state is not CampaignState.RUNNING:
                return
            await asyncio.sleep(_LEAST_WATCH_INTERVAL_S)
            await changes.beyond(version)

    async def CancelCampaign(
        self, request: query_pb2.CampaignRequest, context: Context
    ) -> query_pb2.Campaign:
        """See `query.proto`."""
        await self._workers.store(self._store.cancel_campaign, request.name)
        self._coordinator.changes.notify()
        self._coordinator.dispatcher.wake()
        return await self.GetCampaign(request, context)

    async def ListMeasurements(
        self, request: query_pb2.CampaignRequest, context: Context
    ) -> query_pb2.ListMeasurementsResponse:
        """See `query.proto`."""
        found = await self._workers.store(measurements.list_measurements, self._store, request.name)
        return query_pb2.ListMeasurementsResponse(
            measurements=[messages.measurement_message(measurement) for measurement in found]
        )

    async def DescribePrograms(
        self, request: query_pb2.CampaignRequest, context: Context
    ) -> query_pb2.DescribeProgramsResponse:
        """See `query.proto`."""
        found = await self._workers.compute(
            measurements.describe_programs, self._store, self._timed, request.name
        )
        return query_pb2.DescribeProgramsResponse(
            programs=[details_to_message(details) for details in found]
        )

    # -- latency models --------------------------------------------------------------------

    async def BuildTable(
        self, request: query_pb2.BuildTableRequest, context: Context
    ) -> query_pb2.LatencyModelInfo:
        """See `query.proto`."""
        record = await self._workers.compute(
            latency_models.build_table,
            self._store,
            request.name,
            request.campaign,
            self._coordinator.clock_ns(),
            interpolate=request.interpolate,
        )
        self._coordinator.changes.notify()
        return messages.latency_model_message(record)

    async def ValidateTable(
        self, request: query_pb2.JudgeTableRequest, context: Context
    ) -> query_pb2.LatencyModelInfo:
        """See `query.proto`."""
        record = await self._workers.compute(
            judging.validate_table, self._store, request.name, request.campaign
        )
        self._coordinator.changes.notify()
        return messages.latency_model_message(record)

    async def RevalidateTable(
        self, request: query_pb2.JudgeTableRequest, context: Context
    ) -> query_pb2.Revalidation:
        """See `query.proto`."""
        return revalidation_to_message(
            await self._workers.compute(
                judging.revalidate_table, self._store, request.name, request.campaign
            )
        )

    async def FindSuspicions(
        self, request: query_pb2.FindSuspicionsRequest, context: Context
    ) -> query_pb2.Suspicions:
        """See `query.proto`."""
        found = await self._workers.compute(suspicion.find_suspicions, self._store, request.name)
        requeued = None
        if request.requeue:
            requeued = await self._workers.store(
                suspicion.requeue,
                self._store,
                request.name,
                found,
                self._coordinator.policy.max_attempts,
            )
            self._coordinator.dispatcher.wake()
            self._coordinator.changes.notify()
        return messages.suspicions_message(found, requeued)

    async def FitPredictor(
        self, request: query_pb2.FitPredictorRequest, context: Context
    ) -> query_pb2.LatencyModelInfo:
        """See `query.proto`."""
        record = await self._workers.compute(
            latency_models.fit_predictor,
            self._store,
            request.name,
            request.campaign,
            kind=request.kind,
            seed=request.seed,
            now_ns=self._coordinator.clock_ns(),
        )
        self._coordinator.changes.notify()
        return messages.latency_model_message(record)

    async def ListLatencyModels(
        self, request: query_pb2.ListLatencyModelsRequest, context: Context
    ) -> query_pb2.ListLatencyModelsResponse:
        """See `query.proto`."""
        found = await self._workers.store(self._store.list_latency_models)
        return query_pb2.ListLatencyModelsResponse(
            models=[messages.latency_model_message(record) for record in found]
        )

    async def Predict(
        self, request: query_pb2.PredictRequest, context: Context
    ) -> query_pb2.PredictResponse:
        """See `query.proto`."""
        prediction = await self._workers.compute(
            latency_models.predict,
            self._store,
            self._models,
            request.model,
            _subjects(request),
            level=request.level or DEFAULT_LEVEL,
            allow_estimates=request.allow_estimates,
            interpolate=request.interpolate,
        )
        return messages.prediction_message(prediction)

    async def ExportLatencyModel(  # type: ignore[override]
        self, request: query_pb2.ExportLatencyModelRequest, context: Context
    ) -> None:
        """See `query.proto`."""
        data, file_name = await self._workers.compute(
            latency_models.export_model, self._store, self._models, request.name, request.format
        )
        for start in range(0, max(len(data), 1), _CHUNK_BYTES):
            await context.write(
                query_pb2.FileChunk(
                    data=data[start : start + _CHUNK_BYTES],
                    file_name="" if start else file_name,
                )
            )

    async def ImportLatencyModel(
        self,
        request_iterator: AsyncIterator[query_pb2.ImportLatencyModelRequest],
        context: Context,
    ) -> query_pb2.LatencyModelInfo:
        """See `query.proto`."""
        name, data = "", bytearray()
        async for message in request_iterator:
            name = name or message.name
            check_name("latency model", name)
            if len(data) + len(message.data) > _MAX_MODEL_BYTES:
                raise InvalidInputError(
                    f"latency model {name!r} has more than {_MAX_MODEL_BYTES} bytes"
                )
            data += message.data
        record = await self._workers.compute(
            latency_models.import_model,
            self._store,
            name,
            bytes(data),
            self._coordinator.clock_ns(),
        )
        self._coordinator.changes.notify()
        return messages.latency_model_message(record)


def _subjects(request: query_pb2.PredictRequest) -> Subjects:
    """What a prediction is about.

    Raises:
        InvalidInputError: it is malformed or missing.
        NotFoundError: no such space.
        SpaceMismatchError: the space is there in another version.
    """
    kind = request.WhichOneof("subjects")
    if kind == "networks":
        return [Network.from_json(text) for text in request.networks.json]
    if kind != "architectures":
        raise InvalidInputError("a prediction needs architectures or networks")
    given = request.architectures
    space = get_space(given.space)
    if given.version != space.version:
        raise SpaceMismatchError(
            f"architectures are of space {space.name!r} version {given.version}, this coordinator "
            f"has version {space.version}: install the same release on both sides, or for a space "
            "of your own give both the same file in LATLAS_SPACES"
        )
    n_genes = len(space.genes)
    if given.n_archs < 0 or len(given.packed_genes) != given.n_archs * n_genes:
        raise InvalidInputError(
            f"{given.n_archs} architectures of space {space.name!r} take "
            f"{given.n_archs * n_genes} bytes, {len(given.packed_genes)} came"
        )
    genes = np.frombuffer(given.packed_genes, dtype=np.int8).reshape(given.n_archs, n_genes)
    return ArchBatch(space, space.canonical(genes))
