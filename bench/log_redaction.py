"""What masking secrets costs: lines per second of one core from raw output to the spool, by the secrets of the attempt.

Run as `python -m bench.log_redaction`.
"""

import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from towline.v1.agent_service_pb2 import Lease
from towline_agent.attempt_redaction import AttemptRedaction
from towline_agent.clock import SystemClock
from towline_agent.execution import OutputStream
from towline_agent.log_spool import LogSpool

LINE = b"2026-11-27T22:41:17 INFO fetched page 17 of https://example.com/items?page=17 in 120 ms, 34 items kept\n"
READ = LINE * (65_536 // len(LINE))
READS = 60


def lines_per_second(values: Mapping[str, str]) -> float:
    """Returns how many lines an attempt with these secrets could write in a second of one core."""
    with tempfile.TemporaryDirectory() as folder:
        log = LogSpool(Path(folder) / "logs", SystemClock()).open("key", Lease(run_id="run"), 1 << 40)
        redaction = AttemptRedaction(values, log)
        began = time.process_time()
        for _ in range(READS):
            redaction.write(OutputStream.STDOUT, READ)
        redaction.finish()
        return READS * len(READ) / len(LINE) / (time.process_time() - began)


def main() -> None:
    """Prints a table."""
    tokens = {f"S{number}": secrets.token_urlsafe(32) for number in range(16)}
    key = "\n".join(secrets.token_urlsafe(48) for _ in range(50))
    cases = {"none": {}, "1 token": {"S0": tokens["S0"]}, "16 tokens": tokens, "a key of 50 lines": {"KEY": key}}
    for name, values in cases.items():
        print(f"{name:20} {max(lines_per_second(values) for _ in range(3)):12,.0f} lines/s")


if __name__ == "__main__":
    main()
