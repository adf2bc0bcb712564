"""What authors test with: `plugin_checks` for plugins, `FakeControlPlane` for programs that call the API."""

from towline_sdk.testing.control_plane import FakeControlPlane
from towline_sdk.testing.plugin_cases import Check, NotConforming, plugin_checks

__all__ = ["Check", "FakeControlPlane", "NotConforming", "plugin_checks"]
