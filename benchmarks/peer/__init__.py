"""The peer, Concrete ML, measured on the same networks in an environment of its own."""
