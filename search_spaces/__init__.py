"""Search spaces, one declarative module per optimizer, each with its table bound to ``SPACE``.

They import `tuneopt.search.space` and nothing else, so reading one costs no heavy import.
"""
