"""Figures of the report, one to a file: an info function (pure data) and its drawer."""
