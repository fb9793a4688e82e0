"""Looking at training items: decoded as the model sees them, drawn on one time axis."""
