"""The puppet: an embedded data set of drawn faces that speak with a synthetic voice, exact by construction."""
