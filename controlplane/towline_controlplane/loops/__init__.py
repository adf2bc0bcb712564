"""Duties that nobody calls for: one a file, each with a `tick` that does it once and can be tested by itself.

Every tick is safe when several control planes do it at once: it only submits what the orchestrator checks again.
"""
