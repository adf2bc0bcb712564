"""Gives steps their secrets at hand-out: decrypted after the commit, for the message to the agent alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from towline_controlplane.handouts import StepOffer
from towline_controlplane.keyring import VARIABLE, Keyring, Undecipherable
from towline_controlplane.services.secret_uses import PLACEHOLDER
from towline_controlplane.store import secrets
from towline_controlplane.store.database import Database
from towline_plugins.catalog import BUILTINS


class SecretUnavailable(Exception):
    """A step cannot be given a secret; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class SecretHandout:
    """Opens what is granted; without keys nothing is."""

    database: Database
    keys: Keyring | None

    async def values(self, given: StepOffer) -> Mapping[str, str]:
        """Returns the values of all secrets of a step by name; raises SecretUnavailable, or Unavailable."""
        names, plugin, owner_id = given.plugin.secrets, given.plugin.name, given.run.owner_id
        if not names:
            return {}
        if self.keys is None:
            raise SecretUnavailable(f"the secret {names[0]} cannot be decrypted: {VARIABLE} is not set")
        _check_placeholders(given)
        rows = await self.database.read(lambda tx: secrets.granted(tx, owner_id, plugin, names))
        missing = sorted(set(names) - {row.name for row in rows})
        if missing:
            raise SecretUnavailable(
                f"the secret {missing[0]} does not exist any more, or is not granted to {plugin} any more"
            )
        values: dict[str, str] = {}
        for row in rows:
            try:
                values[row.name] = self.keys.open(row.sealed, row.id, row.version)
            except Undecipherable as error:
                raise SecretUnavailable(f"the secret {row.name} cannot be decrypted: {error}") from None
        return values


def _check_placeholders(given: StepOffer) -> None:
    """Refuses a config whose placeholders are not those that its author wrote: an output must not ask for secrets."""
    builtin = BUILTINS.get(given.plugin.name)
    if builtin is None or not builtin.fills_secrets or given.config is given.written_config:
        return
    if PLACEHOLDER.findall(given.config) != PLACEHOLDER.findall(given.written_config):
        raise SecretUnavailable(
            "an expression in its config gave or took away a {{secret:…}}, which may stand outside of ${{ }} only"
        )
