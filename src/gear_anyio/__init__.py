"""Gearman clients, workers and a job server for asyncio and trio, through anyio."""
