"""What the status of a response means for a retry, and how long it asks to wait."""

import time
from email.utils import parsedate_to_datetime

from towline_plugins.http_exchange import Response
from towline_sdk.plugin import PermanentError, TransientError

_LONGEST_DELAY_MS = 24 * 3600 * 1000
_TOO_MANY_REQUESTS = 429


def failure_of(response: Response, message: str, prefix: str = "HTTP") -> TransientError | PermanentError:
    """Returns the failure of a response that is none of success: 5xx and 429 may pass, the rest stays."""
    code = f"{prefix}_{response.status}"
    if response.status >= 500 or response.status == _TOO_MANY_REQUESTS:
        return TransientError(message, code=code, retry_after_ms=_retry_after_ms(response))
    return PermanentError(message, code=code)


def _retry_after_ms(response: Response) -> int:
    """Retry-After holds seconds or a date; anything else is no wish."""
    wish = response.headers.get("retry-after", "")
    try:
        seconds = int(wish) if wish.isdecimal() else parsedate_to_datetime(wish).timestamp() - time.time()
    except ValueError:
        return 0
    return int(min(max(seconds, 0) * 1000, _LONGEST_DELAY_MS))
