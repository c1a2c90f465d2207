"""Several processes train one network: what they exchange, how they start, and how a lost one is noticed."""
