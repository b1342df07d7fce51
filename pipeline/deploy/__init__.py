"""Trained networks in use: prediction, HTTP serving, export."""
