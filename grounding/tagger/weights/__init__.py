"""The embedded tagger and its model card."""
