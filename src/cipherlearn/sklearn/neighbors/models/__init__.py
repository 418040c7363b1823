"""The estimators, one file a module of scikit-learn."""
