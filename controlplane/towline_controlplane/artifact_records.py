"""Files that attempts made, as they are recorded."""

from dataclasses import dataclass

from towline_controlplane.frozen import frozen


@frozen
class Artifact:
    """A file that an attempt made; its bytes lie in the blob store under their digest."""

    run_id: str
    node_id: str
    attempt: int
    name: str
    size_bytes: int
    digest: str
    content_type: str
    create_time: int


@dataclass(frozen=True, slots=True)
class NamedArtifact:
    """An artifact as its attempt's agent names it."""

    name: str
    size_bytes: int
    digest: str
