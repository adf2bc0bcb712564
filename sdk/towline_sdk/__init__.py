"""Towline for programs: `client` and `bundle` for callers of the API, `plugin` for code that runs in a step.

Nothing is imported here, so that a plugin process does not pay for gRPC.
"""
