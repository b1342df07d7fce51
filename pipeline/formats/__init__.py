"""Published files of images, one module per format."""
