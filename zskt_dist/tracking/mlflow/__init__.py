"""MLflow as the record of runs; the only place that imports it, and late.

A run directory holds everything that MLflow gets: metric rows, images, weights, result. `RunSender` sends what the
server lacks of it. While a run trains, `MlflowStream` sends each new row from a thread; at the end, or in a later
`zskt_dist.replay`, `upload` sends the rest. So an unreachable server costs a warning and nothing else.
"""
