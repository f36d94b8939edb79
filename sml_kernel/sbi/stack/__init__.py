"""Many small networks as one: trained, and asked, together."""
