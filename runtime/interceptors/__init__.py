"""Interceptors of the Temporal client and worker: time-outs, fairness keys, builds, spans and log lines of runs."""
