"""Captures what a model does, as a graph of ATen operations in a normal form.

copying.py       a private copy of the model
capture.py       runs the copy once and watches its modules
recording.py     adds each operation to the graph; in-place operations become operations that return a new value
forms/           the normal form of each operation: the operation, or the operations, that the graph has in its place
graph.py         the graph, which fits any number of images
operations.py    operations of the graph that ATen does not have
constants.py     the weights, and what is computed from them
preparing.py     makes the graph a module, after the next two steps
folding.py       batch norms and other constant scales become part of the weights before them
negation.py      scales < 0 that could not be folded get a second sum, with negated weights
"""
