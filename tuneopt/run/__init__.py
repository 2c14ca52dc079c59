"""The spine: one way to run every plan on every backend. Free of Ray; what trains is imported when a trial starts."""
