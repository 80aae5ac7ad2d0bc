"""Labels by teacher networks, where no hand has made any."""
