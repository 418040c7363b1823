"""One file a module of scikit-learn: see `cipherlearn.sklearn._catalog`."""
