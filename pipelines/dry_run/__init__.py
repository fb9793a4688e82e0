"""``--dry-run``: what would run, sized without memory: bytes per role, work of an iteration, the chunk plan."""
