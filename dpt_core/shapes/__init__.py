"""A world of coloured shapes whose alignment can be checked exactly."""
