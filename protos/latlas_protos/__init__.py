"""The wire format of Latlas: protobuf messages and gRPC services, one package per version."""

PROTOCOL_VERSION = 1
"""What agent and coordinator tell each other first; they work together where it is equal."""
