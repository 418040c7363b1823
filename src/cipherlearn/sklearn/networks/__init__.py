"""Models that are small networks with look-ups: perceptrons of several layers, kernel machines."""
