"""Models that are affine functions of encrypted features: no table look-up at all."""
