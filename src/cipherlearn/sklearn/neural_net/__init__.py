"""Networks that are trained with quantization, by skorch, and called as scikit-learn's are."""
