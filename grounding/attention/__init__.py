"""Top-down attention: from a tag down to the places of the image by which the network recognised it.

Read in this order:

    definition.py   Excitation Backprop on single neurons, with numbers: Eq. 1 and 2, the dual unit, c-MWP
    rules.py        Excitation Backprop for whole layers; gradients.py and relevance.py: the rules of other methods
    layers.py       one function for each kind of operation; a new rule is added here
    methods.py      the table of methods: the rules of each, and what it computes at the target
    descent.py      one top-down pass; forward.py: the forward pass before it
    topdown.py      TopDown and Scene, the public classes

These files use neurons.py (values of the forward pass), weights.py (W, W+ and W-) and engine/ (executes the steps of a
pass, dense or sparse). The network comes from capture/ (records what a copy of the model does, as a graph of ATen
operations), network.py (the graph, in which layers are found by name), networks.py (one graph for all sizes of images,
or one for each) and verification.py (compares its logits with the model's). Four more files are not needed for a map:
mass.py (how much mass arrives), atlas.py (the maps of all tags of one image), geometry.py (receptive fields) and
targets.py (lists the layers that can be a target).

Glossary:

    tag             an output unit of the classifier
    word            what a user asks for: a distribution over tags, usually a single tag
    neuron          a weighted sum and the nonlinearity after it
    pre-activation  the weighted sum before the nonlinearity
    excitation      z = W+ x, the sum over the inputs with positive weights
    mass            the winning probability p at a neuron; a word starts with mass 1 and its map sums to 1
    signal          what is sent down: g = p / x, the mass divided by the value of the neuron. At the top, the signal
                    of a word is its distribution over the tags
    winner          a neuron with a positive activation; only winners can receive mass
    target          the layer at which the map is read
    dual unit       a tag's unit with negated weights; c-MWP subtracts its map
"""
