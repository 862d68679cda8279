"""``rooms``: ray-cast indoor scenes with every dense label of the papers, made on the spot."""
