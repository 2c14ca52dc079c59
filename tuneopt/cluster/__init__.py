"""The Ray adapter: the one floor that knows Ray. Everything below it runs without."""
