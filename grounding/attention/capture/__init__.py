"""Captures what a model does, as a graph of ATen operations in a normal form.

copying.py       a private copy of the model
capture.py       runs the copy once and watches its modules
recording.py     adds each operation to the graph; in-place operations become operations that return a new value
forms/           the normal form of each operation
graph.py         the graph, in which the first dimension always counts the images
operations.py    operations that ATen does not have in one piece
folding.py       batch norms and other constant scales become part of the weights before them
negation.py      scales < 0 that could not be folded
"""
