"""The stages, one package each, and the packages that they share."""
