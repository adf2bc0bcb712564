"""What plugin code may need of Towline: two exceptions that say whether trying again can help.

Standard library only; nothing else of the SDK is imported, so that a plugin's interpreter stays small.
"""


class TransientError(Exception):
    """The attempt failed for a reason that may pass: the step is retried within its retry settings."""

    def __init__(self, message: str, *, code: str = "PLUGIN_ERROR", retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_ms = retry_after_ms


class PermanentError(Exception):
    """The attempt failed for a reason that stays: the step fails at once."""

    def __init__(self, message: str, *, code: str = "PLUGIN_ERROR") -> None:
        super().__init__(message)
        self.code = code
