"""The commands, a module for each group; they parse, call `tuneopt.api` and print. Light to import."""
