"""What the method is worth: arms drawn from the same seeds, judged, counted and shown."""
