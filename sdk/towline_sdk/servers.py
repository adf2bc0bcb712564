"""How the replicas of a control plane are named: `host:port,host:port`. Imports no gRPC."""


def addresses(servers: str) -> tuple[str, ...]:
    """Returns the addresses of a list."""
    return tuple(part.strip() for part in servers.split(",") if part.strip())


def checked(servers: str) -> str:
    """Returns the list as it is; raises ValueError unless it names a server, and each with its port."""
    found = addresses(servers)
    if not found or not all(address.rpartition(":")[2].isdigit() for address in found):
        raise ValueError("servers are written as host:port,host:port")
    return servers
