"""Restoring blurred photographs with networks fine-tuned by the sharpness metric Q."""
