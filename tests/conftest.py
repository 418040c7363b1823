"""Settings of the whole suite."""

from hypothesis import settings

# No deadline: the first example of an engine test pays for compiling. No randomness: a red run is
# red for everybody, and a green one was green with the same examples.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci")
