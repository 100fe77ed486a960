"""Multi-Agent Scheduler."""
