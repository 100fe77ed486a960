"""The whole scheduler under simulated schedules, on virtual time."""
