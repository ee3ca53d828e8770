"""Gearman clients, workers and a job server on blocking sockets."""
