"""Recordings as people have them, made into shards: read, split, cropped, cut, timed, filtered, reported."""
