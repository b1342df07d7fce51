"""The stage `tune`: the search for a better network."""
