"""Rendering of HTML pages."""
