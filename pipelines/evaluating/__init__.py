"""What ``stage=evaluate`` is made of: material, streams, scores."""
