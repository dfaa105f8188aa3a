"""The wire format of Latlas: protobuf messages and gRPC services, one package per version."""
