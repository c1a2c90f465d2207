"""What a trained network shares: the links between its towers, and what is lost without them."""
