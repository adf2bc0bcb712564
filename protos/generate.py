"""Generates the Python of the contract beside its `.proto` files, for the build (hatchling) and for `make proto`."""

import importlib.resources
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
GOOGLE_APIS = (
    "google/api/annotations.proto",
    "google/api/http.proto",
    # What errors carry: ours import neither, clients in other languages do.
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
)


def generate() -> None:
    """Writes `_pb2.py`, `_pb2.pyi`, `_pb2_grpc.py` and the descriptor set with its comments; raises if protoc fails."""
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    google_apis = ROOT.parent / "third_party" / "googleapis"
    copy_google_apis(google_apis)
    protos = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("towline/**/*.proto"))
    subprocess.run(  # noqa: S603 - our own files, no shell
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{ROOT}",
            f"-I{google_apis}",
            f"-I{well_known}",
            f"--python_out={ROOT}",
            f"--pyi_out={ROOT}",
            f"--grpc_python_out={ROOT}",
            f"--descriptor_set_out={ROOT / 'towline/v1/descriptors.binpb'}",
            "--include_imports",
            "--include_source_info",
            *protos,
        ],
        check=True,
    )


def copy_google_apis(target: Path) -> None:
    """Puts the Google protos where protoc and buf find them, from the installed package."""
    for name in GOOGLE_APIS:
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        package = ".".join(Path(name).parent.parts)
        file.write_bytes((importlib.resources.files(package) / file.name).read_bytes())


class ContractBuildHook(BuildHookInterface[Any]):
    """Runs `generate` before a wheel or an editable install is put together."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each build."""
        generate()


if __name__ == "__main__":
    generate()
