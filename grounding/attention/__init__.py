"""Top-down attention: from a tag down to the places of the image by which the network recognised it.

Read in this order:

    definition.py   Excitation Backprop on single neurons: Eq. 1 and 2, the dual unit, c-MWP, with numbers
    rules.py        the same for whole layers, as a rule set; gradients.py and relevance.py: the other methods
    layers.py       one function for each kind of layer; a new layer is added here
    methods.py      the table of methods: rules, and what is read at the target
    descent.py      one top-down pass; forward.py: the forward pass before it
    topdown.py      TopDown and Scene, the public classes

and what they use: neurons.py (values of the forward pass), weights.py (W, W+ and W-), network.py and tracing.py (the
traced copy of a model), engine/ (how the maps are computed, fast or plainly). atlas.py has all tags of one image at
once, geometry.py receptive fields, targets.py the layers that can be a target.

Glossary:

    tag             an output unit of the classifier
    word            what is asked: a distribution over tags, usually a single tag
    neuron          a weighted sum and the nonlinearity after it
    pre-activation  the weighted sum before the nonlinearity
    excitation      z = W+ x, the sum over the inputs with positive weights
    mass            the winning probability p at a neuron; a word starts with mass 1 and its map sums to 1
    signal          what is sent down: g = p / x, the mass over the value of the neuron
    winner          a neuron with a positive activation; only winners can receive mass
    target          the layer at which the map is read
    dual unit       a tag's unit with negated weights; c-MWP subtracts its map
"""
