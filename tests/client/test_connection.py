"""Errors cross the wire as the class that was raised; a missing coordinator says so."""

import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing

import grpc
import pytest

from latlas.connection import Connection, parse_address
from latlas.lab import connect
from latlas_ops import errors
from latlas_protos.v1 import query_pb2
from latlas_protos.v1.query_pb2_grpc import QueryServiceServicer

ERROR_CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.LatlasError)
]


class Failing(QueryServiceServicer):
    """Raises one error from every listing of devices, the way the coordinator does."""

    def __init__(self, code: str | None, details: str, status: grpc.StatusCode) -> None:
        self.code, self.details, self.status = code, details, status

    def ListTargets(self, request, context):
        return query_pb2.ListTargetsResponse()

    def ListDevices(self, request, context):
        if self.code is not None:
            context.set_trailing_metadata((("latlas-error", self.code),))
        context.abort(self.status, self.details)


@pytest.fixture
def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        return probe.getsockname()[1]


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_the_client_raises_the_class_that_the_handler_raised(lab_of, error_class):
    lab = lab_of(
        Failing(error_class.__name__, "device 'x': no", grpc.StatusCode.FAILED_PRECONDITION)
    )
    with pytest.raises(errors.LatlasError, match=r"^device 'x': no$") as caught:
        lab.devices()
    assert type(caught.value) is error_class


def test_an_error_of_a_newer_coordinator_is_still_a_latlas_error(lab_of):
    lab = lab_of(Failing("BrandNewError", "what it says", grpc.StatusCode.INTERNAL))
    with pytest.raises(errors.LatlasError, match="what it says"):
        lab.devices()


@pytest.mark.parametrize(
    ("details", "told"),
    [
        ("internal error; the log says more\ntrace", "internal error; the log says more"),
        ("", "status INTERNAL, see its log"),
    ],
)
def test_a_crash_of_the_coordinator_is_told_in_one_line(lab_of, details, told):
    lab = lab_of(Failing(None, details, grpc.StatusCode.INTERNAL))
    with pytest.raises(errors.LatlasError, match=f"failed: {told}$"):
        lab.devices()


def test_nobody_there_is_told_with_the_address_and_the_way_out(free_port):
    address = f"127.0.0.1:{free_port}"
    with pytest.raises(
        errors.UnreachableError,
        match=f"^no coordinator answers at {address}; start one with `latlas serve`",
    ):
        connect(address)


def test_connect_waits_for_a_coordinator_that_is_just_starting(serve, free_port):
    servicer = Failing(None, "", grpc.StatusCode.UNKNOWN)
    timer = threading.Timer(0.7, serve, (servicer, free_port))
    timer.start()
    with connect(f"127.0.0.1:{free_port}", wait_s=20) as lab:
        assert lab.targets() == []
    timer.join()


def test_a_service_that_does_not_know_the_call_is_another_version(lab_of):
    lab = lab_of(Failing(None, "", grpc.StatusCode.UNKNOWN))
    with pytest.raises(errors.ProtocolError, match="not a coordinator of this version"):
        lab.campaigns()


def test_a_coordinator_that_hangs_is_given_up_after_the_timeout(serve):
    release = threading.Event()

    class Hanging(QueryServiceServicer):
        def ListDevices(self, request, context):
            release.wait(30)
            return query_pb2.ListDevicesResponse()

    connection = Connection(serve(Hanging()))
    try:
        with pytest.raises(errors.UnreachableError, match="did not answer in time"):
            connection.call(
                connection.stub.ListDevices, query_pb2.ListDevicesRequest(), timeout_s=0.2
            )
    finally:
        release.set()
        connection.close()


def test_an_interrupt_ends_a_call_that_hangs_and_the_program(serve):
    called, release = threading.Event(), threading.Event()

    class Hanging(QueryServiceServicer):
        def ListTargets(self, request, context):
            called.set()
            release.wait(30)
            return query_pb2.ListTargetsResponse()

    command = [sys.executable, "-m", "latlas.cli.main", "target", "list", "--coordinator"]
    with subprocess.Popen(
        [*command, serve(Hanging())], stderr=subprocess.PIPE, text=True
    ) as hanging:
        try:
            assert called.wait(30)
            hanging.send_signal(signal.SIGINT)
            _, err = hanging.communicate(timeout=20)
        finally:
            hanging.kill()
            release.set()
    assert (hanging.returncode, err) == (130, "\nlatlas: interrupted; run the same command again\n")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("lab:7000", "lab:7000"),
        ("lab", "lab:7443"),
        ("[::1]:7000", "[::1]:7000"),
        (" 10.0.0.1:1 ", "10.0.0.1:1"),
    ],
)
def test_an_address_is_a_host_and_perhaps_a_port(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "http://lab:7443", "lab:", "lab:0", "lab:70000", "a b:1"])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(errors.InvalidInputError, match="is not HOST:PORT, for example"):
        parse_address(text)
