"""Text: words, the vocabulary of tags, phrases, captions."""
