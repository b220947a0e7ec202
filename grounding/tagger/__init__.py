"""The tagger: a CNN that predicts which tags an image carries, and its file format."""
