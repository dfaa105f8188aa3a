"""`latlas quickstart`: measure a small space on this machine, build its latency models."""

from latlas.quickstart.run import run_quickstart

__all__ = ["run_quickstart"]
