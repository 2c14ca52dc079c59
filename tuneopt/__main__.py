"""``python -m tuneopt`` is the ``tuneopt`` command."""

from tuneopt.cli import main

main()
