"""Thin gRPC services: parse, authorize, call, convert. The only place that knows protobuf."""
