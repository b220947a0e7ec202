"""Engines: they execute the steps of a top-down pass.

The rules (``grounding.attention.rules``, ``layers``) say which linear operations take a signal down. An engine executes
these operations:

    dense.py     plain PyTorch on dense tensors; this is the definition, and the tests compare with it
    sparse.py    the same operations on active neurons only, for one image on a CPU; much faster for many words
    winners.py   which neurons of a layer are active, and how signals go from one such set to another
    kernels.py   the compiled loops of sparse.py
    runs.py      a pass's memory and threads, and the choice between the two forms
"""
