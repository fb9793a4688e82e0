from streamchar.window import WindowConfig  # noqa: F401
