"""The configuration, composed by Hydra: one group a folder."""
