"""Engines: how the maps of a top-down pass are computed.

The rules (``grounding.attention.rules``, ``layers``) say which linear maps take a signal down. An engine executes them:

    dense.py     plain PyTorch on dense tensors; the definition, and what the tests compare with
    sparse.py    the same maps on active neurons only, for one image on a CPU; much faster for many words
    winners.py   which neurons of a layer are active, and how signals travel between such sets
    kernels.py   the compiled loops of sparse.py
    runs.py      a pass's memory and threads, and the choice between the two forms
"""
