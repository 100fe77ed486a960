"""The store owns queue, leases and logs. Every transition is one atomic step."""
