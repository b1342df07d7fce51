"""The stages (download, validate, train, tune, evaluate) and what they share."""
