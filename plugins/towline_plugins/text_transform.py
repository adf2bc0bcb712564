"""TEXT_TRANSFORM: changes a text in one of six ways."""

from collections.abc import Callable, Mapping
from typing import Any

from towline_sdk.plugin import PermanentError

_TRANSFORMS: Mapping[str, Callable[[str, Mapping[str, Any]], str]] = {
    "uppercase": lambda text, _: text.upper(),
    "lowercase": lambda text, _: text.lower(),
    "title": lambda text, _: text.title(),
    "trim": lambda text, _: text.strip(),
    "reverse": lambda text, _: text[::-1],
    "replace": lambda text, config: text.replace(config["find"], config.get("replacement", "")),
}


def run(config: dict[str, Any], inputs: dict[str, Any], input: object) -> dict[str, str]:  # noqa: A002 - the protocol
    """Returns the changed text. `text` defaults to the only predecessor's `text`, else to the run input's."""
    text = config.get("text")
    if text is None:
        text = _inherited(inputs, input)
    return {"text": _TRANSFORMS[config["transform"]](text, config)}


def _inherited(inputs: dict[str, Any], run_input: object) -> str:
    sources = [*inputs.values(), run_input] if len(inputs) == 1 else [run_input]
    for source in sources:
        match source:
            case {"text": str(text)}:
                return text
            case _:
                continue
    raise PermanentError(
        "there is no text: not in the config, the output of an only predecessor or the run input",
        code="TEXT_MISSING",
    )
