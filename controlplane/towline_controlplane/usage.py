"""What an attempt used, as its agent said at its end."""

from towline_controlplane.frozen import frozen


@frozen
class Usage:
    """What an attempt used."""

    peak_memory_bytes: int = 0
    cpu_seconds: float = 0.0
    log_bytes: int = 0
    """Size of its log in all, which may still be on its way."""
    log_digest: str = ""
    """SHA-256 of its log in hex, as the agent sent it; empty if it did not say."""
    log_dropped_bytes: int = 0
    """Output beyond the limit of the log."""
    log_dropped_lines: int = 0
