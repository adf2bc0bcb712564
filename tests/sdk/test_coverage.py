"""Every public method of the contract has a call in the SDK, but for those that are named here with their reason."""

from pathlib import Path

from google.protobuf import descriptor_pb2

import towline_sdk

ROOT = Path(__file__).parents[2]
NOT_OF_CLIENTS = {"AgentService"}
LEFT_OUT = {
    "RefreshToken",  # programs use API keys; people sign in again
}


def test_every_public_method_has_a_call() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(
        (ROOT / "protos/towline/v1/descriptors.binpb").read_bytes()
    ).file
    services = [each for file in files if file.package == "towline.v1" for each in file.service]
    methods = {method.name for each in services if each.name not in NOT_OF_CLIENTS for method in each.method}
    sources = "".join(path.read_text() for path in Path(towline_sdk.__file__ or "").parent.glob("*_calls.py"))
    assert {name for name in methods if f"{name}Request" not in sources} == LEFT_OUT
