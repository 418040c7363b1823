"""One file a tree library: see `cipherlearn.sklearn._catalog`."""
