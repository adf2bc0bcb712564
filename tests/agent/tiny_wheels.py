"""Wheels of a few lines, made here, and bundles that bring them along: packages without any index."""

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping

from test_archive import bundle, file

DIST_INFO = "{name}-{version}.dist-info"


def wheel_name(name: str, version: str = "1.0") -> str:
    return f"{name}-{version}-py3-none-any.whl"


def wheel(name: str, files: Mapping[str, str], version: str = "1.0", scripts: str = "") -> bytes:
    """A wheel of pure Python; `scripts` are the lines of its console scripts."""
    info = DIST_INFO.format(name=name, version=version)
    whole = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **({f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}\n"} if scripts else {}),
    }
    record = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in whole.items()]
    whole[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in whole.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return packed.getvalue()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def lock_line(name: str, data: bytes, version: str = "1.0") -> str:
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(data).hexdigest()}\n"


GREETING = wheel(
    "greeting", {"greeting.py": "def main():\n    print('hello from a package')\n"}, scripts="greet = greeting:main"
)


def bundle_with(wheels: Mapping[str, bytes], lock: str, files: Mapping[str, str]) -> bytes:
    """A bundle whose environment needs no network."""
    manifest = (
        'name = "p"\nversion = "1.0.0"\nentry_point = "python:plugin:run"\n'
        '[environment]\nlock = "requirements.lock"\nwheels = "wheels/"\n'
    )
    return bundle(
        file("plugin.toml", manifest.encode()),
        file("requirements.lock", lock.encode()),
        *(file(f"wheels/{name}", data) for name, data in wheels.items()),
        *(file(name, text.encode(), 0o755) for name, text in files.items()),
    )
