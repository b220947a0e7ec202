"""Text: words, vocabulary, phrases, captions."""
