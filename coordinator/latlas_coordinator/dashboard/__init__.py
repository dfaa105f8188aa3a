"""The coordinator's live web page: devices, campaigns, latency models, tables as heat maps."""

from latlas_coordinator.dashboard.app import create_app

__all__ = ["create_app"]
