"""The phrases of the benchmarks."""

# about scikit-image's photo of an astronaut
PHRASES = ["a smiling woman", "an orange suit", "a flag", "a black helmet", "her hair"]
# about photos in general
OTHER_PHRASES = [
    "a man",
    "a red shirt",
    "two dogs",
    "a white wall",
    "grass",
    "a street",
    "a ball",
    "the sky",
    "a child",
    "water",
]
