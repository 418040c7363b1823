"""Decision trees, their ensembles, and sums of functions of few features."""
