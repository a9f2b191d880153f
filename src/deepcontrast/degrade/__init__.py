"""Degradations: what tissue and microscope do to an image, applied once more to make training inputs."""
