"""The results page: what the shipped weights do, measured by the paper's protocols."""
