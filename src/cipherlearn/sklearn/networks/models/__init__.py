"""The estimators, a file for each module of scikit-learn."""
