"""Networks: their specification (spec), its layers (architecture), and the Keras model (cnn)."""
