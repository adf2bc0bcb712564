"""The calls of `SecretService`, a part of `client`."""

from dataclasses import dataclass

from towline.v1 import secret_service_pb2 as pb
from towline.v1.secret_pb2 import Secret
from towline_sdk.transport import Transport


@dataclass(frozen=True, slots=True)
class SecretCalls:
    """Secrets and their grants; a secret is named by its id, or by the name of one of the caller's."""

    _transport: Transport

    async def create(self, name: str, value: str) -> Secret:
        """Creates a secret; raises ConflictError if there is one of the name."""
        request = pb.CreateSecretRequest(name=name, value=value)
        return (await self._transport.call(request, pb.CreateSecretResponse)).secret

    async def put(self, name: str, value: str) -> Secret:
        """Gives a secret a new value, or creates it."""
        request = pb.PutSecretRequest(name=name, value=value)
        return (await self._transport.call(request, pb.PutSecretResponse)).secret

    async def list(self, page_size: int = 0, page_token: str = "") -> pb.ListSecretsResponse:
        """Returns a page of what is known of secrets, by name."""
        request = pb.ListSecretsRequest(page_size=page_size, page_token=page_token)
        return await self._transport.call(request, pb.ListSecretsResponse)

    async def get(self, secret: str) -> Secret:
        """Returns what is known of a secret."""
        return (await self._transport.call(pb.GetSecretRequest(secret_id=secret), pb.GetSecretResponse)).secret

    async def delete(self, secret: str) -> None:
        """Deletes a secret with its grants."""
        await self._transport.call(pb.DeleteSecretRequest(secret_id=secret), pb.DeleteSecretResponse)

    async def grant(self, secret: str, plugin: str) -> Secret:
        """Lets a plugin be given a secret."""
        request = pb.GrantSecretRequest(secret_id=secret, plugin=plugin)
        return (await self._transport.call(request, pb.GrantSecretResponse)).secret

    async def revoke(self, secret: str, plugin: str) -> Secret:
        """Takes a grant back."""
        request = pb.RevokeSecretRequest(secret_id=secret, plugin=plugin)
        return (await self._transport.call(request, pb.RevokeSecretResponse)).secret

    async def rotate(self) -> pb.RotateSecretsResponse:
        """Has all secrets encrypted with the first key of the control plane, for admins."""
        return await self._transport.call(pb.RotateSecretsRequest(), pb.RotateSecretsResponse)
