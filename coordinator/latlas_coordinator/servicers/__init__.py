"""gRPC: messages in, handlers called on the right thread, messages out."""
