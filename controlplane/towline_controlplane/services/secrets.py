"""SecretService: secrets of users and their grants. Values come in and are never told, not even in an error."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, cast

from towline.v1 import secret_pb2
from towline.v1 import secret_service_pb2 as pb
from towline_controlplane.errors import (
    InvalidArgument,
    LimitExceeded,
    PermissionDenied,
    SecretsDisabled,
    Unavailable,
)
from towline_controlplane.ids import new_id
from towline_controlplane.keyring import VARIABLE, Keyring, Undecipherable
from towline_controlplane.model import Role, User
from towline_controlplane.services.callers import Context, current_user, visible_owner
from towline_controlplane.services.checks import found, refuse
from towline_controlplane.services.convert import timestamp
from towline_controlplane.services.pages import PageLimits, decode_token, encode_token, gather, page_size
from towline_controlplane.store import plugins, secrets
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.vault import MAX_GRANTS, MAX_SECRETS, NAME, Secret, wrong_name, wrong_value
from towline_plugins.catalog import BUILTINS

_LIMITS: Final = PageLimits()
_QUERY: Final = "ListSecrets"
_BATCH: Final = 100
_MAX_UNREADABLE: Final = 100
_TAKERS: Final = ", ".join(sorted(name for name, builtin in BUILTINS.items() if builtin.takes_secrets))


@dataclass(slots=True)
class _Resealed:
    last_id: str
    """Where to go on; empty when there are no more."""
    rotated: int = 0
    unreadable: list[secret_pb2.Secret] = field(default_factory=list[secret_pb2.Secret])


@dataclass(frozen=True, slots=True)
class SecretService:
    """Implements `towline.v1.SecretService`; without keys it refuses everything."""

    database: Database
    keys: Keyring | None

    async def CreateSecret(self, request: pb.CreateSecretRequest, _context: Context) -> pb.CreateSecretResponse:
        """Creates a secret."""
        keys, user = self._keyring(), current_user()
        refuse(wrong_name(request.name), wrong_value(request.value))
        return pb.CreateSecretResponse(
            secret=await self.database.write(lambda tx: _create(tx, keys, user, request.name, request.value))
        )

    async def PutSecret(self, request: pb.PutSecretRequest, _context: Context) -> pb.PutSecretResponse:
        """Gives a secret a new value, or creates it."""
        keys, user = self._keyring(), current_user()
        refuse(wrong_name(request.name), wrong_value(request.value))

        def put(tx: Transaction) -> secret_pb2.Secret:
            known = secrets.find_by_name(tx, user.id, request.name)
            if known is None:
                return _create(tx, keys, user, request.name, request.value)
            return _change(tx, keys, known, request.value)

        return pb.PutSecretResponse(secret=await self.database.write(put))

    async def ListSecrets(self, request: pb.ListSecretsRequest, _context: Context) -> pb.ListSecretsResponse:
        """Lists what is known of secrets, by name."""
        self._keyring()
        owner_id, size = visible_owner(), page_size(request.page_size, _LIMITS)
        after = decode_token(request.page_token, (str, str), _QUERY)

        def read(tx: Transaction) -> pb.ListSecretsResponse:
            page = gather(
                lambda key, limit: secrets.list_secrets(tx, owner_id, cast("tuple[str, str] | None", key), limit),
                lambda row: (row.name, row.id),
                after,
                size,
            )
            grants = secrets.grants_of(tx, [row.id for row in page.rows])
            return pb.ListSecretsResponse(
                secrets=[_message(row, grants.get(row.id, ())) for row in page.rows],
                next_page_token=encode_token(page.next_key, _QUERY),
            )

        return await self.database.read(read)

    async def GetSecret(self, request: pb.GetSecretRequest, _context: Context) -> pb.GetSecretResponse:
        """Returns what is known of a secret."""
        self._keyring()
        user = current_user()
        return pb.GetSecretResponse(
            secret=await self.database.read(lambda tx: _shown(tx, _visible(tx, request.secret_id, user)))
        )

    async def DeleteSecret(self, request: pb.DeleteSecretRequest, _context: Context) -> pb.DeleteSecretResponse:
        """Deletes a secret with its grants."""
        self._keyring()
        user = current_user()
        await self.database.write(lambda tx: secrets.delete_secret(tx, _visible(tx, request.secret_id, user).id))
        return pb.DeleteSecretResponse()

    async def GrantSecret(self, request: pb.GrantSecretRequest, _context: Context) -> pb.GrantSecretResponse:
        """Lets a plugin be given a secret."""
        self._keyring()
        user = current_user()

        def grant(tx: Transaction) -> secret_pb2.Secret:
            secret = _visible(tx, request.secret_id, user)
            if secret.owner_id != user.id:
                raise PermissionDenied("only its owner may grant a secret")
            _check_plugin(tx, request.plugin)
            secrets.insert_grant(tx, secret.id, request.plugin)
            shown = _shown(tx, secret)
            if len(shown.plugins) > MAX_GRANTS:
                raise LimitExceeded(f"a secret can be granted to {MAX_GRANTS} plugins")
            return shown

        return pb.GrantSecretResponse(secret=await self.database.write(grant))

    async def RevokeSecret(self, request: pb.RevokeSecretRequest, _context: Context) -> pb.RevokeSecretResponse:
        """Takes a grant back."""
        self._keyring()
        user = current_user()

        def revoke(tx: Transaction) -> secret_pb2.Secret:
            secret = _visible(tx, request.secret_id, user)
            granted = secrets.grants_of(tx, [secret.id]).get(secret.id, ())
            found(request.plugin if request.plugin in granted else None, "grant to", request.plugin)
            secrets.delete_grant(tx, secret.id, request.plugin)
            return _shown(tx, secret)

        return pb.RevokeSecretResponse(secret=await self.database.write(revoke))

    async def RotateSecrets(self, _request: pb.RotateSecretsRequest, _context: Context) -> pb.RotateSecretsResponse:
        """Encrypts anew what is not encrypted with the first key; a few at a time, so that others can write between."""
        keys, answer, after = self._keyring(), pb.RotateSecretsResponse(), ""
        while True:
            batch = await self.database.write(lambda tx, after=after: _reseal_batch(tx, keys, after))
            answer.rotated += batch.rotated
            answer.unreadable.extend(batch.unreadable[: _MAX_UNREADABLE - len(answer.unreadable)])
            if not batch.last_id:
                return answer
            after = batch.last_id

    def _keyring(self) -> Keyring:
        if self.keys is None:
            message = (
                f"this installation keeps no secrets: set {VARIABLE} of the control plane (`openssl rand -base64 32`)"
            )
            raise SecretsDisabled(message)
        return self.keys


def _create(tx: Transaction, keys: Keyring, user: User, name: str, value: str) -> secret_pb2.Secret:
    if secrets.count_secrets(tx, user.id) >= MAX_SECRETS:
        raise LimitExceeded(f"nobody can have more than {MAX_SECRETS} secrets")
    secret_id = new_id()
    sealed = keys.seal(value, secret_id, 1)
    row = Secret(secret_id, user.id, name, 1, sealed.key_id, sealed.nonce, sealed.ciphertext, tx.now, tx.now)
    secrets.insert_secret(tx, row)
    return _message(row, ())


def _change(tx: Transaction, keys: Keyring, known: Secret, value: str) -> secret_pb2.Secret:
    version = known.version + 1
    sealed = keys.seal(value, known.id, version)
    row = replace(
        known,
        version=version,
        key_id=sealed.key_id,
        nonce=sealed.nonce,
        ciphertext=sealed.ciphertext,
        update_time=tx.now,
    )
    if not secrets.replace_value_if_version(tx, row, known.version):
        raise Unavailable("somebody else has changed the secret at the same moment")
    return _shown(tx, row)


def _reseal_batch(tx: Transaction, keys: Keyring, after: str) -> _Resealed:
    rows = secrets.of_other_keys(tx, keys.key_id, after, _BATCH)
    batch = _Resealed(rows[-1].id if len(rows) == _BATCH else "")
    for row in rows:
        try:
            value = keys.open(row.sealed, row.id, row.version)
        except Undecipherable:
            batch.unreadable.append(_message(row, ()))
            continue
        batch.rotated += secrets.reseal_if_unchanged(tx, row, keys.seal(value, row.id, row.version))
    return batch


def _visible(tx: Transaction, id_or_name: str, user: User) -> Secret:
    """Returns a secret of the caller's own by name or id, or for an admin any by its id."""
    if NAME.fullmatch(id_or_name):
        return found(secrets.find_by_name(tx, user.id, id_or_name), "secret", id_or_name)
    row = secrets.get_secret(tx, id_or_name)
    may_see = row is not None and (row.owner_id == user.id or user.role is Role.ADMIN)
    return found(row if may_see else None, "secret", id_or_name)


def _check_plugin(tx: Transaction, name: str) -> None:
    """A grant is to a plugin that exists: whoever registers the name later must not get what was meant for another."""
    builtin = BUILTINS.get(name)
    if builtin is not None and not builtin.takes_secrets:
        raise InvalidArgument.of("plugin", f"{name} takes no secrets; of the built-ins {_TAKERS} do")
    plugin = None if builtin is not None else plugins.find_plugin(tx, name)
    if builtin is None and (plugin is None or plugin.name != name):
        raise InvalidArgument.of("plugin", "names neither a plugin nor a built-in")


def _shown(tx: Transaction, row: Secret) -> secret_pb2.Secret:
    return _message(row, secrets.grants_of(tx, [row.id]).get(row.id, ()))


def _message(row: Secret, plugin_names: Iterable[str]) -> secret_pb2.Secret:
    return secret_pb2.Secret(
        id=row.id,
        name=row.name,
        owner_id=row.owner_id,
        version=row.version,
        plugins=plugin_names,
        key_id=row.key_id,
        create_time=timestamp(row.create_time),
        update_time=timestamp(row.update_time),
    )
