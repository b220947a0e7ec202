"""The taggers of the package and their model card."""
