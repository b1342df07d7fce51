"""A Keras model at work: device, saved files, predictions, scores."""
