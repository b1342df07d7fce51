"""The networks: what a person writes (spec), what that means layer by layer (layers), and the Keras model (cnn)."""
