"""Top-down attention: from a tag to the places in the image that it was recognised by."""
