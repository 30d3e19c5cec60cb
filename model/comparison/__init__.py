"""Networks and losses at equal budget: trained alike, measured alike, in one table."""
