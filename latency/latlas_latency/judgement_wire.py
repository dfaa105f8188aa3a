"""Judgements of latency models to and from messages: the one place where they meet the wire."""

from __future__ import annotations

from typing import Any, get_args

from latlas_latency.revalidation import Revalidation, Verdict
from latlas_latency.validation import Errors, NamedErrors, Validation
from latlas_ops.errors import ProtocolError
from latlas_protos.v1 import query_pb2 as pb


def validation_to_message(validation: Validation | None) -> pb.Validation | None:
    """A validation; None stays None."""
    if validation is None:
        return None
    return pb.Validation(
        **_figures(validation),
        interval_coverage=validation.interval_coverage,
        interval_level=validation.interval_level,
        label_noise=validation.label_noise,
        common_mode_free_noise=validation.common_mode_free_noise,
        measured_ns=validation.measured_ns,
        session_scale=validation.session_scale,
        parts=[_named_message(errors) for errors in validation.parts],
        baselines=[_named_message(errors) for errors in validation.baselines],
    )


def validation_from_message(message: pb.Validation) -> Validation | None:
    """The inverse; None for a message without networks."""
    if not message.n_networks:
        return None
    return Validation(
        **_figures(message),
        interval_coverage=message.interval_coverage,
        interval_level=message.interval_level,
        label_noise=message.label_noise,
        common_mode_free_noise=message.common_mode_free_noise,
        measured_ns=message.measured_ns,
        session_scale=message.session_scale,
        parts=tuple(_named_from(part) for part in message.parts),
        baselines=tuple(_named_from(baseline) for baseline in message.baselines),
    )


def revalidation_to_message(revalidation: Revalidation) -> pb.Revalidation:
    """Whether a table still holds."""
    return pb.Revalidation(**vars(revalidation))


def revalidation_from_message(message: pb.Revalidation) -> Revalidation:
    """The inverse.

    Raises:
        ProtocolError: a verdict that this version does not know.
    """
    if message.verdict not in get_args(Verdict):
        raise ProtocolError(
            f"the coordinator answers {message.verdict!r}, which this version of latlas does not "
            "know; update latlas"
        )
    fields = Revalidation.__dataclass_fields__
    return Revalidation(**{name: getattr(message, name) for name in fields})


def _named_message(errors: NamedErrors) -> pb.NamedErrors:
    return pb.NamedErrors(**_figures(errors), name=errors.name)


def _named_from(message: pb.NamedErrors) -> NamedErrors:
    return NamedErrors(**_figures(message), name=message.name)


def _figures(values: object) -> dict[str, Any]:
    """The fields of `Errors`, of a value or of a message."""
    return {name: getattr(values, name) for name in Errors.__dataclass_fields__}
