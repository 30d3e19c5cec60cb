"""The demonstration: both stages and their comparison, on photographs that come with scikit-image."""
