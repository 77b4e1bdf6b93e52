"""Metrics, constant baselines, probes and statistics."""
