"""Every error that Latlas raises on purpose.

A message is one line that names the culprit and the way out. Errors survive the wire: a servicer
sends `wire_code(error)` beside the message and the other side raises `from_wire(code, message)`,
which is the same class again.
"""

from __future__ import annotations


class LatlasError(Exception):
    """Root of every error that Latlas raises on purpose."""


class InvalidInputError(LatlasError):
    """A value given by the user is malformed: an attribute, a shape, a file, an option."""


class NotFoundError(LatlasError):
    """Nothing of that name exists: a space, a target, a campaign, a table."""


class ConflictError(LatlasError):
    """The request contradicts what is already there, such as a name that means something else."""


class UnknownOpError(LatlasError):
    """A latency model was asked about ops it holds no figure for; never answered with zero."""


class TargetMismatchError(LatlasError):
    """Two targets that differ were about to be treated as one; the message names the field."""


class SpaceMismatchError(LatlasError):
    """A model of one search space was applied to architectures of another."""


class RuntimeUnavailableError(LatlasError):
    """The device does not have the runtime, provider or precision that a target asks for."""


class CorruptProgramError(LatlasError):
    """A program's bytes do not match their SHA-256, or no runtime can load them."""


class MeasurementError(LatlasError):
    """A measurement failed on the device: the worker crashed, hung or ran out of memory."""


class NotAdditiveError(LatlasError):
    """Per-op latencies were asked of a model that has none, such as an MLP on whole networks."""


class InfeasibleError(LatlasError):
    """No architecture satisfies the constraints; the message says which budget would work."""


class UnreachableError(LatlasError):
    """The other side of a connection does not answer."""


class ProtocolError(LatlasError):
    """The other side speaks another version or broke the protocol."""


class StorageError(LatlasError):
    """The store cannot be read or written, or was made by a newer version."""


class UnsupportedModuleError(InvalidInputError):
    """A torch module computes something that Latlas has no primitive for; it is named."""


class MissingDependencyError(LatlasError):
    """An optional package is needed for this; the message names the extra to install."""


_BY_CODE: dict[str, type[LatlasError]] = {
    error.__name__: error
    for error in (
        LatlasError,
        InvalidInputError,
        UnsupportedModuleError,
        NotFoundError,
        ConflictError,
        UnknownOpError,
        TargetMismatchError,
        SpaceMismatchError,
        RuntimeUnavailableError,
        CorruptProgramError,
        MeasurementError,
        NotAdditiveError,
        InfeasibleError,
        UnreachableError,
        ProtocolError,
        StorageError,
        MissingDependencyError,
    )
}


def wire_code(error: LatlasError) -> str:
    """The name under which `error` crosses the wire."""
    for cls in type(error).__mro__:
        if cls.__name__ in _BY_CODE:
            return cls.__name__
    return LatlasError.__name__


def from_wire(code: str, message: str) -> LatlasError:
    """The error that the other side raised; an unknown code becomes a plain `LatlasError`."""
    return _BY_CODE.get(code, LatlasError)(message)
