"""Files in which users declare what they want (YAML): read strictly, with the line of every mistake."""
