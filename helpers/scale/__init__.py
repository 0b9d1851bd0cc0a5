"""Scaling up: what fits where, servers, several GPUs."""
