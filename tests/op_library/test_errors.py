import pytest

from latlas_ops import errors

ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.LatlasError)
]


@pytest.mark.parametrize("cls", ERRORS)
def test_every_error_survives_the_wire(cls: type[errors.LatlasError]) -> None:
    error = errors.from_wire(errors.wire_code(cls("disk full")), "disk full")
    assert type(error) is cls
    assert str(error) == "disk full"


def test_a_subclass_crosses_the_wire_as_the_error_it_refines() -> None:
    class DiskFullError(errors.StorageError):
        pass

    assert errors.wire_code(DiskFullError("disk full")) == "StorageError"


def test_a_code_of_a_newer_version_becomes_the_root_error() -> None:
    error = errors.from_wire("SomethingNewError", "what happened")
    assert type(error) is errors.LatlasError
    assert str(error) == "what happened"
