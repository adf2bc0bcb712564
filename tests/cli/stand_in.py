"""Stands in for a part of Towline: says that it is ready, writes what happens to it into a journal, ends on SIGTERM.

Arguments: name, journal. A file `NAME.fate` beside the journal changes what it does: `broken` ends it at once,
`stubborn` makes it ignore SIGTERM.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

SETTINGS = (
    "TOWLINE_SERVER",
    "GRPC_PORT",
    "HTTP_PORT",
    "JWT_SECRET",
    "ADMIN_PASSWORD",
    "TOWLINE_TOKEN",
    "DATABASE_URL",
    "TOWLINE_SECRETS_KEY",
)


def main() -> NoReturn:
    name, journal = sys.argv[1], Path(sys.argv[2])
    fate_file = journal.with_name(f"{name}.fate")
    fate = fate_file.read_text() if fate_file.exists() else ""
    note(journal, event="start", name=name, pid=os.getpid(), settings={key: os.environ.get(key) for key in SETTINGS})
    if fate == "broken":
        print("something is wrong", file=sys.stderr)
        sys.exit(3)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    port = os.environ.get("GRPC_PORT") or os.environ.get("HTTP_PORT") or "0"
    ready = Path(os.environ["TOWLINE_READY_FILE"])
    scratch = ready.with_suffix(".scratch")
    scratch.write_text(json.dumps({"address": f"127.0.0.1:{int(port) or 40001}"}))
    scratch.replace(ready)
    while True:
        signal.sigwait({signal.SIGTERM})
        if fate != "stubborn":
            note(journal, event="stop", name=name)
            sys.exit(0)


def note(journal: Path, **entry: object) -> None:
    with journal.open("a") as file:
        file.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main()
