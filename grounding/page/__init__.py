"""The step ``serve``: a web page and an HTTP API for grounding phrases. It needs the extra ``demo``."""
