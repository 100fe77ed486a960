"""Benchmarks of the library, run as ``python -m benchmarks [name ...]``; docs/benchmarks.md tells how and why."""
