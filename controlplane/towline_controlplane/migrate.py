"""Brings the database of the installation to the newest schema: `python -m towline_controlplane.migrate`.

Exit code 0 when it is there, 2 for wrong usage, 6 when it cannot be brought there.
"""

import argparse
import json
import sys

from towline_controlplane.settings import DatabaseSettings
from towline_migrations import CannotMigrate, upgrade


def main() -> int:
    """Migrates, says to which revision, and returns the exit code of the process."""
    parser = argparse.ArgumentParser(prog="towline migrate", description="Brings the database to the newest schema.")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    output = parser.parse_args().output
    settings = DatabaseSettings()  # pyright: ignore[reportCallIssue] - every field comes from the environment
    try:
        settings.create_data_dir()
        revision = upgrade(settings.database)
    except (CannotMigrate, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 6
    print(json.dumps({"revision": revision}) if output == "json" else f"the database is at revision {revision}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
