"""A value that is typed at a terminal: asked for twice, shown never, no argument of any process."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from cli_fakes import FakeControlPlane

VALUE = "planted-at-a-prompt"


def test_a_value_is_asked_for_without_echo(control_plane: FakeControlPlane, tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    command = subprocess.Popen(
        [sys.executable, "-m", "towline_cli", "secret", "set", "TOKEN"],
        stdin=end,
        stdout=end,
        stderr=end,
        env={
            "TOWLINE_SERVER": control_plane.address,
            "TOWLINE_TOKEN": "token",
            "TOWLINE_CONFIG_DIR": str(tmp_path),
            "PATH": os.defpath,
        },
        start_new_session=True,
    )
    os.close(end)
    shown = b""
    for prompt in (b"Value: ", b"confirmation: "):  # the space comes once the echo is off
        while prompt not in shown:
            shown += os.read(terminal, 1024)
        assert VALUE.encode() not in Path(f"/proc/{command.pid}/cmdline").read_bytes()
        os.write(terminal, f"{VALUE}\n".encode())
    while command.poll() is None or not shown.endswith(b"\n"):
        try:
            shown += os.read(terminal, 1024)
        except OSError:  # the other end is closed
            break
    os.close(terminal)
    assert command.wait() == 0, shown
    assert VALUE.encode() not in shown
    assert control_plane.request("PutSecret").value == VALUE
