"""The step ``serve``: a page to try phrases on, and the same as HTTP JSON. Its libraries are the extra ``demo``."""
