"""Keeps an installation of stand-ins up until it is killed; a process of its own, to be killed without mercy.

Arguments: data folder, journal.
"""

import asyncio
import sys
from pathlib import Path

from towline_cli.child_settings import Part, Places
from towline_cli.installation import Installation


async def main(data_dir: Path, journal: Path) -> None:
    stand_in = Path(__file__).with_name("stand_in.py")
    commands = {part: (sys.executable, str(stand_in), part.value, str(journal)) for part in Part}
    installation = Installation(Places(data_dir, 0, 0), commands=commands)
    await installation.start()
    print("up", flush=True)
    await installation.watch()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
