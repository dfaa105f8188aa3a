"""Latency predictors: fitted on whole networks, each behind the interface `LatencyModel`."""
