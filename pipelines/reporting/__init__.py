"""The page of ``stage=report``: what each of its parts reads and draws."""
