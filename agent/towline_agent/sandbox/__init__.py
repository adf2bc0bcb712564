"""How a plugin process is confined, level by level, and how this host proves that it can."""
