"""What each update rule alone does to parameters, recomputed in float64 and compared with what happened."""
