"""The demonstration: fine-tuning with Q and what it changes, on photographs that come with scikit-image."""
