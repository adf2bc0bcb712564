"""PYTHON: runs code from the config. The process is its boundary; inside it the code may do what any program may."""

import inspect
import linecache
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from towline_sdk.plugin import PermanentError

_FILE = "<config.code>"


def run(
    config: dict[str, Any], inputs: dict[str, Any], secrets: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Returns the dict that the code's `main(config, inputs)` returns; it may have a parameter `secrets` too."""
    code: str = config["code"]
    linecache.cache[_FILE] = (len(code), None, code.splitlines(keepends=True), _FILE)  # shows lines in tracebacks
    namespace: dict[str, Any] = {"__name__": "__config__", "__file__": _FILE}
    exec(compile(code, _FILE, "exec"), namespace)  # noqa: S102 - to run it is what the plugin is for
    main = namespace.get("main")
    if not callable(main):
        raise PermanentError("the code must define a function `main(config, inputs)`", code="INVALID_CODE")
    given = {"secrets": dict(secrets)} if "secrets" in inspect.signature(main).parameters else {}
    output = main(config, inputs, **given)
    if not isinstance(output, dict):
        raise PermanentError(f"main must return a dict, not {type(output).__name__}", code="INVALID_OUTPUT")
    return cast("dict[str, Any]", output)
