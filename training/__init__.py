"""Trains taggers from images and the words around them."""
