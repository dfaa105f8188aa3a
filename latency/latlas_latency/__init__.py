"""Latency of networks on devices: measurements, lookup tables, predictors and their files.

The one interface of tables and predictors is `latlas_latency.model.LatencyModel`. Importing this
package, or any module of it but `predictors.mlp_training`, needs numpy only.
"""
