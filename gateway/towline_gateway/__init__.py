"""Towline's REST gateway: translates the public gRPC API to HTTP, owns no state and knows no route by name."""
