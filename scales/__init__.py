"""Scale files that come with tuneopt (`tuneopt.scale_files`): architectures of four families, by name."""
