"""The formats of annotation tools and of training programs, beside those of ``grounding.exports``."""
