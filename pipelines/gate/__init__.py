"""The gate: a model that learnt a few clips by heart must say them again, from picture, voice and text alone."""
