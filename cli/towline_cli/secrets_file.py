"""The secrets of an installation: made once, on its first start, and kept where only their owner can read them."""

import base64
import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from towline_cli.private_files import write_private
from towline_sdk.errors import TowlineError

ADMIN_EMAIL: Final = "admin@towline.local"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the processes of an installation share, and the login of its first admin."""

    jwt_secret: str
    admin_email: str
    admin_password: str
    enrollment_token: str
    secrets_key: str


def load_or_create(file: Path) -> tuple[Secrets, bool]:
    """Returns the secrets in the file, and whether they were made just now."""
    try:
        return _with_secrets_key(file, json.loads(file.read_bytes())), False
    except FileNotFoundError:
        pass
    except (ValueError, TypeError) as error:
        raise TowlineError(f"{file} is damaged: {error}") from None
    fresh = Secrets(
        jwt_secret=secrets.token_hex(32),
        admin_email=ADMIN_EMAIL,
        admin_password=secrets.token_urlsafe(15),
        enrollment_token=secrets.token_urlsafe(32),
        secrets_key=_new_secrets_key(),
    )
    _write(file, fresh)
    return fresh, True


def _with_secrets_key(file: Path, known: dict[str, str]) -> Secrets:
    """Adds the key to a file from before there were secrets."""
    if "secrets_key" in known:
        return Secrets(**known)
    completed = Secrets(**known, secrets_key=_new_secrets_key())
    _write(file, completed)
    return completed


def _new_secrets_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _write(file: Path, content: Secrets) -> None:
    write_private(file, json.dumps(asdict(content), indent=2) + "\n")
